//! Numbers of the system calls that reach the VFS points, for the `tp` backend, which sees every
//! system call at `sys_enter` and has to tell them apart.
//!
//! Only calls whose path in the kernel leads through the point's function are listed, so that `tp`
//! delays what `fentry` and `kprobe` delay: `readv(2)` and io_uring do not pass `vfs_read`
//! (`fs/read_write.c`), and neither is listed here.

/// `read`, `pread64`: `ksys_read` and `ksys_pread64` call `vfs_read`.
pub const READ: &[u64] = arch::READ;
/// `write`, `pwrite64`: `ksys_write` and `ksys_pwrite64` call `vfs_write`.
pub const WRITE: &[u64] = arch::WRITE;
/// `open`, `openat`, `openat2`, `creat`: all call `do_sys_openat2` (`fs/open.c`).
pub const OPEN: &[u64] = arch::OPEN;
/// `fsync`, `fdatasync`: both call `vfs_fsync_range` (`fs/sync.c`).
pub const FSYNC: &[u64] = arch::FSYNC;

// From arch/x86/entry/syscalls/syscall_64.tbl.
#[cfg(any(bpf_target_arch = "x86_64", target_arch = "x86_64"))]
mod arch {
    pub(super) const READ: &[u64] = &[0, 17];
    pub(super) const WRITE: &[u64] = &[1, 18];
    pub(super) const OPEN: &[u64] = &[2, 257, 437, 85];
    pub(super) const FSYNC: &[u64] = &[74, 75];
}

// From include/uapi/asm-generic/unistd.h: there is no open(2) and no creat(2).
#[cfg(any(bpf_target_arch = "aarch64", target_arch = "aarch64"))]
mod arch {
    pub(super) const READ: &[u64] = &[63, 67];
    pub(super) const WRITE: &[u64] = &[64, 68];
    pub(super) const OPEN: &[u64] = &[56, 437];
    pub(super) const FSYNC: &[u64] = &[82, 83];
}
