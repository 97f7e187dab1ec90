//! The only place that knows aya: loads objects, attaches programs, reads and writes maps.

mod attach;
pub mod btf;
mod delay;
mod empty;
mod hook;
mod host_types;
mod loaded;
mod loader;
mod measure;
mod patched;
mod perf;
mod prog_info;
mod prompt_end;
mod types;

use std::{sync::mpsc, thread, time::Duration};

pub use delay::{
    Attached, DelayProbe, DelayTrial, Fields, KernelLog, RuleMaps, RuleSample, Sample, WantedSets,
};
pub use empty::{EmptyProbe, measure_programs};
pub use host_types::{HostTypes, ReadingTypes};
pub use loaded::{TracingProgram, tracing_programs};
pub use measure::{Counts, EventRing, MeasureProbe, RawSeries, Tasks};
pub use perf::may_open_perf_events;
pub use prog_info::ProgStats;
pub use prompt_end::PromptEnd;

/// The time of day, in ns since 1970, at which [`now_ns`] was 0, by the clocks of this moment.
#[must_use]
pub fn boot_unix_ns() -> u64 {
    let unix = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap_or_default();
    (unix.as_nanos() as u64).saturating_sub(now_ns())
}

/// Waits until all programs are through that run now, but not for long ones: they run under RCU's lock.
pub fn wait_for_programs() {
    /// A program that takes longer is in its wait, with which it ends. The lease has to be renewed meanwhile.
    const PATIENCE: Duration = Duration::from_secs(1);
    /// Where the call is refused, as where CPUs run without ticks (nohz_full): a program takes far less without its wait.
    const INSTEAD: Duration = Duration::from_millis(20);
    let (through, all) = mpsc::channel();
    let waiting = thread::Builder::new().spawn(move || {
        // SAFETY: it has no memory to harm; it waits for an RCU grace period (`kernel/sched/membarrier.c`).
        let waited = unsafe { libc::syscall(libc::SYS_membarrier, MEMBARRIER_CMD_GLOBAL, 0, 0) };
        let _impatient = through.send(waited == 0);
    });
    let through = waiting.map_or(Ok(false), |_| all.recv_timeout(PATIENCE));
    if through == Ok(false) {
        thread::sleep(INSTEAD);
    }
}

/// Of `enum membarrier_cmd` (`include/uapi/linux/membarrier.h`).
const MEMBARRIER_CMD_GLOBAL: libc::c_int = 1;

/// Bytes of a page.
#[must_use]
pub fn page_bytes() -> u64 {
    // SAFETY: sysconf has no preconditions.
    unsafe { libc::sysconf(libc::_SC_PAGESIZE) as u64 }
}

/// `CLOCK_MONOTONIC` in ns: the clock of `bpf_ktime_get_ns`.
#[must_use]
pub fn now_ns() -> u64 {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `time` is valid for writing, and the clock exists on every Linux.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time) };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}
