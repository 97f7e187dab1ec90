//! The probe `vfs` against the caller's own counts, fio and the injector. `backend` is the one that the
//! delays and the probe are both attached through.

mod books;
pub mod calls;
mod oracle;

use std::{fs, os::unix::fs::MetadataExt as _, path::Path, time::Duration};

use anyhow::{Context as _, Result, ensure};

use self::calls::{Target, as_command};
pub use self::{
    books::{
        anchor_6_books_balance_when_tasks_die_inside, operations_older_than_the_probe_are_no_loss,
        ten_thousand_cgroups_lose_nothing,
    },
    oracle::{
        delays_attached_later_show_at_tracepoints_only, injected_delays_show_and_nowhere_else,
    },
};
use super::Place;
use crate::{
    agent::Agent,
    dump::{Dump, width},
    fio,
    timing::{late, spins},
};

/// An agent with the probe loaded, its series told apart by `keys`.
fn agent(place: &Place<'_>, backend: &str, keys: &str) -> Result<Agent> {
    let agent = Agent::start(place.program, &["--backend", backend])?;
    agent.call(&["probe", "load", "vfs", "--by", keys, "--backend", backend])?;
    agent.settle()?;
    Ok(agent)
}

/// # Errors
/// The ledger has losses.
pub fn no_losses(dump: &Dump) -> Result<()> {
    ensure!(
        dump.losses()? == 0,
        "the ledger has losses: {}",
        dump.0["ledger"]
    );
    Ok(())
}

/// Every call is counted once, under its operation, command, device and file system.
///
/// # Errors
/// A count is off by one or more.
pub fn counts_are_exact(place: &Place<'_>, backend: &str) -> Result<()> {
    const COMM: &str = "iolag-counts";
    let path = place.dir.join("iolag-vfs-counts");
    let target = Target::new(&path)?;
    let agent = agent(place, backend, "op,comm,device,fs")?;
    let calls = [("read", 1_000), ("write", 700), ("open", 300)];
    as_command(COMM, || {
        calls
            .iter()
            .try_for_each(|(op, count)| target.times(op, *count).map(drop))
    })?;
    let dump = agent.dump("vfs", &["--by", "op,comm,device,fs"])?;
    let (device, fs_type) = (device_of(&path)?, fs_of(&path)?);
    for (op, count) in calls {
        let all = dump.sum(&[("comm", COMM), ("op", op)], "latency").count;
        let labels = [
            ("comm", COMM),
            ("op", op),
            ("device", &device),
            ("fs", &fs_type),
        ];
        let here = dump.sum(&labels, "latency").count;
        println!("{backend} {op}: {here} of {count} on {device} ({fs_type}), {all} in all");
        ensure!(
            here == count as u64 && all == here,
            "{op}: {here} on {device} ({fs_type}) and {all} in all, not {count}"
        );
    }
    fs::remove_file(path)?;
    no_losses(&dump)
}

/// The name that the device of a file has in /sys, or its numbers.
fn device_of(path: &Path) -> Result<String> {
    let device = fs::metadata(path)?.dev();
    let numbers = format!("{}:{}", libc::major(device), libc::minor(device));
    Ok(fs::read_link(format!("/sys/dev/block/{numbers}"))
        .ok()
        .and_then(|link| Some(link.file_name()?.to_string_lossy().into_owned()))
        .unwrap_or(numbers))
}

/// The type of the file system that a file is on, by the longest mount point above it.
fn fs_of(path: &Path) -> Result<String> {
    let path = fs::canonicalize(path)?;
    let table = fs::read_to_string("/proc/self/mounts")?;
    table
        .lines()
        .filter_map(|line| {
            let mut words = line.split(' ');
            let (_, target, kind) = (words.next()?, words.next()?, words.next()?);
            path.starts_with(target).then_some((target.len(), kind))
        })
        // Of two at the same place, the later one lies on top.
        .max_by_key(|(length, _)| *length)
        .map(|(_, kind)| kind.to_owned())
        .context("no mount point above the file")
}

/// Anchor 8: `vfs_fsync` is not on the path of fsync(2). Both calls are seen, each once.
///
/// # Errors
/// They are not.
pub fn anchor_8_fsync_and_fdatasync_are_seen(place: &Place<'_>, backend: &str) -> Result<()> {
    let path = place.dir.join("iolag-vfs-fsync");
    let target = Target::new(&path)?;
    let agent = agent(place, backend, "op,comm")?;
    for (op, comm) in [("fsync", "iolag-fsync"), ("fdatasync", "iolag-fdatasync")] {
        as_command(comm, || target.times(op, 10))?;
        let dump = agent.dump("vfs", &["--by", "op,comm"])?;
        let seen = dump
            .sum(&[("comm", comm), ("op", "fsync")], "latency")
            .count;
        ensure!(seen == 10, "{op}: {seen} seen of 10");
        no_losses(&dump)?;
    }
    fs::remove_file(path)?;
    Ok(())
}

