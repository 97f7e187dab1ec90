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
        injector.settle()?;
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
        let mut moved = Ok(());
        for _ in 0..TRIES {
            let plain = oracle_run(&agent, &target, None)?;
            let slow = oracle_run(&agent, &target, Some((&agent, delay)))?;
            moved = plain.iter().zip(&slow).try_for_each(|(plain, slow)| {
                moved_by(delay_ns, plain, slow)?;
                is_within_the_callers(place, slow)
            });
            if moved.is_ok() {
                break;
            }
        }
        moved.with_context(|| format!("{backend}, {delay}, in {TRIES} tries"))?;
    }
    no_losses(&agent.dump("vfs", &["--by", "op"])?)
}

/// A wait burns the CPU, and where others want it too, a call that waited is put aside before it ends: then it
/// takes longer than was injected; put aside on its way back to user space, by the caller's clock only.
const TRIES: usize = 5;

/// Every call is seen, and our median is not above the caller's own: that holds more than the call, and on a
/// busy machine the wait for a CPU after it.
fn is_within_the_callers(place: &Place<'_>, run: &Run) -> Result<()> {
    let (low, high) = run.ours.quantile(0.5);
    let slack = width(high) + if place.emulated { 50_000 } else { 2_000 };
    ensure!(
        run.ours.count == ORACLE_CALLS as u64,
        "{}: {} of {ORACLE_CALLS}",
        run.op,
        run.ours.count
    );
    ensure!(
        low <= run.median_ns + slack,
        "{}: the median is {low} to {high} ns, the caller's own {}",
        run.op,
        run.median_ns
    );
    Ok(())
}

/// The fastest tenth of the calls took longer by what was injected, within one bucket; of fsync, it did not.
fn moved_by(delay_ns: u64, plain: &Run, slow: &Run) -> Result<()> {
    let (from, to) = (plain.ours.quantile(0.1), slow.ours.quantile(0.1));
    println!(
        "{}, {delay_ns} ns: {from:?} -> {to:?}, median {:?}, the caller's {} ns",
        slow.op,
        slow.ours.quantile(0.5),
        slow.median_ns
    );
    if slow.op == "fsync" {
        ensure!(to.1 < delay_ns / 2, "fsync moved to {to:?}");
        return Ok(());
    }
    let expected = (from.0 + delay_ns, from.1 + delay_ns);
    ensure!(
        within_one_bucket(to, expected),
        "{}: {to:?} ns, expected {expected:?}",
        slow.op
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
