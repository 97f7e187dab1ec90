//! Which rules a task's cgroups satisfy, with all their ancestors.

use core::ffi::c_void;

use agent_common::{
    offsets::Offsets,
    rules::{CgroupKey, Control, HIERARCHIES, Kind, Member, Set, UNIFIED, Wanted},
};
use aya_ebpf::{
    helpers::{bpf_get_current_task, generated::bpf_loop},
    macros::map,
    maps::LruHashMap,
};

use crate::{
    filters::wanted,
    kernel::{field, offsets},
};

/// Levels of a hierarchy that are asked.
const LEVELS: u32 = 64;
/// Bit of `task_struct.flags` (`include/linux/sched.h`).
const PF_KTHREAD: u32 = 0x0020_0000;

/// What was found out of a cgroup: it never gets another parent.
#[map]
static CGROUPS: LruHashMap<CgroupKey, Member> = LruHashMap::with_max_entries(4096, 0);

/// The rules that the current task satisfies by its cgroups. A kernel thread that submits `bio` does so for the
/// cgroup that the kernel noted there.
#[inline(always)]
pub fn current(control: &Control, offsets: &Offsets, bio: u64) -> Set {
    // SAFETY: a helper without arguments.
    let task = unsafe { bpf_get_current_task() };
    let behalf = match bio {
        0 => 0,
        bio if field::<u32>(task, offsets.task_flags) & PF_KTHREAD != 0 => {
            let policy: u64 = field(field(bio, offsets.bio_group), offsets.group_policy);
            field(policy, offsets.policy_cgroup)
        }
        _ => 0,
    };
    let set: u64 = field(task, offsets.task_cgroups);
    let mut found = control.zero;
    for place in 0..HIERARCHIES {
        if place as u64 >= control.hierarchies {
            break;
        }
        let hierarchy = control.hierarchy[place];
        let cgroup = if behalf != 0 && hierarchy == control.block_hierarchy {
            behalf
        } else if hierarchy == UNIFIED {
            field(set, offsets.set_unified)
        } else {
            let css: u64 = field(set, offsets.set_controllers.wrapping_add(hierarchy * 8));
            field(css, offsets.css_cgroup)
        };
        found |= member(control, offsets, place as u64, cgroup);
    }
    found
}

/// The rules that a cgroup satisfies, which are remembered until the rules change.
#[inline(always)]
fn member(control: &Control, offsets: &Offsets, hierarchy: u64, cgroup: u64) -> Set {
    let key = CgroupKey {
        hierarchy,
        id: id(offsets, cgroup),
    };
    // SAFETY: a value of two words, both of which are checked: the rules of another epoch are not used.
    if let Some(known) = unsafe { CGROUPS.get(key) }
        && known.epoch == control.epoch
    {
        return known.rules;
    }
    let mut walk = Walk {
        cgroup,
        hierarchy,
        found: control.zero,
    };
    // SAFETY: `step` has the type that bpf_loop calls, and `walk` outlives the call.
    unsafe { bpf_loop(LEVELS, step as *mut c_void, (&raw mut walk).cast(), 0) };
    let known = Member {
        rules: walk.found,
        epoch: control.epoch,
    };
    // Without room it is found out again.
    let _no_room = CGROUPS.insert(key, known, 0);
    walk.found
}

struct Walk {
    cgroup: u64,
    hierarchy: u64,
    found: Set,
}

/// One cgroup: 1 ends the walk.
unsafe extern "C" fn step(_index: u64, walk: *mut c_void) -> i64 {
    // SAFETY: bpf_loop passes on the pointer that `member` gave it: a live `Walk` on its stack.
    let walk = unsafe { &mut *walk.cast::<Walk>() };
    let Some(offsets) = offsets() else {
        return 1;
    };
    if walk.cgroup == 0 {
        return 1;
    }
    let key = Wanted {
        kind: Kind::Cgroup as u64 | walk.hierarchy << 32,
        value: id(offsets, walk.cgroup),
        more: 0,
    };
    walk.found |= wanted(&key);
    let parent: u64 = field(walk.cgroup, offsets.cgroup_parent);
    walk.cgroup = match parent {
        0 => 0,
        css => field(css, offsets.css_cgroup),
    };
    0
}

#[inline(always)]
fn id(offsets: &Offsets, cgroup: u64) -> u64 {
    field(field(cgroup, offsets.cgroup_node), offsets.node_id)
}
