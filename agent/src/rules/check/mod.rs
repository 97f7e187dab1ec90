//! Whether a rule makes sense by itself: pure. The command line asks before it sends, and the agent again, as
//! anything may come through the socket.

use agent_common::{
    pod::MAX_DELAY_NS,
    quantiles::KNOTS,
    rules::{ALWAYS, WHOLE},
};

use super::{
    abort::Condition,
    points::At,
    spec::{Delay, NAME_LENGTH, Spec},
};
use crate::{
    failure::{Failure, USAGE},
    units::{MAX_SPAN_NS, format_ns},
};

mod filters;

pub use filters::operations;

/// Points of one rule, functions and globs of them included.
const POINTS: usize = 64;
/// Longest ramp: the programs compute with its age times 2^16.
const RAMP_NS: u64 = 24 * 3_600_000_000_000;
/// Conditions of one rule.
const CONDITIONS: usize = 16;
/// Longest text of how a delay was asked for, or of a condition (bytes).
const TEXT: usize = 256;

fn refused(what: impl std::fmt::Display, hint: impl std::fmt::Display) -> Failure {
    Failure::new(USAGE, what).hint(hint)
}

/// Refuses what contradicts itself or could never match, with the flag and the reason. An empty name is one that
/// the agent has yet to choose.
///
/// # Errors
/// The first thing that is wrong.
pub fn check(spec: &Spec) -> Result<(), Failure> {
    if !spec.name.is_empty() {
        name(&spec.name)?;
    }
    let points = points(&spec.points)?;
    delay(spec)?;
    limits(spec)?;
    filters::check(&spec.filters, &points)?;
    conditions(&spec.abort_if)
}

/// Refuses what is no name of a rule.
///
/// # Errors
/// It is empty, too long, or has other characters than letters, digits, `-`, `_` and `.`.
pub fn name(name: &str) -> Result<(), Failure> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if !name.is_empty() && name.len() <= NAME_LENGTH && name.chars().all(plain) {
        return Ok(());
    }
    let why = match name {
        "" => "is empty",
        long if long.len() > NAME_LENGTH => "is too long",
        _ => "has other characters",
    };
    Err(refused(
        format!("--name {:?} {why}", cut(name)),
        format!("at most {NAME_LENGTH} of letters, digits, -, _ and ."),
    ))
}

/// The start of a text that may be of any length.
fn cut(text: &str) -> String {
    match text.char_indices().nth(64) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.into(),
    }
}

fn points(names: &[String]) -> Result<Vec<At<'_>>, Failure> {
    if names.is_empty() {
        return Err(refused("a rule needs a point", "name one: vfs.read"));
    }
    if names.len() > POINTS {
        return Err(refused(
            format!("{} points are too many", names.len()),
            format!("a rule has at most {POINTS}; fn: takes globs"),
        ));
    }
    if let Some(twice) = twice(names) {
        return Err(refused(
            format!("the point {twice} is given twice"),
            "a hit is delayed once by a rule; give it once",
        ));
    }
    names.iter().map(|name| At::parse(name)).collect()
}

/// The first value that comes again.
fn twice<T: PartialEq>(values: &[T]) -> Option<&T> {
    values
        .iter()
        .enumerate()
        .find(|(place, value)| values[..*place].contains(value))
        .map(|(_, value)| value)
}

fn delay(spec: &Spec) -> Result<(), Failure> {
    let cap = spec.cap_ns;
    if cap == 0 || cap > MAX_DELAY_NS {
        return Err(refused(
            format!("--cap {} is not between 1ns and 1s", format_ns(cap)),
            "1s is the longest that iolag waits, and the default",
        ));
    }
    match &spec.delay {
        Delay::Fixed { ns: 0 } => Err(refused(
            "--delay 0 delays nothing",
            "iolag remove ends a rule",
        )),
        Delay::Fixed { ns } if *ns > MAX_DELAY_NS => Err(refused(
            format!(
                "--delay {} is above 1 s, the longest that iolag waits",
                format_ns(*ns)
            ),
            "--delay 1s is the largest",
        )),
        Delay::Fixed { ns } if *ns > cap => Err(refused(
            format!(
                "--delay {} is above --cap {}",
                format_ns(*ns),
                format_ns(cap)
            ),
            "no hit could have that delay: raise the cap, or leave it away",
        )),
        Delay::Fixed { .. } => Ok(()),
        Delay::Drawn { asked, quantiles } => {
            if asked.len() > TEXT || asked.chars().any(char::is_control) {
                return Err(refused(
                    "the rule's delay is described by too long or unreadable a text",
                    format!("at most {TEXT} bytes"),
                ));
            }
            table(quantiles, cap)
        }
    }
}

