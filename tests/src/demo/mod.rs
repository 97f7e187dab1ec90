//! The demo: workloads without and with a delay, and what both sides say of them. On this host it is run by
//! `cargo xtask demo`, in a virtual machine by its test `demo`; the delay is on for as long as one workload runs.

mod delta;

use std::{
    fs::File,
    io::{self, Write as _},
    path::Path,
    process::Command,
    time::Duration,
};

use anyhow::Result;
use serde::{Deserialize, Serialize};

use crate::{
    agent::Agent,
    fio::{self, Latency},
    timing::{self, median},
};

pub use delta::Delta;

const FIO_RUNTIME: Duration = Duration::from_secs(3);
const CALLS: usize = 2_000;
/// Between two calls, with a delay and without.
const SPACING: Duration = Duration::from_micros(200);

/// Of `set-blk`, in us.
const BLOCK_US: u64 = 500;
/// Of `set`, in us.
const VFS_US: u64 = 100;

const MIB: usize = 1 << 20;
/// Of the file, in MiB: the `--size` of [`fio`].
const SIZE: usize = 64;

/// One workload under its delay.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Row {
    pub point: String,
    pub workload: String,
    pub asked_ns: u64,
    /// Median with the delay minus median without, as the application measured it.
    pub seen_ns: i64,
    pub kernel: Delta,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Results {
    pub rows: Vec<Row>,
    pub fio_before: Latency,
    pub fio_after: Latency,
}

/// What the workloads need.
pub struct Demo<'a> {
    pub agent: &'a Agent,
    /// Makes a command that runs fio.
    pub fio: &'a dyn Fn() -> Command,
    /// As [`write_file`] makes it.
    pub file: &'a Path,
    /// Told of each step before it begins; its error ends the demo.
    pub step: &'a dyn Fn(&str) -> Result<()>,
}

type Loop = fn(&Path, usize, Duration) -> Result<Vec<u64>>;

impl Demo<'_> {
    /// How many steps [`Demo::run`] has.
    pub const STEPS: usize = 4;

    /// # Errors
    /// A step was refused, or a workload or the agent failed.
    pub fn run(&self) -> Result<Results> {
        (self.step)("fio without a delay, 3 s")?;
        let fio_before = self.fio()?;
        (self.step)("fio with set-blk 500, 3 s")?;
        let (fio_after, kernel) =
            self.delayed("set-blk", BLOCK_US, "block.issue", || self.fio())?;
        let block = Row {
            point: "block.issue".into(),
            workload: "fio psync read".into(),
            asked_ns: BLOCK_US * 1_000,
            seen_ns: difference(fio_after.p50_ns, fio_before.p50_ns),
            kernel,
        };
        (self.step)("a loop of 2000 read(2), without a delay and with set 100")?;
        let read = self.calls("vfs.read", "read(2)", timing::reads)?;
        (self.step)("a loop of 2000 openat(2), without a delay and with set 100")?;
        let open = self.calls("vfs.open", "openat(2)", timing::opens)?;
        Ok(Results {
            rows: vec![block, read, open],
            fio_before,
            fio_after,
        })
    }

    fn fio(&self) -> Result<Latency> {
        fio::random_reads((self.fio)(), self.file, FIO_RUNTIME)
    }

    fn calls(&self, point: &str, workload: &str, calls: Loop) -> Result<Row> {
        let run = || calls(self.file, CALLS, SPACING);
        let before = run()?;
        let (after, kernel) = self.delayed("set", VFS_US, point, run)?;
        Ok(Row {
            point: point.into(),
            workload: workload.into(),
            asked_ns: VFS_US * 1_000,
            seen_ns: difference(median(after), median(before)),
            kernel,
        })
    }

    /// Runs `work` with the delay on, and says what the kernel recorded of it.
    fn delayed<T>(
        &self,
        verb: &str,
        delay_us: u64,
        point: &str,
        work: impl FnOnce() -> Result<T>,
    ) -> Result<(T, Delta)> {
        let before = self.agent.point(point)?;
        self.agent.call(&[verb, &delay_us.to_string()])?;
        // If it fails, the agent's drop ends the delay.
        let done = work()?;
        let after = self.agent.point(point)?;
        self.agent.call(&[verb, "0"])?;
        Ok((done, Delta::between(&before, &after)?))
    }
}

/// Writes the file that the workloads read, and syncs it: fio's own is still on the way to the disk while fio reads.
///
/// # Errors
/// It cannot be written.
pub fn write_file(path: &Path) -> io::Result<()> {
    let mut file = File::create(path)?;
    let block = vec![0x5a; MIB];
    for _ in 0..SIZE {
        file.write_all(&block)?;
    }
    file.sync_all()
}

fn difference(after: u64, before: u64) -> i64 {
    after.cast_signed() - before.cast_signed()
}
