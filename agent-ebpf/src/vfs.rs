//! The probe `vfs`: reads, writes, opens, fsyncs and slow lookups.
//!
//! Every program here is a twin: it fetches what its backend gives it and calls [`enter`] or [`exit`].
#![no_std]
#![no_main]
#![feature(core_intrinsics)]
#![allow(internal_features, reason = "atomic addition without an answer")]

#[macro_use]
mod structure;

mod files;
mod measure;
mod registers;
mod started;

use agent_common::{
    probes::{Field, Loss, vfs::op},
    series::Key,
    syscalls,
};
use agent_ebpf as _;
use aya_ebpf::{
    EbpfContext as _,
    helpers::{bpf_get_current_cgroup_id, bpf_get_current_comm},
    macros::{btf_tracepoint, fentry, fexit, kprobe, kretprobe, raw_tracepoint},
    programs::{
        BtfTracePointContext, FEntryContext, FExitContext, ProbeContext, RawTracePointContext,
        RetProbeContext,
    },
};
use files::{Superblock, is_compat, of_fd};
use registers::{return_is_watched, stack};
use structure::read;

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

/// Histograms of a series: the latency.
const METRICS: usize = 1;

/// Whether anything is told apart by the file.
#[inline(always)]
fn by_file() -> bool {
    measure::by(Field::Device) || measure::by(Field::Fs)
}

#[inline(always)]
fn enter(op: u32, frame: u64, superblock: impl FnOnce() -> Superblock) {
    let superblock = if by_file() { superblock() } else { (0, 0) };
    started::enter(op, frame, superblock);
}

/// `result` is what the caller gets: below 0 an error; of an open, the new descriptor.
#[inline(always)]
fn exit(op: u32, frame: u64, result: i32, skips: bool) {
    let Some(span) = started::exit(op, frame, skips) else {
        return;
    };
    if result < 0 {
        measure::count(Loss::Errors);
    }
    let (device, magic) = if op == op::OPEN && result >= 0 && by_file() {
        of_fd(result as u32)
    } else {
        (span.device, span.magic)
    };
    let mut key = Key {
        op,
        device,
        magic,
        ..Key::default()
    };
    if measure::by(Field::Cgroup) {
        // SAFETY: a helper without arguments.
        key.cgroup = unsafe { bpf_get_current_cgroup_id() };
    }
    if measure::by(Field::Comm)
        && let Ok(comm) = bpf_get_current_comm()
    {
        key.comm = comm;
    }
    measure::count(Loss::Completions);
    measure::record_span(measure::slot(&key), 0, span.start_ns, span.end_ns);
}

/// Functions whose return is watched, for `return_is_watched`.
mod watch {
    pub const READ: u32 = 0;
    pub const WRITE: u32 = 1;
    pub const OPEN: u32 = 2;
    pub const FSYNC: u32 = 3;
    pub const SYS_FSYNC: u32 = 4;
    pub const SYS_FDATASYNC: u32 = 5;
    pub const LOOKUP: u32 = 6;
}

