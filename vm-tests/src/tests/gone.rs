//! What is measured or delayed goes away meanwhile: a CPU, a cgroup, a file system, a disk, a module.

use std::{
    ffi::CString,
    fs,
    path::Path,
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use iolag_tests::{
    agent::Agent,
    faults::{machine::Machine, row},
    reader::Reader,
    timing::reads,
};

use super::{scsi, skip};
use crate::guest;

const PROGRAM: &str = "/iolag";
const DELAY_MS: u64 = 10;
const GONE: Duration = Duration::from_secs(15);
const SECOND_CPU: &str = "/sys/devices/system/cpu/cpu1/online";
/// A function of the module `scsi_debug` that each of its commands passes.
const FUNCTION: &str = "scsi_debug_queuecommand";

/// A CPU goes offline and comes back with a rule in force and the run queue measured: each read waits, and is counted.
pub fn cpu() -> Result<()> {
    let before = Machine::now()?;
    let agent = Agent::start(Path::new(PROGRAM), &["--probes", "sched"])?;
    let rule = ["vfs.read", "--delay", "10ms", "--comm", "gone-reader"];
    agent.call(&[&["inject", "--name", "there"], &rule[..]].concat())?;
    let reader = std::thread::Builder::new()
        .name("gone-reader".into())
        .spawn(|| Reader::open().map(|reader| reader.during(Duration::from_secs(3))))?;
    for state in ["0", "1", "0", "1"] {
        sleep(Duration::from_millis(400));
        fs::write(SECOND_CPU, state).context("failed to switch CPU 1")?;
    }
    let calls = reader
        .join()
        .map_err(|_| anyhow::anyhow!("it panicked"))??;
    let fast = calls.iter().filter(|call| call.took < ms(DELAY_MS)).count();
    ensure!(fast == 0, "{fast} of {} reads did not wait", calls.len());
    let rule = agent.rule("there")?;
    ensure!(rule.count("hits") == calls.len() as u64, "{}", rule.0);
    // Switches of a CPU that is on its way out are not reported (`TP_CONDITION(cpu_online(...))`); the ledger has them.
    let losses = agent.dump("sched", &[])?.losses()?;
    ensure!(losses <= 64, "{losses} lost");
    agent.call(&["stop"])?;
    before.wait_back(GONE)?;
    row(
        "CPU offline and online, twice",
        "auto",
        format_args!(
            "{} reads, all delayed and counted; {losses} waits in the ledger of sched as lost",
            calls.len()
        ),
    );
    Ok(())
}

/// A cgroup is removed under a rule for it and the series of it: what comes under its name later is another one.
pub fn cgroup() -> Result<()> {
    let path = "/sys/fs/cgroup/iolag-gone";
    let agent = Agent::start(Path::new(PROGRAM), &["--probes", "sched"])?;
    let mut slow = Vec::new();
    for first in [true, false] {
        fs::create_dir(path).context("failed to make a cgroup")?;
        if first {
            let rule = ["vfs.read", "--delay", "10ms", "--cgroup", "/iolag-gone"];
            agent.call(&[&["inject", "--name", "there"], &rule[..]].concat())?;
        }
        fs::write(format!("{path}/cgroup.procs"), "0")?;
        let times = reads(Path::new("/dev/zero"), 20, Duration::ZERO);
        fs::write("/sys/fs/cgroup/cgroup.procs", "0")?;
        fs::remove_dir(path).context("failed to remove the cgroup")?;
        let delayed = |ns: &&u64| **ns >= DELAY_MS * 1_000_000;
        slow.push(times?.iter().filter(delayed).count());
    }
    ensure!(slow == [20, 0], "slow of 20: {slow:?}");
    let rule = agent.rule("there")?;
    ensure!(rule.count("hits") == 20, "{}", rule.0);
    ensure!(agent.dump("sched", &[])?.losses()? == 0, "sched lost some");
    agent.call(&["remove", "there"])?;
    row(
        "cgroup removed and made anew",
        "auto",
        "20 of 20 reads delayed in it, 0 of 20 in the next one of that name; lost: 0",
    );
    Ok(())
}

/// A file system is unmounted from under readers that a rule delays and `vfs` measures.
pub fn file_system() -> Result<()> {
    let dir = "/tmp/gone";
    fs::create_dir(dir)?;
    guest::mount("tmpfs", dir, "tmpfs")?;
    fs::write(format!("{dir}/file"), [1; 4096])?;
    let agent = Agent::start(Path::new(PROGRAM), &["--probes", "vfs"])?;
    let rule = ["vfs.read", "--delay", "10ms", "--under", dir];
    agent.call(&[&["inject", "--name", "there"], &rule[..]].concat())?;
    let reader = std::thread::spawn(|| reads(Path::new("/tmp/gone/file"), 100, Duration::ZERO));
    sleep(Duration::from_millis(300));
    let path = CString::new(dir)?;
    // SAFETY: a C string for the time of the call.
    let unmounted = unsafe { libc::umount2(path.as_ptr(), libc::MNT_DETACH) };
    ensure!(unmounted == 0, "{}", std::io::Error::last_os_error());
    let times = reader
        .join()
        .map_err(|_| anyhow::anyhow!("it panicked"))??;
    let delayed = times
        .iter()
        .filter(|ns| **ns >= DELAY_MS * 1_000_000)
        .count();
    let rule = agent.rule("there")?;
    let hits = rule.count("hits");
    ensure!(
        hits as usize == delayed && hits >= 10,
        "{delayed} slow, {hits} hits"
    );
    let dump = agent.dump("vfs", &[])?;
    ensure!(dump.losses()? == 0, "vfs: {}", dump.0["ledger"]);
    let ended = rule.ended().context("the rule goes on")?.to_owned();
    row(
        "file system unmounted while it is read",
        "auto",
        format_args!("100 reads done, {delayed} delayed, as counted; the rule: {ended}; lost: 0"),
    );
    Ok(())
}

/// A disk is pulled out while requests to it are delayed and measured, and its module unloaded while one of its functions
/// is measured and delayed.
pub fn disk_and_module() -> Result<()> {
    let before = Machine::now()?;
    let disk = scsi::plug_in()?;
    if !fs::read_to_string("/proc/kallsyms")?.contains(FUNCTION) {
        return Err(skip("this kernel's scsi_debug has no such function"));
    }
    let agent = Agent::start(
        Path::new(PROGRAM),
        &["--backend", "kprobe", "--probes", "block"],
    )?;
    let function = format!("fn:{FUNCTION}");
    agent.call(&["probe", "load", &function])?;
    let delayed = ["--delay", "5ms", "--device", "sda", "--name", "disk"];
    agent.call(&[&["inject", "block.issue"], &delayed[..]].concat())?;
    agent.call(&["inject", &function, "--delay", "1ms", "--name", "function"])?;
    let reader = std::thread::spawn(move || scsi::read_until_it_fails(&disk));
    sleep(Duration::from_millis(500));
    fs::write("/sys/block/sda/device/delete", "1").context("failed to pull the disk out")?;
    let reads = reader
        .join()
        .map_err(|_| anyhow::anyhow!("it panicked"))??;
    ensure!(reads > 0, "nothing was read before it went");
    guest::unload_module("scsi_debug")?;
    sleep(Duration::from_millis(200));
    let hits = ["disk", "function"].map(|name| agent.rule(name).map(|rule| rule.count("hits")));
    let [requests, calls] = hits;
    let (requests, calls) = (requests?, calls?);
    ensure!(
        requests >= reads && calls >= reads,
        "{requests}, {calls} of {reads}"
    );
    let block = agent.dump("block", &[])?;
    let of = |name: &str| block.ledger(name);
    let lost = of("abandoned")? + of("missed")?;
    ensure!(
        of("starts")? == of("completions")? + lost,
        "{}",
        block.0["ledger"]
    );
    let measured = agent.dump(&function, &[])?.sum(&[], "latency").count;
    ensure!(measured >= reads, "{measured} calls measured of {reads}");
    // Its address is gone, and a rule for it is refused as for any that never was.
    let start = Instant::now();
    agent.call(&["remove", "function"])?;
    agent.call(&["probe", "unload", &function])?;
    let refused = agent.output(&["inject", &function, "--delay", "1ms"])?;
    ensure!(
        !refused.status.success(),
        "a function that is gone is delayed"
    );
    agent.call(&["stop"])?;
    before.wait_back(GONE)?;
    row(
        "disk pulled out, its module unloaded",
        "kprobe",
        format_args!(
            "{reads} reads until then, {requests} requests and {calls} calls delayed, {measured} calls measured; \
             block books {lost} as lost; removed and stopped in {} ms",
            start.elapsed().as_millis()
        ),
    );
    Ok(())
}

const fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}
