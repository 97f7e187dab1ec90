//! The probe `sched` against the kernel's own accounts: `ctxt` of /proc/stat, /proc/schedstat and each
//! task's own schedstat.

use std::{
    fs,
    io::ErrorKind,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};

use super::{Place, few_losses};
use crate::{affinity, agent::Agent, dump::Dump};

/// Threads that compute and threads that sleep shortly, more than there are CPUs.
struct Load {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Load {
    /// Waits that are many and short.
    fn start(agent: &Agent) -> Result<Self> {
        Self::with(1, agent)
    }

    /// With that many threads that compute on each CPU: each waits for the slices of the others.
    ///
    /// Beside them Linux 6.18 keeps tasks of other sessions waiting for up to some seconds, at any niceness: what counts is
    /// that of the session (sched(7), "The autogroup feature"), and the agent has one of its own.
    fn with(spinning: usize, agent: &Agent) -> Result<Self> {
        match fs::write(format!("/proc/{}/autogroup", agent.pid()), "-20") {
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            other => other.context("failed to give the agent's session more CPU time")?,
        }
        let stop = Arc::new(AtomicBool::new(false));
        let mut threads = Vec::new();
        let cpus = thread::available_parallelism()?.get();
        for place in 0..cpus * (spinning + 2) {
            let stop = stop.clone();
            let (name, sleeps) = match place < cpus * spinning {
                true => ("iolag-spin", false),
                false => ("iolag-nap", true),
            };
            threads.push(thread::Builder::new().name(name.into()).spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    if sleeps {
                        thread::sleep(Duration::from_micros(200));
                    }
                }
            })?);
        }
        Ok(Self { stop, threads })
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ended = thread.join();
        }
    }
}

/// Has each CPU switch at least once: only then is it known since when it has been doing what it does.
fn visit_all_cpus() -> Result<()> {
    let work = || {
        for cpu in affinity::cpus() {
            affinity::go_to(cpu)?;
            thread::sleep(Duration::from_millis(2));
        }
        Ok(())
    };
    thread::spawn(work)
        .join()
        .map_err(|_| anyhow::anyhow!("a thread panicked"))?
}

/// Switches of all CPUs since the machine was started (Documentation/filesystems/proc.rst).
fn switches() -> Result<u64> {
    let text = fs::read_to_string("/proc/stat")?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("ctxt "))
        .context("no ctxt in /proc/stat")?;
    Ok(line.parse()?)
}

/// Waits for a CPU: their count and sum in ns.
#[derive(Clone, Copy, Debug, Default)]
struct Waits {
    count: u64,
    ns: u64,
}

impl Waits {
    fn since(self, before: Self) -> Self {
        Self {
            count: self.count.saturating_sub(before.count),
            ns: self.ns.saturating_sub(before.ns),
        }
    }
}

/// The machine's, by /proc/schedstat (Documentation/scheduler/sched-stats.rst): `None` if this kernel was
/// built without.
fn schedstat() -> Result<Option<Waits>> {
    let Ok(text) = fs::read_to_string("/proc/schedstat") else {
        return Ok(None);
    };
    let mut sum = Waits::default();
    for line in text.lines().filter(|line| line.starts_with("cpu")) {
        let fields: Vec<&str> = line.split_whitespace().collect();
        sum.ns += fields.get(8).context("no field 8")?.parse::<u64>()?;
        sum.count += fields.get(9).context("no field 9")?.parse::<u64>()?;
    }
    Ok(Some(sum))
}

/// Those of this process's threads of that name.
fn waits_of_threads(name: &str) -> Result<Waits> {
    let mut sum = Waits::default();
    for entry in fs::read_dir("/proc/self/task")? {
        let dir = entry?.path();
        if fs::read_to_string(dir.join("comm"))?.trim() != name {
            continue;
        }
        let text = fs::read_to_string(dir.join("schedstat"))?;
        let mut fields = text.split_whitespace().skip(1);
        sum.ns += fields.next().context("no run_delay")?.parse::<u64>()?;
        sum.count += fields.next().context("no pcount")?.parse::<u64>()?;
    }
    Ok(sum)
}

fn ours(dump: &Dump, labels: &[(&str, &str)]) -> Waits {
    let sum = dump.sum(labels, "runqueue");
    Waits {
        count: sum.count,
        ns: sum.sum,
    }
}

fn all_switches(dump: &Dump) -> u64 {
    dump.sum(&[], "oncpu").count + dump.sum(&[], "idle").count
}

