//! Pure: all rules -> what the maps have to hold, but for each rule's own entry.

use std::collections::BTreeMap;

use agent_common::{
    catalogue::slot,
    probes::block::op,
    rules::{Control, HIERARCHIES, Kind, Set, Wanted, power},
};

use super::{Placed, Table};
use crate::failure::{Failure, USAGE};

/// What the maps have to hold, but for each rule's own entry.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Compiled {
    /// Lease, twin and addresses are the caller's.
    pub control: Control,
    pub wanted: BTreeMap<[u64; 3], Set>,
}

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
            let control = &mut self.control;
            control.size_min = control.size_min.min(min);
            control.size_max = control.size_max.max(max);
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

#[cfg(test)]
mod tests {
    use agent_common::rules::UNIFIED;

    use super::*;
    use crate::rules::table::{
        Cgroup, Subjects,
        tests::{placed, table},
    };

    fn compile(table: &Table, epoch: u64) -> Result<Compiled, Failure> {
        super::compile(table, epoch, &Control::default())
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
        let Control {
            sizes,
            size_min,
            size_max,
            ..
        } = compiled.control;
        assert_eq!((size_min, size_max), (4096, 65536));
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
}
