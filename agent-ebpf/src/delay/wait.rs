//! The wait: the one place where time is spent on purpose. A wait that sleeps would go here.

use aya_ebpf::helpers::bpf_ktime_get_ns;

use super::repeat::{Round, repeat};
use crate::BOUNDED;

/// `bpf_loop` refuses more rounds than this (`BPF_MAX_LOOPS`, `include/linux/bpf.h`).
const ROUNDS: u32 = 1 << 23;
/// Calls of `bpf_loop`. A round takes about 25 ns, so one call waits about 200 ms; a second needs
/// five such calls, or thirty where a round takes no more than 4 ns.
const CALLS: u32 = 32;

/// Without `bpf_loop` the verifier goes through each round, so there cannot be many in a function. But it goes through a
/// global function once, however often that is called: so each of these calls the one before. With 4 ns a round they
/// reach to 512 ns, 66 us, 8 ms and a second.
const PER_LEVEL: u32 = 128;

/// State of a wait, and its result.
struct Spin {
    deadline_ns: u64,
    now_ns: u64,
}

impl Round for Spin {
    #[inline(always)]
    fn round(&mut self) -> bool {
        // SAFETY: a helper without arguments.
        self.now_ns = unsafe { bpf_ktime_get_ns() };
        self.now_ns >= self.deadline_ns
    }
}

/// Spins until `CLOCK_MONOTONIC` passes `deadline_ns` and returns the time that it read last:
/// at or past the deadline, or before it if the loop's bound was reached first.
///
/// A program at a kprobe, an fentry trampoline or a tracepoint cannot sleep, so the CPU is burnt.
#[inline(always)]
pub fn until(deadline_ns: u64) -> u64 {
    if BOUNDED {
        return calls(PER_LEVEL, deadline_ns, || spin_8ms(deadline_ns));
    }
    calls(CALLS, deadline_ns, || spin(ROUNDS, deadline_ns))
}

/// Calls until the deadline, at most so often.
#[inline(always)]
fn calls(at_most: u32, deadline_ns: u64, spin: impl Fn() -> u64) -> u64 {
    let mut now_ns = 0;
    for _ in 0..at_most {
        now_ns = spin();
        if now_ns >= deadline_ns {
            break;
        }
    }
    now_ns
}

#[inline(always)]
fn spin(rounds: u32, deadline_ns: u64) -> u64 {
    let mut spin = Spin {
        deadline_ns,
        now_ns: 0,
    };
    repeat(rounds, &mut spin);
    spin.now_ns
}

/// As [`until`], for so long at least, or to the deadline.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn spin_8ms(deadline_ns: u64) -> u64 {
    calls(PER_LEVEL, deadline_ns, || spin_66us(deadline_ns))
}

/// As above.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn spin_66us(deadline_ns: u64) -> u64 {
    calls(PER_LEVEL, deadline_ns, || spin_512ns(deadline_ns))
}

/// As above.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn spin_512ns(deadline_ns: u64) -> u64 {
    spin(PER_LEVEL, deadline_ns)
}
