//! System calls of a known number, by a command of its own.

use std::{
    ffi::CString,
    fs,
    os::{
        fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
    path::Path,
    time::Instant,
};

use anyhow::{Result, bail, ensure};

/// Runs `work` in a thread whose command is `comm`.
///
/// # Errors
/// Those of `work`.
pub fn as_command<T: Send>(comm: &str, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    let name = CString::new(comm)?;
    std::thread::scope(|scope| {
        scope
            .spawn(|| {
                // SAFETY: a C string for the time of the call, which copies it.
                unsafe { libc::prctl(libc::PR_SET_NAME, name.as_ptr()) };
                work()
            })
            .join()
            .map_err(|_| anyhow::anyhow!("the thread {comm} panicked"))?
    })
}

/// A file opened for reading and writing, and its path.
pub struct Target {
    fd: OwnedFd,
    path: CString,
}

impl Target {
    /// With one page in it.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn new(path: &Path) -> Result<Self> {
        fs::write(path, [0; 4096])?;
        let file = fs::File::options().read(true).write(true).open(path)?;
        Ok(Self {
            fd: file.into(),
            path: CString::new(path.as_os_str().as_bytes())?,
        })
    }

    /// In memory: fsync is nothing there, and nothing else is slow.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn in_memory() -> Result<Self> {
        // SAFETY: a C string; the descriptor is ours alone.
        let fd = unsafe {
            let fd = libc::memfd_create(c"iolag".as_ptr(), libc::MFD_CLOEXEC);
            ensure!(fd >= 0, "no file in memory");
            OwnedFd::from_raw_fd(fd)
        };
        let path = CString::new(format!("/proc/self/fd/{}", fd.as_raw_fd()))?;
        let target = Self { fd, path };
        target.times("write", 1)?;
        Ok(target)
    }

    /// `count` plain system calls, and how long each took by the caller's clock (ns).
    ///
    /// # Errors
    /// One of them fails.
    pub fn times(&self, op: &str, count: usize) -> Result<Vec<u64>> {
        let fd = self.fd.as_raw_fd();
        let mut byte = 0u8;
        let mut times = Vec::with_capacity(count);
        for _ in 0..count {
            let start = Instant::now();
            // SAFETY: one byte is readable and writable, the path is a C string, the descriptor is open.
            let result = unsafe {
                match op {
                    "read" => libc::pread(fd, (&raw mut byte).cast(), 1, 0),
                    "write" => libc::pwrite(fd, (&raw const byte).cast(), 1, 0),
                    "fsync" => libc::fsync(fd) as isize,
                    "fdatasync" => libc::fdatasync(fd) as isize,
                    "open" => {
                        let opened = libc::open(self.path.as_ptr(), libc::O_RDONLY);
                        if opened >= 0 {
                            drop(OwnedFd::from_raw_fd(opened));
                        }
                        opened as isize
                    }
                    other => bail!("no operation {other}"),
                }
            };
            times.push(start.elapsed().as_nanos() as u64);
            ensure!(
                result >= 0,
                "{op} failed: {}",
                std::io::Error::last_os_error()
            );
        }
        Ok(times)
    }
}
