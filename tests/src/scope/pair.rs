//! Two workers at once, or one while something changes.

use anyhow::{Context as _, Result, bail, ensure};

use super::{
    CALLS, DELAY_NS, OTHER_CALLS, Rule, Stage, TRIES, UNDELAYED_NS,
    worker::{Work, Worker},
};
use crate::{affinity, timing::median};

/// A worker that rules are for, and one that they are not for.
pub(super) struct Pair {
    pub(super) first: Worker,
    pub(super) second: Worker,
}

impl Pair {
    /// Each on a CPU of its own, as who is delayed keeps its CPU from others.
    pub(super) fn start(first: Work, second: Work) -> Result<Self> {
        let pair = Self {
            first: first.start()?,
            second: second.start()?,
        };
        let cpus = affinity::cpus();
        let (one, other) = (cpus.first().copied(), cpus.last().copied());
        for (worker, cpu) in [(&pair.first, one), (&pair.second, other)] {
            let cpu = cpu.context("no CPU")?;
            affinity::send(worker.pid(), cpu)?;
        }
        // Else what it waits for on a busy machine is a CPU. Where that is refused, more rounds are needed.
        let _refused = affinity::urge(pair.second.pid());
        Ok(pair)
    }

    /// A rule with these filters is for each call of the first worker, and for none of the second.
    pub(super) fn differ(&mut self, stage: &Stage, point: &str, filters: &[&str]) -> Result<()> {
        let rule = stage.rule(point, filters)?;
        self.differ_by(&rule)
            .with_context(|| format!("{point} {}", filters.join(" ")))
    }

    pub(super) fn differ_by(&mut self, rule: &Rule<'_>) -> Result<()> {
        let mut medians = Vec::new();
        for _ in 0..TRIES {
            self.first.begin(CALLS);
            self.second.begin(OTHER_CALLS);
            let (first, second) = (self.first.finish()?, self.second.finish()?);
            let hits = rule.new_hits()?;
            ensure!(
                hits == CALLS as u64,
                "{hits} hits of {CALLS} calls; they took {first:?} ns, others' {second:?} ns"
            );
            ensure!(
                first.iter().all(|ns| *ns >= DELAY_NS),
                "calls took {first:?} ns"
            );
            medians.push(median(second));
            if medians.last().is_some_and(|ns| *ns < UNDELAYED_NS) {
                return Ok(());
            }
        }
        bail!("others' calls took {medians:?} ns by their medians")
    }

    /// The rule is for neither.
    pub(super) fn neither(&mut self, stage: &Stage, point: &str, filters: &[&str]) -> Result<()> {
        let rule = stage.rule(point, filters)?;
        self.first.begin(CALLS);
        self.second.begin(CALLS);
        let times = [self.first.finish()?, self.second.finish()?];
        let hits = rule.new_hits()?;
        ensure!(
            hits == 0,
            "{point} {}: {hits} hits, of calls that took {times:?} ns",
            filters.join(" ")
        );
        Ok(())
    }
}

/// While a worker makes its calls, `change` makes the rule not be for it any more, and `back` for it again. Each call
/// is delayed until the one and since the other.
pub(super) fn amid(
    rule: &Rule<'_>,
    worker: &mut Worker,
    change: &dyn Fn() -> Result<()>,
    back: &dyn Fn() -> Result<()>,
) -> Result<()> {
    let mut seen = Vec::new();
    for _ in 0..TRIES {
        seen.clear();
        for (to, slow_first) in [(change, true), (back, false)] {
            worker.begin(OTHER_CALLS);
            worker.has_made(CALLS / 2)?;
            to()?;
            let times = worker.finish()?;
            let hits = rule.new_hits()?;
            let slow: Vec<bool> = times.iter().map(|ns| *ns >= DELAY_NS).collect();
            let steps = slow.windows(2).filter(|two| two[0] != two[1]).count();
            let slow_calls = slow.iter().filter(|slow| **slow).count() as u64;
            let was = steps == 1 && slow[0] == slow_first && hits == slow_calls;
            ensure!(hits <= slow_calls, "{hits} hits of {times:?} ns");
            if !was {
                seen.push((hits, times));
            }
        }
        if seen.is_empty() {
            return Ok(());
        }
    }
    bail!("delayed other calls than those before, then those since: {seen:?}")
}
