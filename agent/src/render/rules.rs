//! `rules` and `verify` for people: under 80 columns.

use std::fmt::Write as _;

use agent_common::rules::{ALWAYS, WHOLE};

use super::{lines::wrap, table::table};
use crate::{
    rules::{
        spec::{Delay, Filters, Outcome, Percentiles, Spec},
        verdict::Verdict,
    },
    units::{format_bytes, format_ns, format_share},
};

/// Where what follows a line's title stands.
const INDENT: usize = 10;

/// The rules in force, and what came of each.
#[must_use]
pub fn rules(outcomes: &[Outcome]) -> String {
    if outcomes.is_empty() {
        return "no rules: nothing is delayed\n".into();
    }
    outcomes.iter().map(rule).collect::<Vec<_>>().join("\n")
}

fn rule(outcome: &Outcome) -> String {
    let spec = &outcome.spec;
    let counts = &outcome.counts;
    let mut text = String::new();
    let at = format!("{} at {}", spec.name, spec.points.join(", "));
    titled(&mut text, "rule", &at);
    titled(&mut text, "delay", &delay(spec));
    titled(&mut text, "whom", &whom(&spec.filters));
    titled(&mut text, "until", &until(outcome));
    for hook in &outcome.hooks {
        titled(&mut text, "hook", hook);
    }
    let mut hits = format!("{} delayed of {} matches", counts.hits, counts.matches);
    for (count, what) in [
        (counts.spared, "spared"),
        (counts.ended, "past the end"),
        (counts.exempt, "exempt"),
        (counts.budget, "over the budget"),
        (counts.lease, "without lease"),
        (counts.row, "too many in a row"),
        (counts.missed, "missed"),
        (counts.untracked, "untracked"),
        (counts.capped, "capped"),
        (counts.short, "cut short"),
    ] {
        if count > 0 {
            let _infallible = write!(hits, ", {count} {what}");
        }
    }
    titled(&mut text, "hits", &hits);
    let row = |what: &str, of: &Percentiles, there: bool| {
        let figures = [of.mean, of.p50, of.p99, of.p999];
        let figures = figures.map(|ns| if there { format_ns(ns) } else { "-".into() });
        [vec![what.into()], figures.to_vec()].concat()
    };
    text + &table(
        &["", "MEAN", "P50", "P99", "P99.9"],
        vec![
            row("asked", &outcome.asked, true),
            row("achieved", &outcome.achieved, counts.hits > 0),
        ],
        1,
    )
}

fn titled(text: &mut String, title: &str, what: &str) {
    // A value may be anything that somebody's directory or command is called.
    let clean: String = what
        .chars()
        .map(|c| if c.is_control() { '?' } else { c })
        .collect();
    *text += &wrap(&format!("{title:<9} {clean}"), INDENT);
}

fn delay(spec: &Spec) -> String {
    let mut text = match &spec.delay {
        Delay::Fixed { ns } => format_ns(*ns),
        Delay::Drawn { asked, .. } => asked.clone(),
    };
    if spec.chance < ALWAYS {
        let share = format_share(spec.chance as f64 / ALWAYS as f64);
        let _infallible = write!(text, ", chance {share}");
    }
    if spec.every > 1 {
        let _infallible = write!(text, ", every {}", spec.every);
    }
    if let Some(ramp) = spec.ramp_ns {
        let _infallible = write!(text, ", ramp {}", format_ns(ramp));
    }
    if spec.cpu_budget < WHOLE {
        let share = format_share(spec.cpu_budget as f64 / WHOLE as f64);
        let _infallible = write!(text, ", at most {share} of a CPU");
    }
    if spec.chance < ALWAYS || matches!(spec.delay, Delay::Drawn { .. }) {
        let _infallible = write!(text, ", seed {}", spec.seed);
    }
    let _infallible = write!(text, ", cap {}", format_ns(spec.cap_ns));
    text
}

fn whom(filters: &Filters) -> String {
    let mut parts: Vec<String> = Vec::new();
    let mut part = |name: &str, values: Vec<String>| {
        if !values.is_empty() {
            parts.push(format!("{name} {}", values.join(" or ")));
        }
    };
    let numbers = |values: &[u32]| values.iter().map(ToString::to_string).collect();
    let paths = |values: &[std::path::PathBuf]| {
        values
            .iter()
            .map(|path| path.display().to_string())
            .collect()
    };
    part("pid", numbers(&filters.pids));
    if filters.children {
        part("with", vec!["children".into()]);
    }
    part("command", filters.comms.clone());
    part("cgroup", paths(&filters.cgroups));
    part("user", numbers(&filters.uids));
    part("device", filters.devices.clone());
    part("op", filters.ops.clone());
    part("under", paths(&filters.under));
    if let Some((least, most)) = filters.size {
        let most = match most {
            u64::MAX => String::new(),
            most => format_bytes(most),
        };
        part("size", vec![format!("{}..{most}", format_bytes(least))]);
    }
    if parts.is_empty() {
        return "everyone".into();
    }
    parts.join(", ")
}

