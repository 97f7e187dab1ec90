//! The agent dies, by whatever, with delays in force, probes loaded and the machine at work.

use std::{
    fmt, fs,
    io::Write as _,
    os::unix::net::UnixStream,
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow, ensure};

use super::{
    FILE, Place, fast, fast_again,
    machine::{Machine, Watched, listened_at},
    row, slow,
};
use crate::{agent::Agent, memcg::MemoryCgroup, timing::reads};

/// After a death the machine is at full speed within this.
const FAST: Duration = Duration::from_millis(100);
/// Taking a backend down waits for grace periods of RCU, several seconds of them in an emulated machine.
const GONE: Duration = Duration::from_secs(15);
/// Of a death behind which the machine was slow for longer.
const TRIES: usize = 3;
/// It runs out of memory within this.
const KILLED: Duration = Duration::from_secs(20);
const CAUSES: [Cause; 4] = [Cause::Kill, Cause::Abort, Cause::Panic, Cause::OutOfMemory];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cause {
    Kill,
    Abort,
    Panic,
    OutOfMemory,
}

/// What one death came to.
#[derive(Clone, Copy, Debug)]
struct Death {
    fast: Duration,
    gone: Duration,
}

/// What all came to.
#[derive(Debug, Default)]
struct Deaths {
    fast: Vec<Duration>,
    gone: Vec<Duration>,
    retried: usize,
}

/// So many deaths, each cause in turn.
///
/// # Errors
/// Something is left, the machine stays slow, or an agent does not start again.
pub fn deaths(place: &Place<'_>, count: usize) -> Result<()> {
    let over = AtomicBool::new(false);
    let before = Machine::now()?;
    let mut all = Deaths::default();
    thread::scope(|scope| {
        let load = scope.spawn(|| load(&over));
        let died = CAUSES.iter().cycle().take(count).try_for_each(|cause| {
            let what = || format!("{}: {cause:?}", place.backend);
            let mut death = dies(place, *cause, &before).with_context(what)?;
            // A busy host stops the emulated CPUs for longer than that.
            for _ in 1..TRIES {
                if death.fast > FAST {
                    all.retried += 1;
                    death = dies(place, *cause, &before).with_context(what)?;
                }
            }
            ensure!(death.fast <= FAST, "{}: slow for {:?}", what(), death.fast);
            all.fast.push(death.fast);
            all.gone.push(death.gone);
            Ok(())
        });
        over.store(true, Ordering::Relaxed);
        let loaded = load.join().map_err(|_| anyhow!("the load panicked"))?;
        died.and(loaded)
    })?;
    row("death of the agent", place.backend, &all);
    Ok(())
}

/// Reads, writes and syncs, so that there is somebody to delay as the agent dies.
fn load(over: &AtomicBool) -> Result<()> {
    let path = std::env::temp_dir().join(format!("iolag-load-{}", std::process::id()));
    while !over.load(Ordering::Relaxed) {
        reads(Path::new(FILE), 10, Duration::ZERO)?;
        let mut file = fs::File::create(&path)?;
        file.write_all(&[1; 4096])?;
        file.sync_all()?;
    }
    fs::remove_file(&path)?;
    Ok(())
}

fn dies(place: &Place<'_>, cause: Cause, before: &Machine) -> Result<Death> {
    let args = ["--backend", place.backend, "--probes", "block"];
    let agent = Agent::start(place.program, &args).context("the next start")?;
    let watched = Watched::new(&agent)?;
    let schema = agent.status()?["schema"].clone();
    let cgroup = match cause {
        Cause::OutOfMemory => Some(MemoryCgroup::new("iolag-death", 8 << 20)?),
        _ => None,
    };
    agent.call(&["set", "10ms"])?;
    ensure!(slow()?, "nothing is delayed");
    let mut start = Instant::now();
    match cause {
        Cause::Kill => agent.signal(libc::SIGKILL),
        Cause::Abort => agent.signal(libc::SIGABRT),
        Cause::Panic => {
            let mut socket = UnixStream::connect(agent.socket())?;
            writeln!(socket, r#"{{"schema":{schema},"command":"panic"}}"#)?;
        }
        Cause::OutOfMemory => {
            let cgroup = cgroup.as_ref().context("no cgroup")?;
            start = starve(cgroup, &agent)?;
        }
    }
    fast_again(Duration::from_secs(5))?;
    let mut fast_after = start.elapsed();
    watched.wait_end(GONE)?;
    before.wait_back(GONE)?;
    if !fast()? {
        // Slow again, or paused: tried again as one that was slow for too long, and counted.
        fast_after = start.elapsed().max(2 * FAST);
    }
    ensure!(!listened_at(&agent.socket())?, "somebody listens");
    Ok(Death {
        fast: fast_after,
        gone: start.elapsed(),
    })
}

/// Lets the kernel kill the agent for memory that it takes itself: to load a probe it reads the kernel's types. Returns when
/// that was.
fn starve(cgroup: &MemoryCgroup, agent: &Agent) -> Result<Instant> {
    cgroup.take_in(agent.pid())?;
    thread::scope(|scope| {
        // It gets no answer.
        let load = scope.spawn(|| agent.output(&["probe", "load", "sched"]));
        let start = Instant::now();
        while cgroup.oom_kills()? == 0 {
            ensure!(start.elapsed() < KILLED, "the kernel killed nobody");
            thread::sleep(Duration::from_millis(1));
        }
        let killed = Instant::now();
        load.join().map_err(|_| anyhow!("the client panicked"))??;
        Ok(killed)
    })
}

impl fmt::Display for Deaths {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let of = |times: &[Duration]| {
            let mut times: Vec<u128> = times.iter().map(Duration::as_millis).collect();
            times.sort_unstable();
            let middle = times.get(times.len() / 2).copied().unwrap_or_default();
            (middle, times.last().copied().unwrap_or_default())
        };
        let ((fast, slowest), (gone, last)) = (of(&self.fast), of(&self.gone));
        write!(
            f,
            "{} deaths (kill -9, abort, panic, OOM kill in turn): full speed after {fast} ms (median) to {slowest} ms, \
             nothing left after {gone} to {last} ms, {} tried again; left behind: 0",
            self.fast.len(),
            self.retried
        )
    }
}
