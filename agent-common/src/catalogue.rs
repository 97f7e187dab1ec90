//! The one list of probes, points and backends. The command line, the loader, `status`, the docs
//! and the VM tests all iterate it: a name is typed here and nowhere else.

use crate::probes::block::op;

/// How a probe attaches at a point. `auto` tries them in the order of [`BACKENDS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    /// A BPF trampoline at the function's entry: the cheapest.
    Fentry,
    /// A kprobe at the function's entry.
    Kprobe,
    /// A raw tracepoint on the same path.
    Tp,
}

/// All backends, cheapest first.
pub const BACKENDS: [Backend; 3] = [Backend::Fentry, Backend::Kprobe, Backend::Tp];

impl Backend {
    /// The name that the command line, `status` and the programs of the objects use.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Fentry => "fentry",
            Self::Kprobe => "kprobe",
            Self::Tp => "tp",
        }
    }
}

/// Which of io-delayer's two switches a point belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layer {
    /// Delayed by `iolag set`, and attached for as long as the agent runs.
    Vfs,
    /// Delayed by `iolag set-blk`, and attached for as long as the agent runs.
    Block,
    /// None: delayed by rules only, and attached once one wants it.
    Rules,
}

/// A further function of a point: where one is not enough.
#[derive(Debug)]
pub struct Further {
    /// What its programs' names end in: `kprobe_vfs_fsync_` and this.
    pub name: &'static str,
    /// The first that can be attached is taken.
    pub functions: &'static [&'static str],
}

/// A place in the kernel that can be delayed.
#[derive(Debug)]
pub struct Point {
    /// Its name for people: `vfs.read`.
    pub name: &'static str,
    /// The switch that it belongs to.
    pub layer: Layer,
    /// What is delayed there, for help texts and generated docs.
    pub help: &'static str,
    /// Kernel functions for `fentry` and `kprobe`: the first that can be attached is taken.
    pub functions: &'static [&'static str],
    /// Functions for `fentry` and `kprobe` that are attached besides.
    pub further: &'static [Further],
    /// The raw tracepoint for `tp`; empty where there is none.
    pub tracepoint: &'static str,
    /// The system calls that `tp` picks at `sys_enter`; empty where the tracepoint is the point's own.
    pub syscalls: &'static [&'static str],
    /// Place of its operation among those of the probe `block`; `None` of a request, which has its own.
    pub op: Option<u32>,
}

/// The operation of a point that filters by operation never mean.
pub const NO_OP: Option<u32> = Some(op::COUNT);

/// The points of the probe `delay`. A point's place in this list is its slot in the maps.
pub const POINTS: [Point; 7] = [
    Point {
        name: "vfs.read",
        layer: Layer::Vfs,
        help: "read(2), pread64(2) of any file, pipe or socket",
        functions: &["vfs_read"],
        further: &[],
        tracepoint: "sys_enter",
        syscalls: &["read", "pread64"],
        op: Some(op::READ),
    },
    Point {
        name: "vfs.write",
        layer: Layer::Vfs,
        help: "write(2), pwrite64(2) of any file, pipe or socket",
        functions: &["vfs_write"],
        further: &[],
        tracepoint: "sys_enter",
        syscalls: &["write", "pwrite64"],
        op: Some(op::WRITE),
    },
    Point {
        name: "vfs.open",
        layer: Layer::Vfs,
        help: "open(2), openat(2), openat2(2), creat(2)",
        // io-delayer hooks do_sys_open, which since 5.6 (fd2c6ab3ba4e) is only a wrapper that the
        // system calls do not pass: its successor comes first.
        functions: &["do_sys_openat2", "do_sys_open", "do_filp_open"],
        further: &[],
        tracepoint: "sys_enter",
        syscalls: &["open", "openat", "openat2", "creat"],
        op: NO_OP,
    },
    Point {
        name: "block.issue",
        layer: Layer::Block,
        help: "each request handed to a block device's driver",
        // blk_start_request went with the single-queue block layer in 5.0 (a1ce35fa4985); its
        // multi-queue successor is also where the tracepoint block_rq_issue fires.
        functions: &["blk_mq_start_request", "blk_start_request"],
        further: &[],
        tracepoint: "block_rq_issue",
        syscalls: &[],
        op: None,
    },
    Point {
        name: "vfs.fsync",
        layer: Layer::Rules,
        help: "fsync(2), fdatasync(2); with functions also synchronous writes, msync(2) and others",
        // Some compilers inline it into one of the calls or both, so these are attached too; what comes by at both
        // is delayed at the outer.
        functions: &["vfs_fsync_range"],
        further: &[
            Further {
                name: "sys_fsync",
                functions: &["__x64_sys_fsync", "__arm64_sys_fsync"],
            },
            Further {
                name: "sys_fdatasync",
                functions: &["__x64_sys_fdatasync", "__arm64_sys_fdatasync"],
            },
        ],
        tracepoint: "sys_enter",
        syscalls: &["fsync", "fdatasync"],
        op: Some(op::FLUSH),
    },
    Point {
        name: "vfs.opened",
        layer: Layer::Rules,
        help: "open(2) and its kin once the file is known; where vfs.open is meant with --under or --device",
        functions: &["vfs_open"],
        further: &[],
        tracepoint: "sys_exit",
        syscalls: &["open", "openat", "openat2", "creat"],
        op: NO_OP,
    },
    Point {
        name: "vfs.lookup",
        layer: Layer::Rules,
        help: "lookups of names that miss the dentry cache",
        // Static both; which of them is not inlined depends on the kernel.
        functions: &["lookup_slow", "__lookup_slow"],
        further: &[],
        tracepoint: "",
        syscalls: &[],
        op: NO_OP,
    },
];

