//! What `doctor` found: its document, and the shape of a check.

use serde::{Deserialize, Serialize};

use super::SCHEMA;
use crate::plan::Refusal;

/// The document of `doctor --format json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Diagnosis {
    pub schema: u32,
    /// Of the program that looked.
    pub version: String,
    /// Whether reads, writes, opens and requests of block devices can be delayed here.
    pub main_job: bool,
    pub counts: Counts,
    /// The whole in a sentence.
    pub summary: String,
    pub checks: Vec<Check>,
}

/// How many checks came to each [`Status`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    pub ok: usize,
    pub warn: usize,
    pub fail: usize,
    pub skip: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    Ok,
    /// The main job does not depend on it, but something is lost, or worth to be known.
    Warn,
    /// The main job cannot run because of it.
    Fail,
    /// Not tried, or not to be seen.
    Skip,
}

/// What a check is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Group {
    Host,
    Privileges,
    /// The probe `delay`.
    Delay,
    /// The probes that measure.
    Probes,
    /// Whatever else traces or delays.
    Tools,
}

impl Group {
    /// Its title for people.
    #[must_use]
    pub const fn title(self) -> &'static str {
        match self {
            Self::Host => "host",
            Self::Privileges => "privileges",
            Self::Delay => "delay",
            Self::Probes => "probes",
            Self::Tools => "other tools",
        }
    }
}

/// One check: a row.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    pub group: Group,
    /// No other check's.
    pub name: String,
    pub status: Status,
    /// What was found.
    pub value: String,
    /// Why the status is what it is.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub reason: Option<String>,
    /// The way out, where there is one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub remedy: Option<String>,
    /// Of a point: each thing that was refused.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub refused: Vec<Refusal>,
}

impl Check {
    /// A check with nothing to explain yet.
    pub fn new(
        group: Group,
        name: impl Into<String>,
        status: Status,
        value: impl Into<String>,
    ) -> Self {
        Self {
            group,
            name: name.into(),
            status,
            value: value.into(),
            reason: None,
            remedy: None,
            refused: Vec::new(),
        }
    }

    #[must_use]
    pub fn because(mut self, reason: impl Into<String>) -> Self {
        self.reason = Some(reason.into());
        self
    }

    #[must_use]
    pub fn remedy(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = Some(remedy.into());
        self
    }
}

impl Diagnosis {
    /// Counts the checks.
    #[must_use]
    pub fn new(checks: Vec<Check>, main_job: bool, summary: String) -> Self {
        let count = |status| checks.iter().filter(|check| check.status == status).count();
        Self {
            schema: SCHEMA,
            version: env!("CARGO_PKG_VERSION").into(),
            main_job,
            counts: Counts {
                ok: count(Status::Ok),
                warn: count(Status::Warn),
                fail: count(Status::Fail),
                skip: count(Status::Skip),
            },
            summary,
            checks,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_diagnosis_is_a_document_with_its_schema() {
        let warned = Check::new(Group::Host, "btf", Status::Warn, "none")
            .because("why")
            .remedy("what to do");
        let fine = Check::new(Group::Tools, "agent", Status::Ok, "none");
        let diagnosis = Diagnosis::new(vec![warned, fine], true, "it works".into());
        assert_eq!(
            serde_json::to_value(diagnosis).unwrap(),
            serde_json::json!({
                "schema": 1,
                "version": env!("CARGO_PKG_VERSION"),
                "main_job": true,
                "counts": {"ok": 1, "warn": 1, "fail": 0, "skip": 0},
                "summary": "it works",
                "checks": [
                    {"group": "host", "name": "btf", "status": "warn", "value": "none",
                     "reason": "why", "remedy": "what to do"},
                    {"group": "tools", "name": "agent", "status": "ok", "value": "none"},
                ]
            })
        );
    }
}
