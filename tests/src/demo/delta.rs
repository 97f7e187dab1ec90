//! What the kernel recorded between two looks at a point.

use agent_common::bucket;
use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The difference of two `status` reads of one point. Times in ns.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delta {
    pub hits: u64,
    pub delayed: u64,
    pub achieved_ns: u64,
    pub cpu_ns: u64,
    /// Upper edge of the bucket that holds the median of achieved - requested, at most 12.5 % above it;
    /// 0 if nothing waited.
    pub error_p50_ns: u64,
}

impl Delta {
    /// # Errors
    /// A number is missing in the status.
    pub fn between(before: &Value, after: &Value) -> Result<Self> {
        let difference = |name| -> Result<u64> {
            Ok(number(after, name)?.saturating_sub(number(before, name)?))
        };
        Ok(Self {
            hits: difference("hits")?,
            delayed: difference("delayed")?,
            achieved_ns: difference("achieved_ns")?,
            cpu_ns: difference("cpu_ns")?,
            error_p50_ns: median_error(&buckets(before)?, &buckets(after)?),
        })
    }

    /// Mean wait of the hits that waited, in ns.
    #[must_use]
    pub fn mean_achieved_ns(&self) -> u64 {
        self.achieved_ns.checked_div(self.delayed).unwrap_or(0)
    }
}

fn number(point: &Value, name: &'static str) -> Result<u64> {
    point[name]
        .as_u64()
        .with_context(|| format!("failed to read {name} in the status"))
}

/// `(lower edge in ns, count)` of the error histogram, by edge.
fn buckets(point: &Value) -> Result<Vec<(u64, u64)>> {
    serde_json::from_value(point["error_ns"]["buckets"].clone())
        .context("failed to read the error histogram in the status")
}

fn median_error(before: &[(u64, u64)], after: &[(u64, u64)]) -> u64 {
    let earlier = |edge| {
        before
            .iter()
            .find(|(lower, _)| *lower == edge)
            .map_or(0, |(_, count)| *count)
    };
    let counts: Vec<(u64, u64)> = after
        .iter()
        .map(|(edge, count)| (*edge, count.saturating_sub(earlier(*edge))))
        .collect();
    let total: u64 = counts.iter().map(|(_, count)| count).sum();
    let mut seen = 0;
    for (edge, count) in counts {
        seen += count;
        if count > 0 && seen * 2 >= total {
            return bucket::last(bucket::index(edge));
        }
    }
    0
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn point(hits: u64, achieved: u64, buckets: &[(u64, u64)]) -> Value {
        json!({"hits": hits, "delayed": hits, "achieved_ns": achieved, "cpu_ns": achieved,
               "error_ns": {"buckets": buckets}})
    }

    #[test]
    fn what_was_there_before_does_not_count() {
        // 1000 errors of 0 ns from before would drag the median down.
        let before = point(1_000, 5_000, &[(0, 1_000)]);
        let after = point(1_003, 5_330, &[(0, 1_001), (64, 2)]);
        let delta = Delta::between(&before, &after).unwrap();
        assert_eq!((delta.hits, delta.delayed, delta.cpu_ns), (3, 3, 330));
        assert_eq!(delta.mean_achieved_ns(), 110);
        assert_eq!(delta.error_p50_ns, bucket::last(bucket::index(64)));
    }

    #[test]
    fn nothing_between_is_nothing() {
        let point = point(7, 70, &[(8, 7)]);
        let delta = Delta::between(&point, &point).unwrap();
        assert_eq!((delta.mean_achieved_ns(), delta.error_p50_ns), (0, 0));
    }

    #[test]
    fn a_missing_number_is_named() {
        let error = Delta::between(&json!({}), &json!({})).unwrap_err();
        assert_eq!(error.to_string(), "failed to read hits in the status");
    }
}
