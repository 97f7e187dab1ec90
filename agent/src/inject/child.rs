//! A child that waits for leave to become its command, so that the rule is there first.

use std::{
    ffi::{CString, OsString},
    fs::File,
    io::{self, Read as _, Write as _},
    os::{fd::OwnedFd, unix::ffi::OsStrExt as _},
};

use nix::{
    errno::Errno,
    fcntl::OFlag,
    sys::wait::waitpid,
    unistd::{ForkResult, Pid, execvp, fork, pipe2},
};

use super::signals::Signals;
use crate::failure::{FAILED, Failure, USAGE};

/// What a shell exits with when there is no such command.
const NOT_FOUND: u8 = 127;
/// ... and when there is one that cannot be run.
const NOT_RUN: u8 = 126;

/// Waits; ends without a trace when dropped.
pub struct Child {
    pid: Pid,
    command: String,
    /// Where leave is given; `None` once it was, or was refused.
    leave: Option<File>,
    /// Where it says why it could not start; closed by the kernel when it did.
    report: File,
}

impl Child {
    /// Forks a child that waits.
    ///
    /// # Errors
    /// No command can be called that; no more processes or descriptors.
    pub fn fork(command: &[OsString], signals: &Signals) -> Result<Self, Failure> {
        let cause = |error: Errno| Failure::new(FAILED, format!("failed to fork: {error}"));
        let words = command
            .iter()
            .map(|word| CString::new(word.as_bytes()))
            .collect::<Result<Vec<_>, _>>()
            .map_err(|_| Failure::new(USAGE, "COMMAND has a zero in it").hint("leave it away"))?;
        let (leave_read, leave_write) = pipe2(OFlag::O_CLOEXEC).map_err(cause)?;
        let (report_read, report_write) = pipe2(OFlag::O_CLOEXEC).map_err(cause)?;
        // SAFETY: this process has one thread, so the child may do whatever it could.
        match unsafe { fork() }.map_err(cause)? {
            ForkResult::Parent { child } => Ok(Self {
                pid: child,
                command: command[0].to_string_lossy().into_owned(),
                leave: Some(leave_write.into()),
                report: report_read.into(),
            }),
            ForkResult::Child => {
                // It would wait for itself otherwise.
                drop((leave_write, report_read));
                become_command(&words, leave_read, report_write, signals)
            }
        }
    }

    /// Its process id, which the command will have.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid.as_raw().unsigned_abs()
    }

    /// Gives leave. Returns the process id to wait for.
    ///
    /// # Errors
    /// The command cannot be started; exit code 127 if there is none of that name, else 126.
    pub fn start(mut self) -> Result<Pid, Failure> {
        let given = self.leave.take().map(|mut leave| leave.write_all(b"!"));
        let mut said = Vec::new();
        let heard = self.report.read_to_end(&mut said);
        let (Some(Ok(())), Ok(_)) = (given, heard) else {
            self.reap();
            return Err(
                Failure::new(FAILED, "failed to start COMMAND: its process was killed")
                    .hint("see dmesg; start it again"),
            );
        };
        let Ok(errno) = <[u8; 4]>::try_from(said.as_slice()) else {
            let pid = self.pid;
            // It has become its command: there is nothing to be dropped.
            self.pid = Pid::from_raw(0);
            return Ok(pid);
        };
        let errno = Errno::from_raw(i32::from_le_bytes(errno));
        let code = match errno {
            Errno::ENOENT => NOT_FOUND,
            _ => NOT_RUN,
        };
        let command = &self.command;
        let cause = io::Error::from(errno);
        Err(
            Failure::new(code, format!("failed to start {command}: {cause}"))
                .hint("the rule is removed; see PATH, or name the file: -- /path/to/command"),
        )
    }

    fn reap(&mut self) {
        if self.pid.as_raw() > 0 {
            let _gone = waitpid(self.pid, None);
            self.pid = Pid::from_raw(0);
        }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // Without leave it exits.
        drop(self.leave.take());
        self.reap();
    }
}

/// The child's side: waits for leave, then becomes the command or says why not.
fn become_command(words: &[CString], leave: OwnedFd, report: OwnedFd, signals: &Signals) -> ! {
    let mut byte = [0];
    let given = matches!(File::from(leave).read(&mut byte), Ok(1));
    if given {
        let error = match signals.restore_in_child() {
            Ok(()) => execvp(&words[0], words).map_or_else(|error| error, |never| match never {}),
            Err(error) => error,
        };
        let _parent_gone = File::from(report).write_all(&(error as i32).to_le_bytes());
    }
    // SAFETY: ends this process at once; what the parent has yet to write and close is not the child's.
    unsafe { libc::_exit(i32::from(NOT_FOUND)) }
}
