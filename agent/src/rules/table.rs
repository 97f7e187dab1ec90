//! Pure: the rules in force -> what the maps have to hold.

use std::collections::BTreeMap;

use agent_common::{
    catalogue::slot,
    offsets::Offsets,
    pod::MAX_DELAY_NS,
    probes::block::op,
    rules::{
        Control, HIERARCHIES, Kind, Maybe, Quick, RULES, Rule, Set, WHOLE, Wanted, maybe, power,
    },
};

use super::spec::{Delay, Spec};
use crate::failure::{Failure, USAGE};

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
    /// Places in [`op`].
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

/// What the maps have to hold, but for each rule's own entry.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Compiled {
    /// Lease, twin and addresses are the caller's.
    pub control: Control,
    pub wanted: BTreeMap<[u64; 3], Set>,
}

/// Rules by place.
pub type Table = [Option<Placed>; RULES];

/// Compiles all rules, behind `before`.
///
/// # Errors
/// They name more cgroup hierarchies than there is room for.
pub fn compile(table: &Table, epoch: u64, before: &Control) -> Result<Compiled, Failure> {
    let mut compiled = Compiled::default();
    compiled.control.epoch = epoch;
    compiled.place_hierarchies(table, before)?;
    for (place, placed) in table.iter().enumerate() {
        if let Some(placed) = placed {
            compiled.add(place, placed);
        }
    }
    Ok(compiled)
}

impl Compiled {
    /// Gives each cgroup hierarchy that rules name its place, which keys in `WANTED` begin with. One keeps the place
    /// that it has: while the rules change, programs look for it there, and in another hierarchy the same numbers are
    /// other cgroups. A place that nobody needs any more is another's at the earliest with the next change, as none
    /// both ends a rule for a cgroup and brings one.
    fn place_hierarchies(&mut self, table: &Table, before: &Control) -> Result<(), Failure> {
        let named = || {
            let subjects = table.iter().flatten().map(|placed| &placed.subjects);
            subjects.flat_map(|subjects| subjects.cgroups.iter().map(|cgroup| cgroup.hierarchy))
        };
        let mut places: [Option<u64>; HIERARCHIES] = std::array::from_fn(|place| {
            let known = (place as u64) < before.hierarchies;
            let had = before.hierarchy[place];
            (known && named().any(|hierarchy| hierarchy == had)).then_some(had)
        });
        for hierarchy in named() {
            if places.contains(&Some(hierarchy)) {
                continue;
            }
            let free = places.iter_mut().find(|place| place.is_none());
            *free.ok_or_else(|| {
                Failure::new(
                    USAGE,
                    format!("--cgroup: rules name cgroups of {HIERARCHIES} hierarchies already"),
                )
                .hint("remove a rule, or name a cgroup of one of these")
            })? = Some(hierarchy);
        }
        let last = places.iter().rposition(Option::is_some);
        self.control.hierarchies = last.map_or(0, |last| last as u64 + 1);
        // Whatever is asked of a place without one, nobody wants it.
        self.control.hierarchy = places.map(Option::unwrap_or_default);
        Ok(())
    }

    /// The place of a hierarchy that has one.
    fn place_of(&self, hierarchy: u64) -> usize {
        let places = &self.control.hierarchy[..self.control.hierarchies as usize];
        let place = places.iter().position(|known| *known == hierarchy);
        place.unwrap_or_default()
    }

