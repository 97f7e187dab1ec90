//! Series of histograms, as they lie in the maps of a measuring probe.
//!
//! Maps (declared in `agent-ebpf/src/measure.rs`):
//! - `SERIES`: [`Key`] -> slot. Bounded; who comes when it is full is counted in the slot [`OTHER`].
//! - `FREE`: the slots that no series has yet.
//! - `HISTOGRAMS`: an array that user space maps into memory. What CPU `c` recorded in slot `s` is element
//!   `s * cpus + c`, a [`Block`]: slots are handed out from the lowest, so that what is in use is a prefix,
//!   and no CPU writes into another's histograms.
//! - `LEDGER`: per CPU, two rows by [`crate::probes::Loss`], to be added up: programs that may interrupt
//!   others count in the second.

use crate::bucket;

/// Buckets of a histogram in a map: up to 2^40, which is 18 minutes in ns or 1 TiB in bytes. What is
/// larger is counted in the last bucket, in `sum` and `max`, and as `overflowed` in the ledger.
pub const BUCKETS: usize = bucket::index(1 << 40) as usize;

/// The slot of everything that found the table of series full.
pub const OTHER: u32 = 0;

/// What a series is about. Fields that a probe or the user does not ask for are 0.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    /// Operation, softirq vector or IRQ number; the probe's catalogue row says which.
    pub op: u32,
    /// Device as the kernel has it: major << 20 | minor.
    pub device: u32,
    /// Magic number of the file system.
    pub magic: u32,
    /// Keeps the structure free of padding.
    pub reserved: u32,
    /// Id of the cgroup in the unified hierarchy: the inode number of its directory.
    pub cgroup: u64,
    /// Command, padded with NUL.
    pub comm: [u8; 16],
}

/// Histograms of a series on one CPU, one for each of its probe's `M` metrics. The exact figures of all
/// metrics lie together: recording touches one cache line for them, and one for each bucket.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Block<const M: usize> {
    /// Sums and largest values, exact.
    pub exact: [Exact; M],
    /// Counts of values by bucket.
    pub counts: [[u64; BUCKETS]; M],
}

/// What is known exactly of the values of one metric.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Exact {
    pub sum: u64,
    pub max: u64,
}

/// Size of a [`Block`] (bytes).
#[must_use]
pub const fn block_size(metrics: usize) -> usize {
    metrics * (size_of::<Exact>() + BUCKETS * size_of::<u64>())
}

const _: () = assert!(size_of::<Block<4>>() == block_size(4));
const _: () = assert!(size_of::<Key>() == 40);

#[cfg(feature = "user")]
mod user {
    // SAFETY: repr(C), integers only, no padding (asserted by the size): any bytes are a value.
    unsafe impl aya::Pod for super::Key {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_bucket_ends_at_two_to_the_forty() {
        assert_eq!(bucket::last(BUCKETS as u32 - 1), (1 << 40) - 1);
        assert_eq!(BUCKETS, 304);
    }
}
