//! Registers where a kprobe or kretprobe hit.

use agent_common::probes::{ABSENT, Loss};
use aya_ebpf::{
    EbpfContext, Global, bindings::pt_regs, helpers::bpf_probe_read_kernel, macros::map,
    maps::Array,
};

use crate::measure::count;

/// Lower half of the address to which functions return whose return a kretprobe watches.
#[unsafe(no_mangle)]
static TRAMPOLINE: Global<u32> = Global::new(0);

/// Functions that an object may watch.
const FUNCTIONS: u32 = 8;

/// By function: not 0 once a call was seen whose return is watched. Before, no kretprobe is attached yet.
#[map]
static WATCHED: Array<u64> = Array::with_max_entries(FUNCTIONS, 0);

/// The stack pointer. At a function's return it lies at most a word higher than at its entry, and always
/// lower in a call from inside it.
#[inline(always)]
pub fn stack(ctx: &impl EbpfContext) -> u64 {
    let registers = ctx.as_ptr().cast::<pt_regs>();
    // SAFETY: the context of such a program is the registers.
    #[cfg(bpf_target_arch = "x86_64")]
    return unsafe { (*registers).rsp };
    // SAFETY: as above.
    #[cfg(bpf_target_arch = "aarch64")]
    return unsafe { (*registers).sp };
}

/// The address to which a function returns, at its entry.
#[inline(always)]
fn return_address(ctx: &impl EbpfContext) -> u64 {
    // SAFETY: the helper checks the address.
    #[cfg(bpf_target_arch = "x86_64")]
    return unsafe { bpf_probe_read_kernel(stack(ctx) as *const u64) }.unwrap_or_default();
    // SAFETY: the context of such a program is the registers.
    #[cfg(bpf_target_arch = "aarch64")]
    return unsafe { (*ctx.as_ptr().cast::<pt_regs>()).regs[30] };
}

/// Whether a kretprobe will tell of this call's return. The kernel has room for few calls at a time:
/// `max(10, 2 * CPUs)` (`register_kretprobe`, kernel/kprobes.c), and of the others it says nothing; they are
/// booked as lost.
#[inline(always)]
pub fn return_is_watched(ctx: &impl EbpfContext, function: u32) -> bool {
    if TRAMPOLINE.load() == ABSENT {
        return true;
    }
    let Some(watched) = WATCHED.get_ptr_mut(function) else {
        return true;
    };
    let watches = return_address(ctx) as u32 == TRAMPOLINE.load();
    // SAFETY: the kernel gave the pointer, to a word that is written whole.
    unsafe {
        if watches {
            *watched = 1;
        } else if *watched != 0 {
            count(Loss::Starts);
            count(Loss::Lost);
        }
    }
    watches
}
