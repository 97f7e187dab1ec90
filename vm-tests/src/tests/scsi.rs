//! The probe `block` on a SCSI disk made of memory, which answers in parts and can be pulled out.

use std::{
    fs::{self, File},
    os::unix::fs::{FileExt as _, OpenOptionsExt as _},
    path::Path,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use iolag_tests::agent::Agent;

use super::skip;
use crate::guest;

const DISK: &str = "/dev/sda";
/// Sectors from here on cannot be read (`OPT_MEDIUM_ERR_ADDR`, drivers/scsi/scsi_debug.c).
const BAD: u64 = 0x1234;
const SECTOR: u64 = 512;
const TRACING: &str = "/sys/kernel/tracing";

/// A buffer that direct reads accept.
struct Aligned {
    bytes: *mut u8,
    layout: std::alloc::Layout,
}

impl Aligned {
    fn new(size: usize) -> Result<Self> {
        let layout = std::alloc::Layout::from_size_align(size, 4096)?;
        // SAFETY: the size is not 0.
        let bytes = unsafe { std::alloc::alloc_zeroed(layout) };
        Ok(Self { bytes, layout })
    }

    fn as_mut(&mut self) -> &mut [u8] {
        // SAFETY: allocated with this size, zeroed, and borrowed as `self` is.
        unsafe { std::slice::from_raw_parts_mut(self.bytes, self.layout.size()) }
    }
}

impl Drop for Aligned {
    fn drop(&mut self) {
        // SAFETY: allocated by `new` with this layout.
        unsafe { std::alloc::dealloc(self.bytes, self.layout) };
    }
}

/// The disk, just plugged in and open.
pub fn plug_in() -> Result<File> {
    guest::load_module("sd_mod", "")?;
    guest::load_module("scsi_debug", "dev_size_mb=16 opts=2 delay=0 max_luns=1")?;
    guest::wait_for(DISK, Duration::from_secs(20))?;
    // udev is not here, and the kernel reads the partition table.
    std::thread::sleep(Duration::from_millis(500));
    File::options()
        .read(true)
        .custom_flags(libc::O_DIRECT)
        .open(DISK)
        .context("failed to open the disk")
}

/// Reads that the kernel's own count has for the disk.
fn reads_completed() -> Result<u64> {
    let text = fs::read_to_string("/sys/block/sda/stat")?;
    let first = text.split_whitespace().next().context("no statistics")?;
    Ok(first.parse()?)
}

/// ANCHORS 1: `block_rq_complete` fires once for each part of a request. A read into a bad sector completes
/// with what lies before it, then fails: that is one request, not two.
pub fn anchor_1_parts_of_a_request_are_one() -> Result<()> {
    let disk = plug_in()?;
    if !Path::new(TRACING).join("trace").exists() {
        return Err(skip("this kernel has no tracefs, which tells the parts"));
    }
    let agent = Agent::start(Path::new("/iolag"), &["--probes", "block"])?;
    let event = format!("{TRACING}/events/block/block_rq_complete/enable");
    fs::write(&event, "1")?;
    let before = reads_completed()?;
    let mut buffer = Aligned::new(64 << 10)?;
    for _ in 0..10 {
        let result = disk.read_at(buffer.as_mut(), (BAD - 64) * SECTOR);
        println!("read across the bad sector: {result:?}");
        ensure!(
            result.is_err() || result.is_ok_and(|bytes| bytes < 64 << 10),
            "nothing was bad"
        );
    }
    fs::write(&event, "0")?;
    let trace = fs::read_to_string(format!("{TRACING}/trace"))?;
    let parts = trace
        .lines()
        .filter(|line| line.contains("block_rq_complete: 8,0 R"))
        .count() as u64;
    let completed = reads_completed()? - before;
    let dump = agent.dump("block", &[])?;
    let ours = dump.sum(&[("device", "sda"), ("op", "read")], "total");
    println!(
        "{parts} completions traced, {completed} reads by the kernel, {} by us",
        ours.count
    );
    ensure!(
        parts > completed,
        "no read completed in parts: {parts} for {completed}"
    );
    ensure!(
        ours.count == completed,
        "{} reads instead of {completed}",
        ours.count
    );
    ensure!(
        dump.ledger("errors")? >= 10,
        "the failures are not in the ledger"
    );
    ensure!(dump.losses()? == 0, "losses: {}", dump.0["ledger"]);
    Ok(())
}

/// Reads its first block over and over, and returns how often that worked.
pub fn read_until_it_fails(disk: &File) -> Result<u64> {
    let mut buffer = Aligned::new(4096)?;
    let mut reads = 0;
    while disk
        .read_at(buffer.as_mut(), 0)
        .is_ok_and(|bytes| bytes > 0)
    {
        reads += 1;
    }
    Ok(reads)
}

/// A disk that is pulled out while it is read: no crash, and the books balance.
pub fn a_disk_that_vanishes() -> Result<()> {
    let disk = plug_in()?;
    let agent = Agent::start(Path::new("/iolag"), &["--probes", "block"])?;
    let reader = std::thread::spawn(move || read_until_it_fails(&disk));
    std::thread::sleep(Duration::from_millis(500));
    fs::write("/sys/block/sda/device/delete", "1").context("failed to pull the disk out")?;
    let reads = reader
        .join()
        .map_err(|_| anyhow::anyhow!("the reader panicked"))??;
    let dump = agent.dump("block", &[])?;
    let series: Vec<_> = dump.0["series"].as_array().into_iter().flatten().collect();
    let labels: Vec<_> = series
        .iter()
        .map(|series| &series["labels"]["device"])
        .collect();
    println!(
        "{reads} reads before it went; devices {labels:?}; {}",
        dump.0["ledger"]
    );
    let ours: u64 = ["sda", "8:0"]
        .iter()
        .map(|name| dump.sum(&[("device", name), ("op", "read")], "total").count)
        .sum();
    ensure!(ours >= reads, "{ours} of {reads} reads were recorded");
    let of = |name: &str| dump.ledger(name);
    ensure!(
        of("starts")? == of("completions")? + of("abandoned")? + of("missed")?,
        "the books do not balance: {}",
        dump.0["ledger"]
    );
    drop(agent);
    guest::unload_module("scsi_debug")
}
