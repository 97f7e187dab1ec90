//! Work that comes by at every point and in every probe.

use std::{
    fs::{self, File, OpenOptions},
    io::{Read as _, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    sync::atomic::{AtomicU64, Ordering},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result};

use crate::guest;

/// Names that nobody looked up before.
static NEXT: AtomicU64 = AtomicU64::new(0);
/// A block of the disk, and a page.
const BLOCK: usize = 4096;

/// A memory for direct reads has to begin at a multiple of its size.
#[repr(align(4096))]
struct Aligned([u8; BLOCK]);

/// A file of its own, written, synced, opened and read; a directory that nobody knew; a direct read of the disk; a major
/// fault; a sleep.
pub fn pass() -> Result<()> {
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let path = format!(
        "{}/everywhere-{}-{number}",
        guest::MOUNT,
        std::process::id()
    );
    // Each lookup of a name that nobody knows misses the cache.
    let _no_such_file = fs::metadata(format!("{path}-no-such-file"));
    let mut file = File::create(&path).with_context(|| format!("failed to make {path}"))?;
    file.write_all(&[1; BLOCK])?;
    file.sync_all()?;
    let mut bytes = Vec::new();
    File::open(&path)?.read_to_end(&mut bytes)?;
    major_fault(&File::open(&path)?)?;
    let direct = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_DIRECT)
        .open(guest::DISK);
    let mut block = Box::new(Aligned([0; BLOCK]));
    direct
        .context("failed to open the disk")?
        .read_exact(&mut block.0)?;
    fs::remove_file(&path)?;
    thread::sleep(Duration::from_millis(2));
    Ok(())
}

/// Reads a page of a file through a mapping, after the kernel was told to forget it.
fn major_fault(file: &File) -> Result<()> {
    use std::os::fd::AsRawFd as _;
    // SAFETY: the descriptor is open; the call takes no memory of ours.
    unsafe { libc::posix_fadvise(file.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED) };
    // SAFETY: a new mapping, at a place of the kernel's choice, which nobody else has.
    unsafe {
        let page = libc::mmap(
            std::ptr::null_mut(),
            BLOCK,
            libc::PROT_READ,
            libc::MAP_PRIVATE,
            file.as_raw_fd(),
            0,
        );
        anyhow::ensure!(
            page != libc::MAP_FAILED,
            "failed to map a file: {}",
            std::io::Error::last_os_error()
        );
        std::ptr::read_volatile(page.cast::<u8>());
        libc::munmap(page, BLOCK);
    }
    Ok(())
}
