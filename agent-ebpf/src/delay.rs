//! The probe `delay`: waits at its points for as long as `CONTROL` says, and records each wait.
//!
//! Every program here is a twin: it fetches what its backend gives it and calls [`hit`].
#![no_std]
#![no_main]

mod wait;

use agent_common::{
    bucket,
    catalogue::{POINTS, slot},
    pod::{Control, Counters, MAX_DELAY_NS},
    syscalls,
};
use agent_ebpf as _;
use aya_ebpf::{
    EbpfContext, Global,
    helpers::{bpf_get_current_pid_tgid, bpf_ktime_get_ns},
    macros::{fentry, kprobe, map, raw_tracepoint},
    maps::{Array, PerCpuArray},
    programs::{FEntryContext, ProbeContext, RawTracePointContext},
};
use aya_log_ebpf::{debug, trace};

/// Programs call GPL-only helpers, so they declare a compatible licence.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

/// The agent's thread group in the initial PID namespace: it is never delayed.
#[unsafe(no_mangle)]
static AGENT_TGID: Global<u32> = Global::new(0);

#[map]
static CONTROL: Array<Control> = Array::with_max_entries(1, 0);

/// By slot.
#[map]
static COUNTERS: PerCpuArray<Counters> = PerCpuArray::with_max_entries(POINTS.len() as u32, 0);

/// `achieved - requested` in ns: `bucket::BUCKETS` counts for each slot.
#[map]
static ERRORS: PerCpuArray<u64> =
    PerCpuArray::with_max_entries((POINTS.len() * bucket::BUCKETS) as u32, 0);

/// One hit at the point `slot`. All backends come here.
///
/// Where there is something to wait, the clock is read before anything else, and all bookkeeping that
/// need not know the outcome comes before the wait: its time is then part of the wait.
#[inline(always)]
fn hit<C: EbpfContext>(ctx: &C, slot: u32) {
    let Some(control) = CONTROL.get(0) else {
        return;
    };
    let delay_ns = control.delay_ns[slot as usize].min(MAX_DELAY_NS);
    let start_ns = match delay_ns {
        0 => 0,
        // SAFETY: a helper without arguments.
        _ => unsafe { bpf_ktime_get_ns() },
    };
    let Some(counters) = COUNTERS.get_ptr_mut(slot) else {
        return;
    };
    // SAFETY: the kernel gave the pointer for this CPU, and a program is not re-entered on a CPU.
    let counters = unsafe { &mut *counters };
    if (bpf_get_current_pid_tgid() >> 32) as u32 == AGENT_TGID.load() {
        counters.exempt += 1;
        return;
    }
    counters.hits += 1;
    if delay_ns != 0 {
        delay(ctx, slot, control, counters, start_ns);
    }
}

/// The rest of a hit where there is something to wait: out of line, as a hit where there is not then has
/// few instructions and little stack. (A program with 64 bytes or more of it gets its stack elsewhere in
/// memory since 6.13, which is one more line to miss in a cache.)
#[inline(never)]
fn delay<C: EbpfContext>(
    ctx: &C,
    slot: u32,
    control: &Control,
    counters: &mut Counters,
    start_ns: u64,
) {
    // Read once more, as there are five registers for arguments.
    let delay_ns = control.delay_ns[slot as usize % POINTS.len()].min(MAX_DELAY_NS);
    if start_ns >= control.lease_until_ns {
        if counters.lease_expired == 0 {
            debug!(ctx, "lease ran out: slot {} no longer delays", slot);
        }
        counters.lease_expired += 1;
        return;
    }
    counters.delayed += 1;
    counters.requested_ns += delay_ns;
    let achieved_ns = wait::until(start_ns + delay_ns).wrapping_sub(start_ns);
    record(counters, slot, delay_ns, achieved_ns);
    trace!(
        ctx,
        "slot {}: asked {} ns, waited {} ns", slot, delay_ns, achieved_ns
    );
}

