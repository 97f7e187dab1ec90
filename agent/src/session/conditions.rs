//! What `--abort-if` watches, for all rules in force.

use std::{collections::BTreeMap, path::Path};

use agent_common::probes::{probe, sched};

use crate::{
    failure::{Failure, HOST},
    probes::Probes,
    report::dump::Dump,
    rules::abort::{ABORTED, Watch},
};

/// Watches by the names of their rules.
#[derive(Default)]
pub struct Conditions {
    watches: BTreeMap<String, Watch>,
    /// What the probe `sched` had at the last look.
    waits_before: Option<Dump>,
}

impl Conditions {
    /// Takes the first look at what a rule's conditions watch, before the rule comes.
    ///
    /// # Errors
    /// As [`Watch::new`]; or the probe that a condition needs is not loaded.
    pub fn look(conditions: &[String], root: &Path, probes: &Probes) -> Result<Watch, Failure> {
        let watch = Watch::new(conditions, root)?;
        let loaded = |name: &str| {
            probes
                .rows()
                .iter()
                .any(|row| row.loaded && row.name == name)
        };
        if watch.needs_run_queue() && !loaded(sched::NAME) {
            let name = sched::NAME;
            return Err(Failure::new(
                HOST,
                format!("--abort-if sched.wait.p99 needs the probe {name}, which is not loaded"),
            )
            .hint(format!("iolag probe load {name}")));
        }
        Ok(watch)
    }

    /// Watches for a rule from now on, and no more for what had its name before.
    pub fn add(&mut self, rule: &str, watch: Watch) {
        self.watches.remove(rule);
        if !watch.is_empty() {
            self.watches.insert(rule.into(), watch);
        }
    }

    /// Forgets rules that are not among these.
    pub fn keep(&mut self, in_force: &[&str]) {
        self.watches
            .retain(|rule, _| in_force.contains(&rule.as_str()));
    }

    /// Looks. Returns why all rules have to end, if so: a condition is met, or cannot be watched any more.
    pub fn met(&mut self, root: &Path, probes: &mut Probes) -> Option<String> {
        let waits = if self.watches.values().any(Watch::needs_run_queue) {
            match self.waits(probes) {
                Ok(waits) => waits,
                Err(failure) => return Some(format!("{ABORTED}: {failure}")),
            }
        } else {
            self.waits_before = None;
            None
        };
        self.watches
            .iter_mut()
            .find_map(|(rule, watch)| match watch.check(root, || waits) {
                Ok(None) => None,
                Ok(Some(why)) => Some(format!("{ABORTED} {why}, of the rule {rule}")),
                // Its message begins so too.
                Err(failure) => Some(failure.to_string()),
            })
    }

    /// The 99th percentile of the waits for a CPU since the last look (ns).
    fn waits(&mut self, probes: &mut Probes) -> Result<Option<u64>, Failure> {
        let now = probes.dump(sched::NAME, false)?;
        let before = self.waits_before.replace(now.clone());
        let mut interval = match before {
            Some(before) if now.continues(&before) => now.since(&before),
            // The first look has no interval yet.
            _ => return Ok(None),
        };
        // All series in one.
        interval.select(&[], &[]);
        let name = probe(sched::NAME).map(|probe| probe.metrics[sched::metric::RUNQUEUE].name);
        let metrics = interval.series.iter().flat_map(|series| &series.metrics);
        Ok(metrics
            .filter(|metric| Some(metric.metric.as_str()) == name && metric.count > 0)
            .map(|metric| metric.p99)
            .max())
    }
}
