//! What the host's own tables say, under a root path that tests replace.

use std::{
    collections::HashMap,
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use agent_common::probes::{Probe, block};

use crate::report::dump::InFlight;

/// The name of the block device that has this number now.
pub(super) fn block_device(root: &Path, major: u32, minor: u32) -> Option<String> {
    let link = root.join("sys/dev/block").join(format!("{major}:{minor}"));
    let target = fs::read_link(link).ok()?;
    Some(target.file_name()?.to_string_lossy().into_owned())
}

/// Where the unified hierarchy is mounted, by the mount table: it may lie beside version 1's.
fn unified(root: &Path) -> Option<PathBuf> {
    let table = fs::read_to_string(root.join("proc/self/mountinfo")).ok()?;
    table.lines().find_map(|line| {
        let (before, after) = line.split_once(" - ")?;
        let target = before.split(' ').nth(4)?;
        (after.split(' ').next()? == "cgroup2").then(|| root.join(target.trim_start_matches('/')))
    })
}

/// Paths of all cgroups by id, which is the inode number of their directory.
pub(super) fn cgroups(root: &Path) -> HashMap<u64, String> {
    let mut found = HashMap::new();
    let Some(top) = unified(root) else {
        return found;
    };
    let mut left = vec![top.clone()];
    while let Some(directory) = left.pop() {
        if let Ok(metadata) = fs::metadata(&directory) {
            let path = directory.strip_prefix(&top).unwrap_or(&directory);
            found.insert(metadata.ino(), format!("/{}", path.display()));
        }
        let Ok(entries) = fs::read_dir(&directory) else {
            continue;
        };
        left.extend(
            entries
                .flatten()
                .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
                .map(|entry| entry.path()),
        );
    }
    found
}

/// Names of interrupts by number: the last word of their line; of a shared one the last of its handlers.
pub(super) fn interrupts(root: &Path) -> HashMap<u32, String> {
    let table = fs::read_to_string(root.join("proc/interrupts")).unwrap_or_default();
    table
        .lines()
        .filter_map(|line| {
            let (number, rest) = line.split_once(':')?;
            let name = rest.split_whitespace().last()?;
            Some((number.trim().parse().ok()?, name.to_owned()))
        })
        .collect()
}

/// Types of mounted file systems by the device number of their superblock.
pub(super) fn mounted(root: &Path) -> HashMap<u32, String> {
    let table = fs::read_to_string(root.join("proc/self/mountinfo")).unwrap_or_default();
    table
        .lines()
        .filter_map(|line| {
            let (before, after) = line.split_once(" - ")?;
            let (major, minor) = before.split(' ').nth(2)?.split_once(':')?;
            let device = major.parse::<u32>().ok()? << 20 | minor.parse::<u32>().ok()?;
            Some((device, after.split(' ').next()?.to_owned()))
        })
        .collect()
}

/// Requests in flight of each device that has any, by the kernel's own count; none for other probes than
/// `block`, which measure no requests.
#[must_use]
pub fn in_flight(probe: &Probe, root: &Path) -> Vec<InFlight> {
    if probe.name != block::NAME {
        return Vec::new();
    }
    let Ok(devices) = fs::read_dir(root.join("sys/block")) else {
        return Vec::new();
    };
    let mut all: Vec<InFlight> = devices
        .flatten()
        .filter_map(|entry| {
            let text = fs::read_to_string(entry.path().join("inflight")).ok()?;
            let mut numbers = text.split_whitespace().map(str::parse::<u64>);
            Some(InFlight {
                device: entry.file_name().to_string_lossy().into_owned(),
                reads: numbers.next()?.ok()?,
                writes: numbers.next()?.ok()?,
            })
        })
        .filter(|device| device.reads + device.writes > 0)
        .collect();
    all.sort_by(|a, b| a.device.cmp(&b.device));
    all
}
