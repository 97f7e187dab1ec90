//! What every eBPF object of iolag shares.
#![no_std]
#![cfg_attr(target_arch = "bpf", feature(asm_experimental_arch))]

/// A panic cannot happen in a program that the verifier accepted; the loop satisfies the compiler.
#[cfg(target_arch = "bpf")]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

/// The same value, of which the compiler then knows nothing. `core::hint::black_box` writes it to memory for that.
#[cfg(target_arch = "bpf")]
#[inline(always)]
#[must_use]
pub fn opaque(mut value: u64) -> u64 {
    // One instruction, as the kernel wants each to have a line of its own in the source.
    // SAFETY: a move to itself.
    unsafe { core::arch::asm!("{0} = {0}", inout(reg) value, options(pure, nomem, nostack)) };
    value
}

/// `to - from`. The verifier lets nothing else be computed with a pointer typed by BTF.
#[cfg(target_arch = "bpf")]
#[inline(always)]
#[must_use]
pub fn distance(to: *const u8, from: *const u8) -> u64 {
    let mut distance = to as u64;
    let from = from as u64;
    // SAFETY: a subtraction of registers.
    unsafe {
        core::arch::asm!("{0} -= {1}", inout(reg) distance, in(reg) from, options(pure, nomem, nostack));
    }
    distance
}

/// Adds, whatever other CPUs do.
#[cfg(target_arch = "bpf")]
#[inline(always)]
pub fn add(word: *mut u64, value: u64) {
    // SAFETY: one atomic addition to a word that the caller owns a pointer to; the verifier checks the pointer.
    unsafe {
        core::arch::asm!("lock *(u64 *)({1} + 0) += {0}", in(reg) value, in(reg) word);
    }
}

/// Adds and returns what was there before, on whatever CPU: since Linux 5.12. `AtomicU64` has it not on this target.
#[cfg(target_arch = "bpf")]
#[inline(always)]
#[must_use]
pub fn fetch_add(word: *mut u64, mut value: u64) -> u64 {
    // SAFETY: one atomic addition to a word that the caller owns a pointer to; the verifier checks the pointer.
    unsafe {
        core::arch::asm!("{0} = atomic_fetch_add((u64 *)({1} + 0), {0})", inout(reg) value, in(reg) word);
    }
    value
}
