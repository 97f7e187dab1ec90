//! The eBPF programs, maps and links that the kernel holds, by its own lists.

use std::{
    collections::BTreeSet,
    fs, io,
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
    time::{Duration, Instant},
};

use anyhow::{Result, bail};

/// `BPF_PROG_GET_NEXT_ID` of `enum bpf_cmd` (`include/uapi/linux/bpf.h`).
const BPF_PROG_GET_NEXT_ID: libc::c_int = 11;

/// `BPF_MAP_GET_NEXT_ID`, likewise.
const BPF_MAP_GET_NEXT_ID: libc::c_int = 12;

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

/// The ids of all maps.
///
/// # Errors
/// The caller may not ask (needs root).
pub fn maps() -> Result<Vec<u32>> {
    ids(BPF_MAP_GET_NEXT_ID)
}

fn ids(next: libc::c_int) -> Result<Vec<u32>> {
    let mut ids = Vec::new();
    // `start_id`, `next_id` and `open_flags` of `union bpf_attr`.
    let mut attr = [0u32; 3];
    loop {
        match command(next, &mut attr) {
            Ok(_) => {}
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => return Ok(ids),
            Err(error) => return Err(error.into()),
        }
        ids.push(attr[1]);
        attr[0] = attr[1];
    }
}

/// What the kernel says of a program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Info {
    /// The first 15 bytes of its name.
    pub name: String,
    /// Instructions that the verifier went through to accept it; 0 before Linux 5.16, which does not tell.
    pub verified: u32,
}

/// `BPF_PROG_GET_FD_BY_ID` and `BPF_OBJ_GET_INFO_BY_FD`, as above.
const BPF_PROG_GET_FD_BY_ID: libc::c_int = 13;
const BPF_OBJ_GET_INFO_BY_FD: libc::c_int = 15;

/// Reads `struct bpf_prog_info` of a loaded program.
///
/// # Errors
/// It is gone, or the caller may not ask.
pub fn info(id: u32) -> Result<Info> {
    /// Bytes of the structure up to and with `verified_insns`, and where that and `name` are in it.
    const LENGTH: usize = 220;
    const VERIFIED: usize = 216;
    const NAME: std::ops::Range<usize> = 64..79;
    let mut attr = [id, 0, 0];
    let fd = command(BPF_PROG_GET_FD_BY_ID, &mut attr)?;
    // SAFETY: just opened, owned by nobody else.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    let bytes: [u8; LENGTH] = object_info(&fd)?;
    Ok(Info {
        name: text(&bytes[NAME]),
        verified: u32::from_ne_bytes(bytes[VERIFIED..LENGTH].try_into()?),
    })
}

/// The first `LENGTH` bytes of what the kernel says of a program or map: `struct bpf_prog_info`, `struct bpf_map_info`.
pub(crate) fn object_info<const LENGTH: usize>(object: &OwnedFd) -> io::Result<[u8; LENGTH]> {
    let mut bytes = [0; LENGTH];
    let address = bytes.as_mut_ptr() as u64;
    // `bpf_fd`, `info_len` and `info`.
    let mut attr = [
        object.as_raw_fd() as u32,
        LENGTH as u32,
        address as u32,
        (address >> 32) as u32,
    ];
    command(BPF_OBJ_GET_INFO_BY_FD, &mut attr)?;
    Ok(bytes)
}

/// What stands before the first NUL.
pub(crate) fn text(bytes: &[u8]) -> String {
    let text = bytes.split(|byte| *byte == 0).next().unwrap_or(&[]);
    String::from_utf8_lossy(text).into_owned()
}

pub(crate) fn command(command: libc::c_int, attr: &mut [u32]) -> io::Result<i32> {
    // SAFETY: the kernel reads and writes the words of `attr`, and what they say that it may write.
    let result =
        unsafe { libc::syscall(libc::SYS_bpf, command, attr.as_mut_ptr(), size_of_val(attr)) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(result as i32)
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

/// The ids that live processes have open: of programs, maps or links, by the name that fdinfo has for them.
#[must_use]
pub fn held(id: &str) -> BTreeSet<u32> {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let descriptors = processes.flat_map(|process| {
        let names = fs::read_dir(process.path().join("fd"));
        let names = names.into_iter().flatten().flatten();
        names.map(move |name| {
            (
                name.path(),
                process.path().join("fdinfo").join(name.file_name()),
            )
        })
    });
    let ids = descriptors.filter_map(|(fd, info)| {
        let target = fs::read_link(fd).ok()?;
        target.to_str()?.strip_prefix("anon_inode:bpf")?;
        let info = fs::read_to_string(info).ok()?;
        let id = info.lines().find_map(|line| line.strip_prefix(id))?;
        id.trim().parse().ok()
    });
    ids.collect()
}
