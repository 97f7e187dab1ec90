//! For probes that pair one hook's event with another's: they begin when all hooks are attached, or the
//! first hook's starts would wait for ends that nobody sees.
use aya_ebpf::{macros::map, maps::Array};

/// One entry: not 0 once user space has attached everything.
#[map]
static ENABLED: Array<u64> = Array::with_max_entries(1, 0);

/// Whether all hooks are attached.
#[inline(always)]
pub fn enabled() -> bool {
    ENABLED
        .get_ptr(0)
        // SAFETY: the kernel gave the pointer; one word, written whole.
        .is_some_and(|flag| unsafe { flag.read_volatile() } != 0)
}
