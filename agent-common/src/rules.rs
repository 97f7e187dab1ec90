//! Rules as the kernel side has them: data in the maps of the probe `delay`. Both sides read these bytes, so:
//! `repr(C)`, only `u64` fields, no padding.
//!
//! A rule is a bit, its place in [`RULES`]. What a filter says of a task, a file or a request is looked up as the set
//! of the rules that it satisfies; so 64 rules cost as many look-ups as they use kinds of filters, and not 64 times as
//! many.

use crate::{catalogue::POINTS, probes::block::op};

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
    /// The rules that have a filter of each kind.
    pub by: [Set; KINDS],
    /// The rules that each operation satisfies, of those that filter by it.
    pub ops: [Set; op::COUNT as usize],
    /// The rules that each power of two of a size may satisfy, of those that filter by it.
    pub sizes: [Set; POWERS],
    /// The rules that have any filter.
    pub filtered: Set,
    /// The rules that filter by task.
    pub by_task: Set,
    /// Rules at block points that have to know who submitted the request.
    pub owned: Set,
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

impl Default for Control {
    fn default() -> Self {
        Self {
            lease_until_ns: 0,
            entry_twin: 0,
            epoch: 0,
            at: [0; SLOTS],
            by: [0; KINDS],
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
        }
    }
}

/// Powers of two that a size can have, see [`power`].
pub const POWERS: usize = 65;

/// Kinds of filters by task of which the programs first ask whether anybody wants a value like that: places of
/// tables in [`Maybe`].
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quick {
    Uid,
    Pid,
    Comm,
}

/// Entries of a table, of which one is 1 if a value that folds to its place is wanted.
const PLACES: usize = 1024;

/// An entry of the map `MAYBE`: 0 is the agent's, 1 what forks have added.
pub type Maybe = [u8; 4 * PLACES];

/// Where a value is in a [`Maybe`].
#[inline(always)]
#[must_use]
pub const fn maybe(kind: Quick, value: u64, more: u64) -> usize {
    // Fibonacci hashing (Knuth, The Art of Computer Programming, 6.4): the upper bits of the product.
    let mixed = (value ^ more.rotate_left(29)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    kind as usize * PLACES + (mixed >> 54) as usize
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

/// What one CPU counted for one rule: an entry of the per-CPU map `TALLIES`, by place.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Hits at the rule's points that satisfied all its filters (count). The sum of the seven that follow.
    pub matches: u64,
    /// Delayed (count).
    pub hits: u64,
    /// Left out by `chance` or `every` (count).
    pub spared: u64,
    /// Past the rule's end or its `max_hits` (count).
    pub ended: u64,
    /// The lease had run out (count).
    pub lease: u64,
    /// The CPU's budget was used up (count).
    pub budget: u64,
    /// Too many waits in a row, in which the CPU could do nothing else (count).
    pub row: u64,
    /// Never delayed: the agent, its commands, PID 1, or in an interrupt (count).
    pub exempt: u64,
    /// Of `hits`, those whose delay the cap cut short (count).
    pub capped: u64,
    /// Of `hits`, those that ended before their time because the loop's bound was reached (count).
    pub short: u64,
    /// Sum of the delays of the hits as the rule has them, before the cap (ns).
    pub asked_ns: u64,
    /// Sum of the delays that were done (ns).
    pub achieved_ns: u64,
    /// The budget's account: ns that may be burnt, below 0 what was burnt too much (two's complement).
    pub account_ns: u64,
    /// Time of the account (ns).
    pub account_at_ns: u64,
    /// The share in the wait that is going on (ns).
    pub share_ns: u64,
}

/// What became of a match: the place of its count among the words of a [`Tally`].
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    Hit = 1,
    Spared,
    Ended,
    Lease,
    Budget,
    Row,
    Exempt,
}

impl Tally {
    /// Adds what another CPU counted. Accounts are each CPU's own.
    pub fn add(&mut self, other: &Self) {
        self.matches += other.matches;
        self.hits += other.hits;
        self.spared += other.spared;
        self.ended += other.ended;
        self.lease += other.lease;
        self.budget += other.budget;
        self.row += other.row;
        self.exempt += other.exempt;
        self.capped += other.capped;
        self.short += other.short;
        self.asked_ns += other.asked_ns;
        self.achieved_ns += other.achieved_ns;
    }
}

/// What numbers the matches and hits of a rule, on all CPUs: an entry of the map `TICKETS`, by place.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tickets {
    pub matches: u64,
    pub hits: u64,
    /// A cache line each.
    pub fill: [u64; 6],
}

/// Who submitted a request, as far as rules go: a value of the map `OWNERS`, by the request's first `bio`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Owner {
    /// The rules whose filters by task the submitter satisfies.
    pub rules: Set,
    /// The epoch in which that was so.
    pub epoch: u64,
}

