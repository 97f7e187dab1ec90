//! The probe `block` against /proc/diskstats, fio and the injector.

use std::{
    fs::{self, File},
    os::unix::fs::{FileExt as _, OpenOptionsExt as _},
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};

use super::{Place, few_losses};
use crate::{
    agent::Agent,
    dump::{Dump, Sum},
    fio,
};

/// Requests that a disk completed, by the kernel's count (Documentation/admin-guide/iostats.rst).
#[derive(Clone, Copy, Debug)]
pub(super) struct DiskStats {
    pub reads: u64,
    writes: u64,
    discards: u64,
    flushes: u64,
}

const OPS: [&str; 4] = ["read", "write", "discard", "flush"];

impl DiskStats {
    fn of(&self, op: &str) -> u64 {
        match op {
            "read" => self.reads,
            "write" => self.writes,
            "discard" => self.discards,
            _ => self.flushes,
        }
    }
}

pub(super) fn diskstats(device: &str) -> Result<DiskStats> {
    let table = fs::read_to_string("/proc/diskstats")?;
    let fields: Vec<&str> = table
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>())
        .find(|fields| fields.get(2) == Some(&device))
        .with_context(|| format!("no {device} in /proc/diskstats"))?;
    let number = |place: usize| -> Result<u64> {
        fields
            .get(place)
            .and_then(|text| text.parse().ok())
            .with_context(|| format!("field {place} of {device} is missing"))
    };
    Ok(DiskStats {
        reads: number(3)?,
        writes: number(7)?,
        discards: number(14)?,
        flushes: number(18)?,
    })
}

/// The disk that holds the place's directory, by its name in /proc/diskstats.
fn disk(place: &Place<'_>) -> Result<String> {
    use std::os::unix::fs::MetadataExt as _;
    let device = fs::metadata(&place.dir)?.dev();
    let link = format!(
        "/sys/dev/block/{}:{}",
        libc::major(device),
        libc::minor(device)
    );
    let path = fs::canonicalize(&link).with_context(|| format!("failed to follow {link}"))?;
    // Of a partition, the directory above is the disk's.
    let disk = if path.join("partition").exists() {
        path.parent().context("a partition without a disk")?
    } else {
        &path
    };
    let name = disk.file_name().context("a disk without a name")?;
    Ok(name.to_string_lossy().into_owned())
}

/// Random reads and writes with an fsync now and then.
fn load(place: &Place<'_>, seconds: u64) -> Command {
    let mut fio = (place.fio)();
    fio.args([
        "--name=iolag",
        "--rw=randrw",
        "--bs=4k",
        "--direct=1",
        "--ioengine=psync",
        "--size=16M",
        "--fsync=50",
        "--time_based",
        // A process of its own for the job would outlive its parent's end.
        "--thread",
        "--output-format=json",
    ])
    .arg(format!("--runtime={seconds}"))
    .arg(format!(
        "--filename={}",
        place.dir.join("iolag-block").display()
    ));
    fio
}

fn total(dump: &Dump, disk: &str, op: &str) -> u64 {
    dump.sum(&[("device", disk), ("op", op)], "total").count
}

/// Time in which what one CPU has counted, and another is about to count, is counted by both.
const SETTLED: Duration = Duration::from_millis(100);

/// Waits until the disk has completed nothing for a while, or for two seconds on a busy machine.
fn quiet(disk: &str) -> Result<()> {
    // SAFETY: sync has no arguments and cannot fail.
    unsafe { libc::sync() };
    let sum = || -> Result<u64> {
        let now = diskstats(disk)?;
        Ok(OPS.iter().map(|op| now.of(op)).sum())
    };
    for _ in 0..10 {
        let before = sum()?;
        std::thread::sleep(2 * SETTLED);
        if sum()? == before {
            break;
        }
    }
    Ok(())
}

