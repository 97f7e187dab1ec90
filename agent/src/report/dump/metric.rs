//! A histogram of a series, with the figures that it tells.

use std::collections::BTreeMap;

use agent_common::{bucket, probes::Unit};
use serde::{Deserialize, Serialize};

use crate::{kernel::Counts, report::quantile_of};

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

    pub(super) fn since(&self, before: &Self) -> Self {
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
    pub(super) fn add(&mut self, other: &Self) {
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
