//! Whether a rule did what it was asked: what `iolag verify` finds. Pure.

use serde::Serialize;

use super::spec::Outcome;
use crate::units::format_share;

/// An error of the mean that is none, whatever its share (ns): what the clock and the entry of a hook take.
pub const ALLOWED_NS: u64 = 1_000;

/// What a bound is kept as: 100%.
pub const WHOLE: u64 = 1_000_000;

/// What was found of one rule. Times in ns, shares of 1.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Verdict {
    pub rule: String,
    pub ok: bool,
    /// Why not; empty if `ok`.
    pub reasons: Vec<String>,
    pub matches: u64,
    pub hits: u64,
    /// Left out as asked: by `--chance` or `--every`.
    pub spared: u64,
    /// Came past the end of the rule.
    pub ended: u64,
    /// Never delayed by any rule.
    pub exempt: u64,
    /// Mean of what the hits were to wait, before the cap.
    pub asked_mean_ns: f64,
    /// Mean of what they waited.
    pub achieved_mean_ns: f64,
    /// Achieved less asked.
    pub error_ns: f64,
    /// ... of what was asked.
    pub error: f64,
    pub bound: f64,
    /// Share of the hits due that were not delayed at all.
    pub withheld: f64,
    pub shortfall: Shortfall,
}

/// Hits that fell short of the rule, by cause (count).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Shortfall {
    /// Not delayed: the CPU's budget was used up.
    pub budget: u64,
    /// Not delayed: the agent had not renewed the lease.
    pub lease: u64,
    /// Not delayed: too many waits in a row on one CPU.
    pub row: u64,
    /// Not seen: the kernel skipped the program, as [`super::spec::Counts::missed`]. Whether they would have matched is
    /// not known, so it is the most that it can be.
    pub missed: u64,
    /// Not seen: processes and requests, not hits, as [`super::spec::Counts::untracked`].
    pub untracked: u64,
    /// Delayed for less: the cap.
    pub cap: u64,
    /// Delayed for less: the bound of the wait's loop.
    pub short: u64,
}

impl Shortfall {
    const fn withheld(&self) -> u64 {
        self.budget + self.lease + self.row + self.missed
    }

    /// What is not 0, with its name.
    #[must_use]
    pub fn causes(&self) -> Vec<(&'static str, u64)> {
        [
            ("budget", self.budget),
            ("lease", self.lease),
            ("row", self.row),
            ("missed probe", self.missed),
            ("untracked", self.untracked),
            ("cap", self.cap),
            ("short", self.short),
        ]
        .into_iter()
        .filter(|(_, count)| *count > 0)
        .collect()
    }
}