/// A tracepoint that tells filters something, and its program for so many arguments as it has on some kernels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Watched {
    pub tracepoint: &'static str,
    pub program: &'static str,
    pub arguments: usize,
}

const fn watched(tracepoint: &'static str, program: &'static str, arguments: usize) -> Watched {
    Watched {
        tracepoint,
        program,
        arguments,
    }
}

/// Who submits a request. Before 5.11 the queue came first, and 5.10 took that change (a54895fa057c) for requests only.
pub const SUBMITTERS: [Watched; 4] = [
    watched("block_getrq", "tp_block_getrq", 1),
    watched("block_bio_frontmerge", "tp_block_bio_frontmerge", 1),
    watched("block_getrq", "tp_block_getrq_with_queue", 3),
    watched(
        "block_bio_frontmerge",
        "tp_block_bio_frontmerge_with_queue",
        3,
    ),
];

/// Tracepoints that tell who submits a request.
pub const SUBMITTERS_TOLD: usize = 2;

/// Who forks whom.
pub const FORKS: [Watched; 1] = [watched("sched_process_fork", "tp_sched_process_fork", 2)];

/// Slots in the maps, for the eBPF side.
pub mod slot {
    pub const VFS_READ: u32 = 0;
    pub const VFS_WRITE: u32 = 1;
    pub const VFS_OPEN: u32 = 2;
    pub const BLOCK_ISSUE: u32 = 3;
    pub const VFS_FSYNC: u32 = 4;
    pub const VFS_OPENED: u32 = 5;
    pub const VFS_LOOKUP: u32 = 6;
    /// The first of the functions that rules name: `fn:NAME`.
    pub const FUNCTIONS: u32 = super::POINTS.len() as u32;
}

/// The slot of a point in the maps, by its name.
#[must_use]
pub fn slot_of(name: &str) -> Option<usize> {
    POINTS.iter().position(|point| point.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_places_in_the_list() {
        for (name, slot) in [
            ("vfs.read", slot::VFS_READ),
            ("vfs.write", slot::VFS_WRITE),
            ("vfs.open", slot::VFS_OPEN),
            ("block.issue", slot::BLOCK_ISSUE),
            ("vfs.fsync", slot::VFS_FSYNC),
            ("vfs.opened", slot::VFS_OPENED),
            ("vfs.lookup", slot::VFS_LOOKUP),
        ] {
            assert_eq!(slot_of(name), Some(slot as usize), "{name}");
        }
    }

    #[test]
    fn names_are_unique() {
        for (i, point) in POINTS.iter().enumerate() {
            assert!(POINTS[..i].iter().all(|other| other.name != point.name));
        }
    }
}
