//! By how much a delay raises what a caller sees: system calls timed by their caller, and fio.

use std::{path::Path, time::Duration};

use anyhow::{Result, ensure};
use iolag_tests::{
    agent::Agent,
    fio,
    record::Interval,
    timing::{median, opens, reads, spins, writes},
};

use super::skip;
use crate::guest;

type Loop = fn(&Path, usize, Duration) -> Result<Vec<u64>>;

/// The VFS points, each with the calls that come by there.
pub const CALLS: [(&str, Loop); 3] = [
    ("vfs.read", reads),
    ("vfs.write", writes),
    ("vfs.open", opens),
];
/// Opened, read and written by [`CALLS`].
pub const FILE: &str = "/tmp/delayed";
const SPACING: Duration = Duration::from_micros(200);
/// A host that is busy may stop the emulated CPUs at any time, which makes a wait longer and never shorter.
const TRIES: usize = 8;
/// What has to come within 1 % on a host that is not too busy.
const SPIN: Duration = Duration::from_millis(10);
/// Between two tries, for the host to get over what it is busy with.
const PAUSE: Duration = Duration::from_millis(500);

/// What was asked for, what came of it by the caller's clock, and what the kernel side recorded (ns).
#[derive(Clone, Copy, Debug)]
pub struct Raised {
    pub asked_ns: u64,
    pub seen_ns: u64,
    median_error_ns: u64,
    mean_error_ns: f64,
    mean_error_without_worst_ns: f64,
}

/// Below this a mean says more of the host than of the wait: a busy one stops the emulated CPUs for some
/// milliseconds in many waits.
const MEAN_TELLS_NS: u64 = 50_000_000;

impl Raised {
    fn new(asked_ns: u64, seen_ns: u64, interval: &Interval) -> Result<Self> {
        let requested = interval.gained("requested_ns")?;
        let achieved = interval.gained("achieved_ns")?;
        ensure!(
            achieved >= requested,
            "achieved {achieved} ns of {requested}"
        );
        ensure!(interval.gained("short")? == 0, "waits were cut short");
        let (mean_error_ns, mean_error_without_worst_ns) = interval.mean_error_ns()?;
        Ok(Self {
            asked_ns,
            seen_ns,
            median_error_ns: interval.error_quantile(0.5)?,
            mean_error_ns,
            mean_error_without_worst_ns,
        })
    }

    /// The part by which more (or less) was seen than asked for.
    fn off(&self) -> f64 {
        self.seen_ns as f64 / self.asked_ns as f64 - 1.0
    }

    /// Whether the callers' median and the kernel side's mean are off by no more than `bound`, and its median
    /// hardly at all.
    pub fn as_asked(&self, bound: f64) -> bool {
        let mean = self.mean_error_without_worst_ns / self.asked_ns as f64;
        self.off().abs() <= bound
            && self.median_error_ns <= 50_000
            && (self.asked_ns < MEAN_TELLS_NS || mean <= bound)
    }
}

/// The first result of `measure` that `is_good`, of a few.
pub fn settled<T: std::fmt::Debug>(
    mut measure: impl FnMut() -> Result<T>,
    is_good: impl Fn(&T) -> bool,
) -> Result<T> {
    let mut result = measure()?;
    for _ in 1..TRIES {
        if is_good(&result) {
            return Ok(result);
        }
        std::thread::sleep(PAUSE);
        result = measure()?;
    }
    ensure!(is_good(&result), "after {TRIES} tries still {result:?}");
    Ok(result)
}

/// [`settled`] for times. A test is skipped where the emulated CPU is stopped so often that a plain loop cannot
/// keep time either.
pub fn timed<T: std::fmt::Debug>(
    measure: impl FnMut() -> Result<T>,
    is_good: impl Fn(&T) -> bool,
) -> Result<T> {
    settled(measure, is_good).map_err(|error| {
        let overshoot = median(spins(SPIN, 50, Duration::from_millis(1)));
        println!("a plain spin of {SPIN:?} takes {overshoot} ns longer by its median");
        if overshoot > SPIN.as_nanos() as u64 / 100 {
            return skip(format!("the host is too busy to keep time: {error:#}"));
        }
        error
    })
}

/// `set` of `delay_ms` at one point, by the median of `number` calls, against a baseline of calls that begin as far from
/// each other: an emulated CPU that does one thing after the other is far faster than one that comes back to it.
pub fn by_calls(
    agent: &Agent,
    (point, calls): (&str, Loop),
    delay_ms: u64,
    number: usize,
) -> Result<Raised> {
    let run = |instead_of_delay: Duration| {
        let times = calls(Path::new(FILE), number, SPACING + instead_of_delay)?;
        Ok((median(times), number as u64))
    };
    by(agent, point, "set", delay_ms, &run)
}

/// `set-blk`, by fio's own latency of direct reads from the virtio disk.
pub fn by_fio(agent: &Agent, delay_ms: u64) -> Result<Raised> {
    let run = |_: Duration| {
        let second = Duration::from_secs(1);
        let latency = fio::random_reads(guest::fio(), Path::new(guest::FIO_FILE), second)?;
        Ok((latency.p50_ns, latency.ios))
    };
    by(agent, "block.issue", "set-blk", delay_ms, &run)
}

/// `run` gives the median (ns) of so many calls. Where there is no delay it is told how long that would be.
fn by(
    agent: &Agent,
    point: &str,
    command: &str,
    delay_ms: u64,
    run: &dyn Fn(Duration) -> Result<(u64, u64)>,
) -> Result<Raised> {
    let (plain, _) = run(Duration::from_millis(delay_ms))?;
    let before = agent.point(point)?;
    agent.call(&[command, &format!("{delay_ms}ms")])?;
    agent.settle()?;
    let (slow, number) = run(Duration::ZERO)?;
    agent.call(&[command, "0"])?;
    let interval = Interval::since(before, agent)?;
    let delayed = interval.gained("delayed")?;
    ensure!(
        delayed >= number,
        "{point}: {delayed} delayed of {number} calls"
    );
    let raised = Raised::new(delay_ms * 1_000_000, slow.saturating_sub(plain), &interval)?;
    println!(
        "{point}: asked {delay_ms} ms, seen {:+.2} %; error in the kernel: median {} ns, mean {:.0} ns, without the worst {:.0} ns",
        raised.off() * 100.0,
        raised.median_error_ns,
        raised.mean_error_ns,
        raised.mean_error_without_worst_ns,
    );
    Ok(raised)
}
