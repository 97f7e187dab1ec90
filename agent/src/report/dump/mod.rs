//! What a measuring probe recorded: shared by the agent, which fills it, and by `hist`, which prints it.

use std::collections::BTreeMap;

use agent_common::probes::Probe;
use serde::{Deserialize, Serialize};

pub use self::{ledger::Ledger, metric::Metric};
use super::{
    SCHEMA,
    tasks::{self, Task},
};

mod ledger;
mod metric;
#[cfg(test)]
mod tests;

/// What was recorded from `from_ns` on, for `interval_ns`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Dump {
    pub schema: u32,
    pub probe: String,
    /// `CLOCK_MONOTONIC`, ns.
    pub from_ns: u64,
    pub interval_ns: u64,
    /// Nothing was lost, by the ledger, and all parts of the probe are attached.
    pub complete: bool,
    pub ledger: Ledger,
    /// Parts of the probe that this kernel refuses, with the reason.
    pub not_measured: Vec<NotMeasured>,
    /// Requests in flight by the kernel's own count when this was read; only of the probe `block`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub in_flight: Vec<InFlight>,
    /// Only of the probe `sched`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tasks: Vec<Task>,
    pub series: Vec<Series>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NotMeasured {
    pub what: String,
    pub reason: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InFlight {
    pub device: String,
    pub reads: u64,
    pub writes: u64,
}

/// Field names and values, in the fields' order of names.
pub type Labels = BTreeMap<String, String>;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Series {
    /// What the kernel side tells it apart by, in any notation that does not change while the probe is
    /// loaded. Labels do: a disk or a cgroup that goes takes its name along. Empty for a sum of several, and
    /// from an agent that does not tell.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub id: String,
    pub labels: Labels,
    pub metrics: Vec<Metric>,
}

impl Dump {
    /// An empty one, to be filled.
    #[must_use]
    pub fn new(probe: &Probe, from_ns: u64, now_ns: u64, ledger: Ledger) -> Self {
        Self {
            schema: SCHEMA,
            probe: probe.name.into(),
            from_ns,
            interval_ns: now_ns.saturating_sub(from_ns),
            complete: ledger.losses().iter().all(|(_, count)| *count == 0),
            ledger,
            not_measured: Vec::new(),
            in_flight: Vec::new(),
            tasks: Vec::new(),
            series: Vec::new(),
        }
    }

    /// Notes a part that is not attached.
    pub fn lacks(&mut self, what: &str, reason: &str) {
        self.complete = false;
        self.not_measured.push(NotMeasured {
            what: what.into(),
            reason: reason.into(),
        });
    }

    /// Whether `before` is its past: nobody loaded the probe anew in between.
    #[must_use]
    pub fn continues(&self, before: &Self) -> bool {
        self.from_ns == before.from_ns
    }

    /// What was recorded between `before` and this; all of it, if it does not continue `before`.
    #[must_use]
    pub fn since(&self, before: &Self) -> Self {
        if !self.continues(before) {
            return self.clone();
        }
        let earlier: BTreeMap<_, &Series> = before
            .series
            .iter()
            .map(|series| (series.identity(), series))
            .collect();
        let series = self
            .series
            .iter()
            .map(|series| match earlier.get(&series.identity()) {
                Some(before) => series.since(before),
                None => series.clone(),
            })
            .filter(|series| series.metrics.iter().any(|metric| metric.count > 0));
        let series = merge(series);
        let ledger = self.ledger.since(&before.ledger);
        Self {
            from_ns: before.from_ns.saturating_add(before.interval_ns),
            interval_ns: self.interval_ns.saturating_sub(before.interval_ns),
            complete: self.not_measured.is_empty()
                && ledger.losses().iter().all(|(_, count)| *count == 0),
            ledger,
            tasks: tasks::since(&self.tasks, &before.tasks),
            series,
            ..self.clone()
        }
    }

    /// Keeps the series whose labels have these values, and tells series apart by `keys` only.
    pub fn select(&mut self, filters: &[(String, String)], keys: &[&str]) {
        let has =
            |series: &Series, key, value| series.labels.get(key).is_some_and(|is| is == value);
        let kept = std::mem::take(&mut self.series)
            .into_iter()
            .filter(|series| filters.iter().all(|(key, value)| has(series, key, value)))
            .map(|mut series| {
                series.labels.retain(|key, _| keys.contains(&key.as_str()));
                series
            });
        self.series = merge(kept);
    }
}

impl Series {
    /// What stays the same from dump to dump: the identity, or the labels where none is told.
    fn identity(&self) -> (&str, Option<&Labels>) {
        (&self.id, self.id.is_empty().then_some(&self.labels))
    }

    fn since(&self, before: &Self) -> Self {
        let metrics = self.metrics.iter().zip(&before.metrics);
        Self {
            metrics: metrics.map(|(now, before)| now.since(before)).collect(),
            ..self.clone()
        }
    }
}

/// Sums up series with the same labels, and sorts by them.
fn merge(all: impl Iterator<Item = Series>) -> Vec<Series> {
    let mut merged: BTreeMap<Labels, Series> = BTreeMap::new();
    for series in all {
        match merged.get_mut(&series.labels) {
            Some(sum) => {
                for (sum, metric) in sum.metrics.iter_mut().zip(&series.metrics) {
                    sum.add(metric);
                }
            }
            None => {
                let id = String::new();
                merged.insert(series.labels.clone(), Series { id, ..series });
            }
        }
    }
    merged.into_values().collect()
}
