//! Reading the kernel's memory at offsets that user space put into `OFFSETS`.

use core::{ffi::c_void, mem::MaybeUninit};

use agent_common::{offsets::Offsets, probes::ABSENT};
use agent_ebpf::Shared;
use aya_ebpf::{
    bindings::pt_regs,
    helpers::{
        bpf_get_current_pid_tgid, bpf_get_current_task, bpf_get_current_task_btf, bpf_task_pt_regs,
        generated::bpf_probe_read_kernel,
    },
};

use crate::BOUNDED;

/// Whether a read costs an instruction, and no call of a helper.
#[inline(always)]
pub fn is_direct() -> bool {
    !BOUNDED && agent_ebpf::is_direct()
}

#[unsafe(link_section = ".data.offsets")]
#[unsafe(no_mangle)]
static OFFSETS: Shared<Offsets> = Shared::new(Offsets::NONE);

#[inline(always)]
pub fn offsets() -> &'static Offsets {
    OFFSETS.get()
}

/// Whether this kernel has the field. No structure is as long as half of [`ABSENT`], with which to compare takes an
/// instruction less.
#[inline(always)]
pub fn has(offset: u64) -> bool {
    offset <= ABSENT as u64 / 2
}

/// Reads a field; zeroes if it cannot be read, so that a chain of reads needs no checks between.
#[inline(always)]
pub fn field<T: Copy + Default>(structure: u64, offset: u64) -> T {
    at(structure.wrapping_add(offset))
}

/// Without a branch for what cannot be read: the helper fills that with zeroes (`bpf_probe_read_kernel_common`,
/// kernel/trace/bpf_trace.c), as does a direct read, and each branch is a way more that the verifier has to go.
#[inline(always)]
pub fn at<T: Copy + Default>(address: u64) -> T {
    if is_direct() {
        return direct(address);
    }
    copied(address)
}

/// As [`at`], only if [`is_direct`].
#[inline(always)]
fn direct<T: Copy>(address: u64) -> T {
    // SAFETY: whatever is there, it is a number wherever this is called; volatile, as it may change meanwhile. BPF reads
    // numbers anywhere, aligned or not, as the kernel's CPU does.
    unsafe { agent_ebpf::readable(address).cast::<T>().read_volatile() }
}

/// As [`field`], only if [`is_direct`].
#[inline(always)]
pub fn direct_field<T: Copy>(structure: u64, offset: u64) -> T {
    direct(structure.wrapping_add(offset))
}

#[inline(always)]
fn copied<T>(address: u64) -> T {
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
    copied((&raw const pointer) as u64)
}

/// The current task, or 0 where reads are not direct, and its thread group: of two helpers, one call.
#[inline(always)]
pub fn current() -> (u64, u32) {
    let offsets = offsets();
    if is_direct() && offsets.task_group != 0 && has(offsets.task_group) {
        // SAFETY: a helper without arguments.
        let task = unsafe { bpf_get_current_task() };
        return (task, direct_field(task, offsets.task_group));
    }
    (0, (bpf_get_current_pid_tgid() >> 32) as u32)
}

/// Bit of `thread_info.status` on x86: the task is in a 32-bit system call, whose numbers are other calls'
/// (`TS_COMPAT`, arch/x86/include/asm/thread_info.h).
const COMPAT: u32 = 2;

/// Whether the current task is in a 32-bit system call; no, where this kernel does not tell.
#[inline(always)]
pub fn in_compat_call() -> bool {
    let offsets = offsets();
    if offsets.task_status == 0 || !has(offsets.task_status) {
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
    let offsets = offsets();
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
