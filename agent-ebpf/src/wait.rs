//! The wait: the one place where time is spent on purpose. A wait that sleeps would go here.

use core::ffi::c_void;

use aya_ebpf::helpers::{bpf_ktime_get_ns, generated::bpf_loop};

/// `bpf_loop` refuses more rounds than this (`BPF_MAX_LOOPS`, `include/linux/bpf.h`).
const ROUNDS: u32 = 1 << 23;
/// Calls of `bpf_loop`. A round takes about 25 ns, so one call waits about 200 ms; a second needs
/// five such calls, or thirty where a round takes no more than 4 ns.
const CALLS: u32 = 32;

/// State of a wait, and its result.
pub struct Spin {
    deadline_ns: u64,
    now_ns: u64,
}

/// The body of the loop: 1 ends it.
unsafe extern "C" fn round(_index: u64, spin: *mut c_void) -> i64 {
    // SAFETY: bpf_loop passes on the pointer that `until` gave it: a live `Spin` on its stack.
    let spin = unsafe { &mut *spin.cast::<Spin>() };
    // SAFETY: a helper without arguments.
    spin.now_ns = unsafe { bpf_ktime_get_ns() };
    i64::from(spin.now_ns >= spin.deadline_ns)
}

/// Spins until `CLOCK_MONOTONIC` passes `deadline_ns` and returns the time that it read last:
/// at or past the deadline, or before it if the loop's bound was reached first.
///
/// A program at a kprobe, an fentry trampoline or a tracepoint cannot sleep, so the CPU is burnt.
#[inline(always)]
pub fn until(deadline_ns: u64) -> u64 {
    let mut spin = Spin {
        deadline_ns,
        now_ns: 0,
    };
    for _ in 0..CALLS {
        // SAFETY: `round` has the type that bpf_loop calls, and `spin` outlives the call.
        unsafe { bpf_loop(ROUNDS, round as *mut c_void, (&raw mut spin).cast(), 0) };
        if spin.now_ns >= deadline_ns {
            break;
        }
    }
    spin.now_ns
}
