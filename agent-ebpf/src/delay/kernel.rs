//! Reading the kernel's memory at offsets that user space put into `OFFSETS`.

use agent_common::{offsets::Offsets, probes::ABSENT};
use aya_ebpf::{
    helpers::{bpf_get_current_task_btf, bpf_probe_read_kernel, bpf_task_pt_regs},
    macros::map,
    maps::Array,
};

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

#[inline(always)]
pub fn at<T: Copy + Default>(address: u64) -> T {
    // SAFETY: the helper checks the address.
    unsafe { bpf_probe_read_kernel(address as *const T) }.unwrap_or_default()
}

/// Number of the system call that the current task is in, or was in last. Of a thread of the kernel it is nothing
/// of meaning.
#[inline(always)]
pub fn system_call() -> Option<u64> {
    let offsets = offsets()?;
    // SAFETY: the kernel gives the current task, and of it its registers at entry.
    let registers = unsafe { bpf_task_pt_regs(bpf_get_current_task_btf()) };
    // Copied by the helper, as a number: the verifier allows no sum of a typed pointer and an offset that it does not
    // know.
    let address: u64 = at((&raw const registers) as u64);
    Some(field(address, offsets.registers_number))
}
