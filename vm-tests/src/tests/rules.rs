//! Rules for everybody: the machine stays controllable, its watchdogs stay silent, and delays end with the agent.

use std::{
    fs::File,
    io::{ErrorKind, Read as _, Seek as _, SeekFrom},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    thread::{scope, sleep},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use iolag_tests::{
    affinity::{cpus, go_to},
    agent::Agent,
    memcg::MemoryCgroup,
    outcome::Outcome,
    timing::{reads, writes},
};

use super::raised::timed;
use crate::guest;

const PROGRAM: &str = "/iolag";
/// On each read and write of everybody.
const DELAY: &str = "100ms";
const HALF_NS: u64 = 50_000_000;
/// Longer than the kernel's watchdogs of CPUs and of RCU wait, which is 20 s and 21 s.
const LONG: Duration = Duration::from_secs(25);
/// Delays end so long after the agent's last renewal, with the hit that was under way.
const LEASE: Duration = Duration::from_millis(3_700);

/// A busy thread on each CPU for the time of `work`, which reads and writes without a pause. Returns when one of them was
/// slow last.
fn with_everybody_busy(work: impl FnOnce() -> Result<()>) -> Result<Option<Instant>> {
    let over = AtomicBool::new(false);
    scope(|scope| {
        let over = &over;
        let busy = |cpu| {
            scope.spawn(move || -> Result<Option<Instant>> {
                go_to(cpu)?;
                let mut slow = None;
                while !over.load(Relaxed) {
                    let read = reads(Path::new("/dev/zero"), 1, Duration::ZERO)?[0];
                    let written = writes(Path::new("/dev/null"), 1, Duration::ZERO)?[0];
                    if read.max(written) >= HALF_NS {
                        slow = Some(Instant::now());
                    }
                }
                Ok(slow)
            })
        };
        let threads: Vec<_> = cpus().into_iter().map(busy).collect();
        let done = work();
        over.store(true, Relaxed);
        let mut last = None;
        for thread in threads {
            last = last.max(thread.join().expect("it does not panic")?);
        }
        done.map(|()| last)
    })
}

fn is_slow() -> Result<bool> {
    Ok(reads(Path::new("/dev/zero"), 1, Duration::ZERO)?[0] >= HALF_NS)
}

/// What the kernel logs from now on.
struct KernelLog(File);

impl KernelLog {
    fn from_now() -> Result<Self> {
        let mut options = File::options();
        options.read(true).custom_flags(libc::O_NONBLOCK);
        let mut log = options
            .open("/dev/kmsg")
            .context("failed to open /dev/kmsg")?;
        log.seek(SeekFrom::End(0))?;
        Ok(Self(log))
    }

    /// Lines in which a watchdog barks.
    fn complaints(&mut self) -> Result<Vec<String>> {
        const BARKS: [&str; 6] = [
            "soft lockup",
            "hard LOCKUP",
            "detected stalls",
            "self-detected stall",
            "blocked for more than",
            "BUG:",
        ];
        let mut found = Vec::new();
        let mut record = [0; 8192];
        loop {
            match self.0.read(&mut record) {
                Ok(length) => {
                    let line = String::from_utf8_lossy(&record[..length]).into_owned();
                    if BARKS.iter().any(|bark| line.contains(bark)) {
                        found.push(line);
                    }
                }
                // Records that were overwritten before they were read.
                Err(error) if error.kind() == ErrorKind::BrokenPipe => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(found),
                Err(error) => return Err(error).context("failed to read /dev/kmsg"),
            }
        }
    }
}

/// With 100 ms on every read and write, by a rule and by `set`: `reset` takes effect within a second, and no watchdog
/// has barked.
pub fn everybody() -> Result<()> {
    let mut log = KernelLog::from_now()?;
    reset_after(LONG, "fentry", &["set", DELAY])?;
    for backend in ["fentry", "kprobe", "tp"] {
        for command in [
            &["inject", "vfs.read,vfs.write", "--delay", DELAY][..],
            &["set", DELAY],
        ] {
            // A host that is busy may stop the emulated CPUs meanwhile.
            let (_, exempt) = timed(
                || reset_after(Duration::from_secs(2), backend, command),
                |(took, _)| *took <= Duration::from_secs(1),
            )?;
            // The agent's commands, which are not delayed themselves.
            ensure!(exempt > 0, "{backend}: {command:?} exempts nobody");
        }
    }
    let complaints = log.complaints()?;
    ensure!(
        complaints.is_empty(),
        "the kernel complains: {complaints:?}"
    );
    Ok(())
}

/// Everybody is slow for so long; then how long it takes from the start of `reset` until nobody is, and how many hits
/// were exempt.
fn reset_after(length: Duration, backend: &str, command: &[&str]) -> Result<(Duration, u64)> {
    let agent = Agent::start(Path::new(PROGRAM), &["--backend", backend])?;
    let mut asked = None;
    let slow = with_everybody_busy(|| {
        agent.call(command)?;
        sleep(length);
        ensure!(is_slow()?, "{backend}: {command:?} slows nobody");
        asked = Some(Instant::now());
        agent.call(&["reset"])?;
        ensure!(!is_slow()?, "{backend}: still slow after reset");
        Ok(())
    })?;
    let (asked, slow) = asked.zip(slow).context("nobody was slow")?;
    let took = slow.saturating_duration_since(asked);
    let rules = agent.rules()?;
    let rule = rules.last().context("no rule has ended")?;
    println!(
        "{backend} {}: reset took {took:?}; {}",
        command[0], rule.0["counts"]
    );
    Ok((took, rule.count("exempt")))
}

/// A budget of 30 % of each CPU, with 100 ms on every read and write of everybody.
pub fn budget() -> Result<()> {
    let agent = Agent::start(Path::new(PROGRAM), &[])?;
    let flags = ["--delay", DELAY, "--cpu-budget", "30%", "--name", "bounded"];
    let mut counts: Option<(Outcome, Outcome, Duration)> = None;
    with_everybody_busy(|| {
        agent.call(&[&["inject", "vfs.read,vfs.write"], &flags[..]].concat())?;
        // The first wait on each CPU is ahead of its account.
        sleep(Duration::from_secs(2));
        let (before, start) = (agent.rule("bounded")?, Instant::now());
        sleep(Duration::from_secs(15));
        let length = start.elapsed();
        counts = Some((before, agent.rule("bounded")?, length));
        agent.call(&["reset"])?;
        Ok(())
    })?;
    let (before, after, length) = counts.context("no counts")?;
    let burnt = (after.count("achieved_ns") - before.count("achieved_ns")) as f64;
    let share = burnt / cpus().len() as f64 / length.as_nanos() as f64;
    println!(
        "--cpu-budget 30%: {:.1} % of each CPU in {length:?}",
        share * 100.0
    );
    ensure!((0.25..=0.35).contains(&share), "{share} of each CPU");
    ensure!(
        after.count("budget") > 0,
        "nothing was withheld: {}",
        after.0
    );
    Ok(())
}

/// Whatever happens to the agent, nobody is slow when its lease is over.
pub fn lease() -> Result<()> {
    let killed = fast_after(|agent| {
        agent.signal(libc::SIGKILL);
        Ok(())
    })?;
    let stopped = fast_after(|agent| {
        agent.signal(libc::SIGSTOP);
        Ok(())
    })?;
    let starved = fast_after(|agent| {
        let cgroup = MemoryCgroup::new("iolag-agent", 1 << 20)?;
        cgroup.take_in(agent.pid())?;
        // For a probe it has to read the kernel's types, and has no room for them.
        let loaded = agent.output(&["probe", "load", "vfs"])?;
        ensure!(!loaded.status.success(), "the probe was loaded");
        ensure!(cgroup.oom_kills()? > 0, "nobody was killed");
        Ok(())
    })?;
    println!(
        "fast {killed:?} after SIGKILL, {stopped:?} after SIGSTOP, {starved:?} after an OOM kill"
    );
    Ok(())
}

/// How long after the harm was done a read is fast again.
fn fast_after(harm: impl FnOnce(&Agent) -> Result<()>) -> Result<Duration> {
    let agent = Agent::start(Path::new(PROGRAM), &[])?;
    agent.call(&["inject", "vfs.read,vfs.write", "--delay", DELAY])?;
    ensure!(is_slow()?, "nobody is slow");
    harm(&agent)?;
    let start = Instant::now();
    while is_slow()? {
        ensure!(start.elapsed() < 2 * LEASE, "still slow");
    }
    let took = start.elapsed();
    ensure!(took <= LEASE, "fast only after {took:?}");
    Ok(took)
}

/// A batch of requests that one thread hands to the driver, each to wait for a second: the waits end before a watchdog
/// takes the CPU for locked up, and what was left out is told.
pub fn batch() -> Result<()> {
    let mut log = KernelLog::from_now()?;
    let agent = Agent::start(Path::new(PROGRAM), &[])?;
    // Makes the file and has fio itself in memory, so that the batch is all that is read.
    read_batch(1)?;
    let flags = ["--delay", "1s", "--op", "read", "--name", "batch"];
    agent.call(&[&["inject", "block.issue"], &flags[..]].concat())?;
    let start = Instant::now();
    read_batch(64)?;
    let took = start.elapsed();
    let outcome = agent.rule("batch")?;
    agent.call(&["reset"])?;
    println!("a batch of 64 took {took:?}: {}", outcome.0["counts"]);
    ensure!(outcome.count("hits") >= 5, "{}", outcome.0);
    ensure!(
        outcome.count("row") > 0,
        "nothing was left out: {}",
        outcome.0
    );
    let complaints = log.complaints()?;
    ensure!(
        complaints.is_empty(),
        "the kernel complains: {complaints:?}"
    );
    Ok(())
}

/// Has fio hand so many reads to the kernel at once.
fn read_batch(count: u32) -> Result<()> {
    let mut fio = guest::fio();
    fio.args(["--name=batch", "--rw=randread", "--bs=4k", "--direct=1"])
        .args(["--ioengine=libaio", "--size=16M"])
        .arg(format!("--iodepth={count}"))
        .arg(format!("--iodepth_batch={count}"))
        .arg(format!("--number_ios={count}"))
        .arg(format!("--filename={}", guest::FIO_FILE));
    let output = fio.output().context("failed to run fio")?;
    ensure!(
        output.status.success(),
        "fio: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}
