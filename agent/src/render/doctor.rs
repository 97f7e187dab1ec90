//! `doctor` for people: a line for each check, and below it what there is to explain.

use super::lines::{hang, wrap};
use crate::report::doctor::{Check, Diagnosis, Status};

/// Where what explains a check begins: below its name.
const MARGIN: usize = 8;

/// What stands for a reason that was told in the line before.
const AS_ABOVE: &str = "as above";

#[must_use]
pub fn text(diagnosis: &Diagnosis) -> String {
    let checks = &diagnosis.checks;
    let names = checks.iter().map(|check| check.name.chars().count());
    let width = names.max().unwrap_or_default();
    let mut text = String::new();
    let mut before: Option<&Check> = None;
    for check in checks {
        if before.is_none_or(|before| before.group != check.group) {
            let gap = if before.is_some() { "\n" } else { "" };
            text += &format!("{gap}{}\n", check.group.title());
        }
        text += &row(check, before, width);
        before = Some(check);
    }
    let counts = &diagnosis.counts;
    let sum = format!(
        "ok {}, warn {}, fail {}, skip {}: {}",
        counts.ok, counts.warn, counts.fail, counts.skip, diagnosis.summary
    );
    text + "\n" + &wrap(&sum, 2)
}

fn row(check: &Check, before: Option<&Check>, width: usize) -> String {
    let status = match check.status {
        Status::Ok => "ok",
        Status::Warn => "warn",
        Status::Fail => "fail",
        Status::Skip => "skip",
    };
    let first = format!("  {status:<4}  {:<width$}  ", check.name);
    let told = |of: fn(&Check) -> &Option<String>| {
        let same =
            before.is_some_and(|before| before.group == check.group && of(before) == of(check));
        same && of(check).is_some()
    };
    let (same_reason, same_remedy) = (told(|check| &check.reason), told(|check| &check.remedy));
    let value = match same_reason {
        true => format!("{}: {AS_ABOVE}", check.value),
        false => check.value.clone(),
    };
    let mut text = hang(&first, &value, first.chars().count());
    let margin = " ".repeat(MARGIN);
    if let (Some(reason), false) = (&check.reason, same_reason) {
        text += &hang(&margin, reason, MARGIN);
    }
    if let (Some(remedy), false) = (&check.remedy, same_remedy) {
        text += &hang(&format!("{margin}remedy: "), remedy, MARGIN);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{render::lines::COLUMNS, report::doctor::Group};

    #[test]
    fn a_line_for_each_check_and_what_it_needs_below() {
        let long =
            "the kernel refused the program, and said so in more words than a line has room for";
        let checks = vec![
            Check::new(Group::Host, "kernel", Status::Ok, "6.18"),
            Check::new(
                Group::Delay,
                "backend.fentry",
                Status::Warn,
                "0 of 7 points",
            )
            .because(long)
            .remedy("boot"),
            Check::new(Group::Delay, "backend.tp", Status::Warn, "1 of 7 points")
                .because(long)
                .remedy("boot"),
            Check::new(Group::Tools, "agent", Status::Skip, "none"),
        ];
        let text = text(&Diagnosis::new(checks, true, "it works".into()));
        assert_eq!(
            text,
            "host\n  ok    kernel          6.18\n\n\
             delay\n  warn  backend.fentry  0 of 7 points\
             \n        the kernel refused the program, and said so in more words than a line\
             \n        has room for\
             \n        remedy: boot\
             \n  warn  backend.tp      1 of 7 points: as above\n\n\
             other tools\n  skip  agent           none\n\n\
             ok 1, warn 2, fail 0, skip 1: it works\n"
        );
        assert!(text.lines().all(|line| line.len() <= COLUMNS));
    }
}
