//! Perf events, at which kprobes, uprobes and counts of faults are.

use std::{
    io,
    os::fd::{FromRawFd as _, OwnedFd},
};

use aya_obj::generated::{
    PERF_FLAG_FD_CLOEXEC, perf_event_attr, perf_sw_ids::PERF_COUNT_SW_DUMMY, perf_type_id,
};

/// Whether the kernel lets this thread open any. Debian's does not without `CAP_SYS_ADMIN` where
/// `kernel.perf_event_paranoid` is above 2, which is its default.
#[must_use]
pub fn may_open_perf_events() -> bool {
    // SAFETY: a plain structure, of which zeroes are a valid value.
    let mut event: perf_event_attr = unsafe { std::mem::zeroed() };
    event.type_ = perf_type_id::PERF_TYPE_SOFTWARE as u32;
    event.size = size_of::<perf_event_attr>() as u32;
    event.config = PERF_COUNT_SW_DUMMY as u64;
    let (any_process, first_cpu, no_group) = (-1, 0, -1);
    // SAFETY: `event` is there for the time of the call, and says its size.
    let opened = unsafe {
        libc::syscall(
            libc::SYS_perf_event_open,
            &raw const event,
            any_process,
            first_cpu,
            no_group,
            PERF_FLAG_FD_CLOEXEC,
        )
    };
    match i32::try_from(opened) {
        Ok(opened) if opened >= 0 => {
            // SAFETY: it was just opened, and nobody else owns it.
            drop(unsafe { OwnedFd::from_raw_fd(opened) });
            true
        }
        _ => {
            let refused = io::Error::last_os_error().raw_os_error();
            !matches!(refused, Some(libc::EACCES | libc::EPERM))
        }
    }
}
