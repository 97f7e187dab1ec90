//! The probe `irq` against /proc/softirqs and /proc/interrupts.

use std::{
    collections::BTreeMap,
    fs,
    io::{Read as _, Write as _},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};

use super::{Place, few_losses};
use crate::{affinity, agent::Agent, dump::Dump};

/// Rows of a table of counts with one column for each CPU, summed; by the row's name.
fn table(path: &str) -> Result<BTreeMap<String, u64>> {
    let text = fs::read_to_string(path)?;
    let mut lines = text.lines();
    let cpus = lines
        .next()
        .context("an empty table")?
        .split_whitespace()
        .count();
    let row = |line: &str| {
        let (name, rest) = line.split_once(':')?;
        let counts = rest.split_whitespace().take(cpus);
        Some((
            name.trim().to_owned(),
            counts.map_while(|count| count.parse::<u64>().ok()).sum(),
        ))
    };
    Ok(lines.filter_map(row).collect())
}

/// Interrupts that have a handler have a number.
fn interrupts() -> Result<BTreeMap<String, u64>> {
    let mut all = table("/proc/interrupts")?;
    all.retain(|name, _| name.parse::<u32>().is_ok());
    Ok(all)
}

fn softirqs() -> Result<BTreeMap<String, u64>> {
    table("/proc/softirqs")
}

fn softirq_count(dump: &Dump, name: &str) -> u64 {
    dump.sum(&[("vector", name)], "softirq").count
}

/// Series of interrupts are called `irq/NUMBER-NAME`.
fn interrupt_count(dump: &Dump, number: &str) -> u64 {
    let start = format!("irq/{number}-");
    dump.series(&[])
        .iter()
        .filter_map(|series| series["labels"]["vector"].as_str())
        .filter(|label| label.starts_with(&start) || *label == format!("irq/{number}"))
        .map(|label| dump.sum(&[("vector", label)], "hardirq").count)
        .sum()
}

/// Writes to a disk and sleeps, until told to stop: interrupts, and softirqs of blocks and timers.
fn load(place: &Place<'_>, stop: &AtomicBool) -> Result<()> {
    let path = place.dir.join("iolag-irq");
    let mut file = fs::File::create(&path)?;
    while !stop.load(Ordering::Relaxed) {
        file.write_all(&[0x5a; 4096])?;
        file.sync_data()?;
        thread::sleep(Duration::from_micros(200));
    }
    drop(file);
    fs::remove_file(path).context("failed to remove the file")
}

type Counts = fn() -> Result<BTreeMap<String, u64>>;
type Count = fn(&Dump, &str) -> u64;

fn counts_lie_between_two_readings(place: &Place<'_>, theirs: Counts, ours: Count) -> Result<()> {
    let agent = Agent::start(place.program, &["--probes", "irq"])?;
    let stop = AtomicBool::new(false);
    // A host's kernel leaves out events in bursts (see `few_losses`), of which a few are much of a rare interrupt.
    let tries = if place.emulated { 1 } else { 3 };
    // One on each CPU may be under way: the kernel has counted it already, and we do when it ends.
    let under_way = thread::available_parallelism()?.get() as u64;
    thread::scope(|scope| {
        let load = scope.spawn(|| load(place, &stop));
        let check = || -> Result<()> {
            let start_high = theirs()?;
            let before = agent.dump("irq", &[])?;
            let start_low = theirs()?;
            for _ in 0..5 {
                thread::sleep(Duration::from_millis(400));
                let low = theirs()?;
                let now = agent.dump("irq", &[])?;
                let high = theirs()?;
                for (name, most) in &high {
                    let of = |table: &BTreeMap<String, u64>| table.get(name).copied().unwrap_or(0);
                    let least = of(&low).saturating_sub(of(&start_low));
                    let most = most - of(&start_high);
                    let gained = ours(&now, name) - ours(&before, name);
                    if most > 0 {
                        println!("{name}: {gained} in {least}..={most}");
                    }
                    // See `few_losses`: events that a host's kernel does not hand to programs.
                    let left_out = if place.emulated { 0 } else { least / 200 };
                    ensure!(
                        gained + under_way + left_out >= least && gained <= most + under_way,
                        "{name}: {gained}, the kernel counted {least} to {most}"
                    );
                }
            }
            let end = agent.dump("irq", &[])?;
            few_losses(place, &end)?;
            let open = end.ledger("starts")?.abs_diff(end.ledger("completions")?);
            ensure!(open <= 64, "{open} are open: {}", end.0["ledger"]);
            Ok(())
        };
        let mut result = check();
        for _ in 1..tries {
            if let Err(error) = &result {
                println!("again, after: {error:#}");
                result = check();
            }
        }
        stop.store(true, Ordering::Relaxed);
        load.join()
            .map_err(|_| anyhow::anyhow!("a thread panicked"))??;
        result
    })
}

