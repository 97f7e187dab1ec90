//! The probe `delay`: waits at its points for as long as the rules in `CONTROL` and `RULES` say, and records each wait.
//!
//! Every program here is a twin: it fetches what its backend gives it and calls [`hit`].
#![no_std]
#![no_main]

#[path = "delay/cgroups.rs"]
mod cgroups;
#[path = "delay/decide.rs"]
mod decide;
#[path = "delay/exempt.rs"]
mod exempt;
#[path = "delay/filters.rs"]
mod filters;
#[path = "delay/functions.rs"]
mod functions;
#[path = "delay/kernel.rs"]
mod kernel;
#[path = "delay/owners.rs"]
mod owners;
#[path = "delay/row.rs"]
mod row;
#[path = "delay/subject.rs"]
mod subject;
#[path = "delay/tasks.rs"]
mod tasks;
#[path = "delay/tree.rs"]
mod tree;
mod wait;

use agent_common::{
    bucket,
    catalogue::slot,
    pod::Counters,
    rules::{Control, Kind, SLOTS},
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
use aya_log_ebpf::trace;
use decide::Hit;
use subject::Given;

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
static COUNTERS: PerCpuArray<Counters> = PerCpuArray::with_max_entries(SLOTS as u32, 0);

/// `achieved - requested` in ns: `bucket::BUCKETS` counts for each slot.
#[map]
static ERRORS: PerCpuArray<u64> =
    PerCpuArray::with_max_entries((SLOTS * bucket::BUCKETS) as u32, 0);

/// One hit at the point `slot`, of what `word` is. All backends come here.
///
/// Where there is a rule for everybody, the clock is read before anything else, and all bookkeeping that need not know
/// the outcome comes before the wait: its time is then part of the wait. Where all rules have filters, the clock is read
/// once one is satisfied, as reading it costs as much as the filters do: what these take (some tens of ns; per directory
/// some more for `--under`) comes on top of the wait then.
#[inline(always)]
fn hit<C: EbpfContext>(ctx: &C, slot: u32, given: Given, word: impl FnOnce() -> (u64, u64)) {
    let Some(control) = CONTROL.get(0) else {
        return;
    };
    hit_with(ctx, control, slot, given, word);
}

#[inline(always)]
fn hit_with<C: EbpfContext>(
    ctx: &C,
    control: &'static Control,
    slot: u32,
    given: Given,
    word: impl FnOnce() -> (u64, u64),
) {
    // Not `slot % SLOTS`: of what is left of a division the verifier of 6.1 knows no bound.
    let Some(rules) = control.at.get(slot as usize).copied() else {
        return;
    };
    // Of `CONTROL` one line of the cache is read where there are no rules.
    let start_ns = if rules == 0 || rules & !control.filtered == 0 {
        0
    } else {
        // SAFETY: a helper without arguments.
        unsafe { bpf_ktime_get_ns() }
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
    if rules == 0 {
        return;
    }
    let rules = match slot {
        // Whoever runs here need not be who submitted the request.
        slot::BLOCK_ISSUE if owners::nobody(control) => rules & !control.owned,
        slot::BLOCK_ISSUE => rules,
        _ if rules & control.by_task == 0 => rules,
        _ => filters::plausible(rules),
    };
    if rules != 0 {
        let (word, size) = word();
        let slot_given = slot | (given as u32) << GIVEN;
        let waited_ns = ruled(slot_given, rules, start_ns, word, size);
        if waited_ns != 0 {
            trace!(ctx, "slot {}: waited {} ns", slot, waited_ns);
        }
    }
}

/// Where a [`Given`] is beside its slot, in one argument.
const GIVEN: u32 = 16;

/// The rest of a hit where there are rules; what was waited (ns).
///
/// Out of line, as a hit where there are none then has few instructions and little stack. (A program with 64 bytes or
/// more of it gets its stack elsewhere in memory since 6.13, which is one more line to miss in a cache.) This, and what
/// else has no mangled name here, is a global function to the verifier, which goes through it once, for any arguments,
/// and not once for each way that leads there.
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn ruled(slot_given: u32, rules: u64, start_ns: u64, word: u64, size: u64) -> u64 {
    let slot = slot_given & ((1 << GIVEN) - 1);
    let Some(control) = CONTROL.get(0) else {
        return 0;
    };
    let (mut rules, mut size) = (rules, size);
    if rules & control.by[Kind::Size as usize] != 0 {
        size = subject::size(Given::from(slot_given >> GIVEN), word, size);
        rules = filters::of_size(control, rules, size);
    }
    if rules & control.filtered != 0 {
        rules = filters::matching(slot_given, rules, word);
    }
    if rules == 0 {
        return 0;
    }
    serve(slot, rules, start_ns, size)
}

/// Waits as the rules say that a hit satisfies, and records it; what was waited (ns). `start_ns` is 0 if the clock was
/// not read yet. A function of its own, as all frames of a chain of calls have 512 bytes of stack, and the one through
/// the filters is long.
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn serve(slot: u32, rules: u64, start_ns: u64, size: u64) -> u64 {
    let start_ns = match start_ns {
        // SAFETY: a helper without arguments.
        0 => unsafe { bpf_ktime_get_ns() },
        start_ns => start_ns,
    };
    // What went since the filters were asked may have gone with its filters: nobody is delayed by it.
    let Some(still) = CONTROL.get(0).and_then(|control| {
        // Masked, or the verifier knows no bound of the 64 bits that it becomes.
        control.at.get((slot & ((1 << GIVEN) - 1)) as usize)
    }) else {
        return 0;
    };
    let mut hit = Hit::new(rules & *still, size, start_ns);
    hit.exempt = exempt::exempt_rules(slot);
    if row::can_be_at(slot) {
        hit.row = row::row_is_full() * decide::ROW;
    }
    hit.ask();
    if hit.granted == 0 {
        return 0;
    }
    let Some(counters) = COUNTERS.get_ptr_mut(slot) else {
        return 0;
    };
    // SAFETY: as in `hit_with`.
    let counters = unsafe { &mut *counters };
    let wait_ns = hit.wait_ns;
    counters.delayed += 1;
    counters.requested_ns += wait_ns;
    let achieved_ns = wait::until(start_ns + wait_ns).wrapping_sub(start_ns);
    record(counters, slot, wait_ns, achieved_ns);
    hit.finish(achieved_ns);
    if row::can_be_at(slot) {
        row::waited(achieved_ns);
    }
    achieved_ns
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
    /// `ssize_t vfs_read(struct file *file, char __user *buf, size_t count, loff_t *pos)`
    VFS_READ, File, 0, 2, fentry_vfs_read, kprobe_vfs_read
);
function_twins!(
    /// `ssize_t vfs_write(struct file *file, const char __user *buf, size_t count, loff_t *pos)`
    VFS_WRITE, File, 0, 2, fentry_vfs_write, kprobe_vfs_write
);
function_twins!(
    /// `long do_sys_openat2(int dfd, const char __user *filename, struct open_how *how)`, or
    /// another of the point's functions in the catalogue. No argument is used.
    VFS_OPEN, Nothing, 0, 0, fentry_vfs_open, kprobe_vfs_open
);
function_twins!(
    /// `int vfs_open(const struct path *path, struct file *file)`
    VFS_OPENED, Path, 0, 0, fentry_vfs_opened, kprobe_vfs_opened
);
function_twins!(
    /// `struct dentry *lookup_slow(const struct qstr *name, struct dentry *dir, unsigned int flags)`, or
    /// `__lookup_slow` with the same arguments
    VFS_LOOKUP, Dentry, 1, 1, fentry_vfs_lookup, kprobe_vfs_lookup
);
function_twins!(
    /// `void blk_mq_start_request(struct request *rq)`
    BLOCK_ISSUE, Request, 0, 0, fentry_block_issue, kprobe_block_issue
);

/// Whether the current task is in a call that has been at its own program already.
#[inline(always)]
fn in_fsync() -> bool {
    kernel::system_call().is_some_and(|number| is_in(number, syscalls::FSYNC))
}

/// `int vfs_fsync_range(struct file *file, loff_t start, loff_t end, int datasync)`
#[fentry]
pub fn fentry_vfs_fsync(ctx: FEntryContext) -> i32 {
    if !in_fsync() {
        hit(&ctx, slot::VFS_FSYNC, Given::File, || {
            (kernel::number(ctx.arg(0)), 0)
        });
    }
    0
}

/// As `fentry_vfs_fsync`.
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
    /// `long __x64_sys_fsync(const struct pt_regs *regs)`; `__arm64_sys_fsync`
    VFS_FSYNC, Registers, 0, 0, fentry_vfs_fsync_sys_fsync, kprobe_vfs_fsync_sys_fsync
);
function_twins!(
    /// `long __x64_sys_fdatasync(const struct pt_regs *regs)`; `__arm64_sys_fdatasync`
    VFS_FSYNC, Registers, 0, 0, fentry_vfs_fsync_sys_fdatasync, kprobe_vfs_fsync_sys_fdatasync
);

/// Any function that a rule names: `fn:NAME`. One program for all, as a kprobe can be at many.
#[kprobe]
pub fn kprobe_fn(ctx: ProbeContext) -> u32 {
    if let Some(slot) = functions::slot(&ctx) {
        hit(&ctx, slot, Given::Nothing, || (0, 0));
    }
    0
}

/// `TRACE_EVENT_SYS(sys_enter, TP_PROTO(struct pt_regs *regs, long id))`
///
/// One program for all VFS points: the tracepoint fires for every system call, and a second and third program would
/// each cost every call of the machine.
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
    } else if is_in(id, syscalls::FSYNC) {
        slot::VFS_FSYNC
    } else {
        return;
    };
    let Some(control) = CONTROL.get(0) else {
        return;
    };
    if control.entry_twin != twin {
        return;
    }
    let given = match slot {
        slot::VFS_OPEN => Given::Nothing,
        _ => Given::Registers,
    };
    hit_with(ctx, control, slot, given, || (ctx.arg(0), 0));
}

