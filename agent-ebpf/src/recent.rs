//! What this CPU recorded last, on its way to the histograms; see `agent_common::recent`.
//!
//! Written by programs that cannot interrupt each other on a CPU.

use agent_common::recent::{ENTRIES, Entry, Recent};
use agent_ebpf::{in_order, opaque};
use aya_ebpf::{helpers::bpf_get_smp_processor_id, macros::map, maps::Array};

use crate::measure;

/// By CPU; sized before loading.
#[map]
static RECENT: Array<Recent> = Array::with_max_entries(1, 0);

/// This CPU's.
#[inline(always)]
pub fn recent() -> Option<&'static mut Recent> {
    // SAFETY: a helper without arguments.
    of(unsafe { bpf_get_smp_processor_id() })
}

#[inline(always)]
fn of(cpu: u32) -> Option<&'static mut Recent> {
    // SAFETY: the kernel gave the pointer, to what no other CPU writes.
    RECENT
        .get_ptr_mut(cpu)
        .map(|recent| unsafe { &mut *recent })
}

/// Writes an entry down.
#[inline(always)]
pub fn append(recent: &mut Recent, entry: Entry) {
    // Opaque, or LLVM computes the bound otherwise than the verifier can follow.
    let place = (opaque(recent.appended) as usize) & (ENTRIES - 1);
    // SAFETY: just bounded.
    unsafe { *recent.entries.get_unchecked_mut(place) = entry };
    in_order();
    if place == ENTRIES - 1 {
        core::intrinsics::cold_path();
        // SAFETY: a helper without arguments.
        move_to_histograms(unsafe { bpf_get_smp_processor_id() });
        return;
    }
    recent.appended += 1;
}

/// Puts all entries into histograms. A global function: the verifier goes through it once, and not for each way to it.
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn move_to_histograms(cpu: u32) -> u64 {
    let Some(recent) = of(cpu) else {
        return 0;
    };
    recent.moves += 1;
    in_order();
    for entry in &recent.entries {
        let Some(mut row) = measure::row_of(entry.slot, cpu) else {
            continue;
        };
        for metric in 0..crate::METRICS {
            if let Some(value) = crate::recent_value(entry, metric) {
                row.record_short(metric, value);
            }
        }
    }
    in_order();
    recent.appended += 1;
    in_order();
    recent.moves += 1;
    0
}
