//! Pure: the rules in force -> what the maps have to hold.

mod compiled;

use agent_common::{
    offsets::Offsets,
    pod::MAX_DELAY_NS,
    rules::{Control, Maybe, Quick, RULES, Rule, Set, WHOLE, Wanted, maybe},
};

pub use self::compiled::{Compiled, compile};
use super::spec::{Delay, Spec};

/// A cgroup, as the kernel side finds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cgroup {
    /// As in [`Control::hierarchy`].
    pub hierarchy: u64,
    pub id: u64,
}

/// What the filters of a rule are on this host: who satisfies each that is not empty, by any of its values.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Subjects {
    pub pids: Vec<u32>,
    pub children: bool,
    pub uids: Vec<u32>,
    pub comms: Vec<[u8; agent_common::rules::COMM]>,
    pub cgroups: Vec<Cgroup>,
    /// `major << 20 | minor`.
    pub devices: Vec<u32>,
    /// Inode and device.
    pub under: Vec<(u64, u32)>,
    /// Places in [`agent_common::probes::block::op`].
    pub ops: Vec<u32>,
    /// Bytes, both included.
    pub size: Option<(u64, u64)>,
}

/// A rule in its place.
#[derive(Clone, Debug)]
pub struct Placed {
    /// As in [`super::spec::Came`].
    pub id: u64,
    pub spec: Spec,
    pub subjects: Subjects,
    pub slots: Vec<u32>,
    pub epoch: u64,
    pub start_ns: u64,
}

/// Rules by place.
pub type Table = [Option<Placed>; RULES];

/// A rule's own entry, with its end by the kernel's clock.
#[must_use]
pub fn entry(placed: &Placed) -> Rule {
    let spec = &placed.spec;
    let (delay_ns, drawn) = match &spec.delay {
        Delay::Fixed { ns } => (*ns, 0),
        Delay::Drawn { .. } => (0, 1),
    };
    let (size_min, size_max) = placed.subjects.size.unwrap_or((0, u64::MAX));
    Rule {
        epoch: placed.epoch,
        start_ns: placed.start_ns,
        until_ns: spec
            .for_ns
            .map_or(u64::MAX, |length| placed.start_ns.saturating_add(length)),
        ramp_ns: spec.ramp_ns.unwrap_or(0),
        delay_ns,
        drawn,
        chance: spec.chance,
        every: spec.every,
        max_hits: spec.max_hits.unwrap_or(u64::MAX),
        cap_ns: spec.cap_ns.min(MAX_DELAY_NS),
        budget: spec.cpu_budget.min(WHOLE),
        seed: spec.seed,
        size_min,
        size_max,
    }
}

/// What `control` may be while the rules change from `old` to `new`, so that a program that sees some words of one and
/// some of the other delays nobody whom neither would: a rule comes with its last word, and goes with its first.
#[must_use]
pub fn between(old: &Control, new: &Control) -> Control {
    fn both<const N: usize>(old: [Set; N], new: [Set; N], join: fn(Set, Set) -> Set) -> [Set; N] {
        std::array::from_fn(|place| join(old[place], new[place]))
    }
    Control {
        at: both(old.at, new.at, |old, new| old & new),
        by: both(old.by, new.by, |old, new| old | new),
        ops: both(old.ops, new.ops, |old, new| old | new),
        sizes: both(old.sizes, new.sizes, |old, new| old | new),
        size_min: old.size_min.min(new.size_min),
        size_max: old.size_max.max(new.size_max),
        filtered: old.filtered | new.filtered,
        by_task: old.by_task | new.by_task,
        owned: old.owned | new.owned,
        children: old.children | new.children,
        ..*new
    }
}

