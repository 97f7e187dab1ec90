//! What every eBPF object of iolag shares.
#![no_std]

/// A panic cannot happen in a program that the verifier accepted; the loop satisfies the compiler.
#[cfg(target_arch = "bpf")]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
