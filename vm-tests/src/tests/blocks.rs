//! `block.issue` counts each request once, no more and no less: against the kernel's own count.

use std::{
    fs::{self, File},
    path::Path,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use iolag_tests::{
    agent::Agent,
    fio,
    requests::{Compared, compare},
};

use super::raised::settled;
use crate::guest;

/// Whether the kernel takes the disk for one with a volatile cache, which it has to flush.
const WRITE_CACHE: &str = "/sys/block/vda/queue/write_cache";
/// fsync(2) of a disk with nothing to write: a flush and nothing else.
const FLUSHES: u64 = 20;

pub fn counted() -> Result<()> {
    for backend in ["fentry", "kprobe", "tp"] {
        let agent = Agent::start(Path::new("/iolag"), &["--backend", backend])?;
        reads_and_writes(&agent).with_context(|| format!("{backend}: reads and writes"))?;
        flushes(&agent).with_context(|| format!("{backend}: flushes"))?;
        agent.call(&["stop"])?;
    }
    Ok(())
}

fn hits(agent: &Agent) -> Result<u64> {
    let point = agent.point("block.issue")?;
    let count = |name: &str| point[name].as_u64().with_context(|| format!("no {name}"));
    // What the agent itself causes is a request too.
    Ok(count("hits")? + count("exempt")?)
}

/// fio and a sync, without flushes: with them, a write that is none would be counted as one by the kernel.
fn reads_and_writes(agent: &Agent) -> Result<()> {
    fs::write(WRITE_CACHE, "write through")?;
    let found = settled(
        || {
            compare(&|| hits(agent), &mut || {
                let second = Duration::from_secs(1);
                fio::random_reads(guest::fio(), Path::new(guest::FIO_FILE), second)?;
                fs::write("/mnt/synced", vec![7; 1 << 20])?;
                // SAFETY: no arguments.
                unsafe { libc::sync() };
                Ok(())
            })
        },
        exact,
    );
    fs::write(WRITE_CACHE, "write back")?;
    let found = found?;
    println!("{found:?}");
    ensure!(
        found.requests.reads > 100 && found.requests.writes > 1,
        "too little was done"
    );
    ensure!(found.requests.flushes == 0, "the disk was flushed");
    Ok(())
}

/// Flushes are requests as well. The kernel also counts each as a write, that of the bio without data which
/// asked for it.
fn flushes(agent: &Agent) -> Result<()> {
    let disk = File::options().write(true).open(guest::DISK)?;
    // What is still dirty would be written along.
    disk.sync_all()?;
    let without_empty_writes = |mut found: Compared| {
        found.kernel = found.kernel.start().saturating_sub(FLUSHES)
            ..=found.kernel.end().saturating_sub(FLUSHES);
        found
    };
    let found = settled(
        || {
            let found = compare(&|| hits(agent), &mut || {
                (0..FLUSHES).try_for_each(|_| Ok(disk.sync_all()?))
            })?;
            Ok(without_empty_writes(found))
        },
        exact,
    )?;
    println!("{found:?}");
    ensure!(
        found.requests.flushes >= FLUSHES,
        "the disk was not flushed"
    );
    Ok(())
}

/// In the quiet of this machine nothing is in flight at the readings, so the kernel leaves one number.
fn exact(found: &Compared) -> bool {
    found.kernel == (found.ours..=found.ours)
}
