//! The workloads, without and with a delay. The delay is on for as long as one of them runs.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::Result;
use iolag_tests::agent::Agent;
use iolag_tests::fio::{self, Latency};
use iolag_tests::timing::{self, median};

use super::delta::Delta;
use super::scratch::Scratch;
use super::{interrupt, step};

const FIO_RUNTIME: Duration = Duration::from_secs(3);
const CALLS: usize = 2_000;
/// Between two calls, with a delay and without.
const SPACING: Duration = Duration::from_micros(200);

/// Of `set-blk`, in us.
const BLOCK_US: u64 = 500;
/// Of `set`, in us.
const VFS_US: u64 = 100;

/// One workload under its delay.
pub struct Row {
    pub point: &'static str,
    pub workload: &'static str,
    pub asked_ns: u64,
    /// Median with the delay minus median without, as the application measured it.
    pub seen_ns: i64,
    pub kernel: Delta,
}

pub struct Results {
    pub rows: Vec<Row>,
    pub fio_before: Latency,
    pub fio_after: Latency,
}

/// What is needed, and what is restored when it is dropped.
pub struct Demo {
    pub agent: Agent,
    /// The program.
    pub fio: PathBuf,
    pub scratch: Scratch,
}

type Loop = fn(&Path, usize, Duration) -> Result<Vec<u64>>;

impl Demo {
    /// # Errors
    /// A signal came, or a workload or the agent failed.
    pub fn run(&self) -> Result<Results> {
        step(3, "fio without a delay, 3 s");
        let fio_before = self.fio()?;
        step(4, "fio with set-blk 500, 3 s");
        let (fio_after, kernel) =
            self.delayed("set-blk", BLOCK_US, "block.issue", || self.fio())?;
        let block = Row {
            point: "block.issue",
            workload: "fio psync read",
            asked_ns: BLOCK_US * 1_000,
            seen_ns: difference(fio_after.p50_ns, fio_before.p50_ns),
            kernel,
        };
        step(
            5,
            "a loop of 2000 read(2), without a delay and with set 100",
        );
        let read = self.calls("vfs.read", "read(2)", timing::reads)?;
        step(
            6,
            "a loop of 2000 openat(2), without a delay and with set 100",
        );
        let open = self.calls("vfs.open", "openat(2)", timing::opens)?;
        Ok(Results {
            rows: vec![block, read, open],
            fio_before,
            fio_after,
        })
    }

    fn fio(&self) -> Result<Latency> {
        let fio = Command::new(&self.fio);
        let latency = fio::random_reads(fio, self.scratch.path(), FIO_RUNTIME)?;
        interrupt::check()?;
        Ok(latency)
    }

    fn calls(&self, point: &'static str, workload: &'static str, calls: Loop) -> Result<Row> {
        let run = || calls(self.scratch.path(), CALLS, SPACING);
        let before = run()?;
        let (after, kernel) = self.delayed("set", VFS_US, point, run)?;
        Ok(Row {
            point,
            workload,
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
        interrupt::check()?;
        let before = self.agent.point(point)?;
        self.agent.call(&[verb, &delay_us.to_string()])?;
        // If it fails, the agent's drop ends the delay.
        let done = work()?;
        let after = self.agent.point(point)?;
        self.agent.call(&[verb, "0"])?;
        interrupt::check()?;
        Ok((done, Delta::between(&before, &after)?))
    }
}

fn difference(after: u64, before: u64) -> i64 {
    after.cast_signed() - before.cast_signed()
}
