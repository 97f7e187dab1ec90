//! The programs. Each is a twin: it fetches what its backend gives it and calls [`hit`].

use agent_common::{catalogue::slot, syscalls};
use aya_ebpf::{
    helpers::bpf_get_current_pid_tgid,
    macros::{fentry, kprobe, raw_tracepoint},
    programs::{FEntryContext, ProbeContext, RawTracePointContext},
};

use super::{AGENT_TGID, CONTROL, functions, hit, hit_with, kernel, owners, subject::Given, tasks};

/// The twins for one function, of which the arguments `$word` and `$size` are passed on.
macro_rules! function_twins {
    ($(#[$prototype:meta])* $slot:ident, $given:ident, $word:literal, $size:literal, $fentry:ident, $kprobe:ident) => {
        $(#[$prototype])*
        #[fentry]
        pub fn $fentry(ctx: FEntryContext) -> i32 {
            hit(&ctx, slot::$slot, Given::$given, || {
                (kernel::number(ctx.arg($word)), kernel::number(ctx.arg($size)))
            });
            0
        }

        $(#[$prototype])*
        #[kprobe]
        pub fn $kprobe(ctx: ProbeContext) -> u32 {
            hit(&ctx, slot::$slot, Given::$given, || {
                (ctx.arg($word).unwrap_or(0), ctx.arg($size).unwrap_or(0))
            });
            0
        }
    };
}

function_twins!(
    /// Hook: `ssize_t vfs_read(struct file *file, char __user *buf, size_t count, loff_t *pos)`
    VFS_READ, File, 0, 2, fentry_vfs_read, kprobe_vfs_read
);
function_twins!(
    /// Hook: `ssize_t vfs_write(struct file *file, const char __user *buf, size_t count, loff_t *pos)`
    VFS_WRITE, File, 0, 2, fentry_vfs_write, kprobe_vfs_write
);
function_twins!(
    /// Hook: `int do_sys_openat2(int dfd, const char __user *filename, struct open_how *how)`
    /// Hook: `long do_sys_openat2(int dfd, const char __user *filename, struct open_how *how)` on older kernels
    /// Hook: `int do_sys_open(int dfd, const char __user *filename, int flags, umode_t mode)`
    /// Hook: `long do_sys_open(int dfd, const char __user *filename, int flags, umode_t mode)` on older kernels
    /// Hook: `struct file *do_filp_open(int dfd, struct filename *pathname, const struct open_flags *op)`
    ///
    /// No argument is used.
    VFS_OPEN, Nothing, 0, 0, fentry_vfs_open, kprobe_vfs_open
);
function_twins!(
    /// Hook: `int vfs_open(const struct path *path, struct file *file)`
    VFS_OPENED, Path, 0, 0, fentry_vfs_opened, kprobe_vfs_opened
);
function_twins!(
    /// Hook: `struct dentry *lookup_slow(const struct qstr *name, struct dentry *dir, unsigned int flags)`
    /// Hook: `struct dentry *__lookup_slow(const struct qstr *name, struct dentry *dir, unsigned int flags)`
    VFS_LOOKUP, Dentry, 1, 1, fentry_vfs_lookup, kprobe_vfs_lookup
);
function_twins!(
    /// Hook: `void blk_mq_start_request(struct request *rq)`
    /// Hook: `void blk_start_request(struct request *rq)`
    BLOCK_ISSUE, Request, 0, 0, fentry_block_issue, kprobe_block_issue
);

/// Whether the current task is in a call that has been at its own program already; so does each count, where it cannot be
/// told.
#[inline(always)]
fn in_fsync() -> bool {
    kernel::system_call().is_none_or(|number| is_in(number, syscalls::FSYNC))
}

/// Hook: `int vfs_fsync_range(struct file *file, loff_t start, loff_t end, int datasync)`
#[fentry]
pub fn fentry_vfs_fsync(ctx: FEntryContext) -> i32 {
    if !in_fsync() {
        hit(&ctx, slot::VFS_FSYNC, Given::File, || {
            (kernel::number(ctx.arg(0)), 0)
        });
    }
    0
}

/// Hook: `int vfs_fsync_range(struct file *file, loff_t start, loff_t end, int datasync)`
#[kprobe]
pub fn kprobe_vfs_fsync(ctx: ProbeContext) -> u32 {
    if !in_fsync() {
        hit(&ctx, slot::VFS_FSYNC, Given::File, || {
            (ctx.arg(0).unwrap_or(0), 0)
        });
    }
    0
}

function_twins!(
    /// Hook: `long __x64_sys_fsync(const struct pt_regs *regs)`
    /// Hook: `long __arm64_sys_fsync(const struct pt_regs *regs)`
    VFS_FSYNC, Registers, 0, 0, fentry_vfs_fsync_sys_fsync, kprobe_vfs_fsync_sys_fsync
);
function_twins!(
    /// Hook: `long __x64_sys_fdatasync(const struct pt_regs *regs)`
    /// Hook: `long __arm64_sys_fdatasync(const struct pt_regs *regs)`
    VFS_FSYNC, Registers, 0, 0, fentry_vfs_fsync_sys_fdatasync, kprobe_vfs_fsync_sys_fdatasync
);

/// Hook: any function that a rule names, `fn:NAME`; no argument is read
///
/// One program for all, as a kprobe can be at many.
#[kprobe]
pub fn kprobe_fn(ctx: ProbeContext) -> u32 {
    if let Some(slot) = functions::slot(&ctx) {
        hit(&ctx, slot, Given::Nothing, || (0, 0));
    }
    0
}

/// Hook: `TRACE_EVENT(sys_enter, TP_PROTO(struct pt_regs *regs, long id))`
///
/// One program for all VFS points: the tracepoint fires for every system call, and a second and third program would
/// each cost every call of the machine.
#[raw_tracepoint(tracepoint = "sys_enter")]
pub fn tp_sys_enter(ctx: RawTracePointContext) -> i32 {
    entered(&ctx, 0);
    0
}

/// Hook: `TRACE_EVENT(sys_enter, TP_PROTO(struct pt_regs *regs, long id))`
///
/// As above: what is attached to be behind the programs that came after the other one.
#[raw_tracepoint(tracepoint = "sys_enter")]
pub fn tp_sys_enter_2(ctx: RawTracePointContext) -> i32 {
    entered(&ctx, 1);
    0
}

#[inline(always)]
fn entered(ctx: &RawTracePointContext, twin: u64) {
    let id: u64 = ctx.arg(1);
    let slot = if is_in(id, syscalls::READ) {
        slot::VFS_READ
    } else if is_in(id, syscalls::WRITE) {
        slot::VFS_WRITE
    } else if is_in(id, syscalls::OPEN) {
        slot::VFS_OPEN
    } else if is_in(id, syscalls::FSYNC) {
        slot::VFS_FSYNC
    } else {
        return;
    };
    let control = CONTROL.get();
    if control.entry_twin != twin {
        return;
    }
    let given = match slot {
        slot::VFS_OPEN => Given::Call,
        _ => Given::Registers,
    };
    hit_with(ctx, control, slot, given, || (ctx.arg(0), 0));
}

/// Hook: `TRACE_EVENT(sys_exit, TP_PROTO(struct pt_regs *regs, long ret))`
///
/// Where an open's file is known: before its caller has it.
#[raw_tracepoint(tracepoint = "sys_exit")]
pub fn tp_sys_exit(ctx: RawTracePointContext) -> i32 {
    let descriptor: u64 = ctx.arg(1);
    if descriptor > i32::MAX as u64 {
        return 0;
    }
    let offsets = kernel::offsets();
    if offsets.registers_number == 0 {
        return 0;
    }
    let number: u64 = kernel::field(ctx.arg(0), offsets.registers_number);
    if is_in(number, syscalls::OPEN) {
        hit(&ctx, slot::VFS_OPENED, Given::Descriptor, || {
            (descriptor, 0)
        });
    }
    0
}

/// Hook: `TRACE_EVENT(block_rq_issue, TP_PROTO(struct request *rq))`
/// Hook: `TRACE_EVENT(block_rq_issue, TP_PROTO(struct request_queue *q, struct request *rq))`, before 5.11 and 5.10.137
///
/// With the queue in front no rule with a filter is here.
#[raw_tracepoint(tracepoint = "block_rq_issue")]
pub fn tp_block_rq_issue(ctx: RawTracePointContext) -> i32 {
    hit(&ctx, slot::BLOCK_ISSUE, Given::Request, || (ctx.arg(0), 0));
    0
}

/// Hook: `TRACE_EVENT(block_getrq, TP_PROTO(struct bio *bio))`
#[raw_tracepoint(tracepoint = "block_getrq")]
pub fn tp_block_getrq(ctx: RawTracePointContext) -> i32 {
    submitted(ctx.arg(0));
    0
}

/// Hook: `TRACE_EVENT(block_bio_frontmerge, TP_PROTO(struct bio *bio))`
#[raw_tracepoint(tracepoint = "block_bio_frontmerge")]
pub fn tp_block_bio_frontmerge(ctx: RawTracePointContext) -> i32 {
    submitted(ctx.arg(0));
    0
}

/// Hook: `TRACE_EVENT(block_getrq, TP_PROTO(struct request_queue *q, struct bio *bio, int rw))`, before 5.11
#[raw_tracepoint(tracepoint = "block_getrq")]
pub fn tp_block_getrq_with_queue(ctx: RawTracePointContext) -> i32 {
    submitted(ctx.arg(1));
    0
}

/// Hook: `TRACE_EVENT(block_bio_frontmerge, TP_PROTO(struct request_queue *q, struct request *rq, struct bio *bio))`,
/// before 5.11
#[raw_tracepoint(tracepoint = "block_bio_frontmerge")]
pub fn tp_block_bio_frontmerge_with_queue(ctx: RawTracePointContext) -> i32 {
    submitted(ctx.arg(2));
    0
}

#[inline(always)]
fn submitted(bio: u64) {
    let control = CONTROL.get();
    if control.owned != 0 {
        owners::note(control, bio);
    }
}

/// Hook: `TRACE_EVENT(sched_process_fork, TP_PROTO(struct task_struct *parent, struct task_struct *child))`
#[raw_tracepoint(tracepoint = "sched_process_fork")]
pub fn tp_sched_process_fork(ctx: RawTracePointContext) -> i32 {
    let control = CONTROL.get();
    if control.children != 0 {
        tasks::forked(control, ctx.arg(1));
    }
    0
}

/// Hook: `TRACE_EVENT(sched_process_exit, TP_PROTO(struct task_struct *p, bool group_dead))`
/// Hook: `TRACE_EVENT(sched_process_exit, TP_PROTO(struct task_struct *p))` before 6.17
///
/// No argument is read: the task is the current one.
///
/// `do_exit` comes here before it closes descriptors, and closing those of kprobes takes hundreds of
/// milliseconds: so when the agent dies, delays end here and not when the last link is gone.
#[raw_tracepoint(tracepoint = "sched_process_exit")]
pub fn tp_sched_process_exit(_ctx: RawTracePointContext) -> i32 {
    let task = bpf_get_current_pid_tgid();
    let (tgid, pid) = ((task >> 32) as u32, task as u32);
    if tgid == AGENT_TGID.load() && pid == tgid {
        // SAFETY: one word is written.
        unsafe { (*CONTROL.get_ptr_mut()).lease_until_ns = 0 };
    }
    tasks::exited(tgid, pid == tgid);
    0
}

#[inline(always)]
fn is_in(id: u64, ids: &[u64]) -> bool {
    ids.contains(&id)
}