/// `TRACE_EVENT_SYS(sys_exit, TP_PROTO(struct pt_regs *regs, long ret))`
///
/// Where an open's file is known: before its caller has it.
#[raw_tracepoint(tracepoint = "sys_exit")]
pub fn tp_sys_exit(ctx: RawTracePointContext) -> i32 {
    let descriptor: u64 = ctx.arg(1);
    if descriptor > i32::MAX as u64 {
        return 0;
    }
    let Some(number) =
        kernel::offsets().map(|offsets| kernel::field::<u64>(ctx.arg(0), offsets.registers_number))
    else {
        return 0;
    };
    if is_in(number, syscalls::OPEN) {
        hit(&ctx, slot::VFS_OPENED, Given::Descriptor, || {
            (descriptor, 0)
        });
    }
    0
}

/// `TRACE_EVENT(block_rq_issue, TP_PROTO(struct request *rq))`; before 5.11 and 5.10.137 with a
/// `struct request_queue *q` in front, and then no rule with a filter is here.
#[raw_tracepoint(tracepoint = "block_rq_issue")]
pub fn tp_block_rq_issue(ctx: RawTracePointContext) -> i32 {
    hit(&ctx, slot::BLOCK_ISSUE, Given::Request, || (ctx.arg(0), 0));
    0
}

