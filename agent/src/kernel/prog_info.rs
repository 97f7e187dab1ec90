//! What the kernel says of a loaded program, beyond what aya reads.

use std::{
    io,
    mem::size_of,
    os::fd::{AsFd, AsRawFd as _},
};

use aya_obj::generated::{bpf_attr, bpf_cmd, bpf_prog_info};

/// The kernel's own counters of one program.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProgStats {
    /// Time in the program (ns); only while statistics are enabled.
    pub run_time_ns: u64,
    /// Runs (count); only while statistics are enabled.
    pub run_count: u64,
    /// Runs that the kernel skipped because a program was already running on that CPU (count).
    /// 0 before Linux 5.12, which does not count them.
    pub missed: u64,
}

/// Reads `struct bpf_prog_info` with `BPF_OBJ_GET_INFO_BY_FD`.
///
/// # Errors
/// The system call's own.
pub fn prog_stats(program: impl AsFd) -> io::Result<ProgStats> {
    // SAFETY: both are plain old data for which all zeroes is a value.
    let (mut info, mut attr) = unsafe {
        (
            std::mem::zeroed::<bpf_prog_info>(),
            std::mem::zeroed::<bpf_attr>(),
        )
    };
    attr.info.bpf_fd = program.as_fd().as_raw_fd() as u32;
    attr.info.info_len = size_of::<bpf_prog_info>() as u32;
    attr.info.info = (&raw mut info) as u64;
    // SAFETY: `attr` names a live descriptor and a buffer of the length it states; the kernel writes
    // no more than that.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            bpf_cmd::BPF_OBJ_GET_INFO_BY_FD,
            &raw mut attr,
            size_of::<bpf_attr>(),
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(ProgStats {
        run_time_ns: info.run_time_ns,
        run_count: info.run_cnt,
        missed: info.recursion_misses,
    })
}
