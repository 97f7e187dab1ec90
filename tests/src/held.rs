//! What a process holds and takes, seen from outside.

use std::{fs, time::Duration};

use anyhow::{Context as _, Result};

/// A process, by what it holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    /// Memory that it has, and the most that it had (KiB).
    pub memory: u64,
    pub peak: u64,
    pub descriptors: usize,
    pub threads: usize,
}

impl Held {
    /// Looks at a process.
    ///
    /// # Errors
    /// It is gone.
    pub fn by(pid: i32) -> Result<Self> {
        let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
        let kib = |name: &str| {
            let value = status.lines().find_map(|line| line.strip_prefix(name));
            let value = value.and_then(|value| value.split_whitespace().next());
            value
                .and_then(|value| value.parse().ok())
                .context("failed to read its memory")
        };
        let count = |dir: &str| {
            Ok::<_, std::io::Error>(fs::read_dir(format!("/proc/{pid}/{dir}"))?.count())
        };
        Ok(Self {
            memory: kib("VmRSS:")?,
            peak: kib("VmHWM:")?,
            descriptors: count("fd")?,
            threads: count("task")?,
        })
    }

    /// Has the kernel forget the peak so far (proc_pid_clear_refs(5)).
    ///
    /// # Errors
    /// It refuses.
    pub fn forget_peak(pid: i32) -> Result<()> {
        Ok(fs::write(format!("/proc/{pid}/clear_refs"), "5")?)
    }
}

/// Whether a process runs no more. One that nobody has waited for yet is still listed: init, whose children agents in the
/// background are, may take seconds to do so on a machine that is busy.
#[must_use]
pub fn dead(pid: i32) -> bool {
    let Ok(status) = fs::read_to_string(format!("/proc/{pid}/status")) else {
        return true;
    };
    let is = |name: &str, value: &str| {
        let found = status.lines().find_map(|line| line.strip_prefix(name));
        found.and_then(|found| found.split_whitespace().next()) == Some(value)
    };
    // Its first thread is a zombie also while others run; then there are several.
    is("State:", "Z") && is("Threads:", "1")
}

/// CPU time of this thread: others may use the machine meanwhile.
#[must_use]
pub fn own_time() -> Duration {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `time` is valid for writing, and the clock exists on every Linux.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}
