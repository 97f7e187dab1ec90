//! What the agent recorded at one point between two readings of its status.

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::agent::Agent;

/// Two readings of one point.
#[derive(Clone, Debug)]
pub struct Interval {
    before: Value,
    after: Value,
}

impl Interval {
    /// From a reading `before` of a point to now.
    ///
    /// # Errors
    /// No answer.
    pub fn since(before: Value, agent: &Agent) -> Result<Self> {
        let name = before["point"].as_str().context("no name in the point")?;
        let after = agent.point(name)?;
        Ok(Self { before, after })
    }

    /// By how much a counter grew.
    ///
    /// # Errors
    /// There is no such counter.
    pub fn gained(&self, counter: &str) -> Result<u64> {
        let of = |point: &Value| {
            let count = point[counter].as_u64();
            count.with_context(|| format!("no {counter} in {point}"))
        };
        of(&self.after)?
            .checked_sub(of(&self.before)?)
            .with_context(|| format!("{counter} went backwards"))
    }

    /// The errors of the waits in between: `(lower edge of the bucket in ns, count)`, ascending.
    ///
    /// # Errors
    /// The status has no such buckets.
    pub fn errors(&self) -> Result<Vec<(u64, u64)>> {
        let before = buckets(&self.before)?;
        let count_before = |edge: u64| {
            let found = before.iter().find(|(lower, _)| *lower == edge);
            found.map_or(0, |(_, count)| *count)
        };
        Ok(buckets(&self.after)?
            .into_iter()
            .map(|(edge, count)| (edge, count.saturating_sub(count_before(edge))))
            .filter(|(_, count)| *count > 0)
            .collect())
    }

    /// What the `q`-quantile of the errors is at most (ns).
    ///
    /// # Errors
    /// Nothing waited.
    pub fn error_quantile(&self, q: f64) -> Result<u64> {
        quantile(&self.errors()?, q)
    }

    /// The mean error (ns), and the same without the one worst wait: a machine that stands still for a
    /// while does so within one wait.
    ///
    /// # Errors
    /// Fewer than two waits.
    pub fn mean_error_ns(&self) -> Result<(f64, f64)> {
        let waits = self.gained("delayed")?;
        ensure!(waits >= 2, "{waits} waits have no mean");
        let all = self.gained("achieved_ns")? as f64 - self.gained("requested_ns")? as f64;
        // The lower edge: rather too little is taken off than too much.
        let worst = self.errors()?.last().map_or(0, |(lower, _)| *lower) as f64;
        Ok((all / waits as f64, (all - worst) / (waits - 1) as f64))
    }
}

fn buckets(point: &Value) -> Result<Vec<(u64, u64)>> {
    let pairs = point["error_ns"]["buckets"].clone();
    serde_json::from_value(pairs).with_context(|| format!("failed to read the errors of {point}"))
}

/// The largest value of the bucket that holds the quantile, by nearest rank.
fn quantile(buckets: &[(u64, u64)], q: f64) -> Result<u64> {
    let total: u64 = buckets.iter().map(|(_, count)| count).sum();
    ensure!(total > 0, "nothing waited");
    let rank = (total as f64 * q).ceil() as u64;
    let mut seen = 0;
    let found = buckets.iter().find(|(_, count)| {
        seen += count;
        seen >= rank
    });
    let (lower, _) = found.or(buckets.last()).context("no buckets")?;
    // Eight buckets to a power of two, each as wide as an eighth of that power; below 8 each value has its own.
    Ok(match lower.checked_ilog2() {
        Some(power) if power >= 3 => lower + (1 << (power - 3)) - 1,
        _ => *lower,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point(delayed: u64, achieved: u64, buckets: &[(u64, u64)]) -> Value {
        serde_json::json!({"point": "vfs.read", "delayed": delayed, "requested_ns": delayed * 1_000,
            "achieved_ns": achieved, "error_ns": {"buckets": buckets}})
    }

    #[test]
    fn only_what_came_in_between_counts() {
        let interval = Interval {
            before: point(1, 6_000, &[(5_120, 1)]),
            after: point(4, 11_200, &[(16, 1), (104, 1), (2_048, 1), (5_120, 1)]),
        };
        assert_eq!(interval.gained("delayed").unwrap(), 3);
        assert_eq!(interval.errors().unwrap(), [(16, 1), (104, 1), (2_048, 1)]);
        assert_eq!(interval.error_quantile(0.5).unwrap(), 111);
        let (mean, without_worst) = interval.mean_error_ns().unwrap();
        assert!((mean - 2_200.0 / 3.0).abs() < 0.1, "{mean}");
        assert!((without_worst - 76.0).abs() < 0.1, "{without_worst}");
    }

    #[test]
    fn a_quantile_is_the_upper_edge_of_its_bucket() {
        assert_eq!(quantile(&[(3, 9), (8, 1)], 0.5).unwrap(), 3);
        assert_eq!(quantile(&[(3, 9), (8, 1)], 0.99).unwrap(), 8);
        assert_eq!(quantile(&[(16, 1)], 0.99).unwrap(), 17);
        assert!(quantile(&[], 0.5).is_err());
    }
}
