//! The processes that rules name, and those that they fork.

use agent_common::rules::{Control, Set};
use aya_ebpf::{
    helpers::{bpf_get_current_pid_tgid, bpf_get_current_task},
    macros::map,
    maps::HashMap,
};

use super::{
    filters,
    kernel::{field, has, offsets},
};

/// By thread group.
#[map]
static PIDS: HashMap<u32, Set> = HashMap::with_max_entries(16_384, 0);

/// Children that found no place in `PIDS`, and requests of which there was none in `OWNERS` (count).
#[map]
static UNTRACKED: aya_ebpf::maps::PerCpuArray<u64> =
    aya_ebpf::maps::PerCpuArray::with_max_entries(1, 0);

#[inline(always)]
pub fn rules_of(group: u32) -> Set {
    // SAFETY: a word.
    unsafe { PIDS.get(group) }.copied().unwrap_or(0)
}

/// A task forks `child`, a `struct task_struct`, which does not run yet.
#[inline(always)]
pub fn forked(control: &Control, child: u64) {
    let parent = (bpf_get_current_pid_tgid() >> 32) as u32;
    let inherited = rules_of(parent) & control.children;
    if inherited == 0 {
        return;
    }
    let offsets = offsets();
    let group: u32 = field(child, offsets.task_group);
    if group == parent {
        return;
    }
    filters::want_process(group);
    if PIDS.insert(group, inherited, 0).is_err() {
        count_untracked();
    }
}

/// One of whom nothing could be noted: what it does matches no rule.
#[inline(always)]
pub fn count_untracked() {
    if let Some(count) = UNTRACKED.get_ptr_mut(0) {
        // SAFETY: this CPU's own word.
        unsafe { *count += 1 };
    }
}

/// The current task exits. With the last one of its group the number may be given to another.
#[inline(always)]
pub fn exited(group: u32, leader: bool) {
    if rules_of(group) == 0 {
        return;
    }
    let offsets = offsets();
    let last = if has(offsets.signal_live) && offsets.signal_live != 0 {
        // SAFETY: a helper without arguments.
        let task = unsafe { bpf_get_current_task() };
        let signal: u64 = field(task, offsets.task_signal);
        field::<u32>(signal, offsets.signal_live) == 0
    } else {
        leader
    };
    if last {
        // It is there, as was just seen; nobody else removes it but the agent.
        let _gone = PIDS.remove(group);
    }
}