/// The twins for one function. `$file` is the argument that tells the file system, through `$typed` where
/// BTF knows its type and through `$untyped` where it does not; `$result` is the place of the result behind
/// the arguments.
macro_rules! function_twins {
    ($(#[$prototype:meta])* $op:ident, $watch:ident, $file:literal, $typed:path, $untyped:path, $result:literal,
     $fentry:ident, $fexit:ident, $kprobe:ident, $kretprobe:ident) => {
        $(#[$prototype])*
        #[fentry]
        pub fn $fentry(ctx: FEntryContext) -> i32 {
            enter(op::$op, ctx.as_ptr() as u64, || $typed(ctx.arg($file)));
            0
        }

        $(#[$prototype])*
        #[fexit]
        pub fn $fexit(ctx: FExitContext) -> i32 {
            // A call's arguments lie in the same place at both ends.
            exit(op::$op, ctx.as_ptr() as u64, ctx.arg::<u64>($result) as i32, false);
            0
        }

        $(#[$prototype])*
        #[kprobe]
        pub fn $kprobe(ctx: ProbeContext) -> u32 {
            if return_is_watched(&ctx, watch::$watch) {
                let file = ctx.arg($file).unwrap_or(0);
                enter(op::$op, stack(&ctx), || $untyped(file));
            }
            0
        }

        $(#[$prototype])*
        #[kretprobe]
        pub fn $kretprobe(ctx: RetProbeContext) -> u32 {
            exit(op::$op, stack(&ctx), ctx.ret::<u64>() as i32, false);
            0
        }
    };
}

function_twins!(
    /// Hook: `ssize_t vfs_read(struct file *file, char __user *buf, size_t count, loff_t *pos)`
    READ, READ, 0, files::of_file, files::of_file_at, 4,
    fentry_read, fexit_read, kprobe_read, kretprobe_read
);
function_twins!(
    /// Hook: `ssize_t vfs_write(struct file *file, const char __user *buf, size_t count, loff_t *pos)`
    WRITE, WRITE, 0, files::of_file, files::of_file_at, 4,
    fentry_write, fexit_write, kprobe_write, kretprobe_write
);
function_twins!(
    /// Hook: `int do_sys_openat2(int dfd, const char __user *filename, struct open_how *how)`
    /// Hook: `long do_sys_openat2(int dfd, const char __user *filename, struct open_how *how)` on older kernels
    ///
    /// The file is known when it returns.
    OPEN, OPEN, 0, files::none, files::none, 3,
    fentry_open, fexit_open, kprobe_open, kretprobe_open
);
function_twins!(
    /// Hook: `int vfs_fsync_range(struct file *file, loff_t start, loff_t end, int datasync)`
    FSYNC, FSYNC, 0, files::of_file, files::of_file_at, 4,
    fentry_fsync, fexit_fsync, kprobe_fsync, kretprobe_fsync
);
function_twins!(
    /// Hook: `long __x64_sys_fsync(const struct pt_regs *regs)`
    /// Hook: `long __arm64_sys_fsync(const struct pt_regs *regs)`
    FSYNC, SYS_FSYNC, 0, files::of_call, files::of_call_at, 1,
    fentry_sys_fsync, fexit_sys_fsync, kprobe_sys_fsync, kretprobe_sys_fsync
);
function_twins!(
    /// Hook: `long __x64_sys_fdatasync(const struct pt_regs *regs)`
    /// Hook: `long __arm64_sys_fdatasync(const struct pt_regs *regs)`
    FSYNC, SYS_FDATASYNC, 0, files::of_call, files::of_call_at, 1,
    fentry_sys_fdatasync, fexit_sys_fdatasync, kprobe_sys_fdatasync, kretprobe_sys_fdatasync
);

/// Hook: `struct dentry *lookup_slow(const struct qstr *name, struct dentry *dir, unsigned int flags)`
/// Hook: `struct dentry *__lookup_slow(const struct qstr *name, struct dentry *dir, unsigned int flags)`
#[fentry]
pub fn fentry_lookup(ctx: FEntryContext) -> i32 {
    enter(op::LOOKUP, ctx.as_ptr() as u64, || {
        files::of_directory(ctx.arg(1))
    });
    0
}

/// Hook: `struct dentry *lookup_slow(const struct qstr *name, struct dentry *dir, unsigned int flags)`
/// Hook: `struct dentry *__lookup_slow(const struct qstr *name, struct dentry *dir, unsigned int flags)`
///
/// The result is not read: that there is no such file is an answer, no failure.
#[fexit]
pub fn fexit_lookup(ctx: FExitContext) -> i32 {
    exit(op::LOOKUP, ctx.as_ptr() as u64, 0, false);
    0
}

/// Hook: `struct dentry *lookup_slow(const struct qstr *name, struct dentry *dir, unsigned int flags)`
/// Hook: `struct dentry *__lookup_slow(const struct qstr *name, struct dentry *dir, unsigned int flags)`
#[kprobe]
pub fn kprobe_lookup(ctx: ProbeContext) -> u32 {
    if return_is_watched(&ctx, watch::LOOKUP) {
        let directory = ctx.arg(1).unwrap_or(0);
        enter(op::LOOKUP, stack(&ctx), || {
            files::of_directory_at(directory)
        });
    }
    0
}

/// Hook: `struct dentry *lookup_slow(const struct qstr *name, struct dentry *dir, unsigned int flags)`
/// Hook: `struct dentry *__lookup_slow(const struct qstr *name, struct dentry *dir, unsigned int flags)`
///
/// As `fexit_lookup`.
#[kretprobe]
pub fn kretprobe_lookup(ctx: RetProbeContext) -> u32 {
    exit(op::LOOKUP, stack(&ctx), 0, false);
    0
}

/// The operation of a system call. Every call of the machine comes here: the most frequent are asked for
/// first.
#[inline(always)]
fn operation(number: u64) -> Option<u32> {
    if syscalls::READ.contains(&number) {
        return Some(op::READ);
    }
    if syscalls::WRITE.contains(&number) {
        return Some(op::WRITE);
    }
    if syscalls::OPEN.contains(&number) {
        return Some(op::OPEN);
    }
    if syscalls::FSYNC.contains(&number) {
        return Some(op::FSYNC);
    }
    None
}

/// Hook: `TRACE_EVENT(sys_enter, TP_PROTO(struct pt_regs *regs, long id))`
#[btf_tracepoint(function = "sys_enter")]
pub fn sys_enter(ctx: BtfTracePointContext) -> i32 {
    let Some(op) = operation(ctx.arg(1)) else {
        return 0;
    };
    if is_compat() {
        return 0;
    }
    // No stack: system calls do not nest.
    enter(op, 0, || match op {
        op::OPEN => (0, 0),
        _ => files::of_call(ctx.arg(0)),
    });
    0
}

/// Hook: `TRACE_EVENT(sys_exit, TP_PROTO(struct pt_regs *regs, long ret))`
///
/// A call that seccomp or a tracer refuses comes here without having been at `sys_enter`
/// (`kernel/entry/common.c`).
#[btf_tracepoint(function = "sys_exit")]
pub fn sys_exit(ctx: BtfTracePointContext) -> i32 {
    let Some(op) = operation(read(ctx.arg(0), &files::REGS_NUMBER)) else {
        return 0;
    };
    if is_compat() {
        return 0;
    }
    exit(op, 0, ctx.arg::<u64>(1) as i32, true);
    0
}

/// Hook: `TRACE_EVENT(sched_process_exit, TP_PROTO(struct task_struct *p, bool group_dead))`
/// Hook: `TRACE_EVENT(sched_process_exit, TP_PROTO(struct task_struct *p))` before 6.17
///
/// No argument is read: the task is the current one.
#[raw_tracepoint(tracepoint = "sched_process_exit")]
pub fn process_exit(_ctx: RawTracePointContext) -> i32 {
    started::forget();
    0
}
