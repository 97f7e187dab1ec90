//! What tasks are in the middle of: when each operation began, by task and operation.
//!
//! An array with the owner in the entry, not a hash map: nothing is allocated, and what a dead task leaves
//! behind is no leak. [`forget`] frees it at once, so that the books balance.
#![allow(dead_code, reason = "a module of each object, of which none uses all")]

use agent_common::probes::Loss;
use aya_ebpf::{
    helpers::{bpf_get_current_pid_tgid, bpf_get_smp_processor_id, bpf_ktime_get_ns},
    macros::map,
    maps::Array,
};

use crate::measure::count;

/// An operation that began, or whose entry is kept for the task's next one.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Start {
    /// The task, see [`current`]; 0 if nobody ever had the entry.
    task: u32,
    reserved: u32,
    /// 0: not inside.
    start_ns: u64,
    /// Where on the task's stack the call is: a call from inside it lies lower.
    frame: u64,
    pub device: u32,
    pub magic: u32,
}

/// Operations that a task may be in at the same time: a power of two.
pub const OPERATIONS: u32 = 8;
/// log2 of the entries of `STARTS`: 16,384 tasks with a row each, 4 MiB.
const START_BITS: u32 = 17;
/// Rows in which a task may find room. Ids are handed out in order, so the first is mostly its own.
const ROWS: u32 = 4;

/// Beyond all ids of tasks (`PID_MAX_LIMIT`).
const IDLE: u32 = 1 << 31;

#[map]
static STARTS: Array<Start> = Array::with_max_entries(1 << START_BITS, 0);

#[inline(always)]
fn entry(task: u32, operation: u32, row: u32) -> Option<&'static mut Start> {
    let row = match row {
        0 => task,
        _ => task.wrapping_mul(0x9e37_79b1).rotate_left(row * 8),
    };
    let place = (row.wrapping_mul(OPERATIONS) | operation) & ((1 << START_BITS) - 1);
    // SAFETY: the kernel gave the pointer. A task is on one CPU at a time; two tasks that take the same free
    // entry lose one start, whose end then finds none.
    STARTS
        .get_ptr_mut(place)
        .map(|entry| unsafe { &mut *entry })
}

/// The task's own entry.
#[inline(always)]
fn own(task: u32, operation: u32) -> Option<&'static mut Start> {
    for row in 0..ROWS {
        let found = entry(task, operation, row)?;
        if found.task == task {
            return Some(found);
        }
    }
    None
}

/// An entry that nobody needs now.
#[inline(always)]
fn free(task: u32, operation: u32) -> Option<&'static mut Start> {
    for row in 0..ROWS {
        let found = entry(task, operation, row)?;
        if found.start_ns == 0 {
            return Some(found);
        }
    }
    None
}

/// The current task's id in the initial PID namespace. 0 is the id of every CPU's idle task, which
/// interrupts hit as well: these are told apart by CPU.
#[inline(always)]
fn current() -> u32 {
    match bpf_get_current_pid_tgid() as u32 {
        // SAFETY: a helper without arguments.
        0 => IDLE | unsafe { bpf_get_smp_processor_id() },
        task => task,
    }
}

/// An operation begins at `frame` of the current task's stack, on the file system `(device, magic)`.
#[inline(always)]
pub fn enter(operation: u32, frame: u64, (device, magic): (u32, u32)) {
    let task = current();
    count(Loss::Starts);
    let start = match own(task, operation) {
        Some(start) => start,
        None => match free(task, operation) {
            Some(start) => start,
            None => return count(Loss::Lost),
        },
    };
    if start.task == task && start.start_ns != 0 {
        if frame < start.frame {
            // Inside another of its kind, as overlayfs calls the file system below: `exit` books it.
            return;
        }
        // The other's end was missed.
        count(Loss::Lost);
    }
    start.task = task;
    start.frame = frame;
    start.device = device;
    start.magic = magic;
    // The clock is read last: our own work is no part of the operation.
    // SAFETY: a helper without arguments.
    start.start_ns = unsafe { bpf_ktime_get_ns() };
}

/// An operation that ended.
pub struct Span {
    pub start_ns: u64,
    pub end_ns: u64,
    pub device: u32,
    pub magic: u32,
}

/// An operation ends. `skips`: an end without a start proves no loss here, as the kernel itself may pass
/// the start over.
#[inline(always)]
pub fn exit(operation: u32, frame: u64, skips: bool) -> Option<Span> {
    // SAFETY: a helper without arguments.
    let end_ns = unsafe { bpf_ktime_get_ns() };
    let task = current();
    let Some(start) = own(task, operation) else {
        // Nothing of this task was seen yet: it was inside when the probe was attached.
        count(Loss::Early);
        return None;
    };
    let start_ns = start.start_ns;
    if start_ns == 0 {
        count(if skips { Loss::Early } else { Loss::Unmatched });
        return None;
    }
    if frame < start.frame {
        count(Loss::Abandoned);
        return None;
    }
    start.start_ns = 0;
    Some(Span {
        start_ns,
        end_ns,
        device: start.device,
        magic: start.magic,
    })
}

/// The current task dies: whatever it is in ends here.
#[inline(always)]
pub fn forget() {
    let task = current();
    for operation in 0..OPERATIONS {
        if let Some(start) = own(task, operation) {
            if start.start_ns != 0 {
                count(Loss::Abandoned);
            }
            start.start_ns = 0;
            start.task = 0;
        }
    }
}
