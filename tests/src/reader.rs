//! Threads that a rule can be for, by a command of their own: whatever they read, they read on purpose.

use std::{
    fs::File,
    io::Error,
    os::fd::AsRawFd as _,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};

/// What is read: it answers at once.
const ZERO: &str = "/dev/zero";

/// An open file that is read byte by byte.
#[derive(Debug)]
pub struct Reader(File);

/// One call.
#[derive(Clone, Copy, Debug)]
pub struct Call {
    /// When it began.
    pub start: Instant,
    pub took: Duration,
}

impl Reader {
    /// # Errors
    /// /dev/zero cannot be opened.
    pub fn open() -> Result<Self> {
        let file = File::open(ZERO).with_context(|| format!("failed to open {ZERO}"))?;
        Ok(Self(file))
    }

    /// One `read(2)` of one byte.
    ///
    /// # Panics
    /// It fails.
    pub fn read(&self) -> Call {
        let mut byte = 0u8;
        let start = Instant::now();
        // SAFETY: one byte is writable.
        let read = unsafe { libc::read(self.0.as_raw_fd(), (&raw mut byte).cast(), 1) };
        let took = start.elapsed();
        assert_eq!(read, 1, "failed to read {ZERO}");
        Call { start, took }
    }

    /// So many, one after the other.
    pub fn times(&self, count: usize) -> Vec<Call> {
        (0..count).map(|_| self.read()).collect()
    }

    /// As many as there is time for.
    pub fn during(&self, length: Duration) -> Vec<Call> {
        let start = Instant::now();
        let mut calls = Vec::new();
        while start.elapsed() < length {
            calls.push(self.read());
        }
        calls
    }
}

/// Runs `work` in a thread whose command is `comm` (at most 15 bytes).
///
/// # Errors
/// No thread can be had, or no file.
///
/// # Panics
/// As `work`.
pub fn reading_as<T: Send>(comm: &str, work: impl FnOnce(&Reader) -> T + Send) -> Result<T> {
    assert!(comm.len() <= 15, "{comm} is cut by the kernel");
    thread::scope(|scope| {
        let thread =
            thread::Builder::new()
                .name(comm.into())
                .spawn_scoped(scope, || -> Result<T> {
                    let reader = Reader::open()?;
                    Ok(work(&reader))
                })?;
        thread.join().expect("the reader does not panic")
    })
}

/// Puts this thread before all that is not urgent.
///
/// # Errors
/// It may not be.
pub fn go_first() -> Result<()> {
    let priority = libc::sched_param { sched_priority: 1 };
    // SAFETY: plain data that lives for the time of the call; 0 is this thread.
    let set = unsafe { libc::sched_setscheduler(0, libc::SCHED_FIFO, &raw const priority) };
    ensure!(set == 0, "failed to be urgent: {}", Error::last_os_error());
    Ok(())
}
