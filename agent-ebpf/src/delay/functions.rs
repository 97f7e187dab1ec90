//! The functions that rules name.

use aya_ebpf::{
    EbpfContext as _, bindings::pt_regs, helpers::generated::bpf_get_func_ip, macros::map,
    maps::HashMap, programs::ProbeContext,
};

use crate::BOUNDED;

/// Slots by the address of the function.
#[map]
static FUNCTIONS: HashMap<u64, u32> = HashMap::with_max_entries(256, 0);

/// The slot of the function at whose entry the program is.
#[inline(always)]
pub fn slot(ctx: &ProbeContext) -> Option<u32> {
    let address = if BOUNDED {
        before_breakpoint(ctx)
    } else {
        // SAFETY: the context is the program's own.
        unsafe { bpf_get_func_ip(ctx.as_ptr()) }
    };
    // SAFETY: a word.
    unsafe { FUNCTIONS.get(address) }.copied()
}

/// The address of the instruction where a kprobe is, which its program sees as if it were a breakpoint, also where it is
/// a call of ftrace's (`kprobe_ftrace_handler`, `optimized_callback`, arch/x86/kernel/kprobes).
#[inline(always)]
fn before_breakpoint(ctx: &ProbeContext) -> u64 {
    let registers = ctx.as_ptr().cast::<pt_regs>();
    // SAFETY: the context of such a program is the registers.
    #[cfg(bpf_target_arch = "x86_64")]
    return unsafe { (*registers).rip }.wrapping_sub(1);
    // SAFETY: as above. A breakpoint of arm64 is no step behind it.
    #[cfg(bpf_target_arch = "aarch64")]
    return unsafe { (*registers).pc };
}
