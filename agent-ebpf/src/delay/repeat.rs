//! Repeating. Since Linux 5.17 a helper does it (`bpf_loop`), and the verifier looks at a round once; before, it goes
//! through every round that there can be.

use core::ffi::c_void;

use aya_ebpf::helpers::generated::bpf_loop;

use crate::BOUNDED;

/// What is done in each round to a state.
pub trait Round {
    /// Whether to end.
    fn round(&mut self) -> bool;
}

/// At most `rounds` rounds.
#[inline(always)]
pub fn repeat<S: Round>(rounds: u32, state: &mut S) {
    if BOUNDED {
        for _ in 0..rounds {
            if state.round() {
                return;
            }
        }
        return;
    }
    // SAFETY: `round` has the type that bpf_loop calls, and the state outlives the call.
    unsafe {
        bpf_loop(
            rounds,
            round::<S> as *mut c_void,
            (&raw mut *state).cast(),
            0,
        );
    }
}

unsafe extern "C" fn round<S: Round>(_index: u64, state: *mut c_void) -> i64 {
    // SAFETY: bpf_loop passes on the pointer that `repeat` gave it: a live state on its caller's stack.
    unsafe { &mut *state.cast::<S>() }.round().into()
}
