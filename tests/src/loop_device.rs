//! A block device of our own, where there is no other to spare.

use std::{
    fs::{self, File},
    os::fd::AsRawFd as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, ensure};

/// `include/uapi/linux/loop.h`.
const LOOP_SET_FD: libc::Ioctl = 0x4C00;
const LOOP_CLR_FD: libc::Ioctl = 0x4C01;
const LOOP_CTL_GET_FREE: libc::Ioctl = 0x4C82;

/// A device whose bytes are a file's. Dropping it frees the device.
pub struct LoopDevice {
    device: File,
    path: PathBuf,
}

impl LoopDevice {
    /// Makes the file too, of 1 MiB.
    ///
    /// # Errors
    /// There is no driver, or no device is free.
    pub fn new(file: &Path) -> Result<Self> {
        fs::write(file, vec![7; 1 << 20])?;
        let open = |path: &Path| {
            let opened = File::options().read(true).write(true).open(path);
            opened.with_context(|| format!("failed to open {}", path.display()))
        };
        let control = open(Path::new("/dev/loop-control"))?;
        // SAFETY: no argument is read.
        let number = unsafe { libc::ioctl(control.as_raw_fd(), LOOP_CTL_GET_FREE) };
        ensure!(number >= 0, "failed to find a free loop device");
        let path = PathBuf::from(format!("/dev/loop{number}"));
        let (device, bytes) = (open(&path)?, open(file)?);
        // SAFETY: two open descriptors.
        let set = unsafe { libc::ioctl(device.as_raw_fd(), LOOP_SET_FD, bytes.as_raw_fd()) };
        let cause = std::io::Error::last_os_error();
        ensure!(set == 0, "failed to set up {}: {cause}", path.display());
        Ok(Self { device, path })
    }

    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for LoopDevice {
    fn drop(&mut self) {
        // SAFETY: an open descriptor; no argument is read.
        if unsafe { libc::ioctl(self.device.as_raw_fd(), LOOP_CLR_FD) } != 0 {
            println!("{} is left", self.path.display());
        }
    }
}
