//! What may happen to the agent and to the machine, and what has to hold then. Each fault prints a row for
//! `docs/reliability.md`; where `IOLAG_LONG` is set it is tried as often as that document says.

pub mod cycles;
pub mod death;
pub mod machine;
pub mod path;
pub mod starved;
pub mod stopped;
pub mod surroundings;

use std::{
    fmt::Display,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};

use crate::timing::reads;

/// What is read to see whether the machine is slow: it answers at once.
pub const FILE: &str = "/dev/zero";
/// What the delays of these tests are at least.
pub const DELAY: Duration = Duration::from_millis(10);

/// Where the program is, and over which backend it runs.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    pub program: &'a Path,
    pub backend: &'a str,
}

/// Whether each fault is tried as often as `docs/reliability.md` says.
#[must_use]
pub fn long() -> bool {
    std::env::var_os("IOLAG_LONG").is_some()
}

/// `many` in a long run, else `few`.
#[must_use]
pub fn rounds(few: usize, many: usize) -> usize {
    if long() { many } else { few }
}

/// A row of the table: which fault, over which backend if that matters, and the figures.
pub fn row(fault: &str, backend: &str, figures: impl Display) {
    println!("reliability\t{fault}\t{backend}\t{figures}");
}

/// How long until three reads in a row are fast.
///
/// # Errors
/// They still are not after `limit`.
pub fn fast_again(limit: Duration) -> Result<Duration> {
    let start = Instant::now();
    while start.elapsed() < limit {
        let since = start.elapsed();
        if fast()? {
            return Ok(since);
        }
    }
    bail!("reads are still slow after {limit:?}")
}

/// Whether three reads in a row are.
///
/// # Errors
/// There is nothing to read.
pub fn fast() -> Result<bool> {
    let half = DELAY.as_nanos() as u64 / 2;
    let times = reads(Path::new(FILE), 3, Duration::ZERO)?;
    Ok(times.iter().all(|ns| *ns < half))
}

/// Whether three reads in a row take the delay.
///
/// # Errors
/// There is nothing to read.
pub fn slow() -> Result<bool> {
    let delay = DELAY.as_nanos() as u64;
    let times = reads(Path::new(FILE), 3, Duration::ZERO)?;
    Ok(times.iter().all(|ns| *ns >= delay))
}