    fn add(&mut self, place: usize, placed: &Placed) {
        let bit = 1 << place;
        let subjects = &placed.subjects;
        for slot in &placed.slots {
            self.control.at[*slot as usize] |= bit;
        }
        for uid in &subjects.uids {
            self.want(bit, Kind::Uid, Wanted::new(Kind::Uid, (*uid).into(), 0));
        }
        for comm in &subjects.comms {
            self.want(bit, Kind::Comm, Wanted::comm(*comm));
        }
        for cgroup in &subjects.cgroups {
            let hierarchy = self.place_of(cgroup.hierarchy);
            self.want(bit, Kind::Cgroup, Wanted::cgroup(hierarchy, cgroup.id));
        }
        for device in &subjects.devices {
            self.want(
                bit,
                Kind::Device,
                Wanted::new(Kind::Device, (*device).into(), 0),
            );
        }
        for (inode, device) in &subjects.under {
            let key = Wanted::new(Kind::Under, *inode, (*device).into());
            self.want(bit, Kind::Under, key);
        }
        if let Some((min, max)) = subjects.size {
            for power in power(min)..=power(max) {
                self.filter(bit, Kind::Size);
                self.control.sizes[power as usize] |= bit;
            }
        }
        if !subjects.pids.is_empty() {
            self.filter(bit, Kind::Pid);
            if subjects.children {
                self.control.children |= bit;
            }
            if subjects.pids.contains(&1) {
                self.control.init |= bit;
            }
        }
        for op in &subjects.ops {
            self.filter(bit, Kind::Op);
            if *op < op::COUNT {
                self.control.ops[*op as usize] |= bit;
            }
        }
        let of_task = Kind::OF_TASK
            .iter()
            .any(|kind| self.control.by[*kind as usize] & bit != 0);
        if of_task {
            self.control.by_task |= bit;
        }
        if of_task && placed.slots.contains(&slot::BLOCK_ISSUE) {
            self.control.owned |= bit;
        }
    }

    fn filter(&mut self, bit: Set, kind: Kind) {
        self.control.by[kind as usize] |= bit;
        self.control.filtered |= bit;
    }

    fn want(&mut self, bit: Set, kind: Kind, key: Wanted) {
        self.filter(bit, kind);
        *self
            .wanted
            .entry([key.kind, key.value, key.more])
            .or_default() |= bit;
    }
}

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
        filtered: old.filtered | new.filtered,
        by_task: old.by_task | new.by_task,
        owned: old.owned | new.owned,
        children: old.children | new.children,
        ..*new
    }
}

/// Which users, processes and commands anybody may want, see [`Maybe`].
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
mod tests {
    use agent_common::rules::UNIFIED;

    use super::*;

    fn compile(table: &Table, epoch: u64) -> Result<Compiled, Failure> {
        super::compile(table, epoch, &Control::default())
    }

