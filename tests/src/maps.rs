//! The maps of a process, through the kernel's own lists.

use std::{
    fs, io,
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
};

use anyhow::{Context as _, Result};

use crate::programs::{command, object_info, text};

/// Of `enum bpf_cmd` (`include/uapi/linux/bpf.h`).
const BPF_MAP_GET_FD_BY_ID: libc::c_int = 14;
const BPF_MAP_FREEZE: libc::c_int = 22;

/// Has the kernel refuse the process any further change of its map of that name. Programs go on as ever.
///
/// # Errors
/// It has no such map; the caller may not (needs root).
pub fn freeze(pid: i32, name: &str) -> Result<()> {
    for entry in fs::read_dir(format!("/proc/{pid}/fdinfo"))? {
        // A descriptor may be closed meanwhile.
        let info = fs::read_to_string(entry?.path()).unwrap_or_default();
        let Some(id) = info.lines().find_map(|line| line.strip_prefix("map_id:")) else {
            continue;
        };
        let fd = command(BPF_MAP_GET_FD_BY_ID, &mut [id.trim().parse()?, 0, 0])?;
        // SAFETY: just opened, owned by nobody else.
        let map = unsafe { OwnedFd::from_raw_fd(fd) };
        if name_of(&map)? == name {
            command(BPF_MAP_FREEZE, &mut [map.as_raw_fd() as u32])?;
            return Ok(());
        }
    }
    None.with_context(|| format!("failed to find the map {name} of process {pid}"))
}

/// As in `struct bpf_map_info`.
fn name_of(map: &OwnedFd) -> io::Result<String> {
    /// Bytes of the structure up to and with `name`, and where that is.
    const LENGTH: usize = 40;
    const NAME: std::ops::Range<usize> = 24..40;
    let bytes: [u8; LENGTH] = object_info(map)?;
    Ok(text(&bytes[NAME]))
}
