//! Reading structures of the kernel, at offsets that user space took from the running kernel's BTF.
#![allow(dead_code, reason = "a module of each object, of which none uses all")]

use agent_common::probes::ABSENT;
use aya_ebpf::Global;

/// Read-only globals that user space sets before the object is loaded: offsets of fields, mostly.
#[allow(
    unused_macros,
    reason = "a module of each object, of which some have other globals"
)]
macro_rules! offsets {
    ($($name:ident)*) => { $(
        #[unsafe(no_mangle)]
        pub static $name: aya_ebpf::Global<u32> = aya_ebpf::Global::new(0);
    )* };
}

/// Whether this kernel has the field; a constant to the verifier, which drops the branch that is not taken.
#[inline(always)]
pub fn has(offset: &Global<u32>) -> bool {
    offset.load() != ABSENT
}

/// A number for an address, the same each time while the object is loaded: its distance to a global, which stays where
/// it is.
#[inline(always)]
pub fn number(pointer: *const u8, fixed: &'static Global<u32>) -> u64 {
    agent_ebpf::distance(pointer, (&raw const *fixed).cast())
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
