//! The probe `delay`: waits at its points for as long as the rules in `CONTROL` and `RULES` say, and records each wait.

mod cgroups;
mod decide;
mod exempt;
mod filters;
mod functions;
mod hit;
mod kernel;
mod owners;
mod plausible;
mod programs;
mod repeat;
mod row;
mod subject;
mod tasks;
mod tree;
mod wait;

use agent_common::{
    bucket,
    catalogue::slot,
    pod::Counters,
    rules::{Control, Kind, SLOTS},
};
use agent_ebpf::Shared;
use aya_ebpf::{
    EbpfContext, Global,
    helpers::{bpf_get_current_pid_tgid, bpf_ktime_get_ns},
    macros::map,
    maps::PerCpuArray,
};
use aya_log_ebpf::trace;
use hit::Hit;
use subject::Given;

/// The agent's thread group in the initial PID namespace: it is never delayed.
#[unsafe(no_mangle)]
static AGENT_TGID: Global<u32> = Global::new(0);

#[unsafe(link_section = ".data.control")]
#[unsafe(no_mangle)]
static CONTROL: Shared<Control> = Shared::new(Control::NONE);

/// By slot.
#[map]
static COUNTERS: PerCpuArray<Counters> = PerCpuArray::with_max_entries(SLOTS as u32, 0);

/// `achieved - requested` in ns: `bucket::BUCKETS` counts for each slot.
#[map]
static ERRORS: PerCpuArray<u64> =
    PerCpuArray::with_max_entries((SLOTS * bucket::BUCKETS) as u32, 0);

/// One hit at the point `slot`, of what `word` is. All backends come here.
///
/// Where there is a rule for everybody, the clock is read before anything else, and all bookkeeping that need not know
/// the outcome comes before the wait: its time is then part of the wait. Where all rules have filters, the clock is read
/// once one is satisfied, as reading it costs as much as the filters do: what these take (some tens of ns; per directory
/// some more for `--under`) comes on top of the wait then.
#[inline(always)]
fn hit<C: EbpfContext>(ctx: &C, slot: u32, given: Given, word: impl FnOnce() -> (u64, u64)) {
    hit_with(ctx, CONTROL.get(), slot, given, word);
}

#[inline(always)]
fn hit_with<C: EbpfContext>(
    ctx: &C,
    control: &'static Control,
    slot: u32,
    given: Given,
    word: impl FnOnce() -> (u64, u64),
) {
    // Not `slot % SLOTS`: of what is left of a division the verifier of 6.1 knows no bound.
    let Some(rules) = control.at.get(slot as usize).copied() else {
        return;
    };
    // Of `CONTROL` one line of the cache is read where there are no rules.
    let start_ns = if rules == 0 || rules & !control.filtered == 0 {
        0
    } else {
        // SAFETY: a helper without arguments.
        unsafe { bpf_ktime_get_ns() }
    };
    let Some(counters) = COUNTERS.get_ptr_mut(slot) else {
        return;
    };
    // SAFETY: the kernel gave the pointer for this CPU, and a program is not re-entered on a CPU.
    let counters = unsafe { &mut *counters };
    let (task, group) = if rules != 0 && given.by_number() {
        kernel::current()
    } else {
        (0, (bpf_get_current_pid_tgid() >> 32) as u32)
    };
    if group == AGENT_TGID.load() {
        counters.exempt += 1;
        return;
    }
    counters.hits += 1;
    if rules == 0 {
        return;
    }
    let (rules, word, size) = if slot == slot::BLOCK_ISSUE {
        let rules = match rules & control.owned {
            0 => rules,
            // Whoever runs here need not be who submitted the request.
            owned if owners::nobody(control) => rules & !owned,
            _ => rules,
        };
        if rules == 0 {
            return;
        }
        let (word, size) = word();
        (plausible::of_request(control, rules, word), word, size)
    } else {
        let rules = match rules & control.by_task {
            0 => rules,
            _ if given.by_number() => plausible::of_task(control, rules, task, group),
            _ => plausible::plausible(rules, group),
        };
        if rules == 0 {
            return;
        }
        let (word, size) = word();
        let rules = match given {
            Given::Registers => plausible::of_call(control, rules, task, word),
            _ => rules,
        };
        (rules, word, size)
    };
    if rules != 0 {
        let slot_given = slot | (given as u32) << GIVEN;
        let waited_ns = ruled(slot_given, rules, start_ns, word, size);
        if waited_ns != 0 {
            trace!(ctx, "slot {}: waited {} ns", slot, waited_ns);
        }
    }
}