/// `TRACE_EVENT(block_getrq, TP_PROTO(struct bio *bio))`
#[raw_tracepoint(tracepoint = "block_getrq")]
pub fn tp_block_getrq(ctx: RawTracePointContext) -> i32 {
    submitted(ctx.arg(0));
    0
}

/// `TRACE_EVENT(block_bio_frontmerge, TP_PROTO(struct bio *bio))`
#[raw_tracepoint(tracepoint = "block_bio_frontmerge")]
pub fn tp_block_bio_frontmerge(ctx: RawTracePointContext) -> i32 {
    submitted(ctx.arg(0));
    0
}

#[inline(always)]
fn submitted(bio: u64) {
    if let Some(control) = CONTROL.get(0)
        && control.owned != 0
    {
        owners::note(control, bio);
    }
}

/// `TRACE_EVENT(sched_process_fork, TP_PROTO(struct task_struct *parent, struct task_struct *child))`
#[raw_tracepoint(tracepoint = "sched_process_fork")]
pub fn tp_sched_process_fork(ctx: RawTracePointContext) -> i32 {
    if let Some(control) = CONTROL.get(0)
        && control.children != 0
    {
        tasks::forked(control, ctx.arg(1));
    }
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
    tasks::exited(tgid, pid == tgid);
    0
}

#[inline(always)]
fn is_in(id: u64, ids: &[u64]) -> bool {
    ids.contains(&id)
}
