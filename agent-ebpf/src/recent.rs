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
    let cpu = unsafe { bpf_get_smp_processor_id() };
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
        recent.moves += 1;
        in_order();
        all_to_histograms(recent);
        in_order();
        recent.appended += 1;
        in_order();
        recent.moves += 1;
        return;
    }
    recent.appended += 1;
}

/// Out of line, as it is seldom needed.
#[inline(never)]
fn all_to_histograms(recent: &Recent) -> u32 {
    for entry in &recent.entries {
        let Some(mut row) = measure::row(entry.slot) else {
            continue;
        };
        for metric in 0..crate::METRICS {
            if let Some(value) = crate::recent_value(entry, metric) {
                row.record_near(metric, value);
            }
        }
    }
    0
}