/// Anchor 4 with it: pid 0 is counted as idle, and nowhere else.
///
/// # Errors
/// Our count of switches, read between two readings of `ctxt`, lies outside.
pub fn anchor_4_switches_lie_between_two_readings_of_ctxt(place: &Place<'_>) -> Result<()> {
    let agent = Agent::start(place.program, &[])?;
    agent.call(&["probe", "load", "sched", "--by", "op,comm"])?;
    visit_all_cpus()?;
    let _load = Load::start(&agent)?;
    let by_comm = || agent.dump("sched", &["--by", "op,comm"]);
    let start_high = switches()?;
    let before = by_comm()?;
    let start_low = switches()?;
    for _ in 0..5 {
        thread::sleep(Duration::from_millis(400));
        let low = switches()? - start_low;
        let now = by_comm()?;
        let high = switches()? - start_high;
        let gained = all_switches(&now) - all_switches(&before);
        let lost = few_losses(place, &now)? - few_losses(place, &before)?;
        println!("switches: {gained} in {low}..={high}, {lost} lost");
        ensure!(
            gained + lost >= low && gained <= high,
            "{gained} switches and {lost} lost, the kernel counted {low} to {high}"
        );
        for series in now.series(&[]) {
            let comm = series["labels"]["comm"].as_str().unwrap_or_default();
            ensure!(
                !comm.starts_with("swapper/"),
                "the idle task was measured: {series}"
            );
        }
    }
    Ok(())
}

/// Whether `ours`, read between the kernel's `low` and `high`, is right within `count` and, if the sum is
/// to be compared, `ns` (parts).
fn ensure_near(ours: Waits, low: Waits, high: Waits, count: f64, ns: Option<f64>) -> Result<()> {
    println!("{ours:?} in {low:?}..={high:?}");
    let near = |ours: u64, low: u64, high: u64, part: f64| {
        let slack = (high as f64 * part) as u64;
        (low.saturating_sub(slack)..=high + slack).contains(&ours)
    };
    ensure!(
        near(ours.count, low.count, high.count, count),
        "{} waits, the kernel counted {} to {}",
        ours.count,
        low.count,
        high.count
    );
    ensure!(
        ns.is_none_or(|ns| near(ours.ns, low.ns, high.ns, ns)),
        "{} ns waited, the kernel counted {} to {}",
        ours.ns,
        low.ns,
        high.ns
    );
    Ok(())
}

/// # Errors
/// Waits differ from /proc/schedstat by more than 0.1 % in count or 1 % in sum.
pub fn waits_agree_with_schedstat(place: &Place<'_>) -> Result<()> {
    if schedstat()?.is_none() {
        println!("skipped: this kernel has no /proc/schedstat");
        return Ok(());
    }
    let kernel = || schedstat()?.context("/proc/schedstat is gone");
    let agent = Agent::start(place.program, &["--probes", "sched"])?;
    visit_all_cpus()?;
    // Both ends are read while there is little to do, so that the kernel's two readings are close.
    let start_high = kernel()?;
    let before = agent.dump("sched", &[])?;
    let start_low = kernel()?;
    // The kernel books a switch from the moment at which it takes up its run queue, we from its tracepoint:
    // under an emulator that is up to 1 us later. Waits of several slices are long beside it.
    let load = Load::with(4, &agent)?;
    thread::sleep(Duration::from_secs(4));
    drop(load);
    let low = kernel()?.since(start_low);
    let now = agent.dump("sched", &[])?;
    let high = kernel()?.since(start_high);
    few_losses(place, &now)?;
    let gained = ours(&now, &[]).since(ours(&before, &[]));
    println!("mean wait {} ns", gained.ns / gained.count.max(1));
    let sum = clock_is_stable().then_some(0.01);
    if sum.is_none() {
        println!("skipped: the sums, as this kernel's scheduler has no stable clock");
    }
    ensure_near(gained, low, high, 0.001, sum)
}

/// Whether the kernel's run queues have a clock that does not jump from tick to tick
/// (`kernel/sched/clock.c`). Unknown counts as yes.
fn clock_is_stable() -> bool {
    let text = fs::read_to_string("/sys/kernel/debug/sched/debug").unwrap_or_default();
    let line = text
        .lines()
        .find(|line| line.starts_with("sched_clock_stable()"));
    println!("{line:?}");
    !line.is_some_and(|line| line.trim_end().ends_with('0'))
}

/// Anchor 5: what is told apart by command is told apart by the command of the task that waited, not of
/// whoever woke it or ran before it.
///
/// Counts only: the clock of a run queue stands still from a wake-up to the switch that it causes
/// (`rq_clock_skip_update`), so that the kernel books the time between on the task that is displaced and
/// not on the one that waits. In the sum of all tasks this cancels out.
///
/// # Errors
/// Waits of named threads differ from those threads' own accounts by more than 0.5 % in count.
pub fn anchor_5_waits_belong_to_the_task_that_waited(place: &Place<'_>) -> Result<()> {
    let agent = Agent::start(place.program, &[])?;
    agent.call(&["probe", "load", "sched", "--by", "op,comm"])?;
    let _load = Load::start(&agent)?;
    thread::sleep(Duration::from_millis(500));
    let by_comm = || agent.dump("sched", &["--by", "op,comm"]);
    for name in ["iolag-spin", "iolag-nap"] {
        let labels = [("comm", name)];
        let start_high = waits_of_threads(name)?;
        let before = by_comm()?;
        let start_low = waits_of_threads(name)?;
        thread::sleep(Duration::from_secs(3));
        let low = waits_of_threads(name)?.since(start_low);
        let now = by_comm()?;
        let high = waits_of_threads(name)?.since(start_high);
        let gained = ours(&now, &labels).since(ours(&before, &labels));
        println!("{name}");
        ensure!(low.count > 0, "{name}: the kernel counted no waits");
        ensure_near(gained, low, high, 0.005, None)?;
    }
    Ok(())
}

