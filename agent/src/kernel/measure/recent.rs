//! What programs wrote down and did not put into histograms yet; see `agent_common::recent`.

use std::{ops::Range, thread};

use agent_common::recent::{Entry, Recent};
use anyhow::Context as _;
use aya::maps::{Array, MapData};

use super::read::Dense;

/// So often histograms are read again before they are taken as they are. Entries are moved once in some dozen events, which
/// a reading of some us meets seldom; but a CPU of a virtual machine may stand still while it moves them.
const TRIES: usize = 1_000;

/// Of all CPUs.
pub struct Recents {
    map: Array<MapData, Recent>,
    /// What an entry records in a metric.
    value: fn(&Entry, usize) -> Option<u64>,
}

impl Recents {
    /// From the map of a probe that has one.
    pub fn new(map: Array<MapData, Recent>, value: fn(&Entry, usize) -> Option<u64>) -> Self {
        Self { map, value }
    }

    /// Events that were completed on all CPUs, of those that are in no ledger (count).
    ///
    /// # Errors
    /// The kernel refuses a look-up.
    pub fn completions(&self) -> anyhow::Result<u64> {
        let states = self.states(0..self.map.len() as usize)?;
        Ok(states.iter().map(|state| state.appended).sum())
    }

    /// For reading series on these CPUs.
    ///
    /// # Errors
    /// The kernel refuses a look-up.
    pub fn reader(&self, cpus: Range<usize>) -> anyhow::Result<Reader<'_>> {
        let last = self.states(cpus.clone())?;
        let recents = self;
        Ok(Reader {
            recents,
            cpus,
            last,
        })
    }

    fn states(&self, cpus: Range<usize>) -> anyhow::Result<Vec<Recent>> {
        let state = |cpu| self.map.get(&(cpu as u32), 0);
        let states: Result<_, _> = cpus.map(state).collect();
        states.context("failed to read RECENT")
    }
}

/// Adds to histograms what will come to them.
pub struct Reader<'a> {
    recents: &'a Recents,
    cpus: Range<usize>,
    /// As the CPUs were last.
    last: Vec<Recent>,
}

impl Reader<'_> {
    /// The histograms of a slot, one for each metric, as `read` gives them, with what is not in them yet.
    ///
    /// # Errors
    /// The kernel refuses a look-up.
    pub fn complete(
        &mut self,
        slot: u32,
        read: impl Fn() -> Vec<Dense>,
    ) -> anyhow::Result<Vec<Dense>> {
        for left in (0..TRIES).rev() {
            let mut histograms = read();
            let now = self.recents.states(self.cpus.clone())?;
            let before = std::mem::replace(&mut self.last, now);
            let mut pairs = before.iter().zip(&self.last);
            if left > 0 && !pairs.clone().all(|(before, now)| before.holds(now)) {
                thread::yield_now();
                continue;
            }
            let entries = pairs
                .by_ref()
                .flat_map(|(before, now)| &now.entries[..before.pending()]);
            for entry in entries.filter(|entry| entry.slot == slot) {
                for (metric, histogram) in histograms.iter_mut().enumerate() {
                    if let Some(value) = (self.recents.value)(entry, metric) {
                        histogram.record(value);
                    }
                }
            }
            return Ok(histograms);
        }
        Ok(read())
    }
}
