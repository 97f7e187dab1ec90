//! Recorded distributions, which `--like` and `imitate` read and `record` writes.
//!
//! A profile is one JSON document:
//! ```json
//! {"schema":1,"kind":"iolag-profile","name":"block.vda.read","source":"where the figures are from",
//!  "unit":"ns","count":3,"buckets":[[80000,88000,2],[88000,96000,1]]}
//! ```
//! `buckets` holds `[lower edge, upper edge, count]`, edges in ns, the upper one not included, ascending; they may
//! leave gaps, but not overlap. `count` is the sum of the counts, so that a document that was cut and mended is found
//! out. What a bucket holds is taken to be spread evenly over it.

use std::{fs::File, io::Read as _, path::Path};

use agent_common::{bucket, pod::MAX_DELAY_NS};
use serde::{Deserialize, Serialize};

use super::curve::Curve;
use crate::{
    failure::{FAILED, Failure, USAGE},
    report::{SCHEMA, dump::Metric},
    units::{format_bytes, format_ns},
};

pub mod builtin;
#[cfg(test)]
mod figures;
#[cfg(test)]
mod tests;

/// What `kind` says.
const KIND: &str = "iolag-profile";
/// The largest file that is read (bytes). A histogram has at most 496 buckets, so a profile has some 20 KiB.
const LARGEST: u64 = 4 << 20;
/// Longest name (characters).
const NAME_LENGTH: usize = 200;
/// So many of a profile's requests may have taken longer than the longest delay (percent).
const BEYOND: f64 = 1.0;

/// A recorded distribution. Times in ns.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    schema: u32,
    kind: String,
    /// What it is of: `block.vda.read`, `hdd-7200`.
    pub name: String,
    /// Where its figures are from.
    pub source: String,
    unit: String,
    /// Sum of the buckets' counts.
    pub count: u64,
    /// `(lower edge, upper edge, count)`; the upper edge is not included.
    buckets: Vec<(u64, u64, u64)>,
}

/// What is read of a document before anything else, so that another one is told by its kind or version.
#[derive(Deserialize)]
struct Head {
    schema: Option<u32>,
    kind: Option<String>,
}

impl Profile {
    /// From buckets that ascend, in ns.
    ///
    /// # Errors
    /// They are no profile: see [`Profile::read`].
    pub fn new(name: &str, source: &str, buckets: Vec<(u64, u64, u64)>) -> Result<Self, Failure> {
        let profile = Self {
            schema: SCHEMA,
            kind: KIND.into(),
            name: name.into(),
            source: source.into(),
            unit: "ns".into(),
            count: buckets
                .iter()
                .fold(0, |sum: u64, (.., count)| sum.saturating_add(*count)),
            buckets,
        };
        match profile.fault() {
            None => Ok(profile),
            Some(fault) => Err(Failure::new(
                FAILED,
                format!("failed to make a profile: {fault}"),
            )),
        }
    }

    /// From what a probe recorded.
    ///
    /// # Errors
    /// It is of sizes or counts and not of times; nothing was recorded.
    pub fn of_metric(name: &str, source: &str, metric: &Metric) -> Result<Self, Failure> {
        if metric.unit != "ns" {
            return Err(Failure::new(
                USAGE,
                format!(
                    "--metric {}: it is of {}, not of times",
                    metric.metric, metric.unit
                ),
            )
            .hint("a profile is of a time"));
        }
        let edges = |lower: u64| {
            let last = bucket::last(bucket::index(lower));
            // Nothing is above the largest value, which is exact or the bucket's own edge.
            (lower, last.min(metric.max.max(lower)).saturating_add(1))
        };
        let buckets = metric.buckets.iter().map(|(lower, count)| {
            let (lower, upper) = edges(*lower);
            (lower, upper, *count)
        });
        Self::new(name, source, buckets.collect())
    }

    /// The profile that `flag` names: a file, or one that is built in, as `hdd-7200` or `profile:hdd-7200`.
    ///
    /// # Errors
    /// There is none, it cannot be read, or it is refused, whole: not a profile, empty, truncated, too large, not
    /// sorted. The flag and the reason are told.
    pub fn load(flag: &str, given: &str) -> Result<Self, Failure> {
        if let Some(text) = builtin::find(flag, given)? {
            return Self::read(flag, given, text.as_bytes());
        }
        let failed = |error: std::io::Error| {
            let failure =
                Failure::new(USAGE, format!("{flag} {given}: failed to read it: {error}"));
            failure.hint(format!(
                "name a file that `iolag record` wrote, or one of {}",
                builtin::names().join(", ")
            ))
        };
        let path = Path::new(given);
        if !std::fs::metadata(path).map_err(failed)?.is_file() {
            return Err(refused(flag, given, "it is no regular file"));
        }
        let mut bytes = Vec::new();
        let file = File::open(path).map_err(failed)?;
        file.take(LARGEST + 1)
            .read_to_end(&mut bytes)
            .map_err(failed)?;
        Self::read(flag, given, &bytes)
    }