/// A name that is not in the dentry cache is looked up once. `tp` cannot see it, and says so.
///
/// # Errors
/// It is otherwise.
pub fn lookups_that_miss_are_counted(place: &Place<'_>, backend: &str) -> Result<()> {
    const COMM: &str = "iolag-lookup";
    let agent = agent(place, backend, "op,comm")?;
    as_command(COMM, || {
        for number in 0..20 {
            let missing = place
                .dir
                .join(format!("iolag-missing-{}-{number}", agent.pid()));
            ensure!(fs::metadata(missing).is_err(), "it is there");
        }
        Ok(())
    })?;
    let dump = agent.dump("vfs", &["--by", "op,comm"])?;
    let seen = dump
        .sum(&[("comm", COMM), ("op", "lookup")], "latency")
        .count;
    let lacking = dump.0["not_measured"].to_string();
    println!("{backend}: {seen} lookups of 20; {lacking}");
    if backend == "tp" {
        ensure!(
            lacking.contains("lookups"),
            "it does not say what is missing"
        );
        return Ok(());
    }
    ensure!(
        seen == 20 && lacking == "[]",
        "{seen} lookups of 20; {lacking}"
    );
    no_losses(&dump)
}

/// Quantiles that fio is asked for.
const QUANTILES: [(&str, f64); 3] = [
    ("50.000000", 0.5),
    ("99.000000", 0.99),
    ("99.900000", 0.999),
];

/// What lies between fio's clock and ours takes no longer.
const BETWEEN: Duration = Duration::from_micros(5);
/// The share of requests that a host may disturb there.
const MOST_DISTURBED: f64 = 0.005;

/// The share of plain spins of that length that this machine ends late by more than the slack of [`latencies_agree_with_fio`].
fn disturbed() -> f64 {
    late(
        &spins(BETWEEN, 50_000, Duration::ZERO),
        Duration::from_micros(2),
    )
}

/// fio's own completion latencies and ours agree within one bucket and 2 us, by operation.
///
/// # Errors
/// They do not.
pub fn latencies_agree_with_fio(place: &Place<'_>, backend: &str) -> Result<()> {
    let path = place.dir.join("iolag-vfs-fio");
    let job = || {
        let mut command = (place.fio)();
        command
            .args(["--rw=randrw", "--size=64M"])
            .arg(format!("--filename={}", path.display()));
        command
    };
    // What fio writes to lay the file out is no part of the job.
    let mut layout = job();
    layout.arg("--create_only=1");
    fio::psync_direct(layout)?;
    let agent = agent(place, backend, "op,comm,device")?;
    let mut command = job();
    let program = Path::new(command.get_program())
        .file_name()
        .context("fio has no name")?;
    let comm: String = program.to_string_lossy().chars().take(15).collect();
    command
        .args(["--time_based", "--percentile_list=50:99:99.9"])
        // Long enough for the tail on real hardware; in an emulator, to be run at all.
        .arg(if place.emulated {
            "--runtime=5"
        } else {
            "--runtime=30"
        });
    let before = disturbed();
    let report = fio::psync_direct(command)?;
    let disturbed = disturbed().max(before);
    println!("{disturbed:.4} of plain spins are late");
    let device = device_of(&path)?;
    fs::remove_file(&path)?;
    let filter = format!("comm={comm}");
    let dump = agent.dump("vfs", &["--by", "op,comm,device", "--filter", &filter])?;
    // The emulator stops the clock of whoever reads it for as long as it translates code.
    let slack_ns = if place.emulated { 50_000 } else { 2_000 };
    for op in ["read", "write"] {
        let ours = dump.sum(&[("op", op), ("device", &device)], "latency");
        let theirs = &report["jobs"][0][op];
        let ios = theirs["total_ios"].as_u64().context("no total_ios")?;
        println!("{backend} {op}: fio did {ios}, {} seen", ours.count);
        ensure!(
            ours.count >= ios && ours.count <= ios + ios / 100 + 200,
            "{op}: {} seen of {ios}",
            ours.count
        );
        for (name, q) in QUANTILES {
            let fio_ns = theirs["clat_ns"]["percentile"][name]
                .as_u64()
                .with_context(|| format!("fio has no {name}"))?;
            // Between fio's clock and ours the emulator interrupts now this request, now that one: which requests
            // are the slowest is to both of us a sample, of ours.count, with its standard error. A host that stops
            // the CPU there makes requests slower by fio's clock only, never faster, and as many change places.
            let (down, up) = if place.emulated {
                let spread = 3.0 * (q * (1.0 - q) / ours.count as f64).sqrt();
                (spread, spread)
            } else {
                (0.0, disturbed.min(MOST_DISTURBED))
            };
            let (low, high) = (
                ours.quantile(q - down).0,
                ours.quantile((q + up).min(1.0)).1,
            );
            println!("{backend} {op} p{name}: fio {fio_ns}, ours {low}..{high} ns");
            let slack = slack_ns + width(high);
            ensure!(
                (low.saturating_sub(slack)..=high + slack).contains(&fio_ns),
                "{op} p{name}: fio says {fio_ns} ns, we {low} to {high}"
            );
        }
    }
    no_losses(&dump)
}
