//! The injector as the oracle.

use anyhow::{Context as _, Result, ensure};

use super::{
    super::Place,
    agent,
    calls::{Target, as_command},
    no_losses,
};
use crate::{
    agent::Agent,
    dump::{Dump, Sum, width},
    timing::median,
};

const ORACLE_OPS: [&str; 4] = ["read", "write", "open", "fsync"];
const ORACLE: &str = "iolag-oracle";
const ORACLE_CALLS: usize = 40;

/// What the oracle's own command did with an operation.
struct Run {
    op: &'static str,
    ours: Sum,
    /// By the caller's clock.
    median_ns: u64,
}

/// Runs the oracle's command, with a delay if there is one.
fn oracle_run(agent: &Agent, target: &Target, delay: Option<(&Agent, &str)>) -> Result<Vec<Run>> {
    let args = ["--by", "op,comm", "--filter", "comm=iolag-oracle"];
    let before = agent.dump("vfs", &args)?;
    if let Some((injector, delay)) = delay {
        injector.call(&["set", delay])?;
    }
    let done = as_command(ORACLE, || {
        ORACLE_OPS
            .iter()
            .map(|op| target.times(op, ORACLE_CALLS))
            .collect::<Result<Vec<_>>>()
    });
    if let Some((injector, _)) = delay {
        injector.call(&["set", "0"])?;
    }
    let after = agent.dump("vfs", &args)?;
    Ok(ORACLE_OPS
        .iter()
        .zip(done?)
        .map(|(op, times)| {
            let of = |dump: &Dump| dump.sum(&[("op", op)], "latency");
            Run {
                op,
                ours: of(&after).since(&of(&before)),
                median_ns: median(times),
            }
        })
        .collect())
}

/// The injector is the oracle: read, write and open take longer by what it injects, within one bucket, and
/// fsync does not.
///
/// # Errors
/// They do not.
pub fn injected_delays_show_and_nowhere_else(place: &Place<'_>, backend: &str) -> Result<()> {
    let agent = agent(place, backend, "op,comm")?;
    let target = Target::in_memory()?;
    for (delay, delay_ns) in [("1ms", 1_000_000), ("5ms", 5_000_000)] {
        let plain = oracle_run(&agent, &target, None)?;
        let slow = oracle_run(&agent, &target, Some((&agent, delay)))?;
        for (plain, slow) in plain.iter().zip(&slow) {
            moved_by(place, delay_ns, plain, slow)
                .with_context(|| format!("{backend} {}, {delay}", plain.op))?;
        }
    }
    no_losses(&agent.dump("vfs", &["--by", "op"])?)
}

/// A wait burns the CPU, and where others want it too, a call that waited is often put aside before it ends.
/// So what was injected is looked for in the fastest tenth of the calls, and the median is compared with the
/// caller's own.
fn moved_by(place: &Place<'_>, delay_ns: u64, plain: &Run, slow: &Run) -> Result<()> {
    let (from, to) = (plain.ours.quantile(0.1), slow.ours.quantile(0.1));
    let middle = slow.ours.quantile(0.5);
    println!(
        "{}, {delay_ns} ns: {from:?} -> {to:?}, median {middle:?}, the caller's {} ns",
        slow.op, slow.median_ns
    );
    let count = slow.ours.count;
    ensure!(count == ORACLE_CALLS as u64, "{count} of {ORACLE_CALLS}");
    let slack = width(middle.1) + if place.emulated { 50_000 } else { 2_000 };
    ensure!(
        (middle.0.saturating_sub(slack)..=middle.1 + slack).contains(&slow.median_ns),
        "the median is {middle:?}, the caller's own {} ns",
        slow.median_ns
    );
    if slow.op == "fsync" {
        ensure!(to.1 < delay_ns / 2, "it moved to {to:?}");
        return Ok(());
    }
    let expected = (from.0 + delay_ns, from.1 + delay_ns);
    ensure!(
        within_one_bucket(to, expected),
        "{to:?} ns, expected {expected:?}"
    );
    Ok(())
}

/// Whether two ranges overlap, or lie one bucket apart at most.
fn within_one_bucket(bucket: (u64, u64), expected: (u64, u64)) -> bool {
    let slack = width(bucket.0).max(width(expected.1));
    bucket.0 <= expected.1 + slack && bucket.1 + slack >= expected.0
}

/// Programs at one place run in the order that the kernel chooses: at a tracepoint as attached, at a function
/// the last one first. One agent sees its own delays in either case; of another agent's, attached after the
/// probe, `tp` sees the delay, and the functions do not.
///
/// # Errors
/// It is otherwise.
pub fn delays_attached_later_show_at_tracepoints_only(
    place: &Place<'_>,
    backend: &str,
) -> Result<()> {
    let agent = agent(place, backend, "op,comm")?;
    let injector = Agent::start(place.program, &["--backend", backend])?;
    let slow = oracle_run(&agent, &Target::in_memory()?, Some((&injector, "1ms")))?;
    let (least, _) = slow[0].ours.quantile(0.1);
    let seen = least >= 875_000;
    ensure!(
        seen == (backend == "tp"),
        "{backend}: a delay attached later is seen: {seen} ({least} ns)"
    );
    Ok(())
}