/// Which users, processes, commands, devices and directories anybody may want, see [`Maybe`].
#[must_use]
pub fn maybe_wanted(table: &Table) -> Maybe {
    let mut wanted = [0; size_of::<Maybe>()];
    for placed in table.iter().flatten() {
        let subjects = &placed.subjects;
        for uid in &subjects.uids {
            wanted[maybe(Quick::Uid, (*uid).into(), 0)] = 1;
        }
        for pid in &subjects.pids {
            wanted[maybe(Quick::Pid, (*pid).into(), 0)] = 1;
        }
        for comm in &subjects.comms {
            let key = Wanted::comm(*comm);
            wanted[maybe(Quick::Comm, key.value, key.more)] = 1;
        }
        for device in &subjects.devices {
            wanted[maybe(Quick::Device, (*device).into(), 0)] = 1;
        }
        for (inode, device) in &subjects.under {
            wanted[maybe(Quick::Inode, *inode, 0)] = 1;
            wanted[maybe(Quick::Under, *inode, (*device).into())] = 1;
        }
    }
    wanted
}

/// Names of fields that the filters of these rules read and this kernel has not.
#[must_use]
pub fn unreadable(control: &Control, offsets: &Offsets) -> Vec<&'static str> {
    // One kernel has the disk in the request, the other in its queue; a part's device and a size of a system call are
    // done without.
    const ALTERNATIVES: [&str; 5] = [
        "request_disk",
        "queue_disk",
        "request_part",
        "part_device",
        "registers_third",
    ];
    if control.filtered == 0 {
        return Vec::new();
    }
    offsets
        .absent()
        .filter(|name| !ALTERNATIVES.contains(name))
        .collect()
}

#[cfg(test)]
pub mod tests {
    use agent_common::rules::Kind;

    use super::*;

    pub fn placed(slots: &[u32], subjects: Subjects) -> Placed {
        Placed {
            id: 1,
            spec: Spec {
                for_ns: Some(5),
                cap_ns: u64::MAX,
                ..Spec::plain("r", &["vfs.read"], Delay::Fixed { ns: 1000 })
            },
            subjects,
            slots: slots.to_vec(),
            epoch: 1,
            start_ns: 10,
        }
    }

    pub fn table(rules: &[Placed]) -> Table {
        std::array::from_fn(|place| rules.get(place).cloned())
    }

    #[test]
    fn between_two_tables_only_rules_of_both_are_in_force_with_all_filters() {
        let uid = Subjects {
            uids: vec![1],
            ..Subjects::default()
        };
        let mut old = table(&[placed(&[0], Subjects::default()), placed(&[0], uid.clone())]);
        let before = compile(&old, 1, &Control::default()).unwrap().control;
        old[0] = None;
        old[2] = Some(placed(&[0], uid));
        let after = compile(&old, 2, &Control::default()).unwrap().control;
        let meanwhile = between(&before, &after);
        assert_eq!(meanwhile.at[0], 0b010);
        assert_eq!(meanwhile.by[Kind::Uid as usize], 0b110);
    }

    #[test]
    fn between_two_tables_sizes_of_either_may_be_wanted() {
        let of = |size| {
            let subjects = Subjects {
                size: Some(size),
                ..Subjects::default()
            };
            compile(&table(&[placed(&[0], subjects)]), 1, &Control::default())
                .unwrap()
                .control
        };
        let meanwhile = between(&of((10, 20)), &of((100, 200)));
        assert_eq!((meanwhile.size_min, meanwhile.size_max), (10, 200));
    }

    #[test]
    fn what_a_rule_wants_may_be_wanted() {
        let subjects = Subjects {
            devices: vec![8 << 20 | 1],
            under: vec![(2, 8 << 20 | 1)],
            ..Subjects::default()
        };
        let wanted = maybe_wanted(&table(&[placed(&[0], subjects)]));
        assert_eq!(wanted[maybe(Quick::Device, 8 << 20 | 1, 0)], 1);
        assert_eq!(wanted[maybe(Quick::Inode, 2, 0)], 1);
        assert_eq!(wanted[maybe(Quick::Under, 2, 8 << 20 | 1)], 1);
        assert_eq!(wanted.iter().filter(|place| **place != 0).count(), 3);
    }

    #[test]
    fn an_entry_ends_so_long_after_it_began() {
        let entry = entry(&placed(&[0], Subjects::default()));
        assert_eq!((entry.until_ns, entry.start_ns), (15, 10));
        assert_eq!(entry.cap_ns, MAX_DELAY_NS);
    }
}
