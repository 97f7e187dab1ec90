//! The mount table: `/proc/self/mountinfo` (see proc_pid_mountinfo(5)).

use std::{
    ffi::OsString,
    fs,
    os::unix::ffi::OsStringExt as _,
    path::{Path, PathBuf},
};

use super::{number, unreadable};
use crate::failure::Failure;

/// A mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    pub id: u64,
    /// Of its super block, `major << 20 | minor`.
    pub device: u32,
    /// Where it is.
    pub target: PathBuf,
    /// Type of its file system.
    pub kind: String,
    /// What was mounted: a device's node, or any word.
    pub source: PathBuf,
    /// Options of the super block.
    pub options: Vec<String>,
}

/// All mounts that the agent sees, in the order in which they came.
pub fn read(root: &Path) -> Result<Vec<Mount>, Failure> {
    let file = root.join("proc/self/mountinfo");
    let table = fs::read(&file).map_err(|error| unreadable("mounts", &file, &error))?;
    Ok(table
        .split(|byte| *byte == b'\n')
        .filter_map(parse)
        .collect())
}

fn parse(line: &[u8]) -> Option<Mount> {
    let mut words = line.split(|byte| *byte == b' ');
    let text = |word: &[u8]| String::from_utf8(word.to_vec()).ok();
    let id = text(words.next()?)?.parse().ok()?;
    let device = text(words.nth(1)?)?;
    let (major, minor) = device.split_once(':')?;
    let device = number(major.parse().ok()?, minor.parse().ok()?);
    let target = plain(words.nth(1)?);
    // Optional fields end with a dash.
    words.find(|word| *word == b"-")?;
    Some(Mount {
        id,
        device,
        target: target.into(),
        kind: text(words.next()?)?,
        source: plain(words.next()?).into(),
        options: text(words.next()?)?.split(',').map(Into::into).collect(),
    })
}

/// The kernel writes space, tab, newline and backslash as `\ooo`.
fn plain(word: &[u8]) -> OsString {
    let mut bytes = Vec::with_capacity(word.len());
    let mut rest = word;
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        let octal = match (first, after) {
            (b'\\', [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', ..]) => {
                Some((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'))
            }
            _ => None,
        };
        if octal.is_some() {
            rest = &after[3..];
        }
        bytes.push(octal.unwrap_or(*first));
    }
    OsString::from_vec(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_tells_what_is_mounted_where() {
        let line = b"36 35 98:1 /mnt1 /a\\040b\\134 rw,noatime shared:1 master:2 - btrfs /dev/sda1 rw,subvolid=5";
        assert_eq!(
            parse(line).unwrap(),
            Mount {
                id: 36,
                device: 98 << 20 | 1,
                target: "/a b\\".into(),
                kind: "btrfs".into(),
                source: "/dev/sda1".into(),
                options: vec!["rw".into(), "subvolid=5".into()],
            }
        );
        assert!(parse(b"36 35 0:30 / /x rw - tmpfs none rw").is_some());
        for bad in [
            "",
            "36",
            "36 35 98 / /x rw - tmpfs none rw",
            "36 35 0:1 / /x rw",
        ] {
            assert_eq!(parse(bad.as_bytes()), None, "{bad}");
        }
    }
}
