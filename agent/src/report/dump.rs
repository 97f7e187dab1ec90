//! What a measuring probe recorded: shared by the agent, which fills it, and by `hist`, which prints it.

use std::collections::BTreeMap;

use agent_common::{
    bucket,
    probes::{Loss, Probe, Unit},
};
use serde::{Deserialize, Serialize};

use super::{
    SCHEMA, quantile_of,
    tasks::{self, Task},
};
use crate::kernel::Counts;

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

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Metric {
    pub metric: String,
    /// `ns`, `bytes` or `count`; of the last, only the number of values means anything.
    pub unit: String,
    pub count: u64,
    pub sum: u64,
    pub mean: f64,
    /// Upper edge of the bucket that holds the quantile (nearest rank), at most `max`; of sizes the lower
    /// edge.
    pub p50: u64,
    pub p90: u64,
    pub p99: u64,
    #[serde(rename = "p99.9")]
    pub p999: u64,
    /// Exact since the probe was loaded; of an interval, the upper edge of its last bucket if that is less.
    pub max: u64,
    /// `[lower edge, count]` of each bucket that is not empty; a bucket is at most 12.5 % wide.
    pub buckets: Vec<(u64, u64)>,
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

    fn since(&self, before: &Self) -> Self {
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

impl Metric {
    /// From what the kernel side counted.
    #[must_use]
    pub fn new(name: &str, unit: Unit, counts: &Counts) -> Self {
        let buckets = counts
            .buckets
            .iter()
            .map(|(index, count)| (bucket::lower(*index), *count))
            .collect();
        let unit = match unit {
            Unit::Nanoseconds => "ns",
            Unit::Bytes => "bytes",
            Unit::Count => "count",
        };
        Self::from_buckets(name, unit, counts.sum, counts.max, buckets)
    }

    fn from_buckets(name: &str, unit: &str, sum: u64, max: u64, buckets: Vec<(u64, u64)>) -> Self {
        let count: u64 = buckets.iter().map(|(_, count)| count).sum();
        let of = |q| {
            let indexed = buckets
                .iter()
                .map(|(lower, count)| (bucket::index(*lower), *count));
            let edge = quantile_of(indexed, count, q);
            if unit == "bytes" {
                // Sizes are mostly powers of two, which are lower edges.
                return bucket::lower(bucket::index(edge));
            }
            edge.min(max)
        };
        Self {
            metric: name.into(),
            unit: unit.into(),
            count,
            sum,
            mean: if count == 0 {
                0.0
            } else {
                sum as f64 / count as f64
            },
            p50: of(0.5),
            p90: of(0.9),
            p99: of(0.99),
            p999: of(0.999),
            max,
            buckets,
        }
    }

    fn since(&self, before: &Self) -> Self {
        let earlier: BTreeMap<u64, u64> = before.buckets.iter().copied().collect();
        let buckets: Vec<(u64, u64)> = self
            .buckets
            .iter()
            .map(|(lower, count)| {
                let earlier = earlier.get(lower).copied().unwrap_or(0);
                (*lower, count.saturating_sub(earlier))
            })
            .filter(|(_, count)| *count > 0)
            .collect();
        let edge = buckets
            .last()
            .map_or(0, |(lower, _)| bucket::last(bucket::index(*lower)));
        let sum = self.sum.wrapping_sub(before.sum);
        Self::from_buckets(&self.metric, &self.unit, sum, self.max.min(edge), buckets)
    }

    /// Adds another series' histogram.
    fn add(&mut self, other: &Self) {
        let mut buckets: BTreeMap<u64, u64> = self.buckets.iter().copied().collect();
        for (lower, count) in &other.buckets {
            *buckets.entry(*lower).or_default() += count;
        }
        *self = Self::from_buckets(
            &self.metric,
            &self.unit,
            self.sum.wrapping_add(other.sum),
            self.max.max(other.max),
            buckets.into_iter().collect(),
        );
    }
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
            tasks: tasks::since(&self.tasks, &before.tasks),
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

#[cfg(test)]
mod tests {
    use super::*;

    fn metric(values: &[u64]) -> Metric {
        let mut buckets = BTreeMap::new();
        for value in values {
            *buckets.entry(bucket::index(*value)).or_default() += 1;
        }
        let counts = Counts {
            sum: values.iter().sum(),
            max: values.iter().copied().max().unwrap_or(0),
            buckets: buckets.into_iter().collect(),
        };
        Metric::new("total", Unit::Nanoseconds, &counts)
    }

    type Example<'a> = (&'a [(&'a str, &'a str)], &'a [u64]);

    fn dump(series: &[Example<'_>]) -> Dump {
        let probe = agent_common::probes::PROBES[0];
        let mut dump = Dump::new(probe, 0, 10, Ledger::default());
        dump.series = series
            .iter()
            .map(|(labels, values)| Series {
                labels: labels
                    .iter()
                    .map(|(key, value)| ((*key).into(), (*value).into()))
                    .collect(),
                metrics: vec![metric(values)],
            })
            .collect();
        dump
    }

    #[test]
    fn an_interval_holds_what_came_after_its_start_and_no_more() {
        let before = dump(&[(&[("op", "read")], &[10, 1_000_000])]);
        let now = dump(&[
            (&[("op", "read")], &[10, 10, 30, 1_000_000]),
            (&[("op", "write")], &[7]),
        ]);
        let interval = now.since(&before);
        assert_eq!(interval.series.len(), 2);
        let reads = &interval.series[0].metrics[0];
        assert_eq!((reads.count, reads.sum), (2, 40));
        assert_eq!(reads.max, bucket::last(bucket::index(30)));
        assert_eq!(interval.series[1].metrics[0].count, 1);
        assert!(now.since(&now).series.is_empty());
    }

    #[test]
    fn selecting_filters_and_sums_what_is_no_longer_told_apart() {
        let mut all = dump(&[
            (&[("device", "vda"), ("op", "read")], &[1, 2]),
            (&[("device", "vdb"), ("op", "read")], &[300]),
            (&[("device", "vdb"), ("op", "write")], &[5]),
        ]);
        all.select(&[("op".into(), "read".into())], &["op"]);
        assert_eq!(all.series.len(), 1);
        let sum = &all.series[0].metrics[0];
        assert_eq!((sum.count, sum.sum, sum.max), (3, 303, 300));
    }

    #[test]
    fn any_loss_and_any_missing_part_make_it_incomplete() {
        let probe = agent_common::probes::PROBES[0];
        let whole = Dump::new(probe, 0, 1, Ledger::default());
        assert!(whole.complete);
        let lossy = Ledger {
            missed: 1,
            ..Ledger::default()
        };
        assert!(!Dump::new(probe, 0, 1, lossy).complete);
        let mut lacking = whole;
        lacking.lacks("sizes", "no");
        assert!(!lacking.complete && !lacking.since(&lacking).complete);
    }
}
