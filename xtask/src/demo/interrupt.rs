//! SIGINT and SIGTERM end the demo between two steps, so that everything is restored by its drop.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result};

use crate::explain::Explained;

/// Exit code of a program that Ctrl-C ended, as shells have it.
const INTERRUPTED: u8 = 130;

static SEEN: AtomicBool = AtomicBool::new(false);

extern "C" fn note(_signal: libc::c_int) {
    SEEN.store(true, Ordering::Relaxed);
}

/// From now on the signals are noted instead of ending this process.
pub fn catch() -> Result<()> {
    handle(note as *const () as libc::sighandler_t)
}

/// From now on they end this process again.
pub fn release() -> Result<()> {
    handle(libc::SIG_DFL)
}

fn handle(handler: libc::sighandler_t) -> Result<()> {
    for signal in [libc::SIGINT, libc::SIGTERM] {
        // SAFETY: all bits zero is a valid sigaction: no flags, an empty mask.
        let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
        action.sa_sigaction = handler;
        action.sa_flags = libc::SA_RESTART;
        // SAFETY: the handler is the default or stores an atomic and nothing else, which is safe in a signal handler.
        if unsafe { libc::sigaction(signal, &raw const action, std::ptr::null_mut()) } != 0 {
            return Err(io::Error::last_os_error()).context("failed to catch signals");
        }
    }
    Ok(())
}

/// Fails if one of the signals came.
pub fn check() -> Result<()> {
    if !SEEN.load(Ordering::Relaxed) {
        return Ok(());
    }
    Err(Explained {
        cause: "interrupted: the delays, the agent and the scratch file are gone".into(),
        hint: String::new(),
        code: INTERRUPTED,
    }
    .into())
}
