//! Block devices, and the numbers under which requests and files of theirs go.

use std::{
    fs,
    os::unix::fs::{FileTypeExt as _, MetadataExt as _},
    path::{Path, PathBuf},
};

use super::{Mount, below, number, number_of, refused};
use crate::failure::Failure;

/// The numbers of a device: its own, those of its partitions, and the anonymous ones of file systems that were
/// mounted from any of these, such as btrfs. A device made of it (dm, md) is another.
pub fn find(root: &Path, mounts: &[Mount], device: &str) -> Result<Vec<u32>, Failure> {
    let own = own_number(root, device)?;
    let mut numbers = vec![own];
    numbers.extend(partitions(root, own));
    let on_it = |mount: &&Mount| {
        let anonymous = mount.device >> 20 == 0;
        anonymous && node(root, &mount.source).is_some_and(|found| numbers.contains(&found))
    };
    let above: Vec<u32> = mounts
        .iter()
        .filter(on_it)
        .map(|mount| mount.device)
        .collect();
    numbers.extend(above);
    Ok(numbers)
}

/// Of `vda`, `/dev/vda` or `8:0`.
fn own_number(root: &Path, device: &str) -> Result<u32, Failure> {
    let gone = || {
        refused(
            format!("--device {device}: there is no such block device"),
            "lsblk shows those that there are; write vda, /dev/vda1 or 8:0",
        )
    };
    if device.starts_with('/') {
        let path = below(root, Path::new(device));
        let found = fs::metadata(&path).map_err(|_| named(root, Path::new(device)));
        return match found {
            Ok(found) if found.file_type().is_block_device() => Ok(number_of(found.rdev())),
            Ok(_) => Err(refused(
                format!("--device {device} is not a block device"),
                "name the disk or the partition: vda, /dev/vda1, 8:0; for a directory there is --under",
            )),
            Err(named) => named.ok_or_else(gone),
        };
    }
    if let Some((major, minor)) = device.split_once(':')
        && let (Ok(major), Ok(minor)) = (major.parse::<u32>(), minor.parse::<u32>())
    {
        let there =
            major < 1 << 12 && minor < 1 << 20 && directory(root, number(major, minor)).exists();
        return there.then(|| number(major, minor)).ok_or_else(gone);
    }
    if device.contains('/') {
        return Err(gone());
    }
    named(root, Path::new(device)).ok_or_else(gone)
}

/// By the kernel's name of a device, in which `!` stands for `/`.
fn named(root: &Path, path: &Path) -> Option<u32> {
    let name = path.strip_prefix("/dev").unwrap_or(path).to_str()?;
    if name.is_empty() || name.starts_with('/') || name.starts_with('.') {
        return None;
    }
    let directory = root.join("sys/class/block").join(name.replace('/', "!"));
    dev(&directory.join("dev"))
}

/// Of a mount's source, if that is a block device.
fn node(root: &Path, source: &Path) -> Option<u32> {
    if !source.is_absolute() {
        return None;
    }
    match fs::metadata(below(root, source)) {
        Ok(found) if found.file_type().is_block_device() => Some(number_of(found.rdev())),
        Ok(_) => None,
        Err(_) => source
            .starts_with("/dev")
            .then(|| named(root, source))
            .flatten(),
    }
}

fn directory(root: &Path, device: u32) -> PathBuf {
    let (major, minor) = (device >> 20, device & 0xf_ffff);
    root.join(format!("sys/dev/block/{major}:{minor}"))
}

/// Of a whole disk; a partition has none.
fn partitions(root: &Path, disk: u32) -> Vec<u32> {
    let Ok(entries) = fs::read_dir(directory(root, disk)) else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter(|entry| entry.path().join("partition").exists())
        .filter_map(|entry| dev(&entry.path().join("dev")))
        .collect()
}

/// Reads `8:0`.
fn dev(file: &Path) -> Option<u32> {
    let text = fs::read_to_string(file).ok()?;
    let (major, minor) = text.trim().split_once(':')?;
    Some(number(major.parse().ok()?, minor.parse().ok()?))
}
