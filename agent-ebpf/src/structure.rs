//! Reading structures of the kernel, at offsets that user space took from the running kernel's BTF.
#![allow(dead_code, reason = "a module of each object, of which none uses all")]

use agent_ebpf::Constant;

/// Whether this kernel has the field; a constant to the verifier, which drops the branch that is not taken.
#[inline(always)]
pub fn has(offset: &impl Constant) -> bool {
    offset.present()
}

/// Reads a part of a field, as [`read`].
#[inline(always)]
pub fn read_at<T: Copy>(structure: *const u8, offset: &impl Constant, at: usize) -> T {
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
pub fn read<T: Copy>(structure: *const u8, offset: &impl Constant) -> T {
    // SAFETY: the verifier accepts only offsets at which the structure has a field of this size.
    unsafe { structure.add(offset.load() as usize).cast::<T>().read() }
}