/// Our counts, read between two readings of /proc/diskstats, lie between them: for each operation, counted
/// from before the load on, five times under load and once after it. The kernel counts a request a little
/// after its tracepoint, on whichever CPU: so the second reading is taken when that is over.
///
/// # Errors
/// A count lies outside, or the ledger has a loss.
pub fn counts_lie_between_two_readings_of_diskstats(place: &Place<'_>) -> Result<()> {
    let disk = disk(place)?;
    // The file is laid out before anything is counted.
    load(place, 1).output()?;
    let agent = Agent::start(place.program, &["--probes", "block"])?;
    quiet(&disk)?;
    let start_high = diskstats(&disk)?;
    let ours_start = agent.dump("block", &[])?;
    std::thread::sleep(SETTLED);
    let start_low = diskstats(&disk)?;
    let compare = || -> Result<Dump> {
        let low = diskstats(&disk)?;
        let ours = agent.dump("block", &[])?;
        std::thread::sleep(SETTLED);
        let high = diskstats(&disk)?;
        for op in OPS {
            let gained = total(&ours, &disk, op) - total(&ours_start, &disk, op);
            let least = low.of(op).saturating_sub(start_low.of(op));
            let least = least.saturating_sub(unseen(place, &ours_start, &ours, least)?);
            let most = high.of(op) - start_high.of(op);
            println!("{disk} {op}: {gained} in {least}..={most}");
            ensure!(
                (least..=most).contains(&gained),
                "{op}: {gained} requests, the kernel counted {least} to {most}; ledger {}",
                ours.0["ledger"]
            );
        }
        Ok(ours)
    };
    let mut fio = load(place, 3).stdout(Stdio::null()).spawn()?;
    let checked = (0..5).try_for_each(|_| {
        std::thread::sleep(Duration::from_millis(300));
        compare().map(drop)
    });
    fio.wait()?;
    checked?;
    quiet(&disk)?;
    let end = compare()?;
    few_losses(place, &end)?;
    books_balance(place, &end)
}

/// Requests between two dumps whose end was not seen, as the books have it: lost, or still open. A host's kernel (6.18)
/// does not call programs at each completion, nor count it for perf, and counts no miss. Of one whose issue was not seen
/// either, the books know nothing: as few as in `few_losses`. None on the kernels that we boot ourselves.
fn unseen(place: &Place<'_>, start: &Dump, end: &Dump, requests: u64) -> Result<u64> {
    if place.emulated {
        return Ok(0);
    }
    let without_end = |dump: &Dump| Ok::<_, anyhow::Error>(open(dump)? + dump.ledger("lost")?);
    Ok(without_end(end)?.saturating_sub(without_end(start)?) + requests.div_ceil(200))
}

/// Starts without an end, by the books.
fn open(dump: &Dump) -> Result<u64> {
    let of = |name: &str| dump.ledger(name);
    let ended = of("completions")? + of("abandoned")? + of("lost")?;
    let starts = of("starts")?;
    starts
        .checked_sub(ended)
        .with_context(|| format!("more ends than starts: {}", dump.0["ledger"]))
}

/// What was started is completed, handed back to be started again, or in the ledger; nothing is in flight.
fn books_balance(place: &Place<'_>, end: &Dump) -> Result<()> {
    let of = |name: &str| end.ledger(name);
    let recorded = end.sum(&[], "device").count;
    println!("books: {}", end.0["ledger"]);
    let completions = of("completions")?;
    // A request whose end was not seen is booked as lost when it is used again.
    let most = if place.emulated { 0 } else { 512 };
    ensure!(
        open(end)? <= most,
        "starts are not completions, losses and what was abandoned: {}",
        end.0["ledger"]
    );
    ensure!(
        recorded + of("unmatched")? + of("negative")? >= completions,
        "{recorded} values in the histograms for {completions} completions"
    );
    Ok(())
}

/// The injector is the oracle: what it adds at `block.issue` is what `queue` and `total` gain, and `device`
/// does not. (The kernel stamps the hand-over to the driver after the place where the wait is.)
///
/// # Errors
/// A median moved by something else.
pub fn injected_delays_show_in_queue_and_total_only(place: &Place<'_>) -> Result<()> {
    let disk = disk(place)?;
    let agent = Agent::start(place.program, &["--probes", "block"])?;
    agent.settle()?;
    let reads = [("device", disk.as_str()), ("op", "read")];
    let measure = || -> Result<[Sum; 3]> {
        let metrics = ["queue", "device", "total"];
        let before = agent.dump("block", &[])?;
        let file = place.dir.join("iolag-block");
        fio::random_reads((place.fio)(), &file, Duration::from_secs(2))?;
        let after = agent.dump("block", &[])?;
        Ok(metrics.map(|name| after.sum(&reads, name).since(&before.sum(&reads, name))))
    };
    measure()?;
    let [_, device_before, _] = measure()?;
    for (delay, ns) in [("1ms", 1_000_000u64), ("5ms", 5_000_000)] {
        agent.call(&["set-blk", delay])?;
        agent.settle()?;
        let [queue, device, total] = measure()?;
        agent.call(&["set-blk", "0"])?;
        let medians = [&queue, &device, &total, &device_before].map(|s| s.quantile(0.5));
        println!("{delay}: queue, device, total now, device before: {medians:?}");
        let [queue, device, total, device_before] = medians;
        // What the emulated program takes besides is no wait. A device that idles between requests answers
        // slower, but not by as much.
        let besides = if place.emulated { 400_000 } else { 20_000 };
        ensure!(
            queue.1 >= ns && queue.0 <= ns + besides,
            "{delay}: queue {queue:?}"
        );
        ensure!(
            total.1 >= ns + device.0 && total.0 <= ns + device.1 + besides,
            "{delay}: total {total:?} with device {device:?}"
        );
        ensure!(
            device.0 <= device_before.1 + besides + ns / 10,
            "{delay}: device {device_before:?} -> {device:?}"
        );
    }
    Ok(())
}

