//! The eBPF programs and links that the kernel holds, by its own lists.

use std::{
    io,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};

/// `BPF_PROG_GET_NEXT_ID` of `enum bpf_cmd` (`include/uapi/linux/bpf.h`).
const BPF_PROG_GET_NEXT_ID: libc::c_int = 11;

/// `BPF_LINK_GET_NEXT_ID`, likewise.
const BPF_LINK_GET_NEXT_ID: libc::c_int = 31;

/// The ids of all loaded programs.
///
/// # Errors
/// The caller may not ask (needs root).
pub fn loaded() -> Result<Vec<u32>> {
    ids(BPF_PROG_GET_NEXT_ID)
}

/// The ids of all links: what is attached. A program is freed some RCU grace periods after its last
/// link went, and no longer runs in that time.
///
/// # Errors
/// The caller may not ask (needs root).
pub fn links() -> Result<Vec<u32>> {
    ids(BPF_LINK_GET_NEXT_ID)
}

fn ids(command: libc::c_int) -> Result<Vec<u32>> {
    let mut ids = Vec::new();
    // `start_id`, `next_id` and `open_flags` of `union bpf_attr`.
    let mut attr = [0u32; 3];
    loop {
        // SAFETY: the kernel reads and writes the three words of `attr` that it is given.
        let result = unsafe {
            libc::syscall(
                libc::SYS_bpf,
                command,
                attr.as_mut_ptr(),
                size_of_val(&attr),
            )
        };
        if result < 0 {
            let error = io::Error::last_os_error();
            return match error.raw_os_error() {
                Some(libc::ENOENT) => Ok(ids),
                _ => Err(error.into()),
            };
        }
        ids.push(attr[1]);
        attr[0] = attr[1];
    }
}

/// How long until `list` has nothing that is not in `before`.
///
/// # Errors
/// There still is something after `limit`.
pub fn wait_gone(
    list: fn() -> Result<Vec<u32>>,
    before: &[u32],
    limit: Duration,
) -> Result<Duration> {
    let start = Instant::now();
    loop {
        let left: Vec<u32> = list()?
            .into_iter()
            .filter(|id| !before.contains(id))
            .collect();
        if left.is_empty() {
            return Ok(start.elapsed());
        }
        if start.elapsed() > limit {
            bail!("{left:?} are still there after {limit:?}");
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}
