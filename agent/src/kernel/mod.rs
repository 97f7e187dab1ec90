//! The only place that knows aya: loads objects, attaches programs, reads and writes maps.

mod attach;
mod delay;
mod empty;
mod hook;
mod measure;
mod prog_info;
mod prompt_end;
mod types;

pub use delay::{DelayProbe, KernelLog, Sample};
pub use empty::{EmptyProbe, measure_programs};
pub use measure::{Counts, HostTypes, MeasureProbe, RawSeries};
pub use prog_info::ProgStats;
pub use prompt_end::PromptEnd;

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
