//! Who submitted a request. Whoever runs when it is issued may be anybody, so it is noted when the request is made,
//! which the submitter does: by the first `bio` of it, as that is what both tracepoints give.

use agent_common::rules::{Control, Owner};
use aya_ebpf::{macros::map, maps::LruHashMap};

use crate::{
    filters::of_task,
    kernel::{field, offsets},
};

#[map]
static OWNERS: LruHashMap<u64, Owner> = LruHashMap::with_max_entries(16_384, 0);

/// The current task gets a request for `bio`, or puts it in front of the others of a request, for which it stands
/// from then on.
#[inline(always)]
pub fn note(control: &Control, bio: u64) {
    let Some(offsets) = offsets() else {
        return;
    };
    let owner = Owner {
        rules: of_task(control, offsets, control.owned, bio),
        epoch: control.epoch,
    };
    // Without room nobody is noted, and the rules do not match.
    let _no_room = OWNERS.insert(bio, owner, 0);
}

/// Who submitted `request`; nobody, where that is not known: a flush of the disk's cache serves many.
#[inline(always)]
pub fn of(request: u64) -> Owner {
    let Some(offsets) = offsets() else {
        return Owner::default();
    };
    let bio: u64 = field(request, offsets.request_bio);
    if bio == 0 {
        return Owner::default();
    }
    // SAFETY: a value of two words; the bio was noted before its request was made.
    unsafe { OWNERS.get(bio) }.copied().unwrap_or_default()
}
