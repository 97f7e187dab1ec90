//! What is remembered of requests between issue and completion.

use agent_common::probes::{
    Field, Loss,
    block::{self, op},
};
use agent_ebpf::Shared;
use aya_ebpf::{
    helpers::{bpf_get_current_comm, bpf_ktime_get_ns},
    macros::map,
    maps::Array,
};

use crate::{PLUG_TIME, flags::start_ns, measure, structure::has};

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

/// Requests of one set that can be remembered beside each other, without those in [`FAR`].
const WAYS: usize = block::WAYS;
/// Of one set in [`FAR`], where they fill a cache line.
const FAR_WAYS: usize = 4;
/// log2 of the sets there.
const FAR_BITS: u32 = 12;

/// By address of the request. The same few requests are used again and again, so that their sets stay in the cache; and all
/// sets are together small enough for the kernel to have them in its own memory, of which a CPU knows where it is. Beyond
/// 32 KiB it has a map in small pages, and whoever comes there seldom pays more for the walk of the page table than for
/// the memory. So only those that find no room here are in [`FAR`].
#[unsafe(link_section = ".data.starts")]
static STARTS: Shared<[Set; block::SETS]> = Shared::new([Set::EMPTY; block::SETS]);

/// A line of the cache, where the kernel's maps begin at the end of one (6.18) or at the beginning.
#[repr(C)]
#[derive(Clone, Copy)]
struct Set {
    reserved: u64,
    /// Requests that were issued (count), and whether one was ever in [`FAR`]; see [`block::starts`].
    counts: u64,
    ways: [Start; WAYS],
}

impl Set {
    const EMPTY: Self = Self {
        reserved: 0,
        counts: 0,
        ways: [Start {
            request: 0,
            issue_ns: 0,
        }; WAYS],
    };
}

/// Requests that found all ways of their set taken.
#[map]
static FAR: Array<[Start; FAR_WAYS]> = Array::with_max_entries(1 << FAR_BITS, 0);

/// Whose request it is.
#[repr(C)]
#[derive(Clone, Copy)]
struct Submitter {
    /// When it was allocated, 0 if nobody knows: a request that is merged into another goes without completion, and its address is then
    /// another's.
    start_ns: u64,
    comm: [u8; 16],
}

/// By set and way: first those of [`STARTS`], then of [`FAR`].
#[map]
static SUBMITTERS: Array<Submitter> =
    Array::with_max_entries((WAYS * block::SETS + FAR_WAYS * (1 << FAR_BITS)) as u32, 0);

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

