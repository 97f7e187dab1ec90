//! The measuring probes against truths that iolag did not write. Each check is one function, run on this
//! host by `tests/tests/privileged/` and in QEMU by `vm-tests`.

pub mod block;
pub mod function;
pub mod iostats;
pub mod irq;
pub mod memory;
pub mod oom;
pub mod sched;
pub mod tasks;
pub mod vfs;

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Result, ensure};

use crate::dump::Dump;

/// Where a check runs.
pub struct Place<'a> {
    /// The program under test.
    pub program: &'a Path,
    pub fio: fn() -> Command,
    /// A directory on a file system on a request-based disk.
    pub dir: PathBuf,
    /// The CPU is emulated: times are coarse, and everything takes longer.
    pub emulated: bool,
}

/// The losses of a dump: none on the kernels that we boot ourselves. A host's kernel may leave out events: on
/// one (6.18), of a thousand switches and softirqs a few never reach a program, and no miss is counted; of
/// switches its own trace lacks some too: after one from A to B comes one from C to D on the same CPU.
///
/// # Errors
/// There are more than that explains: one in 200.
fn few_losses(place: &Place<'_>, dump: &Dump) -> Result<u64> {
    let losses = dump.losses()?;
    let starts = dump.ledger("starts")?;
    println!("{losses} losses: {}", dump.0["ledger"]);
    let most = if place.emulated { 0 } else { starts / 200 };
    ensure!(losses <= most, "{losses} are lost: {}", dump.0["ledger"]);
    Ok(losses)
}
