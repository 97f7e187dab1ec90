//! What `iolag rules --format json` says came of a rule.

use agent_common::bucket;
use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::agent::Agent;

/// Of one rule, in force or ended.
#[derive(Clone, Debug)]
pub struct Outcome(pub Value);

impl Agent {
    /// `iolag rules`: all in force, then those that ended.
    ///
    /// # Errors
    /// No answer, or not JSON.
    pub fn rules(&self) -> Result<Vec<Outcome>> {
        let text = self.call(&["rules", "--format", "json"])?;
        let document: Value = serde_json::from_str(&text).context("failed to read the rules")?;
        let rules = document["rules"].as_array().context("no rules")?;
        Ok(rules.iter().cloned().map(Outcome).collect())
    }

    /// The rule of that name: the one in force, or else the last that ended.
    ///
    /// # Errors
    /// No answer, or there is none.
    pub fn rule(&self, name: &str) -> Result<Outcome> {
        let rules = self.rules()?;
        let named = || rules.iter().filter(|rule| rule.0["spec"]["name"] == name);
        let found = named().find(|rule| rule.ended().is_none());
        let found = found.or_else(|| named().next_back());
        found.cloned().with_context(|| format!("no rule {name}"))
    }

    /// Puts a rule in force, and ends it with what came of it.
    ///
    /// # Errors
    /// The agent refuses, or `work` fails.
    pub fn ruled(&self, inject: &[&str], work: impl FnOnce() -> Result<()>) -> Result<Outcome> {
        let all = [&["inject"], inject].concat();
        let name = self.call(&all)?;
        let name = name.trim();
        work()?;
        self.call(&["remove", name])?;
        self.rule(name)
    }
}

impl Outcome {
    /// Why it ended; none while it is in force.
    #[must_use]
    pub fn ended(&self) -> Option<&str> {
        self.0["ended"].as_str()
    }

    /// One of its counts.
    ///
    /// # Panics
    /// There is no such count.
    #[must_use]
    pub fn count(&self, name: &str) -> u64 {
        let count = self.0["counts"][name].as_u64();
        count.unwrap_or_else(|| panic!("no count {name} in {}", self.0))
    }

    /// What its hits waited.
    ///
    /// # Errors
    /// There is no such histogram.
    pub fn achieved(&self) -> Result<Waits> {
        let buckets = self.0["achieved_buckets"].clone();
        let buckets: Vec<(u64, u64)> = serde_json::from_value(buckets)
            .with_context(|| format!("failed to read the buckets of {}", self.0))?;
        let edges = |(lower, count): (u64, u64)| {
            let upper = bucket::last(bucket::index(lower)) + 1;
            (lower, upper, count)
        };
        Waits::new(buckets.into_iter().map(edges).collect())
    }
}

/// A histogram: `(lower edge, upper edge, count)` in ns, ascending; the upper edge is not included.
#[derive(Clone, Debug)]
pub struct Waits {
    buckets: Vec<(u64, u64, u64)>,
    pub total: u64,
}

impl Waits {
    /// # Errors
    /// There is nothing in them.
    pub fn new(buckets: Vec<(u64, u64, u64)>) -> Result<Self> {
        let total = buckets.iter().map(|(.., count)| count).sum();
        ensure!(total > 0, "nothing waited");
        Ok(Self { buckets, total })
    }

    /// The largest difference of the shares below any edge, of what was waited and by `share` (of what is less than
    /// so many ns): Kolmogorov's distance as far as buckets show it.
    #[must_use]
    pub fn kolmogorov(&self, share: impl Fn(f64) -> f64) -> f64 {
        let mut seen = 0;
        let mut largest: f64 = 0.0;
        for (lower, upper, count) in &self.buckets {
            let below = seen as f64 / self.total as f64;
            seen += count;
            let up_to = seen as f64 / self.total as f64;
            largest = largest
                .max((share(*lower as f64) - below).abs())
                .max((share(*upper as f64) - up_to).abs());
        }
        largest
    }

    /// Where the share `p` is reached (ns), taking a bucket's waits to be spread evenly.
    #[must_use]
    pub fn quantile(&self, p: f64) -> f64 {
        let wanted = p * self.total as f64;
        let mut seen = 0.0;
        for (lower, upper, count) in &self.buckets {
            let count = *count as f64;
            if seen + count >= wanted {
                return *lower as f64 + (upper - lower) as f64 * (wanted - seen) / count;
            }
            seen += count;
        }
        self.buckets
            .last()
            .map_or(0.0, |(_, upper, _)| *upper as f64)
    }

    /// The share below `value` (ns), within the bucket that it is in.
    #[must_use]
    pub fn share_below(&self, value: f64) -> f64 {
        let below = |(lower, upper, count): &(u64, u64, u64)| {
            let part = (value - *lower as f64) / (upper - lower) as f64;
            *count as f64 * part.clamp(0.0, 1.0)
        };
        self.buckets.iter().map(below).sum::<f64>() / self.total as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_are_compared_at_the_edges_of_their_buckets() {
        let waits = Waits::new(vec![(0, 100, 1), (100, 200, 3)]).unwrap();
        assert_eq!(waits.kolmogorov(|ns| (ns / 200.0).clamp(0.0, 1.0)), 0.25);
        assert_eq!(waits.kolmogorov(|ns| waits.share_below(ns)), 0.0);
        assert!((waits.quantile(0.25) - 100.0).abs() < 1e-9);
        assert!((waits.quantile(0.625) - 150.0).abs() < 1e-9);
        assert_eq!(waits.share_below(150.0), 0.625);
        assert!(Waits::new(vec![]).is_err());
    }
}
