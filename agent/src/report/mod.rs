//! What `status` reports: shared by the agent, which fills it, and the client, which prints it.
//! All times in ns.

pub mod doctor;
pub mod dump;
pub mod events;
pub mod probes;
pub mod tasks;

use agent_common::bucket;
use serde::{Deserialize, Serialize};

use crate::{
    kernel::Sample,
    plan::Refusal,
    privileges::Kept,
    rules::{
        distribution::percentiles,
        spec::{Delay, Spec},
    },
};

/// Version of every JSON document of iolag.
pub const SCHEMA: u32 = 1;

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Status {
    pub schema: u32,
    pub agent: Agent,
    pub rules: Vec<Rule>,
    pub points: Vec<Point>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Agent {
    pub version: String,
    pub pid: u32,
    pub uptime_ns: u64,
    pub socket: String,
    /// What was asked for: `auto`, or the one backend.
    pub backend: String,
    /// Delays end this long after the agent last renewed them.
    pub lease_ns: u64,
    /// What it may do to the kernel besides what any process of its user may.
    #[serde(default)]
    pub capabilities: Vec<Kept>,
}

/// A delay in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rule {
    pub name: String,
    pub points: Vec<String>,
    pub delay_ns: u64,
}

impl Rule {
    /// What `status` says of a rule: of a distribution its mean.
    #[must_use]
    pub fn of(spec: &Spec) -> Self {
        Self {
            name: spec.name.clone(),
            points: spec.points.clone(),
            delay_ns: match &spec.delay {
                Delay::Fixed { ns } => *ns,
                Delay::Drawn { quantiles, .. } => percentiles(quantiles).mean,
            },
        }
    }
}

/// What was recorded at one point since the agent started.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Point {
    pub point: String,
    /// Kernel function or tracepoint in use.
    pub symbol: String,
    pub backend: String,
    /// Times that somebody other than the agent came by.
    pub hits: u64,
    /// Hits that waited.
    pub delayed: u64,
    pub requested_ns: u64,
    pub achieved_ns: u64,
    /// CPU time that the waits burnt, at most: the wait spins, so it is all of `achieved_ns`, of which
    /// interrupts and, with fentry on a preemptible kernel, other tasks may have had a part.
    pub cpu_ns: u64,
    pub error_ns: Errors,
    /// Hits of the agent itself: never delayed, not in `hits`.
    pub exempt: u64,
    /// Hits that were not delayed because the lease had run out.
    pub lease_expired: u64,
    /// Waits cut short by the loop's bound.
    pub short: u64,
    /// Runs of the program that the kernel skipped, by its own count (`recursion_misses`): of the whole
    /// program, which with `tp` serves all VFS points. Older kernels do not count skipped kprobes.
    pub missed: u64,
    /// Backends that were preferred, and why the kernel or the host refused them.
    pub refused: Vec<Refusal>,
}

/// `achieved - requested` of the hits that waited.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Errors {
    /// Upper edge of the bucket that holds the median, at most `max`; 0 with no hits.
    pub p50: u64,
    pub p99: u64,
    /// Exact.
    pub max: u64,
    /// `[lower edge, count]` of each bucket that is not empty; a bucket is at most 12.5 % wide.
    pub buckets: Vec<(u64, u64)>,
}

impl Point {
    #[must_use]
    pub fn new(
        name: &str,
        symbol: &str,
        backend: &str,
        refused: &[Refusal],
        sample: &Sample,
    ) -> Self {
        let counters = &sample.counters;
        Self {
            point: name.into(),
            symbol: symbol.into(),
            backend: backend.into(),
            hits: counters.hits,
            delayed: counters.delayed,
            requested_ns: counters.requested_ns,
            achieved_ns: counters.achieved_ns,
            cpu_ns: counters.achieved_ns,
            error_ns: Errors::new(&sample.errors, counters.error_max_ns),
            exempt: counters.exempt,
            lease_expired: counters.lease_expired,
            short: counters.short,
            missed: sample.program.missed,
            refused: refused.to_vec(),
        }
    }
}

impl Errors {
    /// From the counts by bucket and the exact maximum.
    #[must_use]
    pub fn new(counts: &[u64], max: u64) -> Self {
        Self {
            p50: quantile(counts, 0.50).min(max),
            p99: quantile(counts, 0.99).min(max),
            max,
            buckets: (0..)
                .zip(counts)
                .filter(|(_, count)| **count > 0)
                .map(|(index, count)| (bucket::lower(index), *count))
                .collect(),
        }
    }
}

/// The upper edge of the bucket in which the `q`-quantile lies: the smallest bucket such that at
/// least `q` of all counts are in it or below (nearest rank). 0 for an empty histogram.
#[must_use]
pub fn quantile(counts: &[u64], q: f64) -> u64 {
    quantile_of((0..).zip(counts.iter().copied()), counts.iter().sum(), q)
}

/// As [`quantile`], of `(bucket, count)` in ascending order that sum up to `total`.
fn quantile_of(buckets: impl Iterator<Item = (u32, u64)>, total: u64, q: f64) -> u64 {
    let rank = ((total as f64 * q).ceil() as u64).clamp(1, total.max(1));
    let mut seen = 0;
    for (index, count) in buckets {
        seen += count;
        if seen >= rank {
            return bucket::last(index);
        }
    }
    0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::distribution::{Distribution, Shape};

    fn histogram(values: &[u64]) -> Vec<u64> {
        let mut counts = vec![0; bucket::BUCKETS];
        for value in values {
            counts[bucket::index(*value) as usize] += 1;
        }
        counts
    }

    #[test]
    fn quantiles_are_within_a_bucket_of_the_sorted_values() {
        // A known sequence with a long tail, checked against sorting it.
        let mut values: Vec<u64> = (0..10_000u64)
            .map(|i| (i * 7_919) % 10_007 + i * i / 1_000)
            .collect();
        let counts = histogram(&values);
        values.sort_unstable();
        for q in [0.5, 0.9, 0.99, 0.999] {
            let exact = values[(values.len() as f64 * q).ceil() as usize - 1];
            let ours = quantile(&counts, q);
            assert!(
                ours >= exact && ours as f64 <= exact as f64 * 1.125,
                "{q}: {ours} vs {exact}"
            );
        }
    }

    #[test]
    fn of_a_distribution_the_mean_is_told() {
        let asked = |ns| Distribution {
            shape: Shape::Lognormal,
            delay_ns: ns,
            jitter_ns: ns / 2,
            cap_ns: 1_000_000_000,
        };
        let delay = Delay::Drawn {
            asked: String::new(),
            quantiles: asked(5_000_000).quantiles().unwrap(),
        };
        let spec = Spec::plain("r", &["vfs.read"], delay);
        let mean = Rule::of(&spec).delay_ns;
        assert!((4_950_000..=5_050_000).contains(&mean), "{mean}");
    }

    #[test]
    fn an_empty_histogram_has_no_errors() {
        assert_eq!(Errors::new(&vec![0; bucket::BUCKETS], 0), Errors::default());
    }

    #[test]
    fn no_percentile_is_above_the_maximum() {
        let errors = Errors::new(&histogram(&[33, 33, 33]), 33);
        assert_eq!((errors.p50, errors.p99, errors.max), (33, 33, 33));
        assert_eq!(errors.buckets, [(32, 3)]);
    }
}
