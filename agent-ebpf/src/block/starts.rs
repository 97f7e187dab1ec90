//! What is remembered of requests between issue and completion.

use agent_common::probes::{Field, Loss, block::op};
use aya_ebpf::{
    helpers::{bpf_get_current_comm, bpf_ktime_get_ns},
    macros::map,
    maps::Array,
};

use crate::{
    PLUG_TIME, RQ_INTERNAL_TAG, RQ_TAG, measure,
    structure::{has, read},
};

/// What is remembered of a request between issue and completion.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Start {
    /// Address of the request; 0 if the entry is free. Only compared.
    pub request: u64,
    pub issue_ns: u64,
}

/// Requests with the same tag that can be remembered at once: of other devices and hardware queues.
const WAYS: usize = 8;
/// `BLK_MQ_NO_TAG`
const NO_TAG: u32 = u32::MAX;

/// Tags told apart.
const TAGS: u32 = 1024;

/// By tag. Dense: a few tags are used again and again, so that this stays in the cache.
#[map]
static STARTS: Array<[Start; WAYS]> = Array::with_max_entries(TAGS, 0);

/// Commands of the submitters, by tag and way.
#[map]
static COMMS: Array<[u8; 16]> = Array::with_max_entries(TAGS * WAYS as u32, 0);

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

/// The entry of a request, or a free one if `or_free`, with its place in `COMMS`.
#[inline(always)]
fn start(request: *const u8, or_free: bool) -> Option<(&'static mut Start, u32)> {
    // With a scheduler the driver's tag comes and goes with each hand-over; the scheduler's stays.
    let mut tag: u32 = read(request, &RQ_INTERNAL_TAG);
    if tag == NO_TAG {
        tag = read(request, &RQ_TAG);
    }
    let tag = tag & (TAGS - 1);
    // SAFETY: the kernel gave the pointer. A request is with one CPU at a time; two CPUs that take the same
    // free entry lose one start, which its completion finds out.
    let ways = unsafe { &mut *STARTS.get_ptr_mut(tag)? };
    for (way, start) in ways.iter_mut().enumerate() {
        if start.request == request as u64 || (or_free && start.request == 0) {
            return Some((start, tag * WAYS as u32 + way as u32));
        }
    }
    None
}

/// That a request was inserted or, if `issued`, is handed to the driver.
#[inline(always)]
pub fn remember(request: *const u8, issued: bool) {
    let stamp = issued && (has(&PLUG_TIME) || unstamped());
    if !stamp && !measure::by(Field::Comm) {
        return;
    }
    let Some((start, place)) = start(request, true) else {
        if !has(&PLUG_TIME) || measure::by(Field::Comm) {
            measure::count(Loss::Lost);
        }
        // Else the kernel's own stamp has to do.
        return;
    };
    let new = start.request == 0;
    start.request = request as u64;
    if measure::by(Field::Comm) && new {
        remember_comm(place);
    }
    if stamp {
        // SAFETY: a helper without arguments.
        start.issue_ns = unsafe { bpf_ktime_get_ns() };
    } else if new {
        start.issue_ns = 0;
    }
}

/// Whoever inserts or issues the request first: mostly who submitted it. A kworker is named too where the
/// block layer ran the queue in its own thread.
#[inline(always)]
fn remember_comm(place: u32) {
    if let (Some(entry), Ok(comm)) = (COMMS.get_ptr_mut(place), bpf_get_current_comm()) {
        // SAFETY: the kernel gave the pointer; the entry goes with the request's in `STARTS`.
        unsafe { *entry = comm };
    }
}

/// The command of who submitted the request at that place.
#[inline(always)]
pub fn comm(place: u32) -> Option<[u8; 16]> {
    // SAFETY: the kernel gave the pointer; the entry is the request's until its tag is free.
    COMMS.get_ptr(place).map(|comm| unsafe { *comm })
}

/// What is remembered of a request that ends here, with its place in `COMMS`.
#[inline(always)]
pub fn remembered(request: *const u8, stamped_ns: u64) -> Option<(&'static mut Start, u32)> {
    if has(&PLUG_TIME) || measure::by(Field::Comm) || stamped_ns == 0 {
        return start(request, false);
    }
    None
}

/// When it was handed to the driver; 0 if nobody knows. `stamped_ns` is the kernel's own stamp.
#[inline(always)]
pub fn issue_ns(stamped_ns: u64, start: Option<&Start>) -> u64 {
    match start {
        Some(start) if start.issue_ns != 0 => start.issue_ns,
        _ => stamped_ns,
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
