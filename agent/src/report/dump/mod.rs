//! What a measuring probe recorded: shared by the agent, which fills it, and by `hist`, which prints it.

use std::collections::BTreeMap;

use agent_common::probes::Probe;
use serde::{Deserialize, Serialize};

pub use self::{ledger::Ledger, metric::Metric};
use super::SCHEMA;

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

    /// What was recorded between `before` and this, both since the same probe was loaded.
    #[must_use]
    pub fn since(&self, before: &Self) -> Self {
        let earlier: BTreeMap<&Labels, &Series> = before
            .series
            .iter()
            .map(|series| (&series.labels, series))
            .collect();
        let series = self
            .series
            .iter()
            .map(|series| match earlier.get(&series.labels) {
                Some(before) => Series {
                    labels: series.labels.clone(),
                    metrics: series
                        .metrics
                        .iter()
                        .zip(&before.metrics)
                        .map(|(now, before)| now.since(before))
                        .collect(),
                },
                None => series.clone(),
            })
            .filter(|series| series.metrics.iter().any(|metric| metric.count > 0))
            .collect();
        let ledger = self.ledger.since(&before.ledger);
        Self {
            from_ns: before.from_ns + before.interval_ns,
            interval_ns: (self.from_ns + self.interval_ns)
                .saturating_sub(before.from_ns + before.interval_ns),
            complete: self.not_measured.is_empty()
                && ledger.losses().iter().all(|(_, count)| *count == 0),
            ledger,
            series,
            ..self.clone()
        }
    }

    /// Keeps the series whose labels have these values, and tells series apart by `keys` only.
    pub fn select(&mut self, filters: &[(String, String)], keys: &[&str]) {
        let mut merged: BTreeMap<Labels, Series> = BTreeMap::new();
        for series in std::mem::take(&mut self.series) {
            let kept = filters
                .iter()
                .all(|(key, value)| series.labels.get(key).is_some_and(|is| is == value));
            if !kept {
                continue;
            }
            let labels: Labels = series
                .labels
                .iter()
                .filter(|(key, _)| keys.contains(&key.as_str()))
                .map(|(key, value)| (key.clone(), value.clone()))
                .collect();
            match merged.get_mut(&labels) {
                Some(sum) => {
                    for (sum, metric) in sum.metrics.iter_mut().zip(&series.metrics) {
                        sum.add(metric);
                    }
                }
                None => {
                    merged.insert(labels.clone(), Series { labels, ..series });
                }
            }
        }
        self.series = merged.into_values().collect();
    }
}
