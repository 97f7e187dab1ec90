//! The machine comes back, whatever happens to the agent.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use iolag_tests::{
    agent::Agent,
    faults, programs,
    timing::{median, reads},
};

use super::raised::settled;

const FILE: &str = "/dev/zero";

/// With 10 ms in force on every read, write and open: after `kill -9` a read is fast again within 100 ms, and
/// tracepoints are gone.
pub fn kill() -> Result<()> {
    for backend in ["fentry", "kprobe", "tp"] {
        // A host that is busy may stop the emulated CPUs meanwhile.
        settled(
            || killed(backend),
            |(fast, detached)| {
                let limit = Duration::from_millis(100);
                *fast <= limit && (backend != "tp" || *detached <= limit)
            },
        )
        .with_context(|| format!("{backend}: fast and detached after kill -9"))?;
    }
    Ok(())
}

/// How long until reads are fast, and until nothing is attached.
fn killed(backend: &str) -> Result<(Duration, Duration)> {
    let (before, links) = (programs::loaded()?, programs::links()?);
    let agent = slowed(backend)?;
    ensure!(
        programs::links()?.len() > links.len(),
        "nothing is attached"
    );
    agent.signal(libc::SIGKILL);
    let start = Instant::now();
    let fast = faults::fast_again(Duration::from_secs(5))?;
    // Taking kprobes down waits for several RCU grace periods, and fentry for an RCU tasks one at each
    // function, which the kernel polls at 100 ms: no longer delaying, they are gone later.
    programs::wait_gone(programs::links, &links, Duration::from_secs(5))?;
    let detached = start.elapsed();
    programs::wait_gone(programs::loaded, &before, Duration::from_secs(5))?;
    println!(
        "{backend}: after kill -9: fast {fast:?}, nothing attached {detached:?}, programs freed {:?}",
        start.elapsed()
    );
    Ok((fast, detached))
}

/// `iolag stop` with the longest delay there is in force: the client waits at each of its calls, and
/// the agent, which does not, takes its probes down.
pub fn stop_while_slow() -> Result<()> {
    let links = programs::links()?;
    let agent = Agent::start(Path::new("/iolag"), &["--backend", "kprobe"])?;
    agent.call(&["set-blk", "1s"])?;
    agent.call(&["set", "1s"])?;
    let start = Instant::now();
    agent.call(&["stop"])?;
    let stopped = start.elapsed();
    println!("stopped {stopped:?} after iolag stop");
    // What is answered when all is detached is true at once.
    ensure!(programs::links()? == links, "links are left");
    ensure!(
        stopped <= Duration::from_secs(10),
        "stopped only {stopped:?} after iolag stop"
    );
    let fast = median(reads(Path::new(FILE), 3, Duration::ZERO)?);
    ensure!(fast < 5_000_000, "a read takes {fast} ns after stop");
    agent.wait_gone(Duration::from_secs(5))?;
    Ok(())
}

fn slowed(backend: &str) -> Result<Agent> {
    let agent = Agent::start(Path::new("/iolag"), &["--backend", backend])?;
    agent.call(&["set", "10ms"])?;
    let slow = median(reads(Path::new(FILE), 10, Duration::ZERO)?);
    ensure!(slow >= 10_000_000, "{backend}: a read takes {slow} ns");
    Ok(agent)
}
