//! Probes loaded and unloaded over and over.

use std::{
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};

use super::{
    Place,
    machine::{counts, wait_no_more},
    row,
};
use crate::{agent::Agent, held::Held};

const PROBES: [&str; 5] = ["block", "vfs", "sched", "irq", "memory"];
/// What an allocator may keep of what was given back, whatever the number of cycles.
const SLACK_KIB: u64 = 2048;

/// So many cycles, of each probe in turn: descriptors, threads, programs and maps are as before, and so is memory.
///
/// # Errors
/// They are not.
pub fn cycles(place: &Place<'_>, count: usize) -> Result<()> {
    let agent = Agent::start(place.program, &["--backend", place.backend])?;
    // The first ones bring what stays: the kernel's types are read, pools of memory grow.
    run(&agent, 3 * PROBES.len())?;
    let before = lowest(agent.pid())?;
    let most = counts()?;
    run(&agent, count)?;
    let [links, programs, maps] = wait_no_more(most, Duration::from_secs(5))?;
    let after = settled(agent.pid(), before)?;
    row(
        "probes loaded and unloaded",
        place.backend,
        format_args!(
            "{count} cycles: descriptors {} and {}, threads {} and {}, links {} and {links}, \
             programs {} and {programs}, maps {} and {maps}, memory {} and {} KiB",
            before.descriptors,
            after.descriptors,
            before.threads,
            after.threads,
            most[0],
            most[1],
            most[2],
            before.memory,
            after.memory
        ),
    );
    Ok(())
}

/// The least that it uses within some seconds, in which also the kernel frees what was unloaded.
fn lowest(pid: i32) -> Result<Held> {
    let start = Instant::now();
    let mut lowest = Held::by(pid)?;
    while start.elapsed() < Duration::from_secs(2) {
        sleep(Duration::from_millis(50));
        let now = Held::by(pid)?;
        lowest.threads = lowest.threads.min(now.threads);
        lowest.memory = lowest.memory.min(now.memory);
        lowest.descriptors = lowest.descriptors.min(now.descriptors);
    }
    Ok(lowest)
}

/// What it uses once that is no more than before: what a probe's loading needed is freed behind the answer.
fn settled(pid: i32, before: Held) -> Result<Held> {
    let start = Instant::now();
    loop {
        let after = Held::by(pid)?;
        let grown = after.memory.saturating_sub(before.memory);
        let counted = (after.descriptors, after.threads) == (before.descriptors, before.threads);
        if counted && grown <= SLACK_KIB {
            return Ok(after);
        }
        ensure!(
            start.elapsed() < Duration::from_secs(5),
            "{before:?}, and then {after:?}"
        );
        sleep(Duration::from_millis(10));
    }
}

fn run(agent: &Agent, count: usize) -> Result<()> {
    for (number, probe) in PROBES.iter().cycle().take(count).enumerate() {
        for action in ["load", "unload"] {
            let what = || format!("{action} {probe}, cycle {number}");
            agent.call(&["probe", action, probe]).with_context(what)?;
        }
    }
    Ok(())
}
