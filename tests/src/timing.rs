//! System calls timed by the one who calls: what an application sees.

use std::{
    ffi::CString,
    fs::File,
    os::{
        fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};

/// The middle of the sorted values; of an even number, the upper one.
///
/// # Panics
/// On an empty list.
#[must_use]
pub fn median(mut values: Vec<u64>) -> u64 {
    assert!(!values.is_empty(), "the median of nothing");
    values.sort_unstable();
    values[values.len() / 2]
}

/// Times `count` calls of one byte's `read(2)` from `path`, each after `spacing` of spinning, so that
/// a loop with a delay and one without meet the machine in the same state. Returns ns for each.
///
/// # Errors
/// The file cannot be opened or read.
pub fn reads(path: &Path, count: usize, spacing: Duration) -> Result<Vec<u64>> {
    let file = File::open(path).with_context(|| format!("failed to open {}", path.display()))?;
    times(count, spacing, || {
        let mut byte = 0u8;
        // SAFETY: one byte is writable; a plain read(2), as std might choose another call.
        let read = unsafe { libc::read(file.as_raw_fd(), (&raw mut byte).cast(), 1) };
        ensure!(read >= 0, "failed to read {}", path.display());
        Ok(())
    })
}

/// Times `count` calls of one byte's `write(2)` to `path`. Returns ns for each.
///
/// # Errors
/// The file cannot be opened or written.
pub fn writes(path: &Path, count: usize, spacing: Duration) -> Result<Vec<u64>> {
    let file = File::options()
        .write(true)
        .open(path)
        .with_context(|| format!("failed to open {}", path.display()))?;
    times(count, spacing, || {
        // SAFETY: one byte is readable.
        let written = unsafe { libc::write(file.as_raw_fd(), c"x".as_ptr().cast(), 1) };
        ensure!(written == 1, "failed to write {}", path.display());
        Ok(())
    })
}

/// Times `count` calls of `openat(2)`, each with the close of the file before it. Returns ns for each.
///
/// # Errors
/// The file cannot be opened.
pub fn opens(path: &Path, count: usize, spacing: Duration) -> Result<Vec<u64>> {
    let c_path = CString::new(path.as_os_str().as_bytes())?;
    let mut opened: Option<OwnedFd> = None;
    times(count, spacing, || {
        // SAFETY: a C string for the time of the call.
        let fd = unsafe { libc::open(c_path.as_ptr(), libc::O_RDONLY | libc::O_CLOEXEC) };
        ensure!(fd >= 0, "failed to open {}", path.display());
        // SAFETY: just opened, owned by nobody else.
        opened = Some(unsafe { OwnedFd::from_raw_fd(fd) });
        Ok(())
    })
}

/// Spins for `length`, `count` times with a sleep of `pause` between, and returns by how much each was too
/// long (ns): what this CPU does to any spin.
#[must_use]
pub fn spins(length: Duration, count: usize, pause: Duration) -> Vec<u64> {
    let spin = |_| {
        std::thread::sleep(pause);
        let start = Instant::now();
        let mut elapsed = start.elapsed();
        while elapsed < length {
            elapsed = start.elapsed();
        }
        (elapsed - length).as_nanos() as u64
    };
    (0..count).map(spin).collect()
}

/// The share of [`spins`] that were too long by more than `slack`: waits of that length are disturbed no less.
#[must_use]
pub fn late(overshoots_ns: &[u64], slack: Duration) -> f64 {
    let slack = slack.as_nanos() as u64;
    let late = overshoots_ns.iter().filter(|over| **over > slack);
    late.count() as f64 / overshoots_ns.len().max(1) as f64
}

fn times(
    count: usize,
    spacing: Duration,
    mut call: impl FnMut() -> Result<()>,
) -> Result<Vec<u64>> {
    let mut times = Vec::with_capacity(count);
    for _ in 0..count {
        let pause = Instant::now();
        while pause.elapsed() < spacing {
            std::hint::spin_loop();
        }
        let start = Instant::now();
        call()?;
        times.push(start.elapsed().as_nanos() as u64);
    }
    Ok(times)
}
