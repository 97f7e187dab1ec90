//! Who submitted a request. Whoever runs when it is issued may be anybody, so it is noted when the request is made,
//! which the submitter does: by the first `bio` of it, as that is what both tracepoints give.

use agent_common::{
    offsets::Offsets,
    rules::{Control, Owner, Set},
};
use aya_ebpf::{
    macros::map,
    maps::{Array, LruHashMap},
};

use super::{filters::of_task, kernel::field, tasks::count_untracked};

#[map]
static OWNERS: LruHashMap<u64, Owner> = LruHashMap::with_max_entries(16_384, 0);

/// The epoch in which somebody was noted last. In another, nobody needs to be looked for.
#[map]
static SEEN: Array<u64> = Array::with_max_entries(1, 0);

/// The current task gets a request for `bio`, or puts it in front of the others of a request, for which it stands
/// from then on.
#[inline(always)]
pub fn note(control: &Control, bio: u64) {
    let rules = of_task(control.owned, bio);
    let Some(seen) = SEEN.get_ptr_mut(0) else {
        return;
    };
    // SAFETY: the kernel gave the pointer; a word is read and written as a whole.
    unsafe {
        if rules != 0 {
            *seen = control.epoch;
        } else if *seen != control.epoch {
            // Nobody was noted yet, so nobody has to be forgotten.
            return;
        }
    }
    let owner = Owner {
        rules,
        epoch: control.epoch,
    };
    if OWNERS.insert(bio, owner, 0).is_err() {
        count_untracked();
    }
}

/// Whether nobody who satisfies a rule's filters by task has submitted a request since the rules changed.
#[inline(always)]
pub fn nobody(control: &Control) -> bool {
    SEEN.get(0).is_none_or(|seen| *seen != control.epoch)
}

/// The rules that whoever submitted `request` satisfies. None, where that is not known: a flush of the disk's cache
/// serves many; and none if the rules changed since, as a place may be another rule's.
///
/// It is forgotten with the answer: the memory of a `bio` is used again, and where a kernel does not run the program
/// for who has it next, that one would be taken for the one before.
#[inline(always)]
pub fn of(control: &Control, offsets: &Offsets, request: u64) -> Set {
    let bio: u64 = field(request, offsets.request_bio);
    // SAFETY: a value of two words; the bio was noted before its request was made.
    let rules = match unsafe { OWNERS.get(bio) } {
        Some(owner) if owner.epoch == control.epoch => owner.rules,
        Some(_) => 0,
        None => return 0,
    };
    let _gone = OWNERS.remove(bio);
    rules
}
