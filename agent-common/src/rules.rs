//! Rules as the kernel side has them: data in the maps of the probe `delay`. Both sides read these bytes, so:
//! `repr(C)`, only `u64` fields, no padding.
//!
//! A rule is a bit, its place in [`RULES`]. What a filter says of a task, a file or a request is looked up as the set
//! of the rules that it satisfies; so 64 rules cost as many look-ups as they use kinds of filters, and not 64 times as
//! many.

use crate::{catalogue::POINTS, probes::block::op};

mod filters;
mod tally;

pub use filters::{CGROUPS, COMM, CgroupRules, Maybe, Owner, POWERS, Quick, Wanted, maybe, power};
pub use tally::{Fate, ROW_NS, Row, Tally, Tickets};

/// Rules in force at once: bits of a [`Set`].
pub const RULES: usize = 64;

/// Of rules: bit `n` is the rule in place `n`.
pub type Set = u64;

/// Places of `fn:NAME`: functions that are delayed at once.
pub const FUNCTIONS: usize = 64;

/// Slots: of the points, then of functions.
pub const SLOTS: usize = POINTS.len() + FUNCTIONS;

/// Kinds of filters, cheapest first: the order in which they are asked.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Op,
    Size,
    Uid,
    Pid,
    Comm,
    Cgroup,
    Device,
    Under,
}

/// Kinds of filters.
pub const KINDS: usize = Kind::Under as usize + 1;

impl Kind {
    /// Of the task; for a request, of the task that submitted it.
    pub const OF_TASK: [Self; 4] = [Self::Uid, Self::Pid, Self::Comm, Self::Cgroup];
}

/// cgroup hierarchies that rules may name at once.
pub const HIERARCHIES: usize = 4;
/// Stands for the hierarchy of cgroup v2.
pub const UNIFIED: u64 = u64::MAX;

/// What the agent tells the probe: the only entry of the map `CONTROL`.
///
/// The kernel copies a value word by word, so a program may see one field new and another old for one hit; no field
/// depends on another to be safe.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Control {
    /// `CLOCK_MONOTONIC` time in ns past which no point delays any more. The agent renews it.
    pub lease_until_ns: u64,
    /// Which of the twins at `sys_enter` does the work, 0 or 1; the other returns at once.
    pub entry_twin: u64,
    /// Grows with every change of the rules: what was found out under another epoch is found out anew.
    pub epoch: u64,
    /// The rules at each slot.
    pub at: [Set; SLOTS],
    /// The rules that have any filter.
    pub filtered: Set,
    /// The rules that filter by task.
    pub by_task: Set,
    /// Rules at block points that have to know who submitted the request.
    pub owned: Set,
    /// The rules that have a filter of each kind.
    pub by: [Set; KINDS],
    /// The smallest and the largest size in bytes that any rule is for, of those that filter by it.
    pub size_min: u64,
    pub size_max: u64,
    /// The rules that each operation satisfies, of those that filter by it.
    pub ops: [Set; op::COUNT as usize],
    /// The rules that each power of two of a size may satisfy, of those that filter by it.
    pub sizes: [Set; POWERS],
    /// Rules whose tasks' later children belong to them too.
    pub children: Set,
    /// Rules that name PID 1, which is exempt from all others.
    pub init: Set,
    /// cgroup hierarchies that rules name: [`UNIFIED`], or the place of a v1 controller among the kernel's
    /// (`enum cgroup_subsys_id`); as many as `hierarchies` says.
    pub hierarchy: [u64; HIERARCHIES],
    pub hierarchies: u64,
    /// Of these, the one that the block layer goes by.
    pub block_hierarchy: u64,
    /// For functions, which may be called in interrupts: the address of the CPU's count of what keeps it from being
    /// preempted, or 0, and of the kernel's list of what each CPU adds to such addresses.
    pub preempt_count: u64,
    pub cpu_offsets: u64,
    /// Inode and device (as in [`Wanted`]) of the agent's program: who runs it is exempt.
    pub agent_inode: u64,
    pub agent_device: u64,
}

impl Control {
    /// No rules.
    pub const NONE: Self = Self {
        lease_until_ns: 0,
        entry_twin: 0,
        epoch: 0,
        at: [0; SLOTS],
        by: [0; KINDS],
        size_min: u64::MAX,
        size_max: 0,
        ops: [0; op::COUNT as usize],
        sizes: [0; POWERS],
        filtered: 0,
        by_task: 0,
        owned: 0,
        children: 0,
        init: 0,
        hierarchy: [0; HIERARCHIES],
        hierarchies: 0,
        block_hierarchy: 0,
        preempt_count: 0,
        cpu_offsets: 0,
        agent_inode: 0,
        agent_device: 0,
    };
}

impl Default for Control {
    fn default() -> Self {
        Self::NONE
    }
}

/// Always, as [`Rule::chance`].
pub const ALWAYS: u64 = 1 << 32;
/// All of a CPU's time, as [`Rule::budget`].
pub const WHOLE: u64 = 1 << 16;

/// A rule: an entry of the map `RULES`, by place.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rule {
    /// The epoch that it came with.
    pub epoch: u64,
    /// `CLOCK_MONOTONIC` time in ns at which it came.
    pub start_ns: u64,
    /// Time at which it ends; `u64::MAX`: with the lease only.
    pub until_ns: u64,
    /// The delay grows from 0 for so long after `start_ns` (ns).
    pub ramp_ns: u64,
    /// The delay of a hit (ns), unless it is `drawn`.
    pub delay_ns: u64,
    /// 1: the delay is drawn from the rule's table of quantiles.
    pub drawn: u64,
    /// Of 2^32 matching hits so many are delayed: [`ALWAYS`] for all.
    pub chance: u64,
    /// Each so manieth matching hit is delayed; 1 for all.
    pub every: u64,
    /// Hits that are delayed at most; `u64::MAX` for no end.
    pub max_hits: u64,
    /// The longest delay of a hit (ns), of all rules that match it.
    pub cap_ns: u64,
    /// Share of each CPU's time that it may burn, of [`WHOLE`].
    pub budget: u64,
    /// What its draws are computed from.
    pub seed: u64,
    /// Sizes in bytes that it is for, both included; for [`Kind::Size`].
    pub size_min: u64,
    pub size_max: u64,
}

#[cfg(feature = "user")]
mod user {
    // SAFETY: repr(C), only u64 fields, no padding: any bytes are a value.
    unsafe impl aya::Pod for super::Control {}
    // SAFETY: as above.
    unsafe impl aya::Pod for super::Rule {}
    // SAFETY: as above.
    unsafe impl aya::Pod for super::Tally {}
    // SAFETY: as above.
    unsafe impl aya::Pod for super::Wanted {}
    // SAFETY: as above.
    unsafe impl aya::Pod for super::Tickets {}
    // SAFETY: as above.
    unsafe impl aya::Pod for super::Owner {}
    // SAFETY: as above.
    unsafe impl aya::Pod for super::CgroupRules {}
    // SAFETY: as above.
    unsafe impl aya::Pod for super::Row {}
}
