//! What an attached point with delay 0 costs per hit, against an empty program at the same hook:
//! both attached at once, on the same load, by the kernel's own `run_time_ns / run_cnt`.
//!
//! Arguments are backends (without any: `tp`) and, for an emulated machine, `--light`.

use std::path::Path;

use agent_common::catalogue::{Backend, slot_of};
use anyhow::{Context as _, Result, ensure};
use iolag::{
    host::Facts,
    kernel::{DelayProbe, EmptyProbe, ProgStats},
    plan,
};

use crate::{load, median};

const ROUNDS: usize = 9;

/// How much is done in a round.
struct Load {
    reads: usize,
    requests: u64,
}

/// Prints the rows of a table.
pub fn run(arguments: &[String]) -> Result<()> {
    let load = if arguments.iter().any(|argument| argument == "--light") {
        Load {
            reads: 10_000,
            requests: 1_500,
        }
    } else {
        Load {
            reads: 400_000,
            requests: 4_000,
        }
    };
    let mut backends: Vec<_> = arguments
        .iter()
        .filter(|argument| !argument.starts_with("--"))
        .map(|name| plan::parse_choice(name))
        .collect::<Result<_, _>>()?;
    if backends.is_empty() {
        backends.push(Some(Backend::Tp));
    }
    for choice in backends {
        measure(choice, &load)?;
    }
    Ok(())
}

/// Prints the rows of one backend.
fn measure(choice: plan::Choice, load: &Load) -> Result<()> {
    let facts = Facts::read(Path::new("/"));
    for (name, run) in [
        (
            "vfs.read",
            (|load| load::reads(load.reads)) as fn(&Load) -> Result<()>,
        ),
        ("block.issue", |load| load::requests(load.requests)),
    ] {
        let slot = slot_of(name).context("no such point")? as u32;
        let probe = || -> Result<_> {
            Ok(DelayProbe::load(plan::plan(choice, &facts)?, choice, &facts)?.0)
        };
        // The program that was attached first runs first, and pays for what both find in no cache: each
        // is it once.
        let first = probe()?;
        let (_, attached) = first
            .points()
            .find(|(of, _)| *of == slot)
            .context("the point is not attached")?;
        let attempt = attached.attempt;
        let empty = || EmptyProbe::load(attempt, facts.btf.as_deref());
        let last = empty()?;
        let one = cost(&first, &last, slot, &|| run(load))?;
        drop((first, last));
        let first = empty()?;
        let other = cost(&probe()?, &first, slot, &|| run(load))?;
        let (ours, empty) = ((one.0 + other.0) / 2.0, (one.1 + other.1) / 2.0);
        println!(
            "| `{name}` | {} `{}` | {ours:.1} | {empty:.1} | {:.2} | {:.1} |",
            attempt.backend.name(),
            attempt.symbol,
            ours / empty,
            ours - empty
        );
    }
    Ok(())
}

/// What a run of either program costs: of some rounds, the one whose difference is the median.
fn cost(
    probe: &DelayProbe,
    empty: &EmptyProbe,
    slot: u32,
    run: &dyn Fn() -> Result<()>,
) -> Result<(f64, f64)> {
    let mut costs = Vec::new();
    for _ in 0..ROUNDS {
        let before = (probe.sample(slot)?.program, empty.stats()?);
        run()?;
        let after = (probe.sample(slot)?.program, empty.stats()?);
        costs.push((per_run(before.0, after.0)?, per_run(before.1, after.1)?));
    }
    Ok(median(costs, |cost| cost.0 - cost.1))
}

fn per_run(before: ProgStats, after: ProgStats) -> Result<f64> {
    let runs = after.run_count - before.run_count;
    ensure!(runs > 1_000, "only {runs} runs were measured");
    Ok((after.run_time_ns - before.run_time_ns) as f64 / runs as f64)
}
