//! What was asked for: a rule, as the command line reads it, the socket carries it and `rules` shows it.

use std::path::PathBuf;

use agent_common::{
    pod::MAX_DELAY_NS,
    rules::{ALWAYS, WHOLE},
};
use serde::{Deserialize, Serialize};

/// Longest name of a rule.
pub const NAME_LENGTH: usize = 32;

/// A rule. All times in ns.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Spec {
    /// Unique among the rules in force; of letters, digits, `-`, `_` and `.`.
    pub name: String,
    /// Names of the catalogue, or `fn:NAME`, which may be a glob. Never empty.
    pub points: Vec<String>,
    pub delay: Delay,
    #[serde(default)]
    pub filters: Filters,
    /// Of 2^32 matching hits so many are delayed.
    #[serde(default = "always")]
    pub chance: u64,
    /// Each so manieth matching hit is delayed.
    #[serde(default = "one")]
    pub every: u64,
    /// Ends after so long.
    #[serde(default)]
    pub for_ns: Option<u64>,
    /// Grows from 0 for so long.
    #[serde(default)]
    pub ramp_ns: Option<u64>,
    /// Ends after so many delayed hits.
    #[serde(default)]
    pub max_hits: Option<u64>,
    /// Share of each CPU's time that it may burn, of 2^16.
    #[serde(default = "whole")]
    pub cpu_budget: u64,
    /// No hit that it matches is delayed for longer, by all rules together.
    pub cap_ns: u64,
    /// What its draws are computed from.
    #[serde(default)]
    pub seed: u64,
    /// Conditions on which all rules end, as they were written: `memory.oom > 0`.
    #[serde(default)]
    pub abort_if: Vec<String>,
}

impl Spec {
    /// A rule for everybody, at each hit and without an end.
    #[must_use]
    pub fn plain(name: &str, points: &[&str], delay: Delay) -> Self {
        Self {
            name: name.into(),
            points: points.iter().map(|point| (*point).into()).collect(),
            delay,
            filters: Filters::default(),
            chance: ALWAYS,
            every: 1,
            for_ns: None,
            ramp_ns: None,
            max_hits: None,
            cpu_budget: WHOLE,
            cap_ns: MAX_DELAY_NS,
            seed: 0,
            abort_if: Vec::new(),
        }
    }
}

const fn always() -> u64 {
    ALWAYS
}

const fn one() -> u64 {
    1
}

const fn whole() -> u64 {
    WHOLE
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Delay {
    /// The same for each hit.
    Fixed { ns: u64 },
    /// Drawn from a table of `agent_common::quantiles::KNOTS` quantiles in ns, ascending.
    Drawn {
        /// How it was asked for: `normal 5ms +-1ms`, `like disk.json`.
        asked: String,
        quantiles: Vec<u64>,
    },
}

/// Whom it is for: who satisfies each filter that is not empty, by any of its values.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Filters {
    /// Thread groups: processes with all their threads.
    pub pids: Vec<u32>,
    /// Also what they will have forked since.
    pub children: bool,
    /// Names of commands, as the kernel cuts them: at most 15 bytes.
    pub comms: Vec<String>,
    /// Absolute paths of cgroup directories; sub-groups are included.
    pub cgroups: Vec<PathBuf>,
    /// Users, by number: the real one of who acts.
    pub uids: Vec<u32>,
    /// Block devices, as they were given: `vda`, `/dev/vda1`, `8:0`.
    pub devices: Vec<String>,
    /// Names of operations: those of the probe `block`.
    pub ops: Vec<String>,
    /// Sizes in bytes, both included.
    pub size: Option<(u64, u64)>,
    /// Absolute paths of directories.
    pub under: Vec<PathBuf>,
}

/// Which rule came, as the agent answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Came {
    /// No other rule of that agent ever had or gets it.
    pub id: u64,
    /// No other rule in force has it.
    pub name: String,
}

/// What came of a rule since it is in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// As [`Came::id`].
    #[serde(default)]
    pub id: u64,
    /// Without the table of quantiles, which is left empty.
    pub spec: Spec,
    pub age_ns: u64,
    /// Why it is no longer in force.
    #[serde(default)]
    pub ended: Option<String>,
    /// Time left of `for_ns`.
    pub left_ns: Option<u64>,
    /// Where it is: `vfs.read: sys_enter (tp)`.
    pub hooks: Vec<String>,
    pub counts: Counts,
    /// What was asked of each hit: exact from the spec.
    pub asked: Percentiles,
    /// What the hits waited, by the kernel's clock.
    pub achieved: Percentiles,
    /// The same as a histogram: lower edge of the bucket (ns), and how many hits waited so long; none of them 0.
    #[serde(default)]
    pub achieved_buckets: Vec<(u64, u64)>,
}

/// As `agent_common::rules::Tally`, over all CPUs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    pub matches: u64,
    pub hits: u64,
    pub spared: u64,
    pub ended: u64,
    pub lease: u64,
    pub budget: u64,
    pub row: u64,
    pub exempt: u64,
    pub capped: u64,
    pub short: u64,
    /// Runs that the kernel skipped of the programs at its points since the rule came, each program counted once. A
    /// program is counted as a whole: `tp` has one for all VFS points, and all `fn:` share one; whether the rule would
    /// have matched is not known.
    pub missed: u64,
    /// Since the rule came: children that were to belong to it and found no place, and requests whose submitter found
    /// none. Of all rules that need such places; what these did matched none.
    #[serde(default)]
    pub untracked: u64,
    pub asked_ns: u64,
    pub achieved_ns: u64,
}

/// Of a distribution, in ns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Percentiles {
    pub mean: u64,
    pub p50: u64,
    pub p99: u64,
    #[serde(rename = "p99.9")]
    pub p999: u64,
}
