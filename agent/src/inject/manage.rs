//! `iolag rules`, `iolag remove` and `iolag verify`.

use std::path::Path;

use clap::Args;
use serde::Serialize;

use crate::{
    control::{client::call, protocol::Command},
    failure::{FAILED, Failure, USAGE},
    measure::unknown,
    render::{self, Format},
    report::SCHEMA,
    rules::{
        check,
        spec::Outcome,
        verdict::{Verdict, WHOLE, judge},
    },
    units::parse_percent,
};

#[derive(Args, Debug)]
pub struct Rules {
    #[arg(long, default_value = "text")]
    format: Format,
}

#[derive(Args, Debug)]
pub struct Remove {
    /// Name of the rule: see `iolag rules`
    name: Option<String>,
    /// Remove all rules
    #[arg(long)]
    all: bool,
}

#[derive(Args, Debug)]
pub struct Verify {
    /// Name of the rule, which may have ended; without it all in force are verified, or the last that ended
    rule: Option<String>,
    /// How far the mean may be off, and how many hits may have gone without a delay
    #[arg(long, value_name = "PERCENT", default_value = "5%")]
    bound: String,
    #[arg(long, default_value = "text")]
    format: Format,
}

#[derive(Serialize)]
struct Document<T> {
    schema: u32,
    rules: Vec<T>,
}

fn json<T: Serialize>(rules: Vec<T>) -> Result<String, Failure> {
    Ok(render::json::document(&Document {
        schema: SCHEMA,
        rules,
    })?)
}

/// What `iolag rules` shows.
///
/// # Errors
/// No agent, or one that does not tell.
pub fn rules(args: &Rules, socket: &Path) -> Result<String, Failure> {
    let outcomes: Vec<Outcome> = call(socket, &Command::Rules)?;
    match args.format {
        Format::Text => Ok(render::rules::rules(&outcomes)),
        Format::Json => json(outcomes),
    }
}

impl Remove {
    /// Removes one rule, or all.
    ///
    /// # Errors
    /// Neither or both are asked for, or there can be no such rule.
    pub fn command(&self) -> Result<Command, Failure> {
        let refused = |what: &str| {
            Err(Failure::new(USAGE, what).hint("write iolag remove NAME, or iolag remove --all"))
        };
        match (&self.name, self.all) {
            (None, false) => return refused("remove needs the NAME of a rule or --all"),
            (Some(name), true) => {
                return refused(&format!("--all contradicts {name:?}: it removes all rules"));
            }
            (Some(name), false) => check::name(name)?,
            (None, true) => {}
        }
        let name = self.name.clone();
        Ok(Command::Remove { name })
    }
}

impl Verify {
    /// How far off a rule may be, as a part of 1.
    ///
    /// # Errors
    /// It is none; there can be no such rule.
    pub fn bound(&self) -> Result<f64, Failure> {
        if let Some(name) = &self.rule {
            check::name(name)?;
        }
        Ok(parse_percent("--bound", &self.bound, WHOLE)? as f64 / WHOLE as f64)
    }
}

/// Judges rules by what [`Verify::bound`] gave. What was found goes to `print`.
///
/// # Errors
/// No rule, or one that did not do what it was asked.
pub fn verify(
    args: &Verify,
    bound: f64,
    socket: &Path,
    print: impl FnOnce(&str) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let outcomes = chosen(call(socket, &Command::Rules)?, args.rule.as_deref())?;
    let verdicts: Vec<Verdict> = outcomes
        .iter()
        .map(|outcome| judge(outcome, bound))
        .collect();
    let wrong: Vec<&str> = verdicts
        .iter()
        .filter(|verdict| !verdict.ok)
        .map(|verdict| verdict.rule.as_str())
        .collect();
    let failed = match wrong.as_slice() {
        [] => Ok(()),
        wrong => Err(Failure::new(
            FAILED,
            format!(
                "{} of {} rules did not do what was asked: {}",
                wrong.len(),
                verdicts.len(),
                wrong.join(", ")
            ),
        )
        .hint("the reasons are above; --bound allows for more")),
    };
    print(&match args.format {
        Format::Text => render::rules::verdicts(&verdicts),
        Format::Json => json(verdicts)?,
    })?;
    failed
}

/// Of that name the one in force, or else the last that ended; without a name all that are in force, or else the last
/// that ended.
fn chosen(mut outcomes: Vec<Outcome>, name: Option<&str>) -> Result<Vec<Outcome>, Failure> {
    let Some(name) = name else {
        let last = outcomes.iter().rfind(|o| o.ended.is_some()).cloned();
        outcomes.retain(|outcome| outcome.ended.is_none());
        if outcomes.is_empty() {
            outcomes.extend(last);
        }
        if outcomes.is_empty() {
            return Err(
                Failure::new(FAILED, "no rule is or was in force to be verified")
                    .hint("iolag inject puts one in force"),
            );
        }
        return Ok(outcomes);
    };
    let of_name = |outcome: &&Outcome| outcome.spec.name == name;
    let in_force = outcomes.iter().filter(of_name).find(|o| o.ended.is_none());
    if let Some(found) = in_force.or_else(|| outcomes.iter().rfind(of_name)) {
        return Ok(vec![found.clone()]);
    }
    let names: Vec<&str> = outcomes.iter().map(|o| o.spec.name.as_str()).collect();
    Err(match names.as_slice() {
        [] => Failure::new(FAILED, format!("there is no rule {name:?} to be verified"))
            .hint("iolag inject puts one in force"),
        names => Failure {
            code: FAILED,
            ..unknown("rule", name, names)
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::{spec::Counts, verdict::tests::outcome};

    fn rule(name: &str, hits: u64, ended: bool) -> Outcome {
        let mut outcome = outcome(Counts {
            hits,
            ..Counts::default()
        });
        outcome.spec.name = name.into();
        outcome.ended = ended.then(|| "removed".into());
        outcome
    }

    #[test]
    fn rules_in_force_come_before_those_that_ended() {
        let all = || {
            vec![
                rule("a", 1, false),
                rule("a", 2, true),
                rule("b", 3, true),
                rule("b", 4, true),
            ]
        };
        let hits = |name| {
            let chosen = chosen(all(), name).unwrap();
            chosen.iter().map(|o| o.counts.hits).collect::<Vec<_>>()
        };
        assert_eq!(hits(None), [1]);
        assert_eq!(hits(Some("a")), [1]);
        assert_eq!(hits(Some("b")), [4]);
        let told = |outcomes, name| {
            let failure = chosen(outcomes, name).unwrap_err();
            assert_eq!(failure.code, FAILED);
            failure.to_string()
        };
        assert!(told(all(), Some("c")).contains("unknown rule"));
        assert!(told(vec![], Some("c")).contains("no rule \"c\""));
        let last = chosen(all().split_off(1), None).unwrap();
        assert_eq!((last.len(), last[0].counts.hits), (1, 4));
        assert!(told(vec![], None).contains("iolag inject"));
    }
}
