//! The probe `block` against /proc/diskstats, fio and the injector.

use std::{fs, process::Command};

use anyhow::{Context as _, Result, ensure};

use super::Place;
use crate::{agent::Agent, dump::Dump};

/// Requests that a disk completed, by the kernel's count (Documentation/admin-guide/iostats.rst).
#[derive(Clone, Copy, Debug)]
struct DiskStats {
    reads: u64,
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

fn diskstats(device: &str) -> Result<DiskStats> {
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

/// Our counts, read between two readings of /proc/diskstats under load, lie between them: for each
/// operation, counted from before the load on.
///
/// # Errors
/// A count lies outside.
pub fn counts_lie_between_two_readings_of_diskstats(place: &Place<'_>) -> Result<()> {
    let disk = disk(place)?;
    let agent = Agent::start(place.program, &["--probes", "block"])?;
    // Ours began somewhere between these two.
    let start_high = diskstats(&disk)?;
    let ours_start = agent.dump("block", &[])?;
    let start_low = diskstats(&disk)?;
    let mut fio = load(place, 3).stdout(std::process::Stdio::null()).spawn()?;
    let check = (|| -> Result<()> {
        for _ in 0..5 {
            std::thread::sleep(std::time::Duration::from_millis(400));
            let low = diskstats(&disk)?;
            let ours = agent.dump("block", &[])?;
            let high = diskstats(&disk)?;
            for op in OPS {
                let gained = total(&ours, &disk, op) - total(&ours_start, &disk, op);
                let least = low.of(op).saturating_sub(start_low.of(op));
                let most = high.of(op) - start_high.of(op);
                println!("{disk} {op}: {gained} in {least}..={most}");
                ensure!(
                    (least..=most).contains(&gained),
                    "{op}: {gained} requests, the kernel counted {least} to {most}"
                );
            }
        }
        let end = agent.dump("block", &[])?;
        ensure!(
            end.losses()? == 0,
            "the ledger has losses: {}",
            end.0["ledger"]
        );
        Ok(())
    })();
    fio.wait()?;
    check
}