    /// Reads a document; `flag` and `given` are what the user wrote.
    ///
    /// # Errors
    /// It is refused: see [`Profile::load`].
    pub fn read(flag: &str, given: &str, bytes: &[u8]) -> Result<Self, Failure> {
        let refuse = |why: &str| refused(flag, given, why);
        if bytes.len() as u64 > LARGEST {
            return Err(refuse(&format!(
                "it is larger than {}",
                format_bytes(LARGEST)
            )));
        }
        if bytes.iter().all(u8::is_ascii_whitespace) {
            return Err(refuse("it is empty"));
        }
        let unreadable = |error: serde_json::Error| {
            refuse(&match error.classify() {
                serde_json::error::Category::Eof => format!("it is truncated: {error}"),
                serde_json::error::Category::Data => format!("it is no profile: {error}"),
                _ => format!("it is not JSON: {error}"),
            })
        };
        let head: Head = serde_json::from_slice(bytes).map_err(unreadable)?;
        if head.kind.as_deref() != Some(KIND) {
            return Err(refuse(&format!(
                "it is no profile: \"kind\" must be \"{KIND}\""
            )));
        }
        if head.schema != Some(SCHEMA) {
            return Err(refuse(&format!("\"schema\" must be {SCHEMA}")));
        }
        let profile: Self = serde_json::from_slice(bytes).map_err(unreadable)?;
        match profile.fault() {
            None => Ok(profile),
            Some(fault) => Err(refuse(&fault)),
        }
    }

    /// What is wrong with it.
    fn fault(&self) -> Option<String> {
        if self.unit != "ns" {
            return Some(format!("\"unit\" is {:?} and must be \"ns\"", self.unit));
        }
        if self.name.is_empty() || self.name.chars().count() > NAME_LENGTH {
            return Some(format!("\"name\" must have 1 to {NAME_LENGTH} characters"));
        }
        if self.name.chars().any(char::is_control) {
            return Some("\"name\" has a control character".into());
        }
        let mut end = 0;
        let mut sum: u64 = 0;
        for (place, (lower, upper, count)) in self.buckets.iter().enumerate() {
            if lower >= upper {
                return Some(format!(
                    "bucket {place} ends at {upper}, before its start at {lower}"
                ));
            }
            if *lower < end {
                return Some(format!(
                    "it is not sorted: bucket {place} starts at {lower}, the one before it ends at {end}"
                ));
            }
            end = *upper;
            match sum.checked_add(*count) {
                Some(more) => sum = more,
                None => return Some("its counts add up to more than 2^64".into()),
            }
        }
        if sum == 0 {
            return Some("it is empty: no bucket has a count".into());
        }
        if sum != self.count {
            return Some(format!(
                "it is truncated: \"count\" is {}, the buckets hold {sum}",
                self.count
            ));
        }
        None
    }

    #[must_use]
    pub fn curve(&self) -> Curve {
        Curve::of_buckets(&self.buckets)
    }

    /// The table from which the kernel side draws: `KNOTS` values in ns. What is above `cap_ns` becomes the cap, and
    /// a warning.
    ///
    /// # Errors
    /// As [`Profile::check`].
    pub fn quantiles(&self, flag: &str, cap_ns: u64) -> Result<Vec<u64>, Failure> {
        self.check(flag, cap_ns)?;
        Ok(self.curve().table(cap_ns))
    }

    /// Whether delays can be as long as it says; warns if few of them are cut to `cap_ns`.
    ///
    /// # Errors
    /// More than one in a hundred were above 1 s, which no delay may last.
    pub fn check(&self, flag: &str, cap_ns: u64) -> Result<(), Failure> {
        let above = |ns: u64| (1.0 - self.curve().share(ns as f64)) * 100.0;
        let beyond = above(MAX_DELAY_NS);
        if beyond > BEYOND {
            return Err(Failure::new(
                USAGE,
                format!(
                    "{flag}: {beyond:.1} % of {} took longer than 1 s, the longest that iolag waits",
                    self.name
                ),
            )
            .hint("record something faster"));
        }
        let cut = above(cap_ns);
        if cut > 0.0 {
            log::warn!(
                "{flag}: {cut:.2} % of {} took longer than {}; their delays are cut to that",
                self.name,
                format_ns(cap_ns)
            );
        }
        Ok(())
    }

    /// As a document of one line.
    #[must_use]
    pub fn document(&self) -> String {
        // Strings and integers only: there is nothing that could fail.
        let document = serde_json::to_string(self).expect("a profile is plain data");
        format!("{document}\n")
    }
}

fn refused(flag: &str, given: &str, why: &str) -> Failure {
    Failure::new(USAGE, format!("{flag} {given}: {why}"))
        .hint("iolag record PROBE.SERIES --for 30s -o FILE writes a profile")
}
