//! An OOM kill, as it crosses the ring buffer `EVENTS` of the probe `memory`.

/// Directories of a cgroup's path that are kept, from the last one up.
pub const LEVELS: usize = 8;
/// Bytes of a directory's name that are kept, the NUL included. The longest that container runtimes make
/// are below (`cri-containerd-<64 digits>.scope`).
pub const NAME: usize = 96;

/// A number that this kernel, or this way of attaching, does not give.
pub const UNKNOWN: u64 = u64::MAX;

/// Where a cgroup is. By names and not by its id alone: a container's is often removed before anybody
/// could look the id up.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct CgroupPath {
    /// Inode number of its directory; 0 if it is not known.
    pub id: u64,
    /// Not 0 if there are more levels than were kept.
    pub cut: u64,
    /// From the last directory up; the root has an empty name.
    pub names: [[u8; NAME]; LEVELS],
}

/// The process that was killed.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Victim {
    pub tid: u64,
    pub pid: u64,
    pub comm: [u8; 16],
    /// Two's complement.
    pub oom_score_adj: u64,
    /// Pages, as the next three.
    pub total_vm: u64,
    pub anon: u64,
    pub file: u64,
    pub shmem: u64,
    /// In the unified hierarchy.
    pub cgroup: CgroupPath,
    /// In the hierarchy of the memory controller, which may be version 1's.
    pub memory_cgroup: CgroupPath,
}

/// What `oom_kill_process` was called with; all [`UNKNOWN`] where no program is attached there.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Cause {
    /// `enum oom_constraint`.
    pub constraint: u64,
    /// log2 of the pages that were asked for.
    pub order: u64,
    /// The cgroup that reached its limit; id 0 if none did.
    pub limit: CgroupPath,
}

#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct OomKill {
    /// `CLOCK_MONOTONIC`, ns.
    pub at_ns: u64,
    /// Task that asked for the memory.
    pub asker_tid: u64,
    pub asker_pid: u64,
    pub asker_comm: [u8; 16],
    pub cause: Cause,
    pub victim: Victim,
}