fn until(outcome: &Outcome) -> String {
    let spec = &outcome.spec;
    let mut parts = vec![format!("came {} ago", format_ns(outcome.age_ns))];
    if let Some(why) = &outcome.ended {
        parts.push(format!("ENDED: {why}"));
    } else if let Some(left) = outcome.left_ns {
        parts.push(format!("{} left", format_ns(left)));
    }
    if let Some(most) = spec.max_hits {
        parts.push(format!("at most {most} hits"));
    }
    for condition in &spec.abort_if {
        parts.push(format!("ends all if {condition}"));
    }
    parts.join(", ")
}

/// What was found of each rule.
#[must_use]
pub fn verdicts(verdicts: &[Verdict]) -> String {
    verdicts.iter().map(verdict).collect::<Vec<_>>().join("\n")
}

fn verdict(verdict: &Verdict) -> String {
    let ns = |mean: f64| format_ns(mean.round() as u64);
    let mut text = String::new();
    let found = if verdict.ok {
        "verified".to_owned()
    } else {
        format!("NOT verified: {}", verdict.reasons.join("; "))
    };
    titled(&mut text, "rule", &format!("{}: {found}", verdict.rule));
    let hits = format!("{} delayed of {} matches", verdict.hits, verdict.matches);
    titled(&mut text, "hits", &hits);
    titled(
        &mut text,
        "asked",
        &format!("mean {}", ns(verdict.asked_mean_ns)),
    );
    titled(
        &mut text,
        "achieved",
        &format!(
            "mean {}, error {} ({}{}), bound {}",
            ns(verdict.achieved_mean_ns),
            format_share(verdict.error),
            if verdict.error_ns < 0.0 { "-" } else { "" },
            ns(verdict.error_ns.abs()),
            format_share(verdict.bound),
        ),
    );
    let causes = verdict.shortfall.causes();
    let shortfall = if causes.is_empty() {
        "none".into()
    } else {
        let causes = causes
            .iter()
            .map(|(cause, count)| format!("{cause} {count}"));
        causes.collect::<Vec<_>>().join(", ")
    };
    titled(&mut text, "lacking", &shortfall);
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        render::lines::COLUMNS,
        rules::{
            spec::Counts,
            verdict::{judge, tests::outcome},
        },
    };

    fn assert_narrow(text: &str) {
        for line in text.lines() {
            assert!(line.chars().count() <= COLUMNS, "{line}");
        }
    }

    #[test]
    fn a_rule_is_told_with_what_came_of_it() {
        let mut outcome = outcome(Counts {
            matches: 1000,
            hits: 950,
            spared: 40,
            budget: 10,
            ..Counts::default()
        });
        outcome.spec.filters.cgroups = vec![format!("/{}", "long/".repeat(30)).into()];
        outcome.spec.filters.comms = vec!["a\nb".into()];
        outcome.spec.filters.size = Some((4096, u64::MAX));
        outcome.spec.chance = ALWAYS / 2;
        outcome.left_ns = Some(3_000_000_000);
        let text = rules(&[outcome.clone(), outcome]);
        assert_narrow(&text);
        for words in [
            "rule      slow at vfs.read, vfs.write\n",
            "delay     5ms, chance 50%, seed 7, cap 1s\n",
            "whom      command a?b, cgroup",
            "size 4KiB..\n",
            "until     came 12s ago, 3s left\n",
            "hook      vfs.read: vfs_read (fentry)\n",
            "hits      950 delayed of 1000 matches, 40 spared, 10 over the budget\n",
            "achieved  5.01ms  5.01ms  5.01ms  5.01ms\n",
        ] {
            assert!(text.contains(words), "no {words:?} in:\n{text}");
        }
        assert!(rules(&[]).contains("nothing is delayed"));
    }

    #[test]
    fn a_verdict_says_why() {
        let counts = Counts {
            matches: 110,
            hits: 100,
            budget: 10,
            asked_ns: 500_000_000,
            achieved_ns: 501_000_000,
            ..Counts::default()
        };
        let text = verdicts(&[judge(&outcome(counts), 0.05)]);
        assert_narrow(&text);
        for words in [
            "rule      slow: NOT verified: 9.09% of the hits due",
            "hits      100 delayed of 110 matches\n",
            "asked     mean 5ms\n",
            "achieved  mean 5.01ms, error 0.2% (10us), bound 5%\n",
            "lacking   budget 10\n",
        ] {
            assert!(text.contains(words), "no {words:?} in:\n{text}");
        }
    }
}
