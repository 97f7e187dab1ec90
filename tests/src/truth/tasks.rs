//! The tasks of the probe `sched` against each task's own schedstat (Documentation/scheduler/sched-stats.rst).

use std::{
    fs,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::Place;
use crate::{affinity, agent::Agent, dump::Dump};

/// Threads that compute on one CPU, so that each waits for the others.
struct Rivals {
    stop: Arc<AtomicBool>,
    threads: Vec<(u64, JoinHandle<()>)>,
}

impl Rivals {
    fn start(names: &[&str]) -> Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let cpu = affinity::cpus()[0];
        let mut rivals = Self {
            stop,
            threads: Vec::new(),
        };
        for name in names {
            let stop = rivals.stop.clone();
            let (tell, told) = mpsc::channel();
            let thread = thread::Builder::new().name((*name).into()).spawn(move || {
                let pinned = affinity::go_to(cpu);
                // SAFETY: gettid has no arguments and cannot fail.
                let tid = unsafe { libc::gettid() };
                let _gone = tell.send(pinned.map(|()| u64::from(tid.unsigned_abs())));
                while !stop.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            })?;
            rivals.threads.push((told.recv()??, thread));
        }
        Ok(rivals)
    }
}

impl Drop for Rivals {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for (_, thread) in self.threads.drain(..) {
            let _ended = thread.join();
        }
    }
}

/// Time on CPUs (ns), waits (count) and their sum (ns).
#[derive(Clone, Copy, Debug)]
struct Account {
    oncpu_ns: u64,
    waits: u64,
    wait_ns: u64,
}

impl Account {
    /// The kernel's of a thread of this process.
    fn of_kernel(tid: u64) -> Result<Self> {
        let text = fs::read_to_string(format!("/proc/self/task/{tid}/schedstat"))?;
        let fields: Vec<u64> = text
            .split_whitespace()
            .map(str::parse)
            .collect::<Result<_, _>>()?;
        let of = |place: usize| fields.get(place).copied().context("a field is missing");
        Ok(Self {
            oncpu_ns: of(0)?,
            wait_ns: of(1)?,
            waits: of(2)?,
        })
    }

    fn of_task(task: &Value) -> Result<Self> {
        let of = |name: &str| task[name].as_u64().with_context(|| format!("no {name}"));
        Ok(Self {
            oncpu_ns: of("oncpu_ns")?,
            waits: of("waits")?,
            wait_ns: of("wait_ns")?,
        })
    }

    fn since(self, before: Self) -> Self {
        Self {
            oncpu_ns: self.oncpu_ns.saturating_sub(before.oncpu_ns),
            waits: self.waits.saturating_sub(before.waits),
            wait_ns: self.wait_ns.saturating_sub(before.wait_ns),
        }
    }
}

fn task(dump: &Dump, tid: u64) -> Result<&Value> {
    let tasks = dump.0["tasks"].as_array().context("no tasks in the dump")?;
    tasks
        .iter()
        .find(|task| task["pid"] == tid)
        .with_context(|| format!("no task {tid} in {tasks:#?}"))
}

fn ensure_near(what: &str, ours: u64, low: u64, high: u64, part: f64) -> Result<()> {
    let slack = (high as f64 * part) as u64 + 1;
    ensure!(
        (low.saturating_sub(slack)..=high + slack).contains(&ours),
        "{what}: {ours}, the kernel has {low} to {high}"
    );
    Ok(())
}

/// # Errors
/// A task that computed and waited has another time on CPU (by more than 5 %), other waits (by more than 1 % in
/// count, 5 % in sum), another name, or an end that is not seen.
pub fn tasks_agree_with_their_own_schedstat(place: &Place<'_>) -> Result<()> {
    if fs::metadata("/proc/self/schedstat").is_err() {
        println!("skipped: this kernel has no /proc/self/schedstat");
        return Ok(());
    }
    let agent = Agent::start(place.program, &["--probes", "sched"])?;
    let rivals = Rivals::start(&["iolag-rival-a", "iolag-rival-b"])?;
    let tid = rivals.threads[0].0;
    thread::sleep(Duration::from_millis(500));
    let start_high = Account::of_kernel(tid)?;
    let before = agent.dump("sched", &[])?;
    let start_low = Account::of_kernel(tid)?;
    thread::sleep(Duration::from_secs(3));
    let low = Account::of_kernel(tid)?.since(start_low);
    let now = agent.dump("sched", &[])?;
    let high = Account::of_kernel(tid)?.since(start_high);
    let found = task(&now, tid)?;
    ensure!(
        found["comm"] == "iolag-rival-a" && found["ended"] == false,
        "{found}"
    );
    let ours = Account::of_task(found)?.since(Account::of_task(task(&before, tid)?)?);
    println!("{ours:?} in {low:?}..={high:?}");
    ensure!(low.waits > 0, "it waited for nobody");
    ensure_near(
        "ns on CPU",
        ours.oncpu_ns,
        low.oncpu_ns,
        high.oncpu_ns,
        0.05,
    )?;
    ensure_near("waits", ours.waits, low.waits, high.waits, 0.01)?;
    ensure_near("ns waited", ours.wait_ns, low.wait_ns, high.wait_ns, 0.05)?;
    an_interval_has_what_was_done_in_it(&agent, tid)?;
    drop(rivals);
    // A thread is joined before its last switch.
    thread::sleep(Duration::from_millis(200));
    let ended = agent.dump("sched", &[])?;
    ensure!(
        task(&ended, tid)?["ended"] == true,
        "{}",
        task(&ended, tid)?
    );
    Ok(())
}

fn an_interval_has_what_was_done_in_it(agent: &Agent, tid: u64) -> Result<()> {
    let dump = agent.dump("sched", &["0.5", "1"])?;
    let account = Account::of_task(task(&dump, tid)?)?;
    let interval = dump.0["interval_ns"].as_u64().context("no interval_ns")?;
    let all = account.oncpu_ns + account.wait_ns;
    println!("{account:?} of {interval} ns");
    ensure_near("ns on CPU and waited", all, interval, interval, 0.1)
}
