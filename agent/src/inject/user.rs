//! Users by name.
//!
//! Not by the C library: linked statically, as the program may be, its `getpwnam` loads the host's modules for name
//! services, and crashes where they are not its own.

use std::{fs, path::Path, process::Command};

use crate::failure::{Failure, USAGE};

/// The number of a user, given as it or by name.
///
/// # Errors
/// There is no such user.
pub fn uid(user: &str) -> Result<u32, Failure> {
    if let Ok(number) = user.parse() {
        return Ok(number);
    }
    local(Path::new("/"), user)
        .or_else(|| elsewhere(user))
        .ok_or_else(|| {
            Failure::new(USAGE, format!("--uid {user:?}: there is no such user"))
                .hint("write a name that getent passwd shows, or a number")
        })
}

fn local(root: &Path, user: &str) -> Option<u32> {
    let passwd = fs::read_to_string(root.join("etc/passwd")).ok()?;
    passwd.lines().find_map(|line| number(line, user))
}

/// From a directory service that this host asks.
fn elsewhere(user: &str) -> Option<u32> {
    let output = Command::new("getent")
        .args(["passwd", "--", user])
        .output()
        .ok()?;
    number(String::from_utf8_lossy(&output.stdout).trim_end(), user)
}

/// The number in a line `NAME:PASSWORD:NUMBER:...` (passwd(5)) if it is that user's.
fn number(line: &str, user: &str) -> Option<u32> {
    let mut fields = line.split(':');
    if user.is_empty() || fields.next() != Some(user) {
        return None;
    }
    fields.nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_one_users() {
        let line = "daemon:x:1:1:daemon:/usr/sbin:/usr/sbin/nologin";
        assert_eq!(number(line, "daemon"), Some(1));
        assert_eq!(number(line, "daemo"), None);
        assert_eq!(number("", ""), None);
        assert_eq!(number("broken", "broken"), None);
    }

    #[test]
    fn numbers_need_no_user() {
        assert_eq!(uid("4000000").unwrap(), 4_000_000);
        assert_eq!(uid("root").unwrap(), 0);
        for nobody in ["", "no such user", "-1", "--help"] {
            assert_eq!(uid(nobody).unwrap_err().code, USAGE, "{nobody}");
        }
    }
}