    fn placed(slots: &[u32], subjects: Subjects) -> Placed {
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

    fn table(rules: &[Placed]) -> Table {
        std::array::from_fn(|place| rules.get(place).cloned())
    }

    #[test]
    fn a_rule_without_filters_is_at_its_points_only() {
        let rules = table(&[placed(
            &[slot::VFS_READ, slot::VFS_WRITE],
            Subjects::default(),
        )]);
        let compiled = compile(&rules, 3).unwrap();
        let control = compiled.control;
        assert_eq!(control.epoch, 3);
        assert_eq!((control.at[0], control.at[1], control.at[2]), (1, 1, 0));
        assert_eq!((control.filtered, control.by), (0, [0; 8]));
        assert!(compiled.wanted.is_empty());
    }

    #[test]
    fn what_two_rules_want_is_one_key() {
        let wanting = |uid| Subjects {
            uids: vec![uid, 7],
            ..Subjects::default()
        };
        let rules = table(&[placed(&[0], wanting(1)), placed(&[0], wanting(2))]);
        let compiled = compile(&rules, 1).unwrap();
        let of = |uid| compiled.wanted[&[Kind::Uid as u64, uid, 0]];
        assert_eq!((of(1), of(2), of(7)), (1, 2, 3));
        assert_eq!(compiled.control.by[Kind::Uid as usize], 3);
        assert_eq!(compiled.control.owned, 0);
    }

    #[test]
    fn a_task_at_a_block_point_is_the_one_that_submitted() {
        let of_task = Subjects {
            pids: vec![1],
            ..Subjects::default()
        };
        let of_request = Subjects {
            devices: vec![1],
            ..Subjects::default()
        };
        let block = &[slot::BLOCK_ISSUE];
        let rules = table(&[placed(block, of_request), placed(block, of_task)]);
        let control = compile(&rules, 1).unwrap().control;
        assert_eq!((control.owned, control.init, control.filtered), (2, 2, 3));
    }

    #[test]
    fn sizes_are_found_by_their_power_of_two() {
        let subjects = Subjects {
            size: Some((4096, 65536)),
            ..Subjects::default()
        };
        let compiled = compile(&table(&[placed(&[0], subjects)]), 1).unwrap();
        let sizes = compiled.control.sizes;
        for size in [4096, 5000, 65536] {
            assert_eq!(sizes[power(size) as usize], 1, "{size}");
        }
        assert_eq!(sizes[power(4095) as usize], 0);
    }

    #[test]
    fn a_fifth_hierarchy_is_refused() {
        let of = |hierarchy| Subjects {
            cgroups: vec![Cgroup { hierarchy, id: 9 }],
            ..Subjects::default()
        };
        let mut rules: Vec<Placed> = [UNIFIED, 1, 2, 3, 1].map(|h| placed(&[0], of(h))).into();
        let compiled = compile(&table(&rules), 1).unwrap();
        assert_eq!(compiled.control.hierarchies, 4);
        let key = Wanted::cgroup(1, 9);
        assert_eq!(compiled.wanted[&[key.kind, key.value, key.more]], 0b10010);
        rules.push(placed(&[0], of(4)));
        assert!(
            compile(&table(&rules), 1)
                .unwrap_err()
                .message
                .contains("--cgroup")
        );
    }

    #[test]
    fn a_hierarchy_keeps_its_place_for_as_long_as_rules_name_it() {
        let of = |hierarchy| {
            let cgroups = vec![Cgroup { hierarchy, id: 9 }];
            let subjects = Subjects {
                cgroups,
                ..Subjects::default()
            };
            placed(&[0], subjects)
        };
        let mut rules = table(&[of(UNIFIED), of(5)]);
        let both = compile(&rules, 1).unwrap();
        rules[0] = None;
        let one = super::compile(&rules, 2, &both.control).unwrap();
        let key = Wanted::cgroup(1, 9);
        let key = [key.kind, key.value, key.more];
        // Else the group 9 of one hierarchy would be that of the other for a moment.
        assert_eq!(one.wanted.keys().collect::<Vec<_>>(), [&key]);
        assert_eq!((one.control.hierarchies, one.control.hierarchy[1]), (2, 5));
        rules[2] = Some(of(7));
        let other = super::compile(&rules, 3, &one.control).unwrap();
        assert_eq!(other.control.hierarchy[..2], [7, 5]);
        rules[1] = None;
        let last = super::compile(&rules, 4, &other.control).unwrap();
        assert_eq!(
            (last.control.hierarchies, last.control.hierarchy[0]),
            (1, 7)
        );
    }

    #[test]
    fn between_two_tables_only_rules_of_both_are_in_force_with_all_filters() {
        let uid = Subjects {
            uids: vec![1],
            ..Subjects::default()
        };
        let mut old = table(&[placed(&[0], Subjects::default()), placed(&[0], uid.clone())]);
        let before = compile(&old, 1).unwrap().control;
        old[0] = None;
        old[2] = Some(placed(&[0], uid));
        let after = compile(&old, 2).unwrap().control;
        let meanwhile = between(&before, &after);
        assert_eq!(meanwhile.at[0], 0b010);
        assert_eq!(meanwhile.by[Kind::Uid as usize], 0b110);
    }

    #[test]
    fn an_entry_ends_so_long_after_it_began() {
        let entry = entry(&placed(&[0], Subjects::default()));
        assert_eq!((entry.until_ns, entry.start_ns), (15, 10));
        assert_eq!(entry.cap_ns, MAX_DELAY_NS);
    }
}
