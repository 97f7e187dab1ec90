//! What is remembered of requests between issue and completion.

use agent_common::probes::{Field, Loss, block::op};
use aya_ebpf::{
    helpers::{bpf_get_current_comm, bpf_ktime_get_ns},
    macros::map,
    maps::Array,
};

use crate::{
    PLUG_TIME, RQ_START_NS,
    flags::start_ns,
    measure,
    structure::{has, number},
};

/// What is remembered of a request between issue and completion.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Start {
    /// Address of the request; 0 if the entry is free. Only compared.
    pub request: u64,
    /// 0: inserted, not issued. [`STAMPED`]: issued, the kernel knows when. Else when it was issued.
    pub issue_ns: u64,
}

const STAMPED: u64 = 1;

/// Requests of one set that can be remembered at once: they fill a cache line.
const WAYS: usize = 4;
/// log2 of the sets.
const SET_BITS: u32 = 12;

/// By address of the request. The same few requests are used again and again, so that their sets stay in the cache.
#[map]
static STARTS: Array<[Start; WAYS]> = Array::with_max_entries(1 << SET_BITS, 0);

/// Whose request it is.
#[repr(C)]
#[derive(Clone, Copy)]
struct Submitter {
    /// When it was allocated, 0 if nobody knows: a request that is merged into another goes without completion, and its address is then
    /// another's.
    start_ns: u64,
    comm: [u8; 16],
}

/// By set and way.
#[map]
static SUBMITTERS: Array<Submitter> = Array::with_max_entries(WAYS as u32 * (1 << SET_BITS), 0);

/// One entry: not 0 once a request came by that the kernel had not stamped at issue. User space sets it
/// before, where it knows.
#[map]
static UNSTAMPED: Array<u64> = Array::with_max_entries(1, 0);

#[inline(always)]
fn unstamped() -> bool {
    // SAFETY: one word, written whole.
    UNSTAMPED
        .get_ptr(0)
        .is_some_and(|flag| unsafe { *flag } != 0)
}

/// The set of a request. The multiplier is 2^64 divided by the golden ratio (Knuth's multiplicative hashing).
#[inline(always)]
fn set_of(request: *const u8) -> u32 {
    (number(request, &RQ_START_NS).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (64 - SET_BITS)) as u32
}

/// The entry of a request, or a free one if `or_free`, with its place in `SUBMITTERS`.
#[inline(always)]
fn start(request: *const u8, or_free: bool) -> Option<(&'static mut Start, u32)> {
    let set = set_of(request);
    // SAFETY: the kernel gave the pointer. A request is with one CPU at a time; two CPUs that take the same
    // free entry lose one start, which its completion finds out.
    let ways = unsafe { &mut *STARTS.get_ptr_mut(set)? };
    // Its own first, which may stand behind one that is free.
    for (way, start) in ways.iter().enumerate() {
        if start.request == request as u64 {
            return Some((&mut ways[way], set * WAYS as u32 + way as u32));
        }
    }
    if !or_free {
        return None;
    }
    for (way, start) in ways.iter().enumerate() {
        if start.request == 0 {
            return Some((&mut ways[way], set * WAYS as u32 + way as u32));
        }
    }
    None
}

#[inline(always)]
fn begin(start: &mut Start, request: *const u8, issue_ns: u64) {
    if start.request != 0 && start.issue_ns != 0 {
        // Its end was not seen, and it is another's now.
        measure::count(Loss::Lost);
    }
    *start = Start {
        request: request as u64,
        issue_ns,
    };
}

/// That a request was inserted; for its submitter's command only.
#[inline(always)]
pub fn inserted(request: *const u8) {
    if let Some((start, place)) = start(request, true) {
        begin(start, request, 0);
        remember_submitter(place, start_ns(request), false);
    }
    // Else `issued` will find no room either.
}

/// That a request is handed to the driver.
#[inline(always)]
pub fn issued(request: *const u8) {
    measure::count_alone(Loss::Starts);
    let Some((start, place)) = start(request, true) else {
        measure::count(Loss::Lost);
        return;
    };
    let by_comm = measure::by(Field::Comm);
    let inserted = by_comm && start.request == request as u64 && start.issue_ns == 0;
    begin(start, request, STAMPED);
    if by_comm {
        remember_submitter(place, start_ns(request), inserted);
    }
    if has(&PLUG_TIME) || unstamped() {
        // SAFETY: a helper without arguments.
        start.issue_ns = unsafe { bpf_ktime_get_ns() };
    }
}

/// That the driver handed a request back: it will be issued again. One that was refused before it was issued is none.
#[inline(always)]
pub fn requeued(request: *const u8) {
    if let Some((start, _)) = start(request, false)
        && start.issue_ns != 0
    {
        measure::count_alone(Loss::Abandoned);
        start.issue_ns = 0;
    }
}

/// Whoever inserts or issues the request first: mostly who submitted it. A kworker is named too where the
/// block layer ran the queue in its own thread. Requests that nobody knows the start of are told apart by whether they
/// were inserted before.
#[inline(always)]
fn remember_submitter(place: u32, start_ns: u64, inserted: bool) {
    let Some(entry) = SUBMITTERS.get_ptr_mut(place) else {
        return;
    };
    // SAFETY: the kernel gave the pointer; the entry goes with the request's in `STARTS`.
    let entry = unsafe { &mut *entry };
    if (entry.start_ns != start_ns || start_ns == 0 && !inserted)
        && let Ok(comm) = bpf_get_current_comm()
    {
        *entry = Submitter { start_ns, comm };
    }
}

/// The command of who submitted the request at that place.
#[inline(always)]
pub fn comm(place: u32) -> Option<[u8; 16]> {
    // SAFETY: the kernel gave the pointer; the entry is the request's until its place is free.
    SUBMITTERS
        .get_ptr(place)
        .map(|entry| unsafe { (*entry).comm })
}

/// What is remembered of a request that ends here and that was seen to be issued, with its place in `SUBMITTERS`. It must be
/// forgotten.
#[inline(always)]
pub fn remembered(request: *const u8) -> Option<(&'static mut Start, u32)> {
    start(request, false).filter(|(start, _)| start.issue_ns != 0)
}

/// When it was handed to the driver; 0 if nobody knows. `stamped_ns` is the kernel's own stamp.
#[inline(always)]
pub fn issue_ns(stamped_ns: u64, start: &Start) -> u64 {
    match start.issue_ns {
        STAMPED => stamped_ns,
        own => own,
    }
}

/// Neither the kernel nor we know when it was issued: from now on we stamp it ourselves.
#[inline(always)]
pub fn not_stamped(op: u32) {
    if op != op::OTHER {
        measure::count(Loss::Unmatched);
    }
    if let Some(flag) = UNSTAMPED.get_ptr_mut(0) {
        // SAFETY: the kernel gave the pointer; one word is written.
        unsafe { *flag = 1 };
    }
}
