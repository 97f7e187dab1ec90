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
    /// Name of the rule; without it all are verified
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

/// Removes one rule, or all.
///
/// # Errors
/// Neither or both are asked for, or there is no such rule.
pub fn remove(args: &Remove, socket: &Path) -> Result<(), Failure> {
    let refused = |what: &str| {
        Err(Failure::new(USAGE, what).hint("write iolag remove NAME, or iolag remove --all"))
    };
    match (&args.name, args.all) {
        (None, false) => return refused("remove needs the NAME of a rule or --all"),
        (Some(name), true) => {
            return refused(&format!("--all contradicts {name:?}: it removes all rules"));
        }
        (Some(name), false) => check::name(name)?,
        (None, true) => {}
    }
    let name = args.name.clone();
    call(socket, &Command::Remove { name })
}

/// Judges rules. What was found goes to `print`.
///
/// # Errors
/// No rule, or one that did not do what it was asked.
pub fn verify(
    args: &Verify,
    socket: &Path,
    print: impl FnOnce(&str) -> Result<(), Failure>,
) -> Result<(), Failure> {
    if let Some(name) = &args.rule {
        check::name(name)?;
    }
    let bound = parse_percent("--bound", &args.bound, WHOLE)? as f64 / WHOLE as f64;
    let mut outcomes: Vec<Outcome> = call(socket, &Command::Rules)?;
    if outcomes.is_empty() {
        return Err(Failure::new(FAILED, "there is no rule to verify")
            .hint("iolag inject puts one in force; verify it before it is removed"));
    }
    if let Some(name) = &args.rule {
        let names: Vec<String> = outcomes.iter().map(|o| o.spec.name.clone()).collect();
        outcomes.retain(|outcome| outcome.spec.name == *name);
        if outcomes.is_empty() {
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            return Err(Failure {
                code: FAILED,
                ..unknown("rule", name, &names)
            });
        }
    }
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
