//! The ledger of a dump: its books, and what was lost.

use agent_common::probes::Loss;
use serde::{Deserialize, Serialize};

/// Counts. The first five are the books, the others are what was lost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ledger {
    /// Operations whose start was seen.
    pub starts: u64,
    /// Operations whose end was seen and recorded.
    pub completions: u64,
    /// Operations that ended without being what the probe measures.
    pub abandoned: u64,
    /// Operations that failed; they are recorded like the others.
    pub errors: u64,
    /// Ends of operations that had begun before the probe was attached, or never did; they are no loss.
    pub early: u64,
    /// Starts that were forgotten because their table was full or their end was missed.
    pub lost: u64,
    /// Runs of the programs that the kernel skipped, by its own count.
    pub missed: u64,
    /// Values beyond the last bucket; they are counted in it.
    pub overflowed: u64,
    /// Ends before their starts, by the clocks.
    pub negative: u64,
    /// Ends without a start.
    pub unmatched: u64,
    /// Values recorded in the series `other`, because the table of series was full.
    pub other: u64,
    /// Events for which the ring buffer had no room; their values are recorded.
    pub events: u64,
}

impl Ledger {
    /// From the kernel side's sums, by `Loss`, and the programs' misses.
    #[must_use]
    pub fn new(sums: &[u64], missed: u64) -> Self {
        let of = |loss: Loss| sums.get(loss as usize).copied().unwrap_or(0);
        Self {
            starts: of(Loss::Starts),
            completions: of(Loss::Completions),
            abandoned: of(Loss::Abandoned),
            errors: of(Loss::Errors),
            early: of(Loss::Early),
            lost: of(Loss::Lost),
            missed,
            overflowed: of(Loss::Overflowed),
            negative: of(Loss::Negative),
            unmatched: of(Loss::Unmatched),
            other: of(Loss::Other),
            events: of(Loss::Events),
        }
    }

    /// What was lost, by name.
    #[must_use]
    pub fn losses(&self) -> [(&'static str, u64); 7] {
        [
            ("lost", self.lost),
            ("missed", self.missed),
            ("overflowed", self.overflowed),
            ("negative", self.negative),
            ("unmatched", self.unmatched),
            ("other", self.other),
            ("events", self.events),
        ]
    }

    pub(super) fn since(&self, before: &Self) -> Self {
        let less = |of: fn(&Self) -> u64| of(self).saturating_sub(of(before));
        Self {
            starts: less(|l| l.starts),
            completions: less(|l| l.completions),
            abandoned: less(|l| l.abandoned),
            errors: less(|l| l.errors),
            early: less(|l| l.early),
            lost: less(|l| l.lost),
            missed: less(|l| l.missed),
            overflowed: less(|l| l.overflowed),
            negative: less(|l| l.negative),
            unmatched: less(|l| l.unmatched),
            other: less(|l| l.other),
            events: less(|l| l.events),
        }
    }
}
