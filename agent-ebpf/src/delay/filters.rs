//! Which rules a hit satisfies. Each kind of filter is one look-up for all rules.

use agent_common::{
    catalogue::slot,
    probes::block::op,
    rules::{COMM, Control, Kind, Maybe, Quick, Set, Wanted, maybe, power},
};
use aya_ebpf::{
    helpers::{bpf_get_current_pid_tgid, bpf_get_current_uid_gid, generated::bpf_get_current_comm},
    macros::map,
    maps::{Array, HashMap},
};

use super::{
    CONTROL, GIVEN, cgroups,
    kernel::offsets,
    owners,
    subject::{Given, Subject},
    tasks,
    tree::above,
};

/// What filters ask for, and the rules that do.
#[map]
static WANTED: HashMap<Wanted, Set> = HashMap::with_max_entries(16_384, 0);

#[inline(always)]
pub fn wanted(key: &Wanted) -> Set {
    // SAFETY: a word.
    unsafe { WANTED.get(key) }.copied().unwrap_or(0)
}

/// Which values anybody may want, in the agent's words and in those of forks.
#[map]
static MAYBE: Array<Maybe> = Array::with_max_entries(2, 0);

/// Whether any rule may want that value: a no is certain. Costs a tenth of a look-up in `WANTED`.
#[inline(always)]
pub fn is_wanted(kind: Quick, value: u64, more: u64) -> bool {
    let place = maybe(kind, value, more);
    let is_set = |entry: u32| {
        MAYBE
            .get(entry)
            .is_some_and(|table| table.get(place).is_some_and(|set| *set != 0))
    };
    is_set(0) || (matches!(kind, Quick::Pid) && is_set(1))
}

/// The current task's command, as filters ask for it. As two words from the start: those of an array of bytes would be
/// put together byte by byte, which costs more than the helper.
#[inline(always)]
pub fn current_comm() -> Wanted {
    let mut words = [0u64; 2];
    // SAFETY: the helper writes no more than it is told, and fills what is left with zeroes.
    unsafe { bpf_get_current_comm(words.as_mut_ptr().cast(), COMM as u32) };
    Wanted::new(Kind::Comm, u64::from_le(words[0]), u64::from_le(words[1]))
}

/// Has a process be wanted that was forked.
#[inline(always)]
pub fn want_process(group: u32) {
    if let Some(table) = MAYBE.get_ptr_mut(1) {
        // SAFETY: the kernel gave the pointer, and a byte is written as a whole.
        if let Some(entry) = unsafe { (*table).get_mut(maybe(Quick::Pid, group.into(), 0)) } {
            *entry = 1;
        }
    }
}

/// Those of `rules` that have no filter of that kind, or one that is satisfied by what `found` finds.
#[inline(always)]
fn keep(control: &Control, rules: Set, kind: Kind, found: impl FnOnce() -> Set) -> Set {
    let by = rules & control.by[kind as usize];
    if by == 0 {
        return rules;
    }
    rules & (!by | found())
}

/// Whether a size is between the smallest and the largest that rules are for.
#[inline(always)]
pub fn may_be_of_size(control: &Control, size: u64) -> bool {
    control.size_min <= size && size <= control.size_max
}

/// Those of `rules` that are for a size, as far as its power of two tells.
#[inline(always)]
pub fn of_size(control: &Control, rules: Set, size: u64) -> Set {
    keep(control, rules, Kind::Size, || {
        if !may_be_of_size(control, size) {
            return 0;
        }
        // At most 64 by its definition, which the verifier does not follow, and so LLVM must not know it.
        let power = agent_ebpf::opaque(power(size)) as usize;
        control.sizes.get(power).copied().unwrap_or(0)
    })
}

/// Those of `rules` at a slot whose filters are all satisfied, but for sizes. A global function, see `ruled`.
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn matching(slot_given: u32, rules: u64, word: u64) -> u64 {
    let point = slot_given & ((1 << GIVEN) - 1);
    let (control, offsets) = (CONTROL.get(), offsets());
    let mut rules = rules;
    let subject = Subject::new(Given::from(slot_given >> GIVEN), word);
    rules = keep(control, rules, Kind::Op, || {
        let place = subject.op(offsets, point);
        if place < op::COUNT {
            control.ops[place as usize]
        } else {
            0
        }
    });
    if point == slot::BLOCK_ISSUE {
        let owned = rules & control.owned;
        if owned != 0 {
            rules &= !owned | owners::of(control, offsets, subject.request());
        }
    } else if rules & control.by_task != 0 {
        rules &= of_task(rules, 0);
    }
    if rules == 0 {
        return 0;
    }
    rules = keep(control, rules, Kind::Device, || {
        let (first, second) = subject.devices(offsets);
        let of = |device: u32| {
            if device == 0 || !is_wanted(Quick::Device, device.into(), 0) {
                return 0;
            }
            wanted(&Wanted::new(Kind::Device, device.into(), 0))
        };
        of(first) | of(second)
    });
    let under = rules & control.by[Kind::Under as usize];
    if under != 0 {
        let (dentry, mount) = subject.path(offsets);
        rules &= !under | above(dentry, mount, under);
    }
    rules
}

/// Those of `rules` whose filters by task the current one satisfies, which submits `bio` if that is not 0. A global
/// function, see `ruled`.
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn of_task(rules: u64, bio: u64) -> u64 {
    let (control, offsets) = (CONTROL.get(), offsets());
    let mut rules = rules;
    rules = keep(control, rules, Kind::Uid, || {
        wanted(&Wanted::new(
            Kind::Uid,
            bpf_get_current_uid_gid() & 0xffff_ffff,
            0,
        ))
    });
    rules = keep(control, rules, Kind::Pid, || {
        tasks::rules_of((bpf_get_current_pid_tgid() >> 32) as u32)
    });
    rules = keep(control, rules, Kind::Comm, || wanted(&current_comm()));
    keep(control, rules, Kind::Cgroup, || {
        cgroups::current(offsets, bio)
    })
}