/// What a CPU found out of a cgroup last: an entry of the per-CPU map `CGROUPS`, by [`CgroupRules::place`].
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CgroupRules {
    /// Place of the hierarchy in [`Control::hierarchy`].
    pub hierarchy: u64,
    pub id: u64,
    /// The epoch in which it was found out.
    pub epoch: u64,
    /// The rules that it or an ancestor satisfies.
    pub rules: Set,
}

/// Entries of `CGROUPS`.
pub const CGROUPS: usize = 1024;

impl CgroupRules {
    /// Where a cgroup is remembered, which it shares with others.
    #[inline(always)]
    #[must_use]
    pub const fn place(hierarchy: u64, id: u64) -> u32 {
        ((id ^ hierarchy << 60).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 54) as u32
    }
}

/// Waits after which a CPU had no chance to do anything else: the only entry of the per-CPU map `ROW`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Row {
    /// Task and thread group that waited.
    pub task: u64,
    /// How often that task had been switched.
    pub switches: u64,
    /// Sum of its waits since (ns).
    pub waited_ns: u64,
}

/// Longest row of waits (ns): the kernel takes a CPU that does nothing else for 20 s for locked up.
pub const ROW_NS: u64 = 5_000_000_000;

/// Longest name of a command that the kernel keeps, and a zero.
pub const COMM: usize = 16;

/// What a filter asks for: a key of the map `WANTED`, whose values are sets of rules.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Wanted {
    /// A [`Kind`]; for a cgroup with the place of its hierarchy in [`Control::hierarchy`] in the upper half.
    pub kind: u64,
    /// User, cgroup, inode, or device (`major << 20 | minor`).
    pub value: u64,
    /// The inode's device; the rest of a command.
    pub more: u64,
}

impl Wanted {
    #[must_use]
    pub const fn new(kind: Kind, value: u64, more: u64) -> Self {
        Self {
            kind: kind as u64,
            value,
            more,
        }
    }

    /// A command, as the kernel keeps it.
    #[must_use]
    pub fn comm(comm: [u8; COMM]) -> Self {
        let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = comm;
        Self::new(
            Kind::Comm,
            u64::from_le_bytes([a, b, c, d, e, f, g, h]),
            u64::from_le_bytes([i, j, k, l, m, n, o, p]),
        )
    }

    #[must_use]
    pub const fn cgroup(hierarchy: usize, id: u64) -> Self {
        Self {
            kind: Kind::Cgroup as u64 | (hierarchy as u64) << 32,
            value: id,
            more: 0,
        }
    }
}

/// The power of two of a size: 0 for 0, else one more than its logarithm's whole part.
#[must_use]
pub const fn power(size: u64) -> u64 {
    (u64::BITS - size.leading_zeros()) as u64
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_has_the_power_of_its_highest_bit() {
        for (size, expected) in [(0, 0), (1, 1), (2, 2), (3, 2), (4096, 13), (u64::MAX, 64)] {
            assert_eq!(power(size), expected, "{size}");
        }
    }

    #[test]
    fn places_of_different_kinds_do_not_meet() {
        for value in [0, 1, 12_345, u64::MAX] {
            assert!(maybe(Quick::Uid, value, 0) < PLACES);
            assert_eq!(
                maybe(Quick::Pid, value, 0),
                maybe(Quick::Uid, value, 0) + PLACES
            );
            assert!(maybe(Quick::Comm, value, value) < 3 * PLACES);
        }
        assert_ne!(maybe(Quick::Uid, 1, 0), maybe(Quick::Uid, 2, 0));
    }

    #[test]
    fn every_cgroup_has_a_place() {
        for id in [0, 1, 12_345, u64::MAX] {
            for hierarchy in 0..HIERARCHIES as u64 {
                assert!((CgroupRules::place(hierarchy, id) as usize) < CGROUPS);
            }
        }
    }

    #[test]
    fn fates_are_places_of_counts() {
        let tally = Tally {
            hits: 1,
            exempt: 7,
            ..Tally::default()
        };
        // SAFETY: repr(C), of u64 only.
        let words = unsafe { *(&raw const tally).cast::<[u64; 8]>() };
        assert_eq!(words[Fate::Hit as usize], 1);
        assert_eq!(words[Fate::Exempt as usize], 7);
    }

    #[test]
    fn commands_differ_in_each_byte() {
        let mut comm = [b'a'; COMM];
        let all = Wanted::comm(comm);
        for place in 0..COMM {
            comm[place] = b'b';
            assert_ne!(Wanted::comm(comm), all);
            comm[place] = b'a';
        }
    }
}
