//! The functions that rules name.

use aya_ebpf::{
    EbpfContext as _, helpers::generated::bpf_get_func_ip, macros::map, maps::HashMap,
    programs::ProbeContext,
};

/// Slots by the address of the function.
#[map]
static FUNCTIONS: HashMap<u64, u32> = HashMap::with_max_entries(256, 0);

/// The slot of the function at whose entry the program is.
#[inline(always)]
pub fn slot(ctx: &ProbeContext) -> Option<u32> {
    // SAFETY: the context is the program's own.
    let address = unsafe { bpf_get_func_ip(ctx.as_ptr()) };
    // SAFETY: a word.
    unsafe { FUNCTIONS.get(address) }.copied()
}
