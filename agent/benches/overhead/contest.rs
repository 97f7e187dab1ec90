//! A probe and its peer at the same hooks, on the same load.

use std::path::Path;

use agent_common::probes::{Probe, probe};
use anyhow::{Context as _, Result, anyhow};
use iolag::{host::Facts, kernel::HostTypes};

use crate::{
    load, median,
    side::{Costs, Sides, Table, between},
};

/// Rounds of each order.
const ROUNDS: usize = 7;

/// A probe, its peer, and how much less it should cost.
pub struct Contest {
    pub probe: &'static str,
    pub peer: &'static str,
    /// What the costs are of.
    pub unit: &'static str,
    /// The tracepoints that the unit consists of.
    pub hooks: &'static [&'static str],
    /// Tracepoints that only we need, for figures that the peer does not have.
    pub more: &'static [&'static str],
    /// Largest ratio of the costs.
    pub goal: f64,
    load: fn() -> Result<()>,
}

/// The peers are told to make histograms, as we do.
pub const CONTESTS: &[Contest] = &[
    Contest {
        probe: "block",
        peer: "biolatency",
        unit: "request",
        hooks: &["block_rq_issue", "block_rq_complete"],
        more: &[],
        goal: 0.2,
        load: load::fio,
    },
    Contest {
        probe: "sched",
        peer: "runqlat",
        unit: "wake-up and switch",
        hooks: &["sched_wakeup", "sched_switch"],
        more: &[],
        goal: 0.4,
        load: load::wakeups,
    },
    Contest {
        probe: "irq",
        peer: "softirqs -d",
        unit: "softirq",
        hooks: &["softirq_entry", "softirq_exit"],
        more: &["softirq_raise"],
        goal: 0.5,
        load: load::interrupts,
    },
    Contest {
        probe: "irq",
        peer: "hardirqs -d",
        unit: "interrupt handler",
        hooks: &["irq_handler_entry", "irq_handler_exit"],
        more: &[],
        goal: 0.5,
        load: load::interrupts,
    },
];

impl Contest {
    /// The probe, if this build has it.
    pub fn probe(&self) -> Option<&'static Probe> {
        probe(self.probe)
    }

    /// Costs of all programs: of the rounds of either order the one with the median ratio, and of these two the
    /// mean. `peer` is the peer's command.
    pub fn hold(&self, peer: &str) -> Result<Table> {
        let types =
            HostTypes::read(&Facts::read(Path::new("/"))).map_err(|error| anyhow!("{error}"))?;
        // Who is attached first pays for what all find in no cache: each is it once.
        let [one, other] = [true, false].map(|ours_first| self.rounds(peer, ours_first, &types));
        let (one, mut table) = (one?, other?);
        for (hook, costs) in &mut table {
            let Some(one) = one.get(hook) else { continue };
            let mean = |a: Option<f64>, b: Option<f64>| Some((a? + b?) / 2.0);
            costs.empty = (costs.empty + one.empty) / 2.0;
            costs.clock = (costs.clock + one.clock) / 2.0;
            costs.ours = mean(costs.ours, one.ours);
            costs.peer = mean(costs.peer, one.peer);
        }
        Ok(table)
    }

    /// Net cost of a unit (ns): ours, the peer's, and that of reading the clock once at each tracepoint, which both
    /// do.
    pub fn net(&self, table: &Table, more: bool) -> [f64; 3] {
        let more = if more { self.more } else { &[] };
        let sum = |of: fn(&Costs) -> Option<f64>| -> f64 {
            self.hooks
                .iter()
                .chain(more)
                .filter_map(|hook| table.get(*hook))
                .filter_map(|costs| Some(of(costs)? - costs.empty))
                .sum()
        };
        [
            sum(|costs| costs.ours),
            sum(|costs| costs.peer),
            sum(|costs| Some(costs.clock)),
        ]
    }

    fn ratio(&self, table: &Table) -> f64 {
        let [ours, peer, _] = self.net(table, false);
        ours / peer
    }

    fn rounds(&self, peer: &str, ours_first: bool, types: &HostTypes) -> Result<Table> {
        let probe = self.probe().context("no such probe")?;
        let sides = Sides::attach(probe, peer, self.hooks, ours_first, types)?;
        let mut tables = Vec::new();
        for _ in 0..ROUNDS {
            let before = sides.read()?;
            (self.load)()?;
            tables.push(between(&before, &sides.read()?));
        }
        let ratios: Vec<_> = tables.iter().map(|table| self.ratio(table)).collect();
        let middle = median((0..ROUNDS).collect(), |round| ratios[*round]);
        eprintln!(
            "{} / {peer}, {} first: {ratios:.3?}",
            self.probe,
            if ours_first { "ours" } else { "the peer" }
        );
        Ok(tables.swap_remove(middle))
    }
}