/// Judges a rule: its mean may be off by the share `bound`, or by [`ALLOWED_NS`]; and of the hits due no larger share
/// may have gone without their delay.
#[must_use]
pub fn judge(outcome: &Outcome, bound: f64) -> Verdict {
    let counts = &outcome.counts;
    let mean = |sum: u64| match counts.hits {
        0 => 0.0,
        hits => sum as f64 / hits as f64,
    };
    let (asked, achieved) = (mean(counts.asked_ns), mean(counts.achieved_ns));
    let error_ns = achieved - asked;
    let error = if asked > 0.0 { error_ns / asked } else { 0.0 };
    let shortfall = Shortfall {
        budget: counts.budget,
        lease: counts.lease,
        row: counts.row,
        missed: counts.missed,
        untracked: counts.untracked,
        cap: counts.capped,
        short: counts.short,
    };
    let due = counts.hits + shortfall.withheld();
    let withheld = match due {
        0 => 0.0,
        due => shortfall.withheld() as f64 / due as f64,
    };
    let mut reasons = Vec::new();
    // A chance of none was asked for, and is had.
    let none_asked = outcome.spec.chance == 0 && counts.matches > 0;
    if counts.hits == 0 && !none_asked {
        reasons.push(match counts.matches {
            0 => "no hit matched, so nothing is proved".into(),
            matches => format!("none of {matches} matches was delayed"),
        });
    }
    if error_ns.abs() > (bound * asked).max(ALLOWED_NS as f64) {
        reasons.push(format!(
            "the mean is off by {}, and {} are allowed",
            format_share(error),
            format_share(bound)
        ));
    }
    if withheld > bound {
        reasons.push(format!(
            "{} of the hits due were not delayed, and {} are allowed",
            format_share(withheld),
            format_share(bound)
        ));
    }
    if counts.untracked > 0 {
        reasons.push(format!(
            "{} children or requests found no place in the kernel's maps, and what they did was not seen",
            counts.untracked
        ));
    }
    Verdict {
        rule: outcome.spec.name.clone(),
        ok: reasons.is_empty(),
        reasons,
        matches: counts.matches,
        hits: counts.hits,
        spared: counts.spared,
        ended: counts.ended,
        exempt: counts.exempt,
        asked_mean_ns: asked,
        achieved_mean_ns: achieved,
        error_ns,
        error,
        bound,
        withheld,
        shortfall,
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use crate::rules::spec::{Counts, Delay, Filters, Percentiles, Spec};

    /// A rule of 5 ms with these counts.
    pub fn outcome(counts: Counts) -> Outcome {
        let of = |mean| Percentiles {
            mean,
            p50: mean,
            p99: mean,
            p999: mean,
        };
        Outcome {
            id: 1,
            spec: Spec {
                name: "slow".into(),
                points: vec!["vfs.read".into(), "vfs.write".into()],
                delay: Delay::Fixed { ns: 5_000_000 },
                filters: Filters::default(),
                chance: 1 << 32,
                every: 1,
                for_ns: None,
                ramp_ns: None,
                max_hits: None,
                cpu_budget: 1 << 16,
                cap_ns: 1_000_000_000,
                seed: 7,
                abort_if: Vec::new(),
            },
            age_ns: 12_000_000_000,
            ended: None,
            left_ns: None,
            hooks: vec!["vfs.read: vfs_read (fentry)".into()],
            counts,
            asked: of(5_000_000),
            achieved: of(5_010_000),
            achieved_buckets: Vec::new(),
        }
    }

    fn hits(hits: u64, asked: u64, achieved: u64) -> Counts {
        Counts {
            matches: hits,
            hits,
            asked_ns: hits * asked,
            achieved_ns: hits * achieved,
            ..Counts::default()
        }
    }

    fn reasons(counts: Counts) -> String {
        let verdict = judge(&outcome(counts), 0.05);
        assert_eq!(verdict.ok, verdict.reasons.is_empty());
        verdict.reasons.join("; ")
    }

    #[test]
    fn a_mean_within_the_bound_is_right() {
        assert_eq!(reasons(hits(100, 5_000_000, 5_000_900)), "");
        assert_eq!(reasons(hits(100, 5_000_000, 4_800_000)), "");
        assert_eq!(reasons(hits(100, 2_000, 2_900)), "", "within 1 us");
        let verdict = judge(&outcome(hits(100, 1_000_000, 990_000)), 0.05);
        assert_eq!((verdict.error_ns, verdict.error), (-10_000.0, -0.01));
        assert!(verdict.shortfall.causes().is_empty());
    }

    #[test]
    fn a_mean_out_of_the_bound_is_wrong_either_way() {
        assert!(reasons(hits(100, 5_000_000, 5_500_000)).contains("off by 10%"));
        assert!(reasons(hits(100, 5_000_000, 4_500_000)).contains("off by -10%"));
        assert!(reasons(hits(100, 2_000, 3_100)).contains("off by 55%"));
    }

    #[test]
    fn a_rule_without_hits_proves_nothing() {
        assert!(reasons(Counts::default()).contains("no hit matched"));
        let spared = Counts {
            matches: 9,
            spared: 9,
            ..Counts::default()
        };
        assert!(reasons(spared).contains("none of 9 matches"));
        let mut never = outcome(spared);
        never.spec.chance = 0;
        assert!(judge(&never, 0.05).ok);
        never.counts.matches = 0;
        assert!(!judge(&never, 0.05).ok);
    }

    #[test]
    fn what_was_asked_to_be_left_out_is_no_shortfall() {
        let counts = Counts {
            matches: 1000,
            spared: 700,
            ended: 150,
            exempt: 50,
            ..hits(100, 5_000_000, 5_000_000)
        };
        assert_eq!(reasons(counts), "");
    }

    #[test]
    fn what_was_withheld_counts_by_cause() {
        let counts = Counts {
            matches: 110,
            budget: 4,
            lease: 3,
            row: 2,
            missed: 1,
            ..hits(100, 5_000_000, 5_000_000)
        };
        assert!(reasons(counts).contains("9.09% of the hits due were not delayed"));
        let causes = judge(&outcome(counts), 0.05).shortfall.causes();
        assert_eq!(
            causes,
            [("budget", 4), ("lease", 3), ("row", 2), ("missed probe", 1)]
        );
        assert!(judge(&outcome(counts), 0.1).ok);
    }

    #[test]
    fn who_found_no_place_may_have_gone_undelayed() {
        let counts = Counts {
            untracked: 3,
            ..hits(100, 5_000_000, 5_000_000)
        };
        assert!(reasons(counts).contains("3 children or requests found no place"));
        let causes = judge(&outcome(counts), 0.05).shortfall.causes();
        assert_eq!(causes, [("untracked", 3)]);
    }

    #[test]
    fn what_the_cap_cut_is_an_error_of_the_mean() {
        let counts = Counts {
            capped: 50,
            ..hits(100, 5_000_000, 3_000_000)
        };
        assert!(reasons(counts).contains("off by -40%"));
        let causes = judge(&outcome(counts), 0.05).shortfall.causes();
        assert_eq!(causes, [("cap", 50)]);
    }
}
