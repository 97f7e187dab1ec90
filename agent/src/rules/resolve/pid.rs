//! Processes.

use std::{fs, io, path::Path};

use super::{refused, unreadable};
use crate::failure::Failure;

/// Refuses what is no live process, or a thread of one.
pub fn check(root: &Path, pid: u32) -> Result<(), Failure> {
    let file = root.join(format!("proc/{pid}/status"));
    let status = match fs::read_to_string(&file) {
        Ok(status) => status,
        // It may end between open and read too.
        Err(error)
            if error.kind() == io::ErrorKind::NotFound
                || error.raw_os_error() == Some(libc::ESRCH) =>
        {
            return Err(refused(
                format!("--pid {pid}: there is no such process"),
                "has it ended? ps -e shows those that run",
            ));
        }
        Err(error) => return Err(unreadable("--pid", &file, &error)),
    };
    let field = |name: &str| {
        let value = status.lines().find_map(|line| line.strip_prefix(name))?;
        value.split_whitespace().next()
    };
    if matches!(field("State:"), Some("Z" | "X")) {
        return Err(refused(
            format!("--pid {pid}: the process has ended, and only waits for its parent"),
            "ps -e shows those that run",
        ));
    }
    match field("Tgid:").and_then(|tgid| tgid.parse::<u32>().ok()) {
        Some(process) if process != pid => Err(refused(
            format!("--pid {pid} is a thread of the process {process}"),
            &format!("a rule is for whole processes: --pid {process}"),
        )),
        _ => Ok(()),
    }
}
