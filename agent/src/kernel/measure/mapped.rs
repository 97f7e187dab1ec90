//! A map's memory, mapped to be read: a look-up of each entry would cost a system call and two copies.

use std::os::fd::{AsFd as _, AsRawFd as _};

use anyhow::Context as _;
use aya::maps::MapData;

/// The first bytes of a mappable array, for as long as this lives. Pages of a mapping count as the process's own
/// memory, so none is kept.
pub struct Mapped {
    address: *mut libc::c_void,
    bytes: usize,
}

impl Mapped {
    /// Maps at least so many bytes of the map, `name` for errors.
    ///
    /// # Errors
    /// The kernel refuses it.
    pub fn new(map: &MapData, bytes: usize, name: &str) -> anyhow::Result<Self> {
        let bytes = bytes.next_multiple_of(crate::kernel::page_bytes() as usize);
        // SAFETY: a new mapping at an address that the kernel chooses.
        let address = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                bytes,
                libc::PROT_READ,
                libc::MAP_SHARED,
                map.fd().as_fd().as_raw_fd(),
                0,
            )
        };
        if address == libc::MAP_FAILED {
            return Err(std::io::Error::last_os_error())
                .with_context(|| format!("failed to map {name}"));
        }
        Ok(Self { address, bytes })
    }

    /// Where the map's first byte is, page aligned; valid for [`Self::bytes`] bytes while this lives. Programs go
    /// on writing there.
    pub fn address(&self) -> *const u8 {
        self.address.cast_const().cast()
    }

    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        // SAFETY: mapped by `new`, and nothing borrows from it.
        unsafe { libc::munmap(self.address, self.bytes) };
    }
}
