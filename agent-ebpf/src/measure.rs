//! What every measuring probe records into: series of histograms, and the ledger. The layout of the maps
//! is told in `agent_common::series`.
#![allow(dead_code, reason = "a module of each object, of which none uses all")]

use agent_common::{
    bucket,
    probes::{Field, LOSSES, Loss},
    series::{BUCKETS, Block, Key, OTHER},
};
use agent_ebpf::{Constant as _, opaque};
use aya_ebpf::{
    bindings::{BPF_F_MMAPABLE, BPF_NOEXIST},
    helpers::bpf_get_smp_processor_id,
    macros::map,
    maps::{Array, HashMap, PerCpuArray, Queue},
};

agent_ebpf::constants!(
    // CPUs that the machine may ever have: the stride of a slot in `HISTOGRAMS`.
    CPUS
    // Bits of the fields by which series are told apart.
    BY
);

/// Sized before loading, as are `FREE` and `HISTOGRAMS`.
#[map]
static SERIES: HashMap<Key, u32> = HashMap::with_max_entries(1, 0);

#[map]
static FREE: Queue<u32> = Queue::with_max_entries(1, 0);

#[map]
static HISTOGRAMS: Array<Block<{ crate::METRICS }>> = Array::with_max_entries(1, BPF_F_MMAPABLE);

#[map]
static LEDGER: PerCpuArray<u64> = PerCpuArray::with_max_entries(2 * LOSSES as u32, 0);

const _: () = assert!(bucket::SHORT_BUCKETS <= BUCKETS);

/// Whether series are told apart by `field`; a constant to the verifier.
#[inline(always)]
pub fn by(field: Field) -> bool {
    BY.load() & u64::from(field.bit()) != 0
}

/// Counts in the ledger. Out of line, as it is seldom needed.
#[inline(never)]
pub fn count(loss: Loss) {
    if let Some(entry) = LEDGER.get_ptr_mut(loss as u32) {
        // SAFETY: this CPU's own entry. Programs on one CPU may interrupt each other, and two of them may
        // count the same loss: hence the atomic addition.
        unsafe { atomic_add(entry, 1) };
    }
}

/// Counts in the ledger by a plain addition: where the programs that count this loss cannot interrupt each
/// other on a CPU.
#[inline(always)]
pub fn count_alone(loss: Loss) {
    if let Some(entry) = LEDGER.get_ptr_mut(loss as u32) {
        // SAFETY: this CPU's own entry, and by the caller's word nobody is in the midst of writing it.
        unsafe { *entry += 1 };
    }
}

/// As [`count_alone`], in a row of its own: for programs that may interrupt those that use that.
#[inline(always)]
pub fn count_inside(loss: Loss) {
    if let Some(entry) = LEDGER.get_ptr_mut(LOSSES as u32 + loss as u32) {
        // SAFETY: as in `count_alone`.
        unsafe { *entry += 1 };
    }
}

/// Adds atomically, without an answer: the form that every kernel's JIT has.
///
/// # Safety
/// `place` is valid for writing.
#[inline(always)]
pub unsafe fn atomic_add(place: *mut u64, value: u64) {
    // SAFETY: by this function's contract.
    unsafe {
        core::intrinsics::atomic_xadd::<u64, u64, { core::intrinsics::AtomicOrdering::Relaxed }>(
            place, value,
        )
    };
}

/// The slot of a series, which it gets here if it is new.
#[inline(always)]
pub fn slot(key: &Key) -> u32 {
    match SERIES.get_ptr(key) {
        // SAFETY: the kernel gave the pointer; entries are never removed.
        Some(slot) => unsafe { *slot },
        None => new_slot(key),
    }
}

#[inline(never)]
fn new_slot(key: &Key) -> u32 {
    if let Ok(Some(slot)) = FREE.pop() {
        if SERIES.insert(key, slot, BPF_NOEXIST.into()).is_ok() {
            return slot;
        }
        // Another CPU was first, or the table is full after all.
        let _full = FREE.push(slot, 0);
        if let Some(slot) = SERIES.get_ptr(key) {
            // SAFETY: as above.
            return unsafe { *slot };
        }
    }
    count(Loss::Other);
    OTHER
}

/// This CPU's histograms of a series.
///
/// Recording is a plain addition: the kernel does not run a program on a CPU on which it is already running,
/// and each metric is recorded by one program only.
pub struct Row(&'static mut Block<{ crate::METRICS }>);

/// The histograms of `slot` on this CPU.
#[inline(always)]
pub fn row(slot: u32) -> Option<Row> {
    // SAFETY: a helper without arguments.
    row_of(slot, unsafe { bpf_get_smp_processor_id() })
}

/// The histograms of `slot` on this CPU, whose number is known.
#[inline(always)]
pub fn row_of(slot: u32, cpu: u32) -> Option<Row> {
    let block = HISTOGRAMS.get_ptr_mut(slot * CPUS.load() as u32 + cpu)?;
    // SAFETY: the kernel gave the pointer, to histograms that no other CPU writes.
    Some(Row(unsafe { &mut *block }))
}

impl Row {
    /// Records one value.
    #[inline(always)]
    pub fn record(&mut self, metric: usize, value: u64) {
        let exact = &mut self.0.exact[metric];
        exact.sum += value;
        if value > exact.max {
            exact.max = value;
        }
        // Opaque to LLVM, which otherwise rewrites the comparison into one that the verifier learns nothing
        // from.
        let mut index = opaque(bucket::index(value).into()) as usize;
        if index >= BUCKETS {
            count(Loss::Overflowed);
            index = BUCKETS - 1;
        }
        // SAFETY: just checked.
        unsafe { *self.0.counts[metric].get_unchecked_mut(index) += 1 };
    }

    /// Records one value below [`bucket::SHORT`], without a branch: where many are recorded in a loop, the verifier goes every
    /// way through all of them.
    #[inline(always)]
    pub fn record_short(&mut self, metric: usize, value: u64) {
        let exact = &mut self.0.exact[metric];
        exact.sum += value;
        // All bits where the value is larger. Opaque to LLVM, which otherwise makes a branch of it.
        let larger = opaque((exact.max.wrapping_sub(value) as i64 >> 63) as u64);
        exact.max ^= (exact.max ^ value) & larger;
        // As above.
        let index = opaque(bucket::index(value).into()) as usize & (bucket::SHORT_BUCKETS - 1);
        // SAFETY: just bounded, and below `BUCKETS`.
        unsafe { *self.0.counts[metric].get_unchecked_mut(index) += 1 };
    }

    /// Records a time span, unless its end lies before its start.
    #[inline(always)]
    pub fn record_span(&mut self, metric: usize, start_ns: u64, end_ns: u64) {
        let span = end_ns.wrapping_sub(start_ns);
        if (span as i64) < 0 {
            return count(Loss::Negative);
        }
        self.record(metric, span);
    }
}

/// Records one value in a series.
#[inline(always)]
pub fn record(slot: u32, metric: usize, value: u64) {
    match row(slot) {
        Some(mut row) => row.record(metric, value),
        None => count(Loss::Lost),
    }
}

/// Records a time span in a series, unless its end lies before its start.
#[inline(always)]
pub fn record_span(slot: u32, metric: usize, start_ns: u64, end_ns: u64) {
    match row(slot) {
        Some(mut row) => row.record_span(metric, start_ns, end_ns),
        None => count(Loss::Lost),
    }
}
