//! Reading structures of the kernel, at offsets that user space took from the running kernel's BTF.
#![allow(dead_code, reason = "a module of each object, of which none uses all")]

use agent_common::probes::ABSENT;
use aya_ebpf::{Global, macros::map, maps::PerCpuArray};

/// A pointer on its way to becoming a number.
#[map]
static POINTER: PerCpuArray<u64> = PerCpuArray::with_max_entries(1, 0);

/// The address of a structure as a number, to be computed with: the verifier forbids arithmetic on typed
/// pointers, and forgets the type of what was written to a map. 0 never happens.
#[inline(always)]
pub fn address(structure: *const u8) -> u64 {
    let Some(place) = POINTER.get_ptr_mut(0) else {
        return 0;
    };
    // SAFETY: this CPU's own entry; volatile, as the detour is the point.
    unsafe {
        place.cast::<*const u8>().write_volatile(structure);
        place.read_volatile()
    }
}

/// Whether this kernel has the field; a constant to the verifier, which drops the branch that is not taken.
#[inline(always)]
pub fn has(offset: &Global<u32>) -> bool {
    offset.load() != ABSENT
}

/// Reads a part of a field, as [`read`].
#[inline(always)]
pub fn read_at<T: Copy>(structure: *const u8, offset: &Global<u32>, at: usize) -> T {
    // SAFETY: as in `read`.
    unsafe {
        structure
            .add(offset.load() as usize + at)
            .cast::<T>()
            .read()
    }
}

/// Reads a field of a structure whose pointer is typed by BTF. The kernel handles the fault if the pointer
/// is bad, and the read then gives 0: so a chain of reads needs no checks between.
#[inline(always)]
pub fn read<T: Copy>(structure: *const u8, offset: &Global<u32>) -> T {
    // SAFETY: the verifier accepts only offsets at which the structure has a field of this size.
    unsafe { structure.add(offset.load() as usize).cast::<T>().read() }
}