/// # Errors
/// Our counts of softirqs, read between two readings of /proc/softirqs, lie outside, or something is lost.
pub fn softirqs_lie_between_two_readings_of_proc(place: &Place<'_>) -> Result<()> {
    counts_lie_between_two_readings(place, softirqs, softirq_count)
}

/// # Errors
/// As above, of /proc/interrupts.
pub fn interrupts_lie_between_two_readings_of_proc(place: &Place<'_>) -> Result<()> {
    counts_lie_between_two_readings(place, interrupts, interrupt_count)
}

/// A column of /proc/softirqs.
fn softirqs_of(cpu: usize) -> Result<u64> {
    let text = fs::read_to_string("/proc/softirqs")?;
    let mut lines = text.lines();
    let head = lines.next().context("an empty table")?;
    let name = format!("CPU{cpu}");
    let place = head.split_whitespace().position(|column| column == name);
    let place = place.with_context(|| format!("no column {name}"))?;
    lines
        .map(|line| {
            let count = line.split_whitespace().nth(place + 1);
            Ok(count.context("a row is short")?.parse::<u64>()?)
        })
        .sum()
}

/// Anchor 7: classic tracepoints and kprobes are skipped while another program runs on their CPU. Here nearly all the time
/// of a CPU goes by in the program that delays `read`, and interrupts come into it.
///
/// # Errors
/// Softirqs of that CPU, counted by the kernel meanwhile, were not seen.
pub fn anchor_7_softirqs_inside_a_program_are_seen(place: &Place<'_>) -> Result<()> {
    const DELAY: Duration = Duration::from_millis(5);
    const LENGTH: Duration = Duration::from_secs(3);
    let cpu = *affinity::cpus().last().context("no CPU")?;
    let label = cpu.to_string();
    let agent = Agent::start(place.program, &[])?;
    agent.call(&["probe", "load", "irq", "--by", "vector,cpu"])?;
    agent.call(&["set", "5ms"])?;
    let dump = || agent.dump("irq", &["--by", "vector,cpu"]);
    let ours = |dump: &Dump| dump.sum(&[("cpu", &label)], "softirq").count;
    let stop = AtomicBool::new(false);
    let (gained, least, most, reads) = thread::scope(|scope| {
        let reader = scope.spawn(|| -> Result<u64> {
            affinity::go_to(cpu)?;
            let mut zero = fs::File::open("/dev/zero")?;
            let mut reads = 0;
            while !stop.load(Ordering::Relaxed) {
                zero.read_exact(&mut [0])?;
                reads += 1;
            }
            Ok(reads)
        });
        let look = || -> Result<_> {
            let start_high = softirqs_of(cpu)?;
            let before = dump()?;
            let start_low = softirqs_of(cpu)?;
            thread::sleep(LENGTH);
            let low = softirqs_of(cpu)?;
            let now = dump()?;
            let high = softirqs_of(cpu)?;
            Ok((
                ours(&now) - ours(&before),
                low - start_low,
                high - start_high,
            ))
        };
        let looked = look();
        stop.store(true, Ordering::Relaxed);
        let reads = reader
            .join()
            .map_err(|_| anyhow::anyhow!("the reader panicked"))??;
        let (gained, least, most) = looked?;
        Ok::<_, anyhow::Error>((gained, least, most, reads))
    })?;
    agent.call(&["reset"])?;
    println!("CPU {cpu}: {gained} softirqs in {least}..={most}, {reads} reads of {DELAY:?}");
    // The reader had the CPU for the whole time but for what others took of it.
    ensure!(
        DELAY * reads as u32 > LENGTH / 2,
        "only {reads} reads were delayed"
    );
    ensure!(
        least > 50,
        "the kernel counted only {least} softirqs: nothing is shown"
    );
    // One may be under way. See `few_losses` for what a host's kernel leaves out.
    let left_out = if place.emulated { 0 } else { least / 200 };
    ensure!(
        gained + 1 + left_out >= least && gained <= most + 1,
        "{gained} softirqs, the kernel counted {least} to {most}"
    );
    Ok(())
}

/// A CPU that goes offline hands its softirqs over; nothing is lost.
///
/// # Errors
/// Something is.
pub fn books_balance_when_a_cpu_goes_offline(place: &Place<'_>) -> Result<()> {
    const ONLINE: &str = "/sys/devices/system/cpu/cpu1/online";
    if !place.emulated || fs::metadata(ONLINE).is_err() {
        println!("skipped: only in a virtual machine of our own with two CPUs");
        return Ok(());
    }
    let agent = Agent::start(place.program, &["--probes", "irq"])?;
    for state in ["0", "1"] {
        thread::sleep(Duration::from_millis(500));
        fs::write(ONLINE, state).context("failed to switch CPU 1")?;
    }
    thread::sleep(Duration::from_millis(500));
    let end = agent.dump("irq", &[])?;
    println!("{}", end.0["ledger"]);
    ensure!(end.losses()? == 0, "losses: {}", end.0["ledger"]);
    Ok(())
}
