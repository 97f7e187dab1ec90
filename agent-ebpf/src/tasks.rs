//! The table of tasks of the probe `sched`.

use agent_common::probes::{
    Loss,
    sched::{DEAD, TASK_BITS, Task},
};
use aya_ebpf::{Global, bindings::BPF_F_MMAPABLE, macros::map, maps::Array};

use crate::{measure, structure::read_at};

#[unsafe(no_mangle)]
static TASK_COMM: Global<u32> = Global::new(0);

/// By the lower bits of the pid, or that place's partner. A table of its own for each task would leak those
/// of tasks that die; here they are overwritten.
#[map]
static TASKS: Array<Task> = Array::with_max_entries(1 << TASK_BITS, BPF_F_MMAPABLE);

#[inline(always)]
fn first_place(pid: u32) -> u32 {
    pid & ((1 << TASK_BITS) - 1)
}

const PARTNER: u32 = 1 << (TASK_BITS - 1);

/// A task's entry, and whether it is new there.
pub struct Found {
    pub task: &'static mut Task,
    pub place: u32,
    pub new: bool,
}

/// The entry of a task, which it gets here if it has none.
#[inline(always)]
pub fn entry(pid: u32, task: *const u8) -> Option<Found> {
    let place = first_place(pid);
    // SAFETY: the kernel gave the pointer; its run queue is locked, so nobody else writes.
    let first = unsafe { &mut *TASKS.get_ptr_mut(place)? };
    if first.pid == pid {
        return Some(Found {
            task: first,
            place,
            new: false,
        });
    }
    second_entry(pid, task, place, first)
}

#[inline(always)]
fn second_entry(pid: u32, task: *const u8, place: u32, first: &'static mut Task) -> Option<Found> {
    let partner = place ^ PARTNER;
    // SAFETY: as above.
    let second = unsafe { &mut *TASKS.get_ptr_mut(partner)? };
    if second.pid == pid {
        return Some(Found {
            task: second,
            place: partner,
            new: false,
        });
    }
    let free = |entry: &Task| entry.pid == 0 || entry.flags & DEAD != 0;
    let (taken, place) = if free(first) || !free(second) {
        (first, place)
    } else {
        (second, partner)
    };
    if taken.queued_ns != 0 {
        measure::count(Loss::Lost);
    }
    if taken.off_ns != 0 {
        measure::count(Loss::Lost);
    }
    *taken = Task {
        pid,
        flags: 0,
        queued_ns: 0,
        off_ns: 0,
        oncpu_ns: 0,
        waits: 0,
        wait_ns: 0,
        comm: comm(task),
    };
    Some(Found {
        task: taken,
        place,
        new: true,
    })
}

/// Has the name of a task read anew when it next leaves its CPU. Without the run queue's lock: if another task
/// takes the entry just then, its name is read anew.
#[inline(always)]
pub fn forget_name(pid: u32) {
    let place = first_place(pid);
    for place in [place, place ^ PARTNER] {
        if let Some(entry) = TASKS.get_ptr_mut(place) {
            // SAFETY: the kernel gave the pointer; words are written that any value is allowed in.
            unsafe {
                if (*entry).pid == pid {
                    (*entry).comm = [0; 16];
                }
            }
        }
    }
}

/// Empties an entry but for the pid. A dead task waits for nothing; if this one does, its end was missed.
#[inline(always)]
pub fn forget(entry: &mut Task) {
    if entry.queued_ns != 0 {
        measure::count(Loss::Lost);
    }
    entry.queued_ns = 0;
    entry.off_ns = 0;
    entry.oncpu_ns = 0;
    entry.waits = 0;
    entry.wait_ns = 0;
}

#[inline(always)]
pub fn comm(task: *const u8) -> [u8; 16] {
    // SAFETY: 16 bytes both.
    unsafe { core::mem::transmute::<[u64; 2], [u8; 16]>(comm_words(task)) }
}

#[inline(always)]
pub fn comm_words(task: *const u8) -> [u64; 2] {
    [read_at(task, &TASK_COMM, 0), read_at(task, &TASK_COMM, 8)]
}
