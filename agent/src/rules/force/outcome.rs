//! What came of a rule.

use agent_common::{bucket, catalogue::slot};

use super::InForce;
use crate::{
    failure::Failure,
    kernel::{DelayProbe, now_ns},
    report::quantile,
    rules::{
        distribution::percentiles,
        spec::{Counts, Delay, Outcome, Percentiles},
        table::Placed,
    },
};

impl InForce {
    /// What came of the rule in that place so far.
    ///
    /// # Errors
    /// The kernel refuses a look-up.
    pub(super) fn outcome(
        &self,
        probe: &DelayProbe,
        place: usize,
        why: Option<&str>,
    ) -> Result<Outcome, Failure> {
        let Some(placed) = &self.table[place] else {
            return Err(Failure::new(
                crate::failure::FAILED,
                "there is no such rule",
            ));
        };
        let sample = probe.rules.sample(place as u32)?;
        let tally = &sample.tally;
        let age_ns = now_ns().saturating_sub(placed.start_ns);
        let mut spec = placed.spec.clone();
        let asked = percentiles_asked(&spec.delay);
        if let Delay::Drawn { quantiles, .. } = &mut spec.delay {
            quantiles.clear();
        }
        Ok(Outcome {
            id: placed.id,
            age_ns,
            left_ns: spec.for_ns.map(|length| length.saturating_sub(age_ns)),
            ended: why.map(Into::into),
            hooks: hooks(probe, placed),
            counts: Counts {
                matches: tally.matches,
                hits: tally.hits,
                spared: tally.spared,
                ended: tally.ended,
                lease: tally.lease,
                budget: tally.budget,
                row: tally.row,
                exempt: tally.exempt,
                capped: tally.capped,
                short: tally.short,
                missed: probe
                    .missed(&placed.slots)?
                    .saturating_sub(self.missed_before[place]),
                untracked: match is_tracked(placed) {
                    true => probe
                        .rules
                        .untracked()
                        .saturating_sub(self.untracked_before[place]),
                    false => 0,
                },
                asked_ns: tally.asked_ns,
                achieved_ns: tally.achieved_ns,
            },
            asked,
            achieved: percentiles_achieved(&sample.times, tally.achieved_ns, tally.hits),
            achieved_buckets: (0..)
                .zip(&sample.times)
                .filter(|(_, count)| **count > 0)
                .map(|(index, count)| (bucket::lower(index), *count))
                .collect(),
            spec,
        })
    }
}

/// Whether the kernel side keeps books for the rule that may be full: of the children of its processes, or of who submits
/// a request.
fn is_tracked(placed: &Placed) -> bool {
    let filters = &placed.spec.filters;
    let by_task = !(filters.pids.is_empty()
        && filters.comms.is_empty()
        && filters.cgroups.is_empty()
        && filters.uids.is_empty());
    filters.children || by_task && placed.slots.contains(&slot::BLOCK_ISSUE)
}

/// Where a rule is: `vfs.read: vfs_read (fentry)`.
fn hooks(probe: &DelayProbe, placed: &Placed) -> Vec<String> {
    let of_point = |wanted: u32| {
        let (_, attached) = probe.points().find(|(slot, _)| *slot == wanted)?;
        let attempt = attached.attempt;
        let backend = attempt.backend.name();
        Some(format!(
            "{}: {} ({backend})",
            attached.point.name, attempt.symbol
        ))
    };
    let of_function = |slot: u32| Some(format!("fn: {} (kprobe)", probe.function(slot)?));
    placed
        .slots
        .iter()
        .filter_map(|slot| match *slot {
            slot if slot >= slot::FUNCTIONS => of_function(slot),
            slot => of_point(slot),
        })
        .collect()
}

fn percentiles_asked(delay: &Delay) -> Percentiles {
    match delay {
        Delay::Fixed { ns } => Percentiles {
            mean: *ns,
            p50: *ns,
            p99: *ns,
            p999: *ns,
        },
        Delay::Drawn { quantiles, .. } => percentiles(quantiles),
    }
}

/// The mean is exact, the others are their buckets' middles.
fn percentiles_achieved(times: &[u64], sum_ns: u64, hits: u64) -> Percentiles {
    if hits == 0 {
        return Percentiles::default();
    }
    let middle = |q| {
        let upper = quantile(times, q);
        let lower = bucket::lower(bucket::index(upper));
        lower + (upper - lower) / 2
    };
    Percentiles {
        mean: sum_ns / hits,
        p50: middle(0.5),
        p99: middle(0.99),
        p999: middle(0.999),
    }
}