/// Where a [`Given`] is beside its slot, in one argument.
const GIVEN: u32 = 16;

/// The rest of a hit where there are rules; what was waited (ns).
///
/// Out of line, as a hit where there are none then has few instructions and little stack. (A program with 64 bytes or
/// more of it gets its stack elsewhere in memory since 6.13, which is one more line to miss in a cache.) This, and what
/// else has no mangled name here, is a global function to the verifier, which goes through it once, for any arguments,
/// and not once for each way that leads there.
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn ruled(slot_given: u32, rules: u64, start_ns: u64, word: u64, size: u64) -> u64 {
    let slot = slot_given & ((1 << GIVEN) - 1);
    let given = Given::from(slot_given >> GIVEN);
    let control = CONTROL.get();
    let (mut rules, mut size) = (rules, size);
    if rules & control.by[Kind::Size as usize] != 0 {
        size = subject::size(given, word, size);
        rules = filters::of_size(control, rules, size);
    }
    if rules & control.filtered != 0 {
        rules = filters::matching(slot_given, rules, word);
    }
    // Late, as it costs a read, and most hits are through before.
    if rules == 0 || given.by_number() && kernel::in_compat_call() {
        return 0;
    }
    serve(slot, rules, start_ns, size)
}

/// Waits as the rules say that a hit satisfies, and records it; what was waited (ns). `start_ns` is 0 if the clock was
/// not read yet. A function of its own, as all frames of a chain of calls have 512 bytes of stack, and the one through
/// the filters is long.
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn serve(slot: u32, rules: u64, start_ns: u64, size: u64) -> u64 {
    let start_ns = match start_ns {
        // SAFETY: a helper without arguments.
        0 => unsafe { bpf_ktime_get_ns() },
        start_ns => start_ns,
    };
    // What went since the filters were asked may have gone with its filters: nobody is delayed by it.
    // Masked, or the verifier knows no bound of the 64 bits that it becomes.
    let Some(still) = CONTROL.get().at.get((slot & ((1 << GIVEN) - 1)) as usize) else {
        return 0;
    };
    let mut hit = Hit::new(rules & *still, size, start_ns);
    hit.exempt = exempt::exempt_rules(slot);
    if row::can_be_at(slot) {
        hit.row = row::row_is_full() * decide::ROW;
    }
    hit.ask();
    if hit.granted == 0 {
        return 0;
    }
    let Some(counters) = COUNTERS.get_ptr_mut(slot) else {
        return 0;
    };
    // SAFETY: as in `hit_with`.
    let counters = unsafe { &mut *counters };
    let wait_ns = hit.wait_ns;
    counters.delayed += 1;
    counters.requested_ns += wait_ns;
    let achieved_ns = wait::until(start_ns + wait_ns).wrapping_sub(start_ns);
    record(counters, slot, wait_ns, achieved_ns);
    hit.finish(achieved_ns);
    if row::can_be_at(slot) {
        row::waited(achieved_ns);
    }
    achieved_ns
}

/// Records the outcome of a wait.
#[inline(always)]
fn record(counters: &mut Counters, slot: u32, delay_ns: u64, achieved_ns: u64) {
    counters.achieved_ns += achieved_ns;
    if achieved_ns < delay_ns {
        counters.short += 1;
        return;
    }
    let error_ns = achieved_ns - delay_ns;
    if error_ns > counters.error_max_ns {
        counters.error_max_ns = error_ns;
    }
    // A look-up by key, not an index into one large value: LLVM drops the mask of an index that it
    // can prove to be small, and the verifier then refuses the access.
    if let Some(count) = ERRORS.get_ptr_mut(slot * bucket::BUCKETS as u32 + bucket::index(error_ns))
    {
        // SAFETY: as for `counters`.
        unsafe { *count += 1 };
    }
}