/// Quantiles in ns.
fn table(quantiles: &[u64], cap: u64) -> Result<(), Failure> {
    const HINT: &str = "let iolag inject make the table: --jitter, --dist or --like";
    if quantiles.len() != KNOTS {
        return Err(refused(
            format!(
                "the delay's table has {} quantiles instead of {KNOTS}",
                quantiles.len()
            ),
            HINT,
        ));
    }
    if !quantiles.is_sorted() {
        return Err(refused(
            "the quantiles of the delay's table do not ascend",
            HINT,
        ));
    }
    let (least, most) = (quantiles[0], quantiles[KNOTS - 1]);
    match (least, most) {
        (_, 0) => Err(refused("every delay of the table is 0", HINT)),
        (_, most) if most > MAX_DELAY_NS => Err(refused(
            format!(
                "the delay's table goes up to {}, above 1 s",
                format_ns(most)
            ),
            HINT,
        )),
        (least, _) if least > cap => Err(refused(
            format!(
                "every delay, from {} on, is above --cap {}",
                format_ns(least),
                format_ns(cap)
            ),
            "raise the cap, or leave it away",
        )),
        _ => Ok(()),
    }
}

fn limits(spec: &Spec) -> Result<(), Failure> {
    let share = |flag: &str, share: u64, least: u64, whole: u64| {
        if share < least || share > whole {
            return Err(refused(
                format!("{flag} is {share} of {whole}, and has to be {least} to {whole}"),
                "write 10% or 0.5%",
            ));
        }
        Ok(())
    };
    share("--chance", spec.chance, 0, ALWAYS)?;
    share("--cpu-budget", spec.cpu_budget, 1, WHOLE)?;
    if spec.every == 0 {
        return Err(refused(
            "--every 0 is no hit at all",
            "--every 1 is each hit, --every 2 each second one",
        ));
    }
    if spec.max_hits == Some(0) {
        return Err(refused(
            "--max-hits 0 ends the rule before it begins",
            "leave it away for no end",
        ));
    }
    for (flag, span) in [("--for", spec.for_ns), ("--ramp", spec.ramp_ns)] {
        match span {
            Some(0) => {
                return Err(refused(
                    format!("{flag} 0 lasts for no time"),
                    format!("leave {flag} away, or write 30s, 10m, 1h"),
                ));
            }
            Some(long) if long > MAX_SPAN_NS => {
                return Err(refused(
                    format!("{flag} is above 8760h, a year"),
                    format!("leave {flag} away for no end"),
                ));
            }
            _ => {}
        }
    }
    if spec.ramp_ns.is_some_and(|ramp| ramp > RAMP_NS) {
        return Err(refused(
            "--ramp is longer than 24h, the longest that the programs compute with",
            "write at most 24h",
        ));
    }
    match (spec.ramp_ns, spec.for_ns) {
        (Some(ramp), Some(end)) if ramp > end => Err(refused(
            format!(
                "--ramp {} is longer than --for {}",
                format_ns(ramp),
                format_ns(end)
            ),
            "the rule would end before it has its delay",
        )),
        _ => Ok(()),
    }
}

fn conditions(texts: &[String]) -> Result<(), Failure> {
    if texts.len() > CONDITIONS {
        return Err(refused(
            format!("{} times --abort-if are too many", texts.len()),
            format!("a rule has at most {CONDITIONS}"),
        ));
    }
    if let Some(twice) = twice(texts) {
        return Err(refused(
            format!("--abort-if {:?} is given twice", cut(twice)),
            "give it once",
        ));
    }
    for text in texts {
        if text.len() > TEXT {
            return Err(refused(
                format!("--abort-if {:?} is longer than {TEXT} bytes", cut(text)),
                "a condition is like 'memory.oom > 0'",
            ));
        }
        Condition::parse(text)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
