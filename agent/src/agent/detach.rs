//! `iolag run --detach`: the agent in the background, or the reason why not.

use std::{
    ffi::OsString,
    fs::OpenOptions,
    io::{self, Read as _},
    os::{
        fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
        unix::{fs::OpenOptionsExt as _, process::CommandExt as _},
    },
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use crate::failure::{FAILED, Failure};

/// Where a detached agent writes its log: beside the socket.
#[must_use]
pub fn log_path(socket: &Path) -> PathBuf {
    socket.with_extension("log")
}

/// Starts this program again as `iolag run` in a session of its own, and waits until it serves.
/// `args` are those of the foreground agent. Returns its process id.
///
/// # Errors
/// What the agent died of.
pub fn detach(args: &[OsString], socket: &Path) -> Result<u32, Failure> {
    let failed =
        |what: &str, error: io::Error| Failure::new(FAILED, format!("failed to {what}: {error}"));
    let log_path = log_path(socket);
    let log = OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o600)
        .open(&log_path)
        .map_err(|error| {
            failed(&format!("open the log {}", log_path.display()), error)
                .hint("name a socket in a directory that can be written: --socket PATH")
        })?;
    let (mut report, child_end) = pipe().map_err(|error| failed("open a pipe", error))?;
    let program = std::env::current_exe().map_err(|error| failed("find this program", error))?;
    let mut command = Command::new(program);
    command
        .args(["run", "--ready-fd", &child_end.as_raw_fd().to_string()])
        .args(args)
        .stdin(Stdio::null())
        .stdout(
            log.try_clone()
                .map_err(|error| failed("share the log", error))?,
        )
        .stderr(log);
    let fd = child_end.as_raw_fd();
    // SAFETY: between fork and exec only async-signal-safe calls: setsid and fcntl.
    unsafe {
        command.pre_exec(move || {
            if libc::setsid() < 0 || libc::fcntl(fd, libc::F_SETFD, 0) < 0 {
                return Err(io::Error::last_os_error());
            }
            Ok(())
        });
    }
    let mut child = command
        .spawn()
        .map_err(|error| failed("start the agent", error))?;
    drop(child_end);
    let mut said = String::new();
    report
        .read_to_string(&mut said)
        .map_err(|error| failed("hear from the agent", error))?;
    match said.trim() {
        "ready" => Ok(child.id()),
        "" => {
            let status = child
                .wait()
                .map_err(|error| failed("wait for the agent", error))?;
            Err(Failure::new(
                FAILED,
                format!("the agent ended before it was ready: {status}"),
            )
            .hint(format!("see {}", log_path.display())))
        }
        reason => {
            let _ended = child.wait();
            Err(serde_json::from_str(reason).unwrap_or_else(|_| Failure::new(FAILED, reason)))
        }
    }
}

/// A pipe: the end to read, and the end that the child writes. Both are closed on exec.
fn pipe() -> io::Result<(std::fs::File, OwnedFd)> {
    let mut fds = [0; 2];
    // SAFETY: `fds` has room for two descriptors.
    if unsafe { libc::pipe2(fds.as_mut_ptr(), libc::O_CLOEXEC) } < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: both were just opened and nobody else owns them.
    Ok(unsafe {
        (
            std::fs::File::from_raw_fd(fds[0]),
            OwnedFd::from_raw_fd(fds[1]),
        )
    })
}
