//! Signals while a command runs: those that would end iolag are the command's.

use nix::{
    errno::Errno,
    sys::{
        signal::{
            SaFlags, SigAction, SigHandler, SigSet, SigmaskHow, Signal, kill, sigaction,
            sigprocmask,
        },
        signalfd::{SfdFlags, SignalFd},
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::Pid,
};

use crate::failure::{FAILED, Failure};

const PASSED_ON: [Signal; 4] = [
    Signal::SIGINT,
    Signal::SIGTERM,
    Signal::SIGHUP,
    Signal::SIGQUIT,
];

fn failed(what: &str, error: Errno) -> Failure {
    Failure::new(FAILED, format!("failed to {what}: {error}"))
}

/// Holds signals back until they are asked for: a rule that was put in force is removed whatever comes.
pub struct Signals {
    queue: SignalFd,
    /// What was held back before.
    before: SigSet,
}

impl Signals {
    /// # Errors
    /// The kernel refuses.
    pub fn hold() -> Result<Self, Failure> {
        let cause = |error| failed("hold signals back", error);
        let default = SigAction::new(SigHandler::SigDfl, SaFlags::empty(), SigSet::empty());
        // Who started us may ignore it, and then the command's exit code would be lost.
        // SAFETY: no handler is installed.
        unsafe { sigaction(Signal::SIGCHLD, &default) }.map_err(cause)?;
        let held: SigSet = PASSED_ON.into_iter().chain([Signal::SIGCHLD]).collect();
        let mut before = SigSet::empty();
        sigprocmask(SigmaskHow::SIG_BLOCK, Some(&held), Some(&mut before)).map_err(cause)?;
        let queue = SignalFd::with_flags(&held, SfdFlags::SFD_CLOEXEC).map_err(cause)?;
        Ok(Self { queue, before })
    }

    /// As it was before; for a child, which the standard library has made ignore SIGPIPE, also there.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn restore_in_child(&self) -> nix::Result<()> {
        let default = SigAction::new(SigHandler::SigDfl, SaFlags::empty(), SigSet::empty());
        // SAFETY: no handler is installed.
        unsafe { sigaction(Signal::SIGPIPE, &default) }?;
        sigprocmask(SigmaskHow::SIG_SETMASK, Some(&self.before), None)
    }

    /// Waits for the end of a child, and passes signals on to it. Returns its exit code, or 128 and the signal
    /// that killed it.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn pass_on_until_end(&self, child: Pid) -> Result<u8, Failure> {
        loop {
            let ended = waitpid(child, Some(WaitPidFlag::WNOHANG));
            match ended.map_err(|error| failed("wait for the command", error))? {
                WaitStatus::Exited(_, code) => return Ok(code as u8),
                WaitStatus::Signaled(_, signal, _) => return Ok(128 + signal as u8),
                _ => {}
            }
            let next = match self.queue.read_signal() {
                Err(Errno::EINTR) => continue,
                next => next.map_err(|error| failed("read signals", error))?,
            };
            let Some(next) = next else { continue };
            // What the terminal sends, the command has got itself.
            if next.ssi_code == libc::SI_KERNEL {
                continue;
            }
            if let Ok(signal) = Signal::try_from(next.ssi_signo as i32)
                && PASSED_ON.contains(&signal)
            {
                // It may have ended by now.
                let _gone = kill(child, signal);
            }
        }
    }
}
