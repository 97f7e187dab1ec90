//! Our programs, the peer's, and empty ones before and behind them, all at the same tracepoints.

use std::collections::{BTreeMap, BTreeSet};

use agent_common::probes::Probe;
use anyhow::{Context as _, Result, anyhow};
use iolag::{
    kernel::{EmptyProbe, HostTypes, ProgStats},
    measure::{Measurement, Target, default_fields},
};

use crate::peer::Peer;

/// What runs less often in a round has no mean.
const RUNS: u64 = 300;

/// A program at a tracepoint, as the kernel counts it.
pub struct Program {
    pub hook: String,
    pub stats: ProgStats,
}

/// Mean cost of a run at one tracepoint (ns). `None`: the side has no program there, or it hardly ran.
#[derive(Clone, Copy)]
pub struct Costs {
    pub empty: f64,
    /// Of a program that reads the clock and does nothing else.
    pub clock: f64,
    pub ours: Option<f64>,
    pub peer: Option<f64>,
}

/// By tracepoint.
pub type Table = BTreeMap<String, Costs>;

/// All that is attached.
pub struct Sides {
    ours: Measurement,
    peer: Peer,
    /// At each of our tracepoints: attached before the others, and after them.
    empty: Vec<(&'static str, [EmptyProbe; 2])>,
    /// At each of our tracepoints, attached between the others and the last empty ones.
    clock: Vec<(&'static str, EmptyProbe)>,
}

type Load = fn(&str, &HostTypes) -> Result<EmptyProbe>;

/// Counters by tracepoint.
type Counters = BTreeMap<String, ProgStats>;

/// All counters at one time.
pub struct Reading {
    ours: Counters,
    peer: Counters,
    empty: [Counters; 2],
    clock: Counters,
}

impl Sides {
    /// Attaches in the order asked for. `needed` are the tracepoints at which the peer must be.
    pub fn attach(
        probe: &'static Probe,
        peer: &str,
        needed: &[&str],
        ours_first: bool,
        types: &HostTypes,
    ) -> Result<Self> {
        // Attached before all others, these pay for the kernel's own code that runs before any program.
        let hooks = all_hooks(probe);
        let at_all = |load: Load| -> Result<Vec<_>> {
            let at = |hook: &&'static str| Ok((*hook, load(hook, types)?));
            hooks.iter().map(at).collect()
        };
        let first = at_all(EmptyProbe::at_tracepoint)?;
        let start = || {
            Measurement::start(
                &Target::parse(probe.name)?,
                &default_fields(probe),
                types,
                None,
            )
            .map_err(|failure| anyhow!("{failure}"))
        };
        let (ours, peer) = if ours_first {
            let ours = start()?;
            (ours, Peer::start(peer, needed)?)
        } else {
            let peer = Peer::start(peer, needed)?;
            (start()?, peer)
        };
        let clock = at_all(EmptyProbe::clock_at_tracepoint)?;
        let last = at_all(EmptyProbe::at_tracepoint)?;
        let empty = first
            .into_iter()
            .zip(last)
            .map(|((hook, first), (_, last))| (hook, [first, last]))
            .collect();
        Ok(Self {
            ours,
            peer,
            empty,
            clock,
        })
    }

    pub fn read(&self) -> Result<Reading> {
        let probe = self.ours.probe();
        let mut ours = Counters::new();
        for program in probe.programs() {
            let hook = hook_of(probe.probe, program).context("a program without a hook")?;
            ours.insert(hook.to_owned(), probe.stats(program)?);
        }
        let empty = |place: usize| -> Result<Counters> {
            self.empty
                .iter()
                .map(|(hook, pair)| Ok(((*hook).to_owned(), pair[place].stats()?)))
                .collect()
        };
        let clock = |(hook, probe): &(&'static str, EmptyProbe)| -> Result<_> {
            Ok(((*hook).to_owned(), probe.stats()?))
        };
        let peer = self.peer.programs()?;
        Ok(Reading {
            ours,
            peer: peer.into_iter().map(|it| (it.hook, it.stats)).collect(),
            empty: [empty(0)?, empty(1)?],
            clock: self.clock.iter().map(clock).collect::<Result<_>>()?,
        })
    }
}

/// Tracepoints of a probe's programs.
fn all_hooks(probe: &'static Probe) -> BTreeSet<&'static str> {
    let variants = probe.parts.iter().flat_map(|part| part.variants);
    variants
        .flat_map(|variant| variant.hooks)
        .flat_map(|hook| hook.symbols.iter().copied())
        .collect()
}

fn hook_of(probe: &'static Probe, program: &str) -> Option<&'static str> {
    let variants = probe.parts.iter().flat_map(|part| part.variants);
    variants
        .flat_map(|variant| variant.hooks)
        .find(|hook| hook.program == program)
        .and_then(|hook| hook.symbols.first().copied())
}

/// Mean costs of the runs between two readings.
pub fn between(before: &Reading, after: &Reading) -> Table {
    let mut table = Table::new();
    for hook in after.empty[0].keys() {
        let mean = |of: fn(&Reading) -> &Counters| {
            let (before, after) = (of(before).get(hook)?, of(after).get(hook)?);
            let runs = after.run_count - before.run_count;
            let ns = after.run_time_ns - before.run_time_ns;
            (runs >= RUNS).then(|| ns as f64 / runs as f64)
        };
        let (Some(first), Some(last), Some(clock)) = (
            mean(|it| &it.empty[0]),
            mean(|it| &it.empty[1]),
            mean(|it| &it.clock),
        ) else {
            continue;
        };
        let costs = Costs {
            empty: (first + last) / 2.0,
            clock,
            ours: mean(|it| &it.ours),
            peer: mean(|it| &it.peer),
        };
        table.insert(hook.clone(), costs);
    }
    table
}
