//! Whether a disk has the space that set-up needs.

use std::ffi::CString;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use anyhow::{Context, Result};

use crate::explain::explained;
use crate::process::is_disk_full;

/// Refuses when the disk of `dir` has less than `need` MiB free.
pub fn require_space(dir: &Path, what: &str, need: u64) -> Result<()> {
    let free = free_mib(dir).with_context(|| format!("failed to look at {}", dir.display()))?;
    if free >= need {
        return Ok(());
    }
    Err(explained(
        format!(
            "failed to {what}: it needs {need} MiB, {} has {free} MiB free",
            dir.display()
        ),
        "free some space, or point IOLAG_CACHE at a directory on a larger disk",
    ))
}

/// What to say when `what` met a full disk although there was space in `dir` when it began.
pub fn filled_up(dir: &Path, error: anyhow::Error, what: &str, need: u64) -> anyhow::Error {
    let free = match free_mib(dir) {
        Ok(free) if is_disk_full(&error) => free,
        _ => return error,
    };
    let cause = format!(
        "failed to {what}: {error:#}; it needs {need} MiB, {} has {free} MiB free",
        dir.display()
    );
    let hint = if free < need {
        "free some space, or point IOLAG_CACHE at a directory on a larger disk; what was finished is kept"
    } else {
        "free some space where CARGO_HOME, RUSTUP_HOME and TMPDIR are, and look at df -i; what was finished is kept"
    };
    explained(cause, hint)
}

/// Free space for this user on the file system of `path`, in MiB.
pub fn free_mib(path: &Path) -> io::Result<u64> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let mut stat = std::mem::MaybeUninit::<libc::statvfs>::uninit();
    // SAFETY: `path` is a C string and `stat` has room for the answer.
    if unsafe { libc::statvfs(path.as_ptr(), stat.as_mut_ptr()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: statvfs succeeded, so it filled `stat`.
    let stat = unsafe { stat.assume_init() };
    Ok(stat.f_bavail * stat.f_frsize / (1 << 20))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::explain::Explained;
    use crate::process::disk_full;

    #[test]
    fn too_little_space_is_refused_with_both_figures() {
        let error = require_space(&std::env::temp_dir(), "install fio", u64::MAX)
            .unwrap_err()
            .to_string();
        assert!(
            error.starts_with(&format!("failed to install fio: it needs {} MiB", u64::MAX)),
            "{error}"
        );
        assert!(error.ends_with("MiB free"), "{error}");
    }

    #[test]
    fn a_disk_that_filled_up_is_told_with_its_figures() {
        let dir = std::env::temp_dir();
        let full = || disk_full("unpack fio").context("failed to make an entry");
        let error = filled_up(&dir, full(), "install fio", u64::MAX).to_string();
        let begin = "failed to install fio: failed to make an entry: failed to unpack fio: no space left on device; \
                     it needs ";
        assert!(error.starts_with(begin), "{error}");
        assert!(error.ends_with(" MiB free"), "{error}");
        // Space enough here, so it was another disk.
        let error = filled_up(&dir, full(), "install fio", 0);
        let hint = &error.downcast_ref::<Explained>().unwrap().hint;
        assert!(hint.contains("RUSTUP_HOME"), "{hint}");
        let other = filled_up(&dir, anyhow::anyhow!("bad"), "install fio", 1);
        assert_eq!(other.to_string(), "bad");
    }
}
