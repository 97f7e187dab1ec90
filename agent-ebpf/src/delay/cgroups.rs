//! Which rules a task's cgroups satisfy, with all their ancestors.

use agent_common::{
    offsets::Offsets,
    rules::{CGROUPS as PLACES, CgroupRules, Control, HIERARCHIES, Kind, Set, UNIFIED, Wanted},
};
use aya_ebpf::{
    helpers::{bpf_get_current_cgroup_id, bpf_get_current_task},
    macros::map,
    maps::PerCpuArray,
};

use super::{
    CONTROL,
    filters::wanted,
    kernel::{direct_field, field, is_direct, offsets},
    repeat::{Round, repeat},
};
use crate::BOUNDED;

/// Levels of a hierarchy that are asked.
const LEVELS: u32 = if BOUNDED { 32 } else { 64 };
/// Bit of `task_struct.flags` (`include/linux/sched.h`).
const PF_KTHREAD: u32 = 0x0020_0000;

/// What was found out of cgroups: they never get other parents. Each CPU has its own, so that none reads what another
/// one is writing.
#[map]
static CGROUPS: PerCpuArray<CgroupRules> = PerCpuArray::with_max_entries(PLACES as u32, 0);

/// The current task in all hierarchies that rules name.
struct Task {
    /// Place of the next hierarchy.
    place: u64,
    /// Its `struct css_set`.
    set: u64,
    /// The cgroup for which it submits a request, if that is another's.
    behalf: u64,
    found: Set,
}

/// What is known already of the current task's cgroup, where rules name those of v2 only: that is the usual case. The
/// helper costs less than reading the same, unless reads are direct; `task` is 0 if they are not.
#[inline(always)]
pub fn remembered(control: &Control, task: u64) -> Option<Set> {
    if control.hierarchies != 1 || control.hierarchy[0] != UNIFIED {
        return None;
    }
    let id = if task != 0 && is_direct() {
        let offsets = offsets();
        let set: u64 = direct_field(task, offsets.task_cgroups);
        let cgroup: u64 = direct_field(set, offsets.set_unified);
        let node: u64 = direct_field(cgroup, offsets.cgroup_node);
        direct_field(node, offsets.node_id)
    } else {
        // SAFETY: a helper without arguments.
        unsafe { bpf_get_current_cgroup_id() }
    };
    known(control, 0, id)
}

/// The rules that the current task satisfies by its cgroups. A kernel thread that submits `bio` does so for the
/// cgroup that the kernel noted there.
#[inline(always)]
pub fn current(offsets: &Offsets, bio: u64) -> Set {
    // SAFETY: a helper without arguments.
    let task = unsafe { bpf_get_current_task() };
    let policy: u64 = field(field(bio, offsets.bio_group), offsets.group_policy);
    let by_kernel = u64::from(field::<u32>(task, offsets.task_flags) & PF_KTHREAD != 0);
    let mut task = Task {
        place: 0,
        set: field(task, offsets.task_cgroups),
        // Of no `bio` nothing is read.
        behalf: field::<u64>(policy, offsets.policy_cgroup) & by_kernel.wrapping_neg(),
        found: 0,
    };
    repeat(HIERARCHIES as u32, &mut task);
    task.found
}

/// One hierarchy.
impl Round for Task {
    #[inline(always)]
    fn round(&mut self) -> bool {
        let (control, offsets) = (CONTROL.get(), offsets());
        let place = self.place;
        self.place += 1;
        if place >= control.hierarchies {
            return true;
        }
        let Some(hierarchy) = control.hierarchy.get(place as usize).copied() else {
            return true;
        };
        let cgroup = if self.behalf != 0 && hierarchy == control.block_hierarchy {
            self.behalf
        } else if hierarchy == UNIFIED {
            field(self.set, offsets.set_unified)
        } else {
            let css: u64 = field(
                self.set,
                offsets.set_controllers.wrapping_add(hierarchy * 8),
            );
            field(css, offsets.css_cgroup)
        };
        self.found |= member(control, offsets, place, cgroup);
        false
    }
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
    let found = of_ancestors(cgroup, hierarchy);
    if let Some(entry) = CGROUPS.get_ptr_mut(CgroupRules::place(hierarchy, id)) {
        // SAFETY: this CPU's own entry.
        unsafe {
            *entry = CgroupRules {
                hierarchy,
                id,
                epoch: control.epoch,
                rules: found,
            };
        }
    }
    found
}

/// The rules that name a cgroup or one above it. A global function, see `smallest_cap`.
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn of_ancestors(cgroup: u64, hierarchy: u64) -> u64 {
    let mut walk = Walk {
        cgroup,
        hierarchy,
        found: 0,
    };
    repeat(LEVELS, &mut walk);
    walk.found
}

struct Walk {
    cgroup: u64,
    hierarchy: u64,
    found: Set,
}

/// One cgroup.
impl Round for Walk {
    #[inline(always)]
    fn round(&mut self) -> bool {
        let offsets = offsets();
        if self.cgroup == 0 {
            return true;
        }
        let key = Wanted {
            kind: Kind::Cgroup as u64 | self.hierarchy << 32,
            value: id(offsets, self.cgroup),
            more: 0,
        };
        self.found |= wanted(&key);
        let parent: u64 = field(self.cgroup, offsets.cgroup_parent);
        self.cgroup = match parent {
            0 => 0,
            css => field(css, offsets.css_cgroup),
        };
        false
    }
}

#[inline(always)]
fn id(offsets: &Offsets, cgroup: u64) -> u64 {
    field(field(cgroup, offsets.cgroup_node), offsets.node_id)
}
