//! Waits in a row. A task that hands a batch of requests to a driver waits for each with the CPU its own, and the kernel
//! takes a CPU that does nothing else for 20 s for locked up. So a row of waits without a switch to another task ends
//! in time.

use agent_common::{
    catalogue::slot,
    rules::{ROW_NS, Row},
};
use aya_ebpf::{
    helpers::{bpf_get_current_pid_tgid, bpf_get_current_task},
    macros::map,
    maps::PerCpuArray,
};

use super::kernel::{field, offsets};

#[map]
static ROW: PerCpuArray<Row> = PerCpuArray::with_max_entries(1, 0);

/// This CPU's row, begun anew if another task or a switch came between. None on a kernel whose switches cannot be read.
#[inline(always)]
fn current() -> Option<&'static mut Row> {
    let offsets = offsets();
    if offsets.task_switches == 0 {
        return None;
    }
    // SAFETY: this CPU's own entry; a program that interrupts another one's wait is in the same row.
    let row = unsafe { &mut *ROW.get_ptr_mut(0)? };
    // SAFETY: a helper without arguments.
    let task = unsafe { bpf_get_current_task() };
    let switches = field::<u64>(task, offsets.task_switches)
        .wrapping_add(field(task, offsets.task_preemptions));
    let task = bpf_get_current_pid_tgid();
    if row.task != task || row.switches != switches {
        row.task = task;
        row.switches = switches;
        row.waited_ns = 0;
    }
    Some(row)
}

/// Whether waits at that point can follow one another without a chance for anything else on the CPU: the block layer
/// hands over a whole batch, and a function may be called in a loop, while system calls end.
#[inline(always)]
pub fn can_be_at(slot: u32) -> bool {
    slot == slot::BLOCK_ISSUE || slot >= slot::FUNCTIONS
}

/// 1 if this CPU's row has to end. A global function, see `ruled`.
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn row_is_full() -> u64 {
    current().is_some_and(|row| row.waited_ns >= ROW_NS).into()
}

/// The current task has waited.
#[inline(always)]
pub fn waited(ns: u64) {
    if let Some(row) = current() {
        row.waited_ns += ns;
    }
}