/// Tasks that wait for a CPU now, or run.
fn runnable() -> Result<u64> {
    let text = fs::read_to_string("/proc/stat")?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("procs_running "))
        .context("no procs_running in /proc/stat")?;
    Ok(line.parse()?)
}

/// Anchors 6 and 11: tasks that come and go leave nothing behind, the books balance, no span is negative.
///
/// # Errors
/// They do.
pub fn anchors_6_and_11_tasks_that_are_gone_leave_nothing(place: &Place<'_>) -> Result<()> {
    let count = if place.emulated { 5_000 } else { 200_000 };
    let agent = Agent::start(place.program, &["--probes", "sched"])?;
    // Huge pages come and go by the kernel's will, not by our need.
    let resident = || -> Result<u64> {
        let path = format!("/proc/{}/smaps_rollup", agent.pid());
        let text = fs::read_to_string(path)?;
        let of = |name: &str| -> Result<u64> {
            let line = text.lines().find_map(|line| line.strip_prefix(name));
            let size = line.and_then(|line| line.split_whitespace().next());
            Ok(size.context("a size is missing")?.parse()?)
        };
        let (all, huge) = (of("Anonymous:")?, of("AnonHugePages:")?);
        println!("the agent has {all} KiB of its own, {huge} KiB of these in huge pages");
        Ok(all - huge)
    };
    // The first dumps find room for what dumps need.
    for _ in 0..3 {
        agent.dump("sched", &[])?;
    }
    // What loading took is given back in the background.
    let end = Instant::now() + Duration::from_secs(10);
    while resident()? > 10 << 10 {
        ensure!(Instant::now() < end, "the agent keeps what loading took");
        thread::sleep(Duration::from_millis(100));
    }
    let before = agent.dump("sched", &[])?;
    let memory = resident()?;
    let start = Instant::now();
    for _ in 0..count / 100 {
        let tasks: Vec<_> = (0..100).map(|_| thread::spawn(|| ())).collect();
        for task in tasks {
            task.join()
                .map_err(|_| anyhow::anyhow!("a thread panicked"))?;
        }
    }
    println!("{count} tasks in {:?}", start.elapsed());
    thread::sleep(Duration::from_millis(200));
    let now = agent.dump("sched", &[])?;
    let gained = |name: &str| Ok::<_, anyhow::Error>(now.ledger(name)? - before.ledger(name)?);
    ensure!(gained("starts")? >= count, "{}", now.0["ledger"]);
    ensure!(now.ledger("negative")? == 0, "{}", now.0["ledger"]);
    few_losses(place, &now)?;
    // Those that wait are few: a wait that never ends would be a task that is gone.
    let open = now.ledger("starts")?.abs_diff(now.ledger("completions")?);
    let most = runnable()? + 32 + now.ledger("lost")?;
    println!("{open} waits are open of at most {most}");
    ensure!(open <= most, "{open} waits are open: {}", now.0["ledger"]);
    let grown = resident()?.saturating_sub(memory);
    ensure!(grown < 2_048, "the agent grew by {grown} KiB");
    Ok(())
}

/// A CPU that goes offline takes nothing with it.
///
/// # Errors
/// Losses, or switches that do not add up.
pub fn books_balance_when_a_cpu_goes_offline(place: &Place<'_>) -> Result<()> {
    const ONLINE: &str = "/sys/devices/system/cpu/cpu1/online";
    if !place.emulated || fs::metadata(ONLINE).is_err() {
        println!("skipped: only in a virtual machine of our own with two CPUs");
        return Ok(());
    }
    let agent = Agent::start(place.program, &["--probes", "sched"])?;
    visit_all_cpus()?;
    let load = Load::start(&agent)?;
    let start_high = switches()?;
    let before = agent.dump("sched", &[])?;
    let start_low = switches()?;
    for state in ["0", "1"] {
        thread::sleep(Duration::from_secs(1));
        fs::write(ONLINE, state).context("failed to switch CPU 1")?;
    }
    thread::sleep(Duration::from_secs(1));
    drop(load);
    let low = switches()? - start_low;
    let now = agent.dump("sched", &[])?;
    let high = switches()? - start_high;
    let gained = all_switches(&now) - all_switches(&before);
    let lost = now.losses()?;
    println!("{}", now.0["ledger"]);
    // Switches of a CPU that is on its way out are not reported (`TP_CONDITION(cpu_online(...))`).
    ensure!(lost <= 16, "{lost} losses: {}", now.0["ledger"]);
    println!("switches: {gained} in {low}..={high}, {lost} lost");
    ensure!(gained + lost >= low && gained <= high, "{gained}, {lost}");
    Ok(())
}