/// ANCHORS 3: an issue must not overwrite the insertion. With more requests than the device takes at once,
/// they wait in the queue, and the three figures of each read add up.
///
/// # Errors
/// Something is missing.
pub fn anchor_3_queue_device_and_total_are_always_there(place: &Place<'_>) -> Result<()> {
    let disk = disk(place)?;
    let agent = Agent::start(place.program, &["--probes", "block"])?;
    quiet(&disk)?;
    let mut fio = load(place, 2);
    fio.args([
        "--ioengine=libaio",
        "--iodepth=64",
        "--rw=randread",
        "--numjobs=2",
    ]);
    ensure!(fio.output()?.status.success(), "fio failed");
    quiet(&disk)?;
    let end = agent.dump("block", &[])?;
    let reads = [("device", disk.as_str()), ("op", "read")];
    let [queue, device, total] = ["queue", "device", "total"].map(|name| end.sum(&reads, name));
    println!(
        "queue {} ns, device {} ns, total {} ns",
        queue.sum, device.sum, total.sum
    );
    ensure!(
        queue.count == total.count && device.count == total.count,
        "{} queue, {} device, {} total; {}",
        queue.count,
        device.count,
        total.count,
        end.0["ledger"]
    );
    ensure!(total.count > 0 && queue.max > 0, "nothing was queued");
    ensure!(
        queue.sum + device.sum == total.sum,
        "queue and device are not total"
    );
    Ok(())
}

/// Tasks that are killed in the middle of their requests, and more commands than there are series: nothing
/// is lost but what the ledger says.
///
/// # Errors
/// The books do not balance.
pub fn books_balance_when_tasks_die_and_series_run_out(place: &Place<'_>) -> Result<()> {
    let disk = disk(place)?;
    load(place, 1).output()?;
    let agent = Agent::start(place.program, &[])?;
    agent.call(&["probe", "load", "block", "--by", "comm"])?;
    quiet(&disk)?;
    for _ in 0..3 {
        let mut fio = load(place, 30)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        std::thread::sleep(Duration::from_millis(700));
        fio.kill()?;
        fio.wait()?;
    }
    let tasks = if place.emulated { 300 } else { 2_000 };
    reads_by_many_commands(&place.dir.join("iolag-block"), tasks)?;
    quiet(&disk)?;
    let end = agent.dump("block", &[])?;
    let other = end.ledger("other")?;
    println!("{} series, other {other}", end.series(&[]).len());
    if !place.emulated {
        ensure!(
            other > 0,
            "{tasks} commands found {} series",
            end.series(&[]).len()
        );
        ensure!(
            !end.series(&[("comm", "other")]).is_empty(),
            "no series for the others"
        );
        ensure!(
            end.0["complete"] == false,
            "complete, with {other} in other"
        );
    }
    books_balance(place, &end)
}

/// One direct read each by tasks of different names.
fn reads_by_many_commands(file: &Path, tasks: usize) -> Result<()> {
    let file = File::options()
        .read(true)
        .custom_flags(libc::O_DIRECT)
        .open(file)?;
    // Direct reads want aligned memory.
    let layout = std::alloc::Layout::from_size_align(4096, 4096)?;
    for task in 0..tasks {
        let file = file.try_clone()?;
        let offset = (task % 1024 * 4096) as u64;
        std::thread::Builder::new()
            .name(format!("iolag-{task}"))
            .spawn(move || -> Result<()> {
                // SAFETY: the size is not 0; the buffer is freed below with the same layout.
                let buffer = unsafe { std::alloc::alloc_zeroed(layout) };
                // SAFETY: just allocated with this size, and used by nobody else.
                let bytes = unsafe { std::slice::from_raw_parts_mut(buffer, layout.size()) };
                let result = file.read_exact_at(bytes, offset);
                // SAFETY: allocated above.
                unsafe { std::alloc::dealloc(buffer, layout) };
                Ok(result?)
            })?
            .join()
            .map_err(|_| anyhow::anyhow!("a reader panicked"))??;
    }
    Ok(())
}