/// Records the outcome of a wait.
#[inline(always)]
fn record(counters: &mut Counters, slot: u32, delay_ns: u64, achieved_ns: u64) {
    counters.achieved_ns += achieved_ns;
    if achieved_ns < delay_ns {
        counters.short += 1;
        return;
    }
    let error_ns = achieved_ns - delay_ns;
    if error_ns > counters.error_max_ns {
        counters.error_max_ns = error_ns;
    }
    // A look-up by key, not an index into one large value: LLVM drops the mask of an index that it
    // can prove to be small, and the verifier then refuses the access.
    if let Some(count) = ERRORS.get_ptr_mut(slot * bucket::BUCKETS as u32 + bucket::index(error_ns))
    {
        // SAFETY: as for `counters`.
        unsafe { *count += 1 };
    }
}

/// The twins for one function.
macro_rules! function_twins {
    ($(#[$prototype:meta])* $slot:ident, $fentry:ident, $kprobe:ident) => {
        $(#[$prototype])*
        #[fentry]
        pub fn $fentry(ctx: FEntryContext) -> i32 {
            hit(&ctx, slot::$slot);
            0
        }

        $(#[$prototype])*
        #[kprobe]
        pub fn $kprobe(ctx: ProbeContext) -> u32 {
            hit(&ctx, slot::$slot);
            0
        }
    };
}

function_twins!(
    /// `ssize_t vfs_read(struct file *file, char __user *buf, size_t count, loff_t *pos)`
    VFS_READ, fentry_vfs_read, kprobe_vfs_read
);
function_twins!(
    /// `ssize_t vfs_write(struct file *file, const char __user *buf, size_t count, loff_t *pos)`
    VFS_WRITE, fentry_vfs_write, kprobe_vfs_write
);
function_twins!(
    /// `long do_sys_openat2(int dfd, const char __user *filename, struct open_how *how)`, or
    /// another of the point's functions in the catalogue. No argument is read.
    VFS_OPEN, fentry_vfs_open, kprobe_vfs_open
);
function_twins!(
    /// `void blk_mq_start_request(struct request *rq)`
    BLOCK_ISSUE, fentry_block_issue, kprobe_block_issue
);

/// `TRACE_EVENT_SYS(sys_enter, TP_PROTO(struct pt_regs *regs, long id))`
///
/// One program for all three VFS points: the tracepoint fires for every system call, and a second
/// and third program would each cost every call of the machine.
#[raw_tracepoint(tracepoint = "sys_enter")]
pub fn tp_sys_enter(ctx: RawTracePointContext) -> i32 {
    entered(&ctx, 0);
    0
}

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
    } else {
        return;
    };
    if CONTROL
        .get(0)
        .is_some_and(|control| control.entry_twin == twin)
    {
        hit(ctx, slot);
    }
}

/// `TRACE_EVENT(block_rq_issue, TP_PROTO(struct request *rq))`; before 5.11 with a
/// `struct request_queue *q` in front. No argument is read.
#[raw_tracepoint(tracepoint = "block_rq_issue")]
pub fn tp_block_rq_issue(ctx: RawTracePointContext) -> i32 {
    hit(&ctx, slot::BLOCK_ISSUE);
    0
}

/// `TRACE_EVENT(sched_process_exit, TP_PROTO(struct task_struct *p))`; since 6.17 with a
/// `bool group_dead` behind. No argument is read: the task is the current one.
///
/// `do_exit` comes here before it closes descriptors, and closing those of kprobes takes hundreds of
/// milliseconds: so when the agent dies, delays end here and not when the last link is gone.
#[raw_tracepoint(tracepoint = "sched_process_exit")]
pub fn tp_sched_process_exit(_ctx: RawTracePointContext) -> i32 {
    let task = bpf_get_current_pid_tgid();
    let (tgid, pid) = ((task >> 32) as u32, task as u32);
    if tgid == AGENT_TGID.load()
        && pid == tgid
        && let Some(control) = CONTROL.get_ptr_mut(0)
    {
        // SAFETY: the kernel gave the pointer; one word is written.
        unsafe { (*control).lease_until_ns = 0 };
    }
    0
}

#[inline(always)]
fn is_in(id: u64, ids: &[u64]) -> bool {
    ids.contains(&id)
}
