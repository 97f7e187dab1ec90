//! Reclaim in the time of the task that wants memory.

use agent_common::probes::{
    Loss,
    memory::metric::{DIRECT_RECLAIM, MEMCG_RECLAIM},
};
use aya_ebpf::{
    helpers::bpf_ktime_get_ns,
    macros::{btf_tracepoint, map},
    maps::Array,
    programs::BtfTracePointContext,
};

use crate::{current_slot, measure, place, thread};

/// A reclaim that has begun.
#[repr(C)]
#[derive(Clone, Copy)]
struct Reclaim {
    /// Thread << 1 | kind of reclaim; 0 if the entry is free.
    owner: u64,
    begin_ns: u64,
}

/// log2 of the entries of `RECLAIMS`.
const RECLAIM_BITS: u32 = 12;

/// By a hash of the owner, or that place's neighbour.
#[map]
static RECLAIMS: Array<Reclaim> = Array::with_max_entries(1 << RECLAIM_BITS, 0);

/// The entry of `owner`, or a free one if `or_free`.
#[inline(always)]
fn reclaim(owner: u64, or_free: bool) -> Option<&'static mut Reclaim> {
    let place = place(owner, RECLAIM_BITS);
    // SAFETY: the kernel gave the pointers. A thread is on one CPU at a time; two that take the same free entry
    // lose one begin, whose end is counted as unmatched.
    unsafe {
        let first = &mut *RECLAIMS.get_ptr_mut(place)?;
        if first.owner == owner {
            return Some(first);
        }
        let second = &mut *RECLAIMS.get_ptr_mut(place ^ 1)?;
        if second.owner == owner {
            return Some(second);
        }
        if !or_free {
            return None;
        }
        if first.owner == 0 {
            return Some(first);
        }
        (second.owner == 0).then_some(second)
    }
}

#[inline(always)]
fn begun(metric: usize) {
    let thread = thread();
    if thread == 0 {
        return;
    }
    measure::count(Loss::Starts);
    let owner = thread << 1 | u64::from(metric == MEMCG_RECLAIM);
    let Some(entry) = reclaim(owner, true) else {
        return measure::count(Loss::Lost);
    };
    entry.owner = owner;
    // SAFETY: a helper without arguments.
    entry.begin_ns = unsafe { bpf_ktime_get_ns() };
}

#[inline(always)]
fn ended(metric: usize) {
    let thread = thread();
    if thread == 0 {
        return;
    }
    // SAFETY: a helper without arguments.
    let now_ns = unsafe { bpf_ktime_get_ns() };
    let owner = thread << 1 | u64::from(metric == MEMCG_RECLAIM);
    let Some(entry) = reclaim(owner, false) else {
        return measure::count(Loss::Unmatched);
    };
    let begin_ns = entry.begin_ns;
    entry.owner = 0;
    measure::count(Loss::Completions);
    measure::record_span(current_slot(), metric, begin_ns, now_ns);
}

/// Hook: `TRACE_EVENT(mm_vmscan_direct_reclaim_begin, TP_PROTO(int order, gfp_t gfp_flags))`
/// Hook: `TRACE_EVENT(mm_vmscan_direct_reclaim_begin, TP_PROTO(gfp_t gfp_flags, int order, struct mem_cgroup *memcg))`
/// on 7.2 and later
///
/// No argument is read.
#[btf_tracepoint(function = "mm_vmscan_direct_reclaim_begin")]
pub fn direct_begin(_ctx: BtfTracePointContext) -> i32 {
    begun(DIRECT_RECLAIM);
    0
}

/// Hook: `TRACE_EVENT(mm_vmscan_direct_reclaim_end, TP_PROTO(unsigned long nr_reclaimed))`
/// Hook: `TRACE_EVENT(mm_vmscan_direct_reclaim_end, TP_PROTO(unsigned long nr_reclaimed, struct mem_cgroup *memcg))`
/// on 7.2 and later
///
/// No argument is read.
#[btf_tracepoint(function = "mm_vmscan_direct_reclaim_end")]
pub fn direct_end(_ctx: BtfTracePointContext) -> i32 {
    ended(DIRECT_RECLAIM);
    0
}

/// Hook: `TRACE_EVENT(mm_vmscan_memcg_reclaim_begin, TP_PROTO(int order, gfp_t gfp_flags))`
/// Hook: `TRACE_EVENT(mm_vmscan_memcg_reclaim_begin, TP_PROTO(gfp_t gfp_flags, int order, struct mem_cgroup *memcg))`
/// on 7.2 and later
///
/// No argument is read.
#[btf_tracepoint(function = "mm_vmscan_memcg_reclaim_begin")]
pub fn memcg_begin(_ctx: BtfTracePointContext) -> i32 {
    begun(MEMCG_RECLAIM);
    0
}

/// Hook: `TRACE_EVENT(mm_vmscan_memcg_reclaim_end, TP_PROTO(unsigned long nr_reclaimed))`
/// Hook: `TRACE_EVENT(mm_vmscan_memcg_reclaim_end, TP_PROTO(unsigned long nr_reclaimed, struct mem_cgroup *memcg))`
/// on 7.2 and later
///
/// No argument is read.
#[btf_tracepoint(function = "mm_vmscan_memcg_reclaim_end")]
pub fn memcg_end(_ctx: BtfTracePointContext) -> i32 {
    ended(MEMCG_RECLAIM);
    0
}
