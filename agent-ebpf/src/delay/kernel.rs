//! Reading the kernel's memory at offsets that user space put into `OFFSETS`.

use core::{ffi::c_void, mem::MaybeUninit};

use agent_common::{offsets::Offsets, probes::ABSENT};
use aya_ebpf::{
    bindings::pt_regs,
    helpers::{
        bpf_get_current_task, bpf_get_current_task_btf, bpf_task_pt_regs,
        generated::bpf_probe_read_kernel,
    },
    macros::map,
    maps::Array,
};

use crate::BOUNDED;

#[map]
static OFFSETS: Array<Offsets> = Array::with_max_entries(1, 0);

#[inline(always)]
pub fn offsets() -> Option<&'static Offsets> {
    OFFSETS.get(0)
}

/// Whether this kernel has the field.
#[inline(always)]
pub fn has(offset: u64) -> bool {
    offset != ABSENT as u64
}

/// Reads a field; zeroes if it cannot be read, so that a chain of reads needs no checks between.
#[inline(always)]
pub fn field<T: Copy + Default>(structure: u64, offset: u64) -> T {
    at(structure.wrapping_add(offset))
}

/// Without a branch for what cannot be read: the helper fills that with zeroes (`bpf_probe_read_kernel_common`,
/// kernel/trace/bpf_trace.c), and each branch is a way more that the verifier has to go.
#[inline(always)]
pub fn at<T: Copy + Default>(address: u64) -> T {
    let mut value = MaybeUninit::<T>::uninit();
    // SAFETY: the helper checks the address and writes all of the value, which is a number wherever this is called.
    unsafe {
        bpf_probe_read_kernel(
            value.as_mut_ptr().cast(),
            size_of::<T>() as u32,
            address as *const c_void,
        );
        value.assume_init()
    }
}

/// The same, as a number. The verifier allows no sum of a pointer typed by BTF, as fentry gives them, and an offset
/// that it does not know; what the helper copied is no pointer to it.
#[inline(always)]
pub fn number(pointer: u64) -> u64 {
    at((&raw const pointer) as u64)
}

/// Bit of `thread_info.status` on x86: the task is in a 32-bit system call, whose numbers are other calls'
/// (`TS_COMPAT`, arch/x86/include/asm/thread_info.h).
const COMPAT: u32 = 2;

/// Whether the current task is in a 32-bit system call; no, where this kernel does not tell.
#[inline(always)]
pub fn in_compat_call() -> bool {
    let Some(offsets) = offsets().filter(|offsets| offsets.task_status != 0) else {
        return false;
    };
    if !has(offsets.task_status) {
        return false;
    }
    // SAFETY: a helper without arguments.
    let task = unsafe { bpf_get_current_task() };
    field::<u32>(task, offsets.task_status) & COMPAT != 0
}

/// Number of the system call that the current task is in, or was in last. Of a thread of the kernel it is nothing
/// of meaning.
#[inline(always)]
pub fn system_call() -> Option<u64> {
    let offsets = offsets()?;
    let registers = if BOUNDED {
        registers_at_entry(offsets)?
    } else {
        // SAFETY: the kernel gives the current task, and of it its registers at entry.
        number(unsafe { bpf_task_pt_regs(bpf_get_current_task_btf()) } as u64)
    };
    Some(field(registers, offsets.registers_number))
}

/// Where the helper of 5.15 would find them: at the far end of the task's stack (`task_pt_regs`,
/// arch/x86/include/asm/processor.h).
#[inline(always)]
fn registers_at_entry(offsets: &Offsets) -> Option<u64> {
    /// `THREAD_SIZE` (arch/x86/include/asm/page_64_types.h).
    const STACK_BYTES: u64 = 16 << 10;
    if cfg!(not(bpf_target_arch = "x86_64")) {
        return None;
    }
    // SAFETY: a helper without arguments.
    let task = unsafe { bpf_get_current_task() };
    let bottom: u64 = field(task, offsets.task_stack);
    Some(bottom + STACK_BYTES - size_of::<pt_regs>() as u64)
}
