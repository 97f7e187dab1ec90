//! What a rule's words are on this host, now: numbers that the kernel side compares. Read under a root path that
//! tests replace.

use std::path::Path;

use agent_common::rules::COMM;

use super::{check::operations, spec::Filters};
use crate::failure::{FAILED, Failure, USAGE};

mod cgroup;
mod device;
mod mounts;
mod pid;
mod under;

use mounts::Mount;
pub use under::{identity, own_program};

/// Filters in numbers. Each that is empty lets all pass.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resolved {
    /// Thread-group leaders that were alive.
    pub pids: Vec<u32>,
    pub uids: Vec<u32>,
    /// Padded with zeroes, as the kernel has them.
    pub comms: Vec<[u8; COMM]>,
    pub cgroups: Vec<CgroupId>,
    /// `major << 20 | minor`: of the devices, their partitions, and the file systems on them that have a number
    /// of their own.
    pub devices: Vec<u32>,
    /// Inode number and super block's device (`major << 20 | minor`) of each directory.
    pub under: Vec<(u64, u32)>,
    /// Places among the operations of the probe `block`.
    pub ops: Vec<u32>,
    /// Bytes, both included.
    pub size: Option<(u64, u64)>,
}

/// A cgroup, sub-groups not included.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CgroupId {
    pub hierarchy: Hierarchy,
    /// Of its kernfs node, which is its directory's inode number.
    pub id: u64,
}

/// Where a cgroup is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hierarchy {
    /// cgroup v2.
    Unified,
    /// The cgroup v1 hierarchy of this controller, as mounts name it.
    Controller(String),
}

/// Looks all up; the filters have passed [`super::check::check`].
///
/// # Errors
/// What is not there, or has gone, or is something else: with the flag, the value and the reason.
pub fn resolve(filters: &Filters, root: &Path) -> Result<Resolved, Failure> {
    let needs_mounts =
        !filters.cgroups.is_empty() || !filters.devices.is_empty() || !filters.under.is_empty();
    let mounts = if needs_mounts {
        mounts::read(root)?
    } else {
        Vec::new()
    };
    filters
        .pids
        .iter()
        .try_for_each(|pid| pid::check(root, *pid))?;
    let mut resolved = Resolved {
        pids: filters.pids.clone(),
        uids: filters.uids.clone(),
        comms: filters.comms.iter().map(|comm| padded(comm)).collect(),
        cgroups: each(&filters.cgroups, |path| cgroup::find(root, &mounts, path))?,
        devices: Vec::new(),
        under: each(&filters.under, |path| under::find(root, &mounts, path))?,
        ops: filters.ops.iter().filter_map(|op| place(op)).collect(),
        size: filters.size,
    };
    for device in &filters.devices {
        resolved
            .devices
            .extend(device::find(root, &mounts, device)?);
    }
    resolved.devices.sort_unstable();
    resolved.devices.dedup();
    Ok(resolved)
}

fn each<T, U>(values: &[T], find: impl Fn(&T) -> Result<U, Failure>) -> Result<Vec<U>, Failure> {
    values.iter().map(find).collect()
}

fn place(op: &str) -> Option<u32> {
    let place = operations().iter().position(|known| *known == op)?;
    u32::try_from(place).ok()
}

fn padded(comm: &str) -> [u8; COMM] {
    let mut bytes = [0; COMM];
    let kept = comm.len().min(COMM - 1);
    bytes[..kept].copy_from_slice(&comm.as_bytes()[..kept]);
    bytes
}

/// The number of a device as the kernel has it within.
const fn number(major: u32, minor: u32) -> u32 {
    major << 20 | minor
}

/// Of what `stat` tells.
fn number_of(dev: u64) -> u32 {
    number(libc::major(dev), libc::minor(dev))
}

/// A path of the host below the root that tests replace.
fn below(root: &Path, path: &Path) -> std::path::PathBuf {
    root.join(path.strip_prefix("/").unwrap_or(path))
}

fn refused(what: impl std::fmt::Display, hint: &str) -> Failure {
    Failure::new(USAGE, what).hint(hint)
}

fn unreadable(flag: &str, path: &Path, error: &std::io::Error) -> Failure {
    Failure::new(
        FAILED,
        format!("{flag}: failed to read {}: {error}", path.display()),
    )
    .hint("without it the kernel's number for it is not known")
}

#[cfg(test)]
mod tests;
