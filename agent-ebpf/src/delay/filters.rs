//! Which rules a hit satisfies. Each kind of filter is one look-up for all rules.

use agent_common::{
    catalogue::slot,
    offsets::Offsets,
    probes::block::op,
    rules::{Control, Kind, Set, Wanted, power},
};
use aya_ebpf::{
    helpers::{bpf_get_current_comm, bpf_get_current_pid_tgid, bpf_get_current_uid_gid},
    macros::map,
    maps::HashMap,
};

use crate::{cgroups, owners, subject::Subject, tasks, tree};

/// What filters ask for, and the rules that do.
#[map]
static WANTED: HashMap<Wanted, Set> = HashMap::with_max_entries(16_384, 0);

#[inline(always)]
pub fn wanted(key: &Wanted) -> Set {
    // SAFETY: a word.
    unsafe { WANTED.get(key) }.copied().unwrap_or(0)
}

/// Those of `rules` that have no filter of that kind, or one that is satisfied by what `found` finds.
#[inline(always)]
fn keep(control: &Control, rules: Set, kind: Kind, found: impl FnOnce() -> Set) -> Set {
    let by = rules & control.by[kind as usize];
    if by == 0 {
        return rules;
    }
    rules & (!by | found())
}

/// Those of `rules` whose filters are all satisfied, and the epoch of what was found out earlier of the submitter.
#[inline(always)]
pub fn satisfied(
    control: &Control,
    offsets: &Offsets,
    mut rules: Set,
    point: u32,
    subject: &Subject,
) -> (Set, u64) {
    let mut epoch = u64::MAX;
    rules = keep(control, rules, Kind::Op, || {
        let place = subject.op;
        if place < op::COUNT {
            control.ops[place as usize]
        } else {
            0
        }
    });
    rules = keep(control, rules, Kind::Size, || {
        wanted(&Wanted::new(Kind::Size, power(subject.size), 0))
    });
    if point == slot::BLOCK_ISSUE {
        let owned = rules & control.owned;
        if owned != 0 {
            let owner = owners::of(subject.request);
            epoch = owner.epoch;
            rules &= !owned | owner.rules;
        }
    } else {
        rules = of_task(control, offsets, rules, 0);
    }
    rules = keep(control, rules, Kind::Device, || {
        let (first, second) = subject.devices(offsets);
        let of = |device: u32| match device {
            0 => 0,
            device => wanted(&Wanted::new(Kind::Device, device.into(), 0)),
        };
        of(first) | of(second)
    });
    let under = rules & control.by[Kind::Under as usize];
    if under != 0 {
        rules &= !under | tree::above(control, offsets, subject, under);
    }
    (rules, epoch)
}

/// Those of `rules` whose filters by task the current one satisfies.
#[inline(always)]
pub fn of_task(control: &Control, offsets: &Offsets, mut rules: Set, bio: u64) -> Set {
    rules = keep(control, rules, Kind::Uid, || {
        wanted(&Wanted::new(
            Kind::Uid,
            bpf_get_current_uid_gid() & 0xffff_ffff,
            0,
        ))
    });
    rules = keep(control, rules, Kind::Pid, || {
        tasks::rules_of((bpf_get_current_pid_tgid() >> 32) as u32)
    });
    rules = keep(control, rules, Kind::Comm, || {
        match bpf_get_current_comm() {
            Ok(comm) => wanted(&Wanted::comm(comm)),
            Err(_) => 0,
        }
    });
    keep(control, rules, Kind::Cgroup, || {
        cgroups::current(control, offsets, bio)
    })
}
