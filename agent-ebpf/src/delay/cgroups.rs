//! Which rules a task's cgroups satisfy, with all their ancestors.

use core::ffi::c_void;

use agent_common::{
    offsets::Offsets,
    rules::{CGROUPS as PLACES, CgroupRules, Control, Kind, Set, UNIFIED, Wanted},
};
use aya_ebpf::{
    helpers::{bpf_get_current_cgroup_id, bpf_get_current_task, generated::bpf_loop},
    macros::map,
    maps::PerCpuArray,
};

use crate::{
    CONTROL,
    filters::wanted,
    kernel::{field, offsets},
};

/// Levels of a hierarchy that are asked.
const LEVELS: u32 = 64;
/// Bit of `task_struct.flags` (`include/linux/sched.h`).
const PF_KTHREAD: u32 = 0x0020_0000;

/// What was found out of cgroups: they never get other parents. Each CPU has its own, so that none reads what another
/// one is writing.
#[map]
static CGROUPS: PerCpuArray<CgroupRules> = PerCpuArray::with_max_entries(PLACES as u32, 0);

/// The current task in all hierarchies that rules name.
struct Task {
    /// Its `struct css_set`.
    set: u64,
    /// The cgroup for which it submits a request, if that is another's.
    behalf: u64,
    found: Set,
}

/// What is known already of the current task's cgroup, where rules name those of v2 only: that is the usual case, and
/// the helper costs less than reading the same.
#[inline(always)]
pub fn remembered(control: &Control) -> Option<Set> {
    if control.hierarchies != 1 || control.hierarchy[0] != UNIFIED {
        return None;
    }
    // SAFETY: a helper without arguments.
    let id = unsafe { bpf_get_current_cgroup_id() };
    known(control, 0, id)
}

/// The rules that the current task satisfies by its cgroups. A kernel thread that submits `bio` does so for the
/// cgroup that the kernel noted there.
#[inline(always)]
pub fn current(control: &Control, offsets: &Offsets, bio: u64) -> Set {
    // SAFETY: a helper without arguments.
    let task = unsafe { bpf_get_current_task() };
    let policy: u64 = field(field(bio, offsets.bio_group), offsets.group_policy);
    let by_kernel = u64::from(field::<u32>(task, offsets.task_flags) & PF_KTHREAD != 0);
    let mut task = Task {
        set: field(task, offsets.task_cgroups),
        // Of no `bio` nothing is read.
        behalf: field::<u64>(policy, offsets.policy_cgroup) & by_kernel.wrapping_neg(),
        found: 0,
    };
    let count = control.hierarchies as u32;
    // SAFETY: `hierarchy` has the type that bpf_loop calls, and `task` outlives the call.
    unsafe { bpf_loop(count, hierarchy as *mut c_void, (&raw mut task).cast(), 0) };
    task.found
}

/// One hierarchy: 1 ends the loop.
unsafe extern "C" fn hierarchy(place: u64, task: *mut c_void) -> i64 {
    // SAFETY: bpf_loop passes on the pointer that `current` gave it: a live `Task` on its stack.
    let task = unsafe { &mut *task.cast::<Task>() };
    let (Some(control), Some(offsets)) = (CONTROL.get(0), offsets()) else {
        return 1;
    };
    let Some(hierarchy) = control.hierarchy.get(place as usize).copied() else {
        return 1;
    };
    let cgroup = if task.behalf != 0 && hierarchy == control.block_hierarchy {
        task.behalf
    } else if hierarchy == UNIFIED {
        field(task.set, offsets.set_unified)
    } else {
        let css: u64 = field(
            task.set,
            offsets.set_controllers.wrapping_add(hierarchy * 8),
        );
        field(css, offsets.css_cgroup)
    };
    task.found |= member(control, offsets, place, cgroup);
    0
}

/// What was found out of a cgroup since the rules changed.
#[inline(always)]
fn known(control: &Control, hierarchy: u64, id: u64) -> Option<Set> {
    let known = CGROUPS.get(CgroupRules::place(hierarchy, id))?;
    let is_it = known.id == id && known.hierarchy == hierarchy && known.epoch == control.epoch;
    is_it.then_some(known.rules)
}

/// The rules that a cgroup satisfies, which are remembered until the rules change.
#[inline(always)]
fn member(control: &Control, offsets: &Offsets, hierarchy: u64, cgroup: u64) -> Set {
    let id = id(offsets, cgroup);
    if let Some(rules) = known(control, hierarchy, id) {
        return rules;
    }
    let mut walk = Walk {
        cgroup,
        hierarchy,
        found: 0,
    };
    // SAFETY: `step` has the type that bpf_loop calls, and `walk` outlives the call.
    unsafe { bpf_loop(LEVELS, step as *mut c_void, (&raw mut walk).cast(), 0) };
    if let Some(entry) = CGROUPS.get_ptr_mut(CgroupRules::place(hierarchy, id)) {
        // SAFETY: this CPU's own entry.
        unsafe {
            *entry = CgroupRules {
                hierarchy,
                id,
                epoch: control.epoch,
                rules: walk.found,
            };
        }
    }
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
