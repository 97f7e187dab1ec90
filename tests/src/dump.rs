//! Reading what `iolag hist --format json` prints.

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::agent::Agent;

/// A dump of a probe.
#[derive(Clone, Debug)]
pub struct Dump(pub Value);

impl Agent {
    /// What a loaded probe recorded since it was loaded: `iolag hist PROBE --format json ARGS`.
    ///
    /// # Errors
    /// No answer, or not JSON.
    pub fn dump(&self, probe: &str, args: &[&str]) -> Result<Dump> {
        let mut all = vec!["hist", probe, "--format", "json"];
        all.extend(args);
        let text = self.call(&all)?;
        serde_json::from_str(&text)
            .map(Dump)
            .context("failed to read the dump")
    }
}

/// One metric of the series that were selected, summed.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sum {
    pub count: u64,
    /// ns or bytes.
    pub sum: u64,
    pub max: u64,
    /// `(lower edge, count)`, ascending.
    pub buckets: Vec<(u64, u64)>,
}

impl Dump {
    /// Series that have all these labels.
    pub fn series<'a>(&'a self, labels: &[(&str, &str)]) -> Vec<&'a Value> {
        let all = self.0["series"].as_array().map_or(&[][..], Vec::as_slice);
        all.iter()
            .filter(|series| {
                labels
                    .iter()
                    .all(|(key, value)| series["labels"][key] == *value)
            })
            .collect()
    }

    /// A metric over all series that have these labels. 0 if there are none.
    #[must_use]
    pub fn sum(&self, labels: &[(&str, &str)], metric: &str) -> Sum {
        let mut total = Sum::default();
        let mut buckets = std::collections::BTreeMap::new();
        for series in self.series(labels) {
            for found in series["metrics"].as_array().into_iter().flatten() {
                if found["metric"] != metric {
                    continue;
                }
                let number = |name: &str| found[name].as_u64().unwrap_or(0);
                total.count += number("count");
                total.sum += number("sum");
                total.max = total.max.max(number("max"));
                for bucket in found["buckets"].as_array().into_iter().flatten() {
                    let edge = bucket[0].as_u64().unwrap_or(0);
                    *buckets.entry(edge).or_insert(0) += bucket[1].as_u64().unwrap_or(0);
                }
            }
        }
        total.buckets = buckets.into_iter().collect();
        total
    }

    /// An entry of the ledger.
    ///
    /// # Errors
    /// It has none of that name.
    pub fn ledger(&self, name: &str) -> Result<u64> {
        self.0["ledger"][name]
            .as_u64()
            .with_context(|| format!("no {name} in the ledger"))
    }

    /// Sum of all losses in the ledger.
    ///
    /// # Errors
    /// One of them is missing.
    pub fn losses(&self) -> Result<u64> {
        [
            "lost",
            "missed",
            "overflowed",
            "negative",
            "unmatched",
            "other",
            "events",
        ]
        .iter()
        .map(|name| self.ledger(name))
        .sum()
    }
}

impl Sum {
    /// What was recorded after `before`.
    #[must_use]
    pub fn since(&self, before: &Self) -> Self {
        let earlier: std::collections::BTreeMap<u64, u64> =
            before.buckets.iter().copied().collect();
        Self {
            count: self.count - before.count,
            sum: self.sum - before.sum,
            max: self.max,
            buckets: self
                .buckets
                .iter()
                .map(|(edge, count)| (*edge, count - earlier.get(edge).unwrap_or(&0)))
                .filter(|(_, count)| *count > 0)
                .collect(),
        }
    }

    /// `(lower edge, first value of the next bucket)` of the bucket with the `q`-quantile (nearest rank).
    #[must_use]
    pub fn quantile(&self, q: f64) -> (u64, u64) {
        let rank = ((self.count as f64 * q).ceil() as u64).max(1);
        let mut seen = 0;
        for (edge, count) in &self.buckets {
            seen += count;
            if seen >= rank {
                return (*edge, edge + width(*edge));
            }
        }
        (0, 0)
    }
}

/// Width of the bucket that begins at `edge`, by the scheme that iolag documents: 8 of equal width in each
/// power of two.
#[must_use]
pub fn width(edge: u64) -> u64 {
    if edge < 16 {
        1
    } else {
        1 << (edge.ilog2() - 3)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn series_are_summed_by_label() {
        let metric = |count: u64| {
            serde_json::json!([{"metric": "total", "count": count, "sum": count * 10,
                "max": 10, "buckets": [[10, count]]}])
        };
        let dump = Dump(serde_json::json!({"series": [
            {"labels": {"device": "vda", "op": "read"}, "metrics": metric(3)},
            {"labels": {"device": "vdb", "op": "read"}, "metrics": metric(4)},
            {"labels": {"device": "vdb", "op": "write"}, "metrics": metric(5)},
        ], "ledger": {"lost": 7}}));
        let reads = dump.sum(&[("op", "read")], "total");
        assert_eq!((reads.count, reads.sum), (7, 70));
        assert_eq!(reads.buckets, [(10, 7)]);
        assert_eq!(reads.quantile(0.5), (10, 11));
        assert_eq!(dump.sum(&[("op", "write")], "queue").count, 0);
        assert_eq!(dump.ledger("lost").unwrap(), 7);
    }

    #[test]
    fn widths_are_an_eighth_of_the_power_of_two() {
        for (edge, expected) in [
            (0, 1),
            (15, 1),
            (16, 2),
            (31, 2),
            (32, 4),
            (1 << 20, 1 << 17),
        ] {
            assert_eq!(width(edge), expected, "{edge}");
        }
    }
}
