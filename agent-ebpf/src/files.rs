//! Of files: the file system and the device that they are on.

use agent_ebpf::Constant;
use aya_ebpf::helpers::{bpf_get_current_task, bpf_get_current_task_btf, bpf_probe_read_kernel};

use crate::structure::{has, read};

agent_ebpf::constants!(FILE_INODE INODE_SB SB_DEV SB_MAGIC DENTRY_SB TASK_FILES FILES_FDT FDT_FD FDT_MAX REGS_NUMBER
    REGS_FIRST TASK_STATUS CURRENT_TASK_BTF);

/// Device (major << 20 | minor) and magic number; zeroes where there is no file.
pub type Superblock = (u32, u32);

/// Of a call that has no file yet.
#[inline(always)]
pub fn none(_argument: u64) -> Superblock {
    (0, 0)
}

/// Of a `struct file` whose type BTF knows.
#[inline(always)]
pub fn of_file(file: *const u8) -> Superblock {
    typed(read(read(file, &FILE_INODE), &INODE_SB))
}

/// Of a directory's `struct dentry` whose type BTF knows.
#[inline(always)]
pub fn of_directory(dentry: *const u8) -> Superblock {
    typed(read(dentry, &DENTRY_SB))
}

#[inline(always)]
fn typed(superblock: *const u8) -> Superblock {
    let magic: u64 = read(superblock, &SB_MAGIC);
    (read(superblock, &SB_DEV), magic as u32)
}

/// Of the descriptor that is the first argument of a system call.
#[inline(always)]
pub fn of_call(registers: *const u8) -> Superblock {
    of_fd(read::<u64>(registers, &REGS_FIRST) as u32)
}

/// As [`of_call`], of registers at an address.
#[inline(always)]
pub fn of_call_at(registers: u64) -> Superblock {
    of_fd(peek::<u64>(registers, &REGS_FIRST) as u32)
}

/// Of a `struct file` at an address.
#[inline(always)]
pub fn of_file_at(file: u64) -> Superblock {
    untyped(peek(peek(file, &FILE_INODE), &INODE_SB))
}

/// Of a directory's `struct dentry` at an address.
#[inline(always)]
pub fn of_directory_at(dentry: u64) -> Superblock {
    untyped(peek(dentry, &DENTRY_SB))
}

#[inline(always)]
fn untyped(superblock: u64) -> Superblock {
    let magic: u64 = peek(superblock, &SB_MAGIC);
    (peek(superblock, &SB_DEV), magic as u32)
}

/// Reads a field at an address; 0 if it cannot be read, so that a chain of reads needs no checks between.
#[inline(always)]
fn peek<T: Copy + Default>(structure: u64, offset: &impl Constant) -> T {
    peek_at(structure + offset.load())
}

#[inline(always)]
fn peek_at<T: Copy + Default>(address: u64) -> T {
    // SAFETY: the helper checks the address.
    unsafe { bpf_probe_read_kernel(address as *const T) }.unwrap_or_default()
}

/// Of a descriptor of the current task.
#[inline(always)]
pub fn of_fd(fd: u32) -> Superblock {
    let (files, limit) = table();
    if fd >= limit {
        return (0, 0);
    }
    match peek_at(files + u64::from(fd) * 8) {
        0 => (0, 0),
        file => of_file_at(file),
    }
}

/// The current task's table of files (`struct file **`) and its length.
#[inline(always)]
fn table() -> (u64, u32) {
    if !has(&CURRENT_TASK_BTF) {
        // SAFETY: a helper without arguments.
        let task = unsafe { bpf_get_current_task() };
        let table: u64 = peek(peek(task, &TASK_FILES), &FILES_FDT);
        return (peek(table, &FDT_FD), peek(table, &FDT_MAX));
    }
    // SAFETY: a helper without arguments.
    let task: *const u8 = unsafe { bpf_get_current_task_btf() }.cast();
    let table: *const u8 = read(read(task, &TASK_FILES), &FILES_FDT);
    (read(table, &FDT_FD), read(table, &FDT_MAX))
}

/// Bit of `thread_info.status` on x86: the task is in a 32-bit system call, whose numbers differ
/// (`TS_COMPAT`, arch/x86/include/asm/thread_info.h).
const COMPAT: u32 = 2;

#[inline(always)]
pub fn is_compat() -> bool {
    if !has(&TASK_STATUS) {
        return false;
    }
    let status: u32 = if !has(&CURRENT_TASK_BTF) {
        // SAFETY: a helper without arguments.
        peek(unsafe { bpf_get_current_task() }, &TASK_STATUS)
    } else {
        // SAFETY: a helper without arguments.
        read(unsafe { bpf_get_current_task_btf() }.cast(), &TASK_STATUS)
    };
    status & COMPAT != 0
}
