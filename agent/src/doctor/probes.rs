//! Checks of the probes that measure: each is loaded as the agent does it, and unloaded at once.

use agent_common::probes::{PROBES, Probe};

use super::delay::FUNCTION;
use crate::{
    failure::Failure,
    host::Facts,
    kernel::{HostTypes, MeasureProbe},
    measure::{Measurement, Target, default_fields, in_order},
    report::doctor::{
        Check, Group,
        Status::{self, Skip, Warn},
    },
};

/// What came of a probe.
#[derive(Debug)]
pub enum Came {
    Loaded(Vec<Part>),
    Refused(Failure),
    /// It would take so many bytes, and these are all that there are.
    TooLarge(u64, u64),
}

/// A part of a probe: the backend that it took, or why it has none.
#[derive(Debug)]
pub struct Part {
    pub measures: &'static str,
    pub backend: Result<&'static str, String>,
}

/// Memory that a probe's histograms take (bytes).
#[must_use]
pub fn memory(probe: &Probe) -> u64 {
    MeasureProbe::memory(probe).unwrap_or_default() as u64
}

/// Tries all, one after the other, so that no two of them hold memory at a time.
///
/// # Errors
/// The kernel's types cannot be read, so nothing was.
pub fn attempt(
    facts: &Facts,
    available: Option<u64>,
) -> Result<Vec<(&'static Probe, Came)>, Failure> {
    let types = HostTypes::read(facts)?;
    let try_out = |probe: &'static Probe| {
        let (wanted, available) = (memory(probe), available.unwrap_or(u64::MAX));
        if available < 2 * wanted {
            return Came::TooLarge(wanted, available);
        }
        let function = probe.takes_function().then(|| FUNCTION.to_owned());
        let target = Target { probe, function };
        let fields = in_order(&default_fields(probe));
        match Measurement::start(&target, &fields, &types, None) {
            Ok(measurement) => Came::Loaded(parts(&measurement)),
            Err(failure) => Came::Refused(failure),
        }
    };
    let came = PROBES
        .iter()
        .map(|probe| (*probe, try_out(probe)))
        .collect();
    types.free();
    Ok(came)
}

fn parts(measurement: &Measurement) -> Vec<Part> {
    let parts = measurement.probe().parts.iter();
    parts
        .map(|part| Part {
            measures: part.measures,
            backend: match &part.attached {
                Ok(attached) => Ok(attached.backend),
                Err(why) => Err(why.clone()),
            },
        })
        .collect()
}

/// A row for each probe.
#[must_use]
pub fn checks(came: &[(&'static Probe, Came)]) -> Vec<Check> {
    came.iter()
        .map(|(probe, came)| of_probe(probe, came))
        .collect()
}

/// The same rows where nothing was tried.
#[must_use]
pub fn not_tried(status: Status, why: &str, remedy: Option<&str>) -> Vec<Check> {
    let skipped = PROBES.iter().map(|probe| {
        let check = check(probe, status, "not tried").because(why);
        match remedy {
            Some(remedy) => check.remedy(remedy),
            None => check,
        }
    });
    skipped.collect()
}

fn check(probe: &Probe, status: Status, value: impl Into<String>) -> Check {
    Check::new(
        Group::Probes,
        format!("probe.{}", probe.name),
        status,
        value,
    )
}

fn of_probe(probe: &Probe, came: &Came) -> Check {
    let parts = match came {
        Came::Loaded(parts) => parts,
        Came::Refused(failure) => {
            return check(probe, Warn, "none").because(&failure.message).remedy(
                "a kernel that allows one of its backends; the other probes do not need it",
            );
        }
        Came::TooLarge(wanted, available) => {
            return check(probe, Skip, "not tried").because(format!(
                "it takes {} MiB, and {} MiB are available",
                wanted >> 20,
                available >> 20
            ));
        }
    };
    let mut backends: Vec<&str> = parts
        .iter()
        .filter_map(|part| part.backend.as_ref().ok().copied())
        .collect();
    backends.dedup();
    let value = backends.join(", ");
    let lacks = |part: &Part| {
        let why = part.backend.as_ref().err()?;
        Some(format!("no {}: {why}", part.measures))
    };
    let lacking: Vec<String> = parts.iter().filter_map(lacks).collect();
    if lacking.is_empty() {
        return check(probe, Status::Ok, value);
    }
    check(probe, Warn, format!("{value}, not all of it"))
        .because(lacking.join("; "))
        .remedy("a kernel that allows what was refused; the rest of the probe measures as ever")
}

#[cfg(test)]
mod tests {
    use agent_common::probes::probe;

    use super::*;

    fn has(check: &Check, status: Status, words: &[&str]) {
        let text = format!("{check:?}");
        assert_eq!(check.status, status, "{text}");
        for word in words {
            assert!(text.contains(word), "no {word} in {text}");
        }
    }

    fn part(measures: &'static str, backend: Result<&'static str, &str>) -> Part {
        Part {
            measures,
            backend: backend.map_err(Into::into),
        }
    }

    #[test]
    fn a_probe_is_what_its_parts_are() {
        let of = |came| of_probe(probe("memory").unwrap(), &came);
        let all = vec![part("kills", Ok("tp")), part("faults", Ok("tp"))];
        has(&of(Came::Loaded(all)), Status::Ok, &["\"tp\""]);
        let some = vec![part("kills", Ok("tp")), part("limits", Err("fentry: no"))];
        has(
            &of(Came::Loaded(some)),
            Warn,
            &["no limits: fentry: no", "not all"],
        );
        let failure = Failure::new(3, "failed to load the probe memory: no");
        has(&of(Came::Refused(failure)), Warn, &["failed to load"]);
        has(
            &of(Came::TooLarge(32 << 20, 40 << 20)),
            Skip,
            &["32 MiB", "40 MiB"],
        );
    }

    #[test]
    fn every_probe_has_a_row_in_any_case() {
        assert_eq!(not_tried(Skip, "why", None).len(), PROBES.len());
        assert!(PROBES.iter().all(|probe| memory(probe) > 1 << 20));
    }
}