/// What tells requests apart, in its higher bits: their distance to what stays where it is. The multiplier is 2^64 divided by the golden ratio (Knuth's multiplicative
/// hashing).
#[inline(always)]
fn hash(request: *const u8) -> u64 {
    agent_ebpf::distance(request, STARTS.get_ptr_mut().cast()).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

/// The set of a request.
#[inline(always)]
fn set_of(request: *const u8) -> (&'static mut Set, usize) {
    let set = (hash(request) >> (64 - block::SETS.ilog2())) as usize;
    // SAFETY: it is one of them. A request is with one CPU at a time; two CPUs that take the same free entry lose one
    // start, which its completion finds out.
    let place = unsafe { (&raw mut (*STARTS.get_ptr_mut())[0]).add(set) };
    // SAFETY: as above.
    (unsafe { &mut *place }, set * WAYS)
}

/// An entry with its place in `SUBMITTERS`.
type Found = Option<(&'static mut Start, u32)>;

/// The entry of a request, or a free one if `or_free`.
#[inline(always)]
fn start(request: *const u8, or_free: bool) -> Found {
    let (set, place) = set_of(request);
    // Its own first, which may stand behind one that is free.
    if let Some(way) = way_of(&set.ways, request as u64) {
        return Some((&mut set.ways[way], (place + way) as u32));
    }
    if set.counts >= block::IN_FAR {
        core::intrinsics::cold_path();
        if let Some(found) = far(request, request as u64) {
            return Some(found);
        }
    }
    if !or_free {
        return None;
    }
    if let Some(way) = way_of(&set.ways, 0) {
        return Some((&mut set.ways[way], (place + way) as u32));
    }
    core::intrinsics::cold_path();
    if set.counts < block::IN_FAR {
        agent_ebpf::add(&raw mut set.counts, block::IN_FAR);
    }
    far(request, 0)
}

/// Where an entry has that request; 0 for none.
#[inline(always)]
fn way_of<const N: usize>(ways: &[Start; N], request: u64) -> Option<usize> {
    ways.iter().position(|start| start.request == request)
}

/// The entry in [`FAR`] of a request that has `wanted` as its own. Out of line, as it is seldom needed.
#[inline(never)]
fn far(request: *const u8, wanted: u64) -> Found {
    let set = (hash(request) >> (64 - FAR_BITS)) as u32;
    // SAFETY: the kernel gave the pointer; as in `set_of`.
    let ways = unsafe { &mut *FAR.get_ptr_mut(set)? };
    let way = way_of(ways, wanted)?;
    let place = WAYS * block::SETS + set as usize * FAR_WAYS + way;
    Some((&mut ways[way], place as u32))
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
    let (set, _) = set_of(request);
    agent_ebpf::add(&raw mut set.counts, 1);
    let [first, others @ ..] = &mut set.ways;
    // Nearly always: the set is empty, and so was it before. Little code, as that is mostly in no cache either.
    if !measure::by(Field::Comm)
        && first.request == 0
        && others.iter().all(|start| start.request != request as u64)
        && set.counts < block::IN_FAR
    {
        first.request = request as u64;
        first.issue_ns = stamp();
        return;
    }
    core::intrinsics::cold_path();
    issued_beside_others(request);
}

#[inline(never)]
fn issued_beside_others(request: *const u8) -> u32 {
    let Some((start, place)) = start(request, true) else {
        measure::count(Loss::Lost);
        return 0;
    };
    let by_comm = measure::by(Field::Comm);
    let inserted = by_comm && start.request == request as u64 && start.issue_ns == 0;
    begin(start, request, STAMPED);
    if by_comm {
        remember_submitter(place, start_ns(request), inserted);
    }
    start.issue_ns = stamp();
    0
}

/// What is to be remembered of a request that is issued now: when that is, or that the kernel stamps it.
#[inline(always)]
fn stamp() -> u64 {
    if has(&PLUG_TIME) || unstamped() {
        // SAFETY: a helper without arguments.
        unsafe { bpf_ktime_get_ns() }
    } else {
        STAMPED
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

/// What is remembered of a request that was seen to be issued, of most. It must be forgotten.
#[inline(always)]
pub fn near(request: *const u8) -> Option<&'static mut Start> {
    let (set, _) = set_of(request);
    let way = way_of(&set.ways, request as u64)?;
    Some(&mut set.ways[way]).filter(|start| start.issue_ns != 0)
}

/// What was remembered of a request that ends here.
pub struct Taken {
    /// As in [`Start`]; 0 if it was not seen to be issued.
    pub issue_ns: u64,
    /// Its place in `SUBMITTERS`, if series are told apart by command.
    place: u32,
}

impl Taken {
    /// The command of who submitted the request.
    #[inline(always)]
    pub fn comm(&self) -> Option<[u8; 16]> {
        if self.issue_ns == 0 {
            return None;
        }
        // SAFETY: the kernel gave the pointer; the entry is the request's until its place is another's.
        SUBMITTERS
            .get_ptr(self.place)
            .map(|entry| unsafe { (*entry).comm })
    }
}

/// Forgets a request that was seen to be issued. Out of line, and numbers only: the verifier then goes once through what
/// follows, and not for each place where it may have been.
#[inline(always)]
pub fn take(request: *const u8) -> Taken {
    let mut place = 0;
    let issue_ns = take_into(request, &mut place);
    Taken { issue_ns, place }
}

#[inline(never)]
fn take_into(request: *const u8, place: &mut u32) -> u64 {
    let Some((start, found)) = start(request, false) else {
        return 0;
    };
    if start.issue_ns == 0 {
        return 0;
    }
    if measure::by(Field::Comm) {
        *place = found;
    }
    start.request = 0;
    start.issue_ns
}

/// When it was handed to the driver; 0 if nobody knows. `stamped_ns` is the kernel's own stamp, `remembered` what [`Start`] has.
#[inline(always)]
pub fn issue_ns(stamped_ns: u64, remembered: u64) -> u64 {
    match remembered {
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
