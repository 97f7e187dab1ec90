//! Long work with everything on: fio, stress-ng, all probes, and rules that change twice a second.

use std::{
    path::Path,
    process::{Child, Command, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use iolag_tests::{
    agent::Agent,
    dump::Dump,
    faults::{machine::Machine, rounds, row},
    held::Held,
    reader::go_first,
};

use crate::guest;

const PROBES: [&str; 5] = ["block", "vfs", "sched", "irq", "memory"];
const DIR: &str = "/mnt/soak";
const GONE: Duration = Duration::from_secs(20);
/// What comes and goes, a few of each kind that there is.
const RULES: [&[&str]; 6] = [
    &["vfs.read", "--delay", "100us", "--chance", "10%"],
    &["block.issue", "--delay", "1ms", "--device", "vda"],
    &["vfs.fsync", "--delay", "2ms", "--comm", "fio"],
    &[
        "vfs.write",
        "--delay",
        "100us",
        "--jitter",
        "20us",
        "--every",
        "3",
    ],
    &[
        "vfs.open",
        "--delay",
        "1ms",
        "--uid",
        "0",
        "--max-hits",
        "50",
    ],
    &["vfs.read", "--delay", "1ms", "--under", DIR, "--for", "1s"],
];
const EVERY: Duration = Duration::from_millis(500);
/// Each rule comes twice, however long a change takes on a machine this busy.
const CHANGES: usize = 4 * RULES.len();
/// The changes are divided into so many; what the agent keeps may grow by this in the second half, however long it is.
const PARTS: usize = 6;
const SLACK_KIB: u64 = 2048;

/// Work of others that is ended with the test.
struct Work(&'static str, Child);

impl Work {
    fn start(name: &'static str, command: &mut Command) -> Result<Self> {
        let child = command.stdout(Stdio::null()).spawn();
        Ok(Self(
            name,
            child.with_context(|| format!("failed to run {name}"))?,
        ))
    }

    fn wait(mut self) -> Result<()> {
        let status = self.1.wait()?;
        ensure!(status.success(), "{}: {status}", self.0);
        Ok(())
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        let _ended = self.1.kill();
        let _reaped = self.1.wait();
    }
}

fn fio(seconds: u64) -> Result<Work> {
    let mut fio = guest::fio();
    fio.args([
        "--name=soak",
        "--rw=randrw",
        "--bs=4k",
        "--size=16M",
        "--direct=1",
    ]);
    fio.args([
        "--numjobs=2",
        "--fsync=64",
        "--time_based",
        "--output=/dev/null",
    ]);
    fio.args([
        &format!("--directory={DIR}"),
        &format!("--runtime={seconds}"),
    ]);
    Work::start("fio", &mut fio)
}

fn stress(seconds: u64) -> Result<Work> {
    let mut stress = guest::on_disk("stress-ng");
    stress.args([
        "--quiet",
        "--cpu",
        "1",
        "--vm",
        "1",
        "--vm-bytes",
        "64M",
        "--fork",
        "1",
    ]);
    stress.args([
        "--switch",
        "1",
        "--timer",
        "1",
        "--hdd",
        "1",
        "--hdd-bytes",
        "16M",
    ]);
    stress.args(["--temp-path", DIR, "--timeout", &format!("{seconds}s")]);
    Work::start("stress-ng", &mut stress)
}

/// Nothing that the kernel complains of (which ends the machine as failed), starts and ends that add up, and an agent that
/// does not grow.
pub fn soak() -> Result<()> {
    let seconds = rounds(20, 1800) as u64;
    let before = Machine::now()?;
    std::fs::create_dir(DIR)?;
    let agent = Agent::start(Path::new("/iolag"), &["--probes", &PROBES.join(",")])?;
    // What rules read of the kernel is read before the machine is busy.
    (0..2 * RULES.len()).try_for_each(|number| change(&agent, number))?;
    agent.call(&["reset"])?;
    let work = [fio(seconds)?, stress(seconds)?];
    let (start, length) = (Instant::now(), Duration::from_secs(seconds));
    go_first()?;
    let mut memory = Vec::new();
    while start.elapsed() < length || memory.len() < CHANGES {
        let next = start.elapsed() + EVERY;
        change(&agent, memory.len())?;
        memory.push(Held::by(agent.pid())?.memory);
        sleep(next.saturating_sub(start.elapsed()));
    }
    work.into_iter().try_for_each(Work::wait)?;
    let changes = memory.len();
    // What it keeps: at single moments it has more, as when it has just read the kernel's types, and gives that back.
    let kept = memory.chunks(changes.div_ceil(PARTS));
    let kept: Vec<u64> = kept.filter_map(|part| part.iter().min().copied()).collect();
    // In the first parts it still gives back what loading took.
    let (early, late) = (kept[PARTS / 2], kept[kept.len() - 1]);
    ensure!(
        late <= early + SLACK_KIB,
        "the agent kept {kept:?} KiB of {memory:?}"
    );
    agent.call(&["reset"])?;
    sleep(Duration::from_secs(1));
    let mut figures = format!(
        "{seconds} s, {changes} changes: the agent had {early} KiB at half time, {late} KiB at the end"
    );
    for probe in PROBES {
        figures += &books(probe, &agent.dump(probe, &[])?)?;
    }
    agent.call(&["stop"])?;
    before.wait_back(GONE)?;
    row(
        "long work with rules changing twice a second",
        "auto",
        figures,
    );
    Ok(())
}

/// A rule comes, or an older one goes, or all do.
fn change(agent: &Agent, number: usize) -> Result<()> {
    let name = |number: usize| format!("soak-{number}");
    let rule = RULES[number / 2 % RULES.len()];
    match number % 2 {
        0 => {
            let name = name(number);
            agent.call(&[&["inject"], rule, &["--name", &name]].concat())?;
        }
        _ if number % 32 == 31 => drop(agent.call(&["reset"])?),
        // It may have ended by itself.
        _ if number > 16 => drop(agent.output(&["remove", &name(number - 15)])?),
        _ => {}
    }
    Ok(())
}

/// What was started, and that it has all ended, is under way, or is in the ledger.
fn books(probe: &str, dump: &Dump) -> Result<String> {
    let of = |name: &str| dump.ledger(name);
    let (starts, ends) = (of("starts")?, of("completions")?);
    let (lost, abandoned) = (of("lost")?, of("abandoned")?);
    // What is asleep or waits for a CPU at this moment; and a dump reads one counter after the other, of a machine at work.
    let open = starts.abs_diff(ends + lost + abandoned);
    println!("{probe}: {}", dump.0["ledger"]);
    ensure!(
        open <= 256,
        "{probe}: {open} are open: {}",
        dump.0["ledger"]
    );
    Ok(format!(
        "; {probe}: {starts} starts, {ends} ends, {abandoned} abandoned, {lost} lost"
    ))
}
