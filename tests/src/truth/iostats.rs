//! The probe `block` on a disk whose requests the kernel does not account.

use std::{
    fs::{self, File},
    os::unix::fs::{FileExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};

use super::{Place, block::diskstats};
use crate::{agent::Agent, dump::Dump, loop_device::LoopDevice};

/// Reads in a row: more than the requests that the disk has.
const READS: u64 = 400;
/// Between the reads that the kernel stamps and those that it does not: much longer than these take.
const AGE: Duration = Duration::from_secs(5);

/// The flag `queue/iostats` of a disk. Dropping it puts back what it was.
struct Iostats {
    path: PathBuf,
    was: String,
}

impl Iostats {
    fn of(disk: &str) -> Result<Self> {
        let path = PathBuf::from(format!("/sys/block/{disk}/queue/iostats"));
        let was = fs::read_to_string(&path)
            .with_context(|| format!("failed to read {}", path.display()))?;
        Ok(Self { path, was })
    }

    fn set(&self, on: bool) -> Result<()> {
        fs::write(&self.path, if on { "1" } else { "0" })
            .with_context(|| format!("failed to write {}", self.path.display()))
    }
}

impl Drop for Iostats {
    fn drop(&mut self) {
        if let Err(error) = fs::write(&self.path, self.was.trim()) {
            println!("{} is left: {error}", self.path.display());
        }
    }
}

/// What reads the disk past the page cache, a page at a time.
fn read(device: &Path) -> Result<()> {
    let file = File::options()
        .read(true)
        .custom_flags(libc::O_DIRECT)
        .open(device)?;
    // Direct reads want aligned memory.
    let mut memory = vec![0; 2 * PAGE];
    let start = memory.as_ptr().align_offset(PAGE);
    let page = &mut memory[start..start + PAGE];
    for number in 0..READS {
        file.read_exact_at(page, number % 256 * PAGE as u64)?;
    }
    Ok(())
}

const PAGE: usize = 4096;

/// A request of a disk without accounting has no beginning that the kernel vouches for: what stands in its place may be
/// that of the request before. So it has `device` and `size`; its `queue` and `total` are right or missing, and
/// those that are missing are in the ledger. Once there is accounting again, nothing is missing.
///
/// # Errors
/// A time is longer than the reads took, or something is neither recorded nor in the ledger.
pub fn requests_without_accounting_show_no_wrong_times(place: &Place<'_>) -> Result<()> {
    let device = LoopDevice::new(&place.dir.join("iolag-iostats"))?;
    let name = device.path().file_name().context("a device without name")?;
    let disk = name.to_string_lossy().into_owned();
    let iostats = Iostats::of(&disk)?;
    iostats.set(true)?;
    // Each request of the disk gets a stamp, which then grows old.
    read(device.path())?;
    thread::sleep(AGE);
    let agent = Agent::start(place.program, &["--probes", "block"])?;
    iostats.set(false)?;
    let (before, accounted) = (agent.dump("block", &[])?, diskstats(&disk)?);
    let start = Instant::now();
    read(device.path())?;
    let took = u64::try_from(start.elapsed().as_nanos())?;
    ensure!(
        diskstats(&disk)?.reads == accounted.reads,
        "the kernel accounts {disk} though its iostats are off"
    );
    let off = agent.dump("block", &[])?;
    compare(&disk, took, &before, &off)?;
    iostats.set(true)?;
    read(device.path())?;
    let on = agent.dump("block", &[])?;
    let [queue, device, total] = counts(&disk, &off, &on);
    println!("iostats on: {queue} queue, {device} device, {total} total");
    ensure!(
        queue == device && total == device && device >= least(place),
        "with iostats: {queue} queue, {device} device, {total} total of {READS}"
    );
    Ok(())
}

/// A host's kernel may leave out events, see `few_losses`.
fn least(place: &Place<'_>) -> u64 {
    if place.emulated {
        READS
    } else {
        READS - READS / 20
    }
}

fn counts(disk: &str, before: &Dump, after: &Dump) -> [u64; 3] {
    let reads = [("device", disk), ("op", "read")];
    let of = |dump: &Dump, metric: &str| dump.sum(&reads, metric).count;
    ["queue", "device", "total"].map(|metric| of(after, metric) - of(before, metric))
}

/// Of the reads without accounting, which took so long (ns).
fn compare(disk: &str, took: u64, before: &Dump, off: &Dump) -> Result<()> {
    let [queue, device, total] = counts(disk, before, off);
    let longest = ["queue", "total"].map(|metric| {
        let reads = [("device", disk), ("op", "read")];
        off.sum(&reads, metric).max
    });
    let unmatched = off.ledger("unmatched")? - before.ledger("unmatched")?;
    println!(
        "iostats off: {queue} queue, {device} device, {total} total in {took} ns, the longest {longest:?} ns; {}",
        off.0["ledger"]
    );
    ensure!(
        longest.iter().all(|longest| *longest <= took),
        "queue and total of up to {longest:?} ns in reads that took {took} ns together"
    );
    ensure!(device > 0, "no read was seen");
    ensure!(
        total + unmatched >= device && queue <= device,
        "{device} reads, {total} totals, and {unmatched} unmatched"
    );
    ensure!(
        unmatched == 0 || off.0["complete"] == false,
        "complete, with {unmatched} unmatched"
    );
    Ok(())
}
