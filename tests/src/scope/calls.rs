//! The calls that workers make.

use std::{
    ffi::{CStr, CString},
    fs::{File, OpenOptions},
    os::{
        fd::AsRawFd as _,
        unix::{ffi::OsStrExt as _, fs::OpenOptionsExt as _},
    },
    path::Path,
};

use anyhow::{Context as _, Result};

/// What direct I/O has its memory aligned to (bytes).
const ALIGNED: usize = 4096;

/// So many bytes, aligned for direct I/O.
struct Buffer(Vec<u8>);

impl Buffer {
    fn new(bytes: usize) -> Self {
        Self(vec![7; bytes + ALIGNED])
    }

    fn aligned(&mut self) -> *mut libc::c_void {
        let unused = self.0.as_ptr().align_offset(ALIGNED);
        self.0[unused..].as_mut_ptr().cast()
    }
}

fn open(path: &Path, options: &OpenOptions) -> Result<File> {
    options
        .open(path)
        .with_context(|| format!("failed to open {}", path.display()))
}

/// `read(2)` of a byte of `/dev/zero`.
///
/// # Errors
/// It cannot be opened.
pub fn zero() -> Result<impl FnMut(u32) -> bool + 'static> {
    let file = File::open("/dev/zero")?;
    Ok(move |_| {
        let mut byte = 0u8;
        // SAFETY: one byte of room.
        unsafe { libc::read(file.as_raw_fd(), (&raw mut byte).cast(), 1) == 1 }
    })
}

/// `pread64(2)` from the start of a file, of these sizes (bytes) in turn, and as many bytes have to be there.
///
/// # Errors
/// It cannot be opened.
pub fn read(path: &Path, sizes: &'static [usize]) -> Result<impl FnMut(u32) -> bool + 'static> {
    reads(open(path, File::options().read(true))?, sizes)
}

/// The same past the page cache.
///
/// # Errors
/// It cannot be opened.
pub fn read_direct(
    path: &Path,
    sizes: &'static [usize],
) -> Result<impl FnMut(u32) -> bool + 'static> {
    let direct = File::options()
        .read(true)
        .custom_flags(libc::O_DIRECT)
        .to_owned();
    reads(open(path, &direct)?, sizes)
}

fn reads(file: File, sizes: &'static [usize]) -> Result<impl FnMut(u32) -> bool + 'static> {
    let mut buffer = Buffer::new(largest(sizes));
    Ok(move |number| {
        let size = sizes[number as usize % sizes.len()];
        // SAFETY: the buffer has room for the largest of the sizes.
        let read = unsafe { libc::pread(file.as_raw_fd(), buffer.aligned(), size, 0) };
        read == size.cast_signed()
    })
}

/// `pwrite64(2)` to the start of a file, of these sizes (bytes) in turn.
///
/// # Errors
/// It cannot be opened.
pub fn write(path: &Path, sizes: &'static [usize]) -> Result<impl FnMut(u32) -> bool + 'static> {
    writes(open(path, File::options().write(true))?, sizes)
}

/// The same past the page cache.
///
/// # Errors
/// It cannot be opened.
pub fn write_direct(
    path: &Path,
    sizes: &'static [usize],
) -> Result<impl FnMut(u32) -> bool + 'static> {
    let direct = File::options()
        .write(true)
        .custom_flags(libc::O_DIRECT)
        .to_owned();
    writes(open(path, &direct)?, sizes)
}

fn writes(file: File, sizes: &'static [usize]) -> Result<impl FnMut(u32) -> bool + 'static> {
    let mut buffer = Buffer::new(largest(sizes));
    Ok(move |number| {
        let size = sizes[number as usize % sizes.len()];
        // SAFETY: the buffer is as large as the largest of the sizes.
        let wrote = unsafe { libc::pwrite(file.as_raw_fd(), buffer.aligned(), size, 0) };
        wrote == size.cast_signed()
    })
}

fn largest(sizes: &[usize]) -> usize {
    sizes.iter().copied().max().unwrap_or(0)
}

/// `openat(2)`, and a close.
///
/// # Errors
/// The path has a zero in it.
pub fn opening(path: &Path) -> Result<impl FnMut(u32) -> bool + 'static> {
    let path = c_path(path)?;
    Ok(move |_| {
        let file = open_raw(&path, libc::O_RDONLY);
        // SAFETY: a descriptor, or a number that is none.
        file >= 0 && unsafe { libc::close(file) } == 0
    })
}

/// `fsync(2)` and `fdatasync(2)` in turn.
///
/// # Errors
/// It cannot be opened.
pub fn sync(path: &Path) -> Result<impl FnMut(u32) -> bool + 'static> {
    let file = open(path, File::options().write(true))?;
    Ok(move |number| {
        // SAFETY: an open descriptor.
        let done = unsafe {
            match number % 2 {
                0 => libc::fsync(file.as_raw_fd()),
                _ => libc::fdatasync(file.as_raw_fd()),
            }
        };
        done == 0
    })
}

/// A 32-bit call, which a 64-bit program can make too, of a number by which 64-bit programs call something else. Its
/// arguments are zeroes, and its outcome is not looked at.
#[cfg(target_arch = "x86_64")]
pub fn of_32_bits(number: u32) -> impl FnMut(u32) -> bool + 'static {
    move |_| {
        // SAFETY: no memory is given. LLVM keeps rbx for itself, so it is saved by hand; the kernel clears r8 to r11.
        unsafe {
            std::arch::asm!(
                "mov {saved}, rbx", "xor ebx, ebx", "int 0x80", "mov rbx, {saved}",
                saved = out(reg) _,
                inout("rax") u64::from(number) => _,
                in("rcx") 0, in("rdx") 0, in("rsi") 0, in("rdi") 0,
                out("r8") _, out("r9") _, out("r10") _, out("r11") _,
            );
        }
        true
    }
}

/// There are none by other numbers.
#[cfg(not(target_arch = "x86_64"))]
pub fn of_32_bits(_number: u32) -> impl FnMut(u32) -> bool + 'static {
    |_| true
}

/// # Errors
/// The path has a zero in it.
pub fn c_path(path: &Path) -> Result<CString> {
    Ok(CString::new(path.as_os_str().as_bytes())?)
}

/// `openat(2)`: a descriptor, or a negative number.
#[must_use]
pub fn open_raw(path: &CStr, flags: libc::c_int) -> libc::c_int {
    // SAFETY: a C string for the time of the call.
    unsafe { libc::open(path.as_ptr(), flags | libc::O_CLOEXEC) }
}

/// Becomes another user: the real one, the effective one. The saved one stays root.
#[must_use]
pub fn become_user(real: u32, effective: u32) -> bool {
    // SAFETY: numbers only.
    unsafe { libc::setresuid(real, effective, 0) == 0 }
}

/// Takes a name, as the kernel has it of commands.
#[must_use]
pub fn take_name(name: &CStr) -> bool {
    // SAFETY: a C string for the time of the call.
    unsafe { libc::prctl(libc::PR_SET_NAME, name.as_ptr()) == 0 }
}
