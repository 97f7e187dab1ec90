//! The kernel's own count of requests to block devices, as a witness of the point `block.issue`.
//!
//! `/sys/block/*/stat` (Documentation/block/stat.rst) counts a request where it ends, iolag where it is handed
//! to the driver. Bios merged into one request are one in both. The kernel counts what it sends to flush a
//! device's cache in a field of its own; but the write that asked for the flush is counted as a write too,
//! and if it had no data (fsync, sync) it never becomes a request (`blk_insert_flush`, block/blk-flush.c).
//! Requests that are not of a file system (SG_IO) are left out by the kernel, and not by iolag.

use std::{fs, ops::RangeInclusive, path::Path};

use anyhow::{Context as _, Result};

/// Sums over all devices that take requests: those built of bios only (zram, dm) count here and issue none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Requests {
    pub reads: u64,
    pub writes: u64,
    pub discards: u64,
    pub flushes: u64,
    pub in_flight: u64,
}

impl Requests {
    /// Reads what the kernel has counted since boot.
    ///
    /// # Errors
    /// /sys cannot be read.
    pub fn read() -> Result<Self> {
        let mut sum = Self::default();
        for device in fs::read_dir("/sys/block").context("failed to list /sys/block")? {
            let device = device?.path();
            if device.join("mq").exists() {
                sum.add(&stat(&device)?)?;
            }
        }
        Ok(sum)
    }

    fn add(&mut self, line: &str) -> Result<()> {
        let fields: Vec<u64> = line
            .split_whitespace()
            .map(|field| field.parse().context("failed to read a number"))
            .collect::<Result<_>>()?;
        // Fields for discards came with 4.18, for flushes with 5.5.
        let field = |index: usize| fields.get(index).copied().unwrap_or(0);
        self.reads += field(0);
        self.writes += field(4);
        self.in_flight += field(8);
        self.discards += field(11);
        self.flushes += field(15);
        Ok(())
    }

    /// What was added since `before`; requests in flight as they are now.
    #[must_use]
    pub fn since(&self, before: &Self) -> Self {
        Self {
            reads: self.reads - before.reads,
            writes: self.writes - before.writes,
            discards: self.discards - before.discards,
            flushes: self.flushes - before.flushes,
            in_flight: self.in_flight,
        }
    }

    /// All that ended, each kind being a request of its own.
    #[must_use]
    pub fn ended(&self) -> u64 {
        self.reads + self.writes + self.discards + self.flushes
    }
}

fn stat(device: &Path) -> Result<String> {
    let path = device.join("stat");
    fs::read_to_string(&path).with_context(|| format!("failed to read {}", path.display()))
}

/// What two counters said of the same work.
#[derive(Debug)]
pub struct Compared {
    /// By the counter under test.
    pub ours: u64,
    /// By the kernel's readings: no fewer and no more can have been issued between ours.
    pub kernel: RangeInclusive<u64>,
    /// Between the kernel's outer readings.
    pub requests: Requests,
}

/// Does `work` between two readings of `ours`, each of which lies between two of the kernel's.
///
/// # Errors
/// A reading, or the work.
pub fn compare(
    ours: &dyn Fn() -> Result<u64>,
    work: &mut dyn FnMut() -> Result<()>,
) -> Result<Compared> {
    let outer_start = Requests::read()?;
    let ours_start = ours()?;
    let inner_start = Requests::read()?;
    work()?;
    let inner_end = Requests::read()?;
    let ours_end = ours()?;
    let outer_end = Requests::read()?;
    let inner = inner_end.since(&inner_start).ended();
    let requests = outer_end.since(&outer_start);
    Ok(Compared {
        ours: ours_end - ours_start,
        // What is in flight may have been issued before our first reading, or before our last.
        kernel: inner.saturating_sub(inner_start.in_flight)..=requests.ended() + requests.in_flight,
        requests,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_where_the_kernel_puts_them() {
        let mut sum = Requests::default();
        sum.add("  880133    80136 96749490  1011027    82627   282862 81084632   337577        3   164664  1370158   211380       25 53307592    21238     7617      315\n").unwrap();
        let wanted = Requests {
            reads: 880_133,
            writes: 82_627,
            discards: 211_380,
            flushes: 7_617,
            in_flight: 3,
        };
        assert_eq!(sum, wanted);
        assert_eq!(sum.since(&Requests::default()).ended(), 1_181_757);
    }

    #[test]
    fn older_kernels_have_fewer_fields() {
        let mut sum = Requests::default();
        sum.add("1 0 8 0 2 0 16 0 0 0 0").unwrap();
        assert_eq!(sum.ended(), 3);
    }
}
