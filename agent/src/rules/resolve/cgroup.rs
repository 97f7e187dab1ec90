//! cgroups, by the directory of one.

use std::{fs, os::unix::fs::MetadataExt as _, path::Path};

use super::{CgroupId, Hierarchy, Mount, below, refused};
use crate::failure::Failure;

/// v1 controllers, as mounts name them.
const CONTROLLERS: [&str; 13] = [
    "cpu",
    "cpuacct",
    "cpuset",
    "memory",
    "blkio",
    "devices",
    "freezer",
    "pids",
    "net_cls",
    "net_prio",
    "perf_event",
    "hugetlb",
    "rdma",
];

/// The cgroup whose directory this is; or else the one of this path below the mount of cgroup v2.
pub fn find(root: &Path, mounts: &[Mount], path: &Path) -> Result<CgroupId, Failure> {
    let shown = path.display();
    let directory = below(root, path);
    if let Some(mount) = mount_of(root, mounts, &directory) {
        match mount.kind.as_str() {
            "cgroup2" => return id(&directory, Hierarchy::Unified, path),
            "cgroup" => return id(&directory, controller(mount, path)?, path),
            _ => {}
        }
    }
    let unified = mounts.iter().rev().find(|mount| mount.kind == "cgroup2");
    if let Some(unified) = unified {
        let directory = below(&below(root, &unified.target), path);
        if directory.is_dir() {
            return id(&directory, Hierarchy::Unified, path);
        }
    }
    Err(if directory.is_dir() {
        refused(
            format!("--cgroup {shown} is a directory of something else"),
            "name one below /sys/fs/cgroup, or its path within cgroup v2: /user.slice",
        )
    } else if directory.exists() {
        refused(
            format!("--cgroup {shown} is no directory"),
            "name the cgroup's directory, not a file in it",
        )
    } else {
        refused(
            format!("--cgroup {shown}: there is no such cgroup"),
            "has it gone? systemd-cgls shows those that there are; /proc/PID/cgroup, a process's own",
        )
    })
}

/// The mount on which a directory is: the last of those that are deepest.
fn mount_of<'a>(root: &Path, mounts: &'a [Mount], directory: &Path) -> Option<&'a Mount> {
    let top = fs::canonicalize(root).ok()?;
    // /sys/fs/cgroup/cpu may be a link to cpu,cpuacct.
    let directory = fs::canonicalize(directory).ok()?;
    if !directory.is_dir() {
        return None;
    }
    let directory = Path::new("/").join(directory.strip_prefix(top).ok()?);
    mounts
        .iter()
        .filter(|mount| directory.starts_with(&mount.target))
        .max_by_key(|mount| mount.target.components().count())
}

fn controller(mount: &Mount, path: &Path) -> Result<Hierarchy, Failure> {
    let has = |name: &str| mount.options.iter().any(|option| option == name);
    let known = CONTROLLERS.iter().find(|name| has(name));
    known
        .map(|name| Hierarchy::Controller((*name).into()))
        .ok_or_else(|| {
            refused(
                format!(
                    "--cgroup {}: the hierarchy at {} has no controller, so the kernel side cannot tell who is in it",
                    path.display(),
                    mount.target.display()
                ),
                "name a cgroup of v2, or of a v1 controller such as cpu or memory",
            )
        })
}

fn id(directory: &Path, hierarchy: Hierarchy, path: &Path) -> Result<CgroupId, Failure> {
    let found = fs::metadata(directory).map_err(|error| {
        refused(
            format!("--cgroup {}: {error}", path.display()),
            "has it gone?",
        )
    })?;
    Ok(CgroupId {
        hierarchy,
        id: found.ino(),
    })
}
