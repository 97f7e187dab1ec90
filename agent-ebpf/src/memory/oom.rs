//! OOM kills.
//!
//! The tracepoint `mark_victim` says who is killed, with the task that asked for the memory as *current*. But
//! it fires as well for tasks that are dying anyway and only get access to the reserves (`mm/oom_kill.c`,
//! callers of `mark_oom_victim`), and older kernels give it nothing but the PID. A kill is therefore what
//! comes after a SIGKILL that the kernel itself sent to the same task, from the same caller: there the victim
//! is described, and `mark_victim` confirms it.

use agent_common::{
    oom::{Cause, CgroupPath, LEVELS, OomKill, UNKNOWN, Victim},
    probes::{Field, Loss, memory::metric::OOM_KILL},
    series::Key,
};
use aya_ebpf::{
    Global,
    helpers::{
        bpf_get_current_comm, bpf_get_current_pid_tgid, bpf_ktime_get_ns, bpf_probe_read_kernel,
        bpf_probe_read_kernel_str_bytes,
    },
    macros::{btf_tracepoint, fentry, kprobe, map},
    maps::{Array, RingBuf},
    programs::{BtfTracePointContext, FEntryContext, ProbeContext},
};

use crate::{measure, place, structure::has, thread};

macro_rules! constants {
    ($($name:ident)*) => { $(
        #[unsafe(no_mangle)]
        static $name: Global<u32> = Global::new(0);
    )* };
}

constants!(TASK_PID TASK_TGID TASK_COMM TASK_MM TASK_SIGNAL TASK_CGROUPS SIGNAL_OOM_SCORE_ADJ CSS_SET_DEFAULT
    CSS_SET_SUBSYS CSS_CGROUP CGROUP_KN KN_ID KN_NAME KN_PARENT MEMORY_CONTROLLER MM_TOTAL_VM MM_FILE MM_ANON
    MM_SHMEM OC_MEMCG OC_ORDER OC_CONSTRAINT MEMCG_CGROUP PAGE_SIZE);

/// What is known of a kill before it is confirmed.
#[repr(C)]
struct Pending {
    /// Thread that asked for the memory; 0 if the entry is free.
    asker: u64,
    kill: OomKill,
    /// What the victim held.
    bytes: u64,
}

/// log2 of the entries of `PENDING`.
const PENDING_BITS: u32 = 5;

/// By a hash of the asker. The kernel holds `oom_lock` from the choice of a victim to its mark, so one entry
/// would do, were it not for SIGKILLs that it sends for other reasons.
#[map]
static PENDING: Array<Pending> = Array::with_max_entries(1 << PENDING_BITS, 0);

/// Each an [`OomKill`].
#[map]
static EVENTS: RingBuf = RingBuf::with_byte_size(512 << 10, 0);

/// A field of a structure in the kernel; 0 if this kernel has none, or if there is no structure.
#[inline(always)]
fn at<T: Copy + Default>(structure: u64, offset: &Global<u32>) -> T {
    if structure == 0 || !has(offset) {
        return T::default();
    }
    let field = structure + u64::from(offset.load());
    // SAFETY: the helper fails where nothing can be read.
    unsafe { bpf_probe_read_kernel(field as *const T) }.unwrap_or_default()
}

/// As [`at`], of a number that is [`UNKNOWN`] if this kernel has no such field.
#[inline(always)]
fn number_at(structure: u64, offset: &Global<u32>) -> u64 {
    if !has(offset) {
        return UNKNOWN;
    }
    at(structure, offset)
}

/// Pages of one kind. The shared part of a per-CPU counter may be below 0 for a while.
#[inline(always)]
fn pages(mm: u64, offset: &Global<u32>) -> u64 {
    let pages = number_at(mm, offset);
    if has(offset) && (pages as i64) < 0 {
        return 0;
    }
    pages
}

/// Reads a cgroup's id and the names of its directories.
#[inline(always)]
fn read_path(cgroup: u64, path: &mut CgroupPath) {
    let mut node: u64 = at(cgroup, &CGROUP_KN);
    path.id = at(node, &KN_ID);
    for level in 0..LEVELS {
        let name: u64 = at(node, &KN_NAME);
        path.names[level][0] = 0;
        if name != 0 {
            // SAFETY: the helper fails where nothing can be read; the rest of the path is then unknown.
            let _unreadable = unsafe {
                bpf_probe_read_kernel_str_bytes(name as *const u8, &mut path.names[level])
            };
        }
        node = at(node, &KN_PARENT);
    }
    path.cut = u64::from(node != 0);
}

#[inline(always)]
fn pending(asker: u64) -> Option<&'static mut Pending> {
    let entry = PENDING.get_ptr_mut(place(asker, PENDING_BITS))?;
    // SAFETY: the kernel gave the pointer. Two callers that meet in an entry at the same moment lose one kill,
    // which its mark counts as abandoned.
    Some(unsafe { &mut *entry })
}

#[inline(always)]
fn unknown_cause(cause: &mut Cause) {
    cause.constraint = UNKNOWN;
    cause.order = UNKNOWN;
    cause.limit.id = 0;
}

/// A victim was chosen. `current` is who asked.
#[inline(always)]
fn chosen(oom_control: u64) {
    let asker = thread();
    let Some(entry) = pending(asker) else {
        return;
    };
    entry.asker = asker;
    entry.kill.victim.tid = 0;
    let cause = &mut entry.kill.cause;
    unknown_cause(cause);
    if has(&OC_CONSTRAINT) {
        cause.constraint = at::<u32>(oom_control, &OC_CONSTRAINT).into();
    }
    if has(&OC_ORDER) {
        cause.order = at::<i32>(oom_control, &OC_ORDER) as u64;
    }
    let memcg: u64 = at(oom_control, &OC_MEMCG);
    if memcg != 0 {
        read_path(at(memcg, &MEMCG_CGROUP), &mut cause.limit);
    }
}

/// Hook: `static void oom_kill_process(struct oom_control *oc, const char *message)`
#[fentry(function = "oom_kill_process")]
pub fn oom_fentry(ctx: FEntryContext) -> i32 {
    let oom_control: *const u8 = ctx.arg(0);
    chosen(oom_control as u64);
    0
}

/// Hook: `static void oom_kill_process(struct oom_control *oc, const char *message)`
#[kprobe]
pub fn oom_kprobe(ctx: ProbeContext) -> u32 {
    if let Some(oom_control) = ctx.arg::<*const u8>(0) {
        chosen(oom_control as u64);
    }
    0
}

/// `SIGKILL` of `include/uapi/asm-generic/signal.h`.
const SIGKILL: i32 = 9;
/// `SEND_SIG_PRIV` of `include/linux/signal.h`: the kernel sends it by itself.
const SEND_SIG_PRIV: u64 = 1;

/// Hook: `TRACE_EVENT(signal_generate, TP_PROTO(int sig, struct kernel_siginfo *info, struct task_struct *task,
/// int group, int result))`
#[btf_tracepoint(function = "signal_generate")]
pub fn signal_generate(ctx: BtfTracePointContext) -> i32 {
    let signal: i32 = ctx.arg(0);
    let info: u64 = ctx.arg(1);
    if signal != SIGKILL || info != SEND_SIG_PRIV {
        return 0;
    }
    let task: u64 = ctx.arg(2);
    let asker = thread();
    if let Some(entry) = pending(asker) {
        if entry.asker != asker {
            entry.asker = asker;
            unknown_cause(&mut entry.kill.cause);
        }
        describe(task, &mut entry.kill.victim);
    }
    0
}

#[inline(always)]
fn describe(task: u64, victim: &mut Victim) {
    victim.tid = at::<u32>(task, &TASK_PID).into();
    victim.pid = at::<u32>(task, &TASK_TGID).into();
    victim.comm = at(task, &TASK_COMM);
    let signal: u64 = at(task, &TASK_SIGNAL);
    victim.oom_score_adj = i64::from(at::<i16>(signal, &SIGNAL_OOM_SCORE_ADJ)) as u64;
    let mm: u64 = at(task, &TASK_MM);
    victim.total_vm = number_at(mm, &MM_TOTAL_VM);
    victim.anon = pages(mm, &MM_ANON);
    victim.file = pages(mm, &MM_FILE);
    victim.shmem = pages(mm, &MM_SHMEM);
    let css_set: u64 = at(task, &TASK_CGROUPS);
    read_path(at(css_set, &CSS_SET_DEFAULT), &mut victim.cgroup);
    let mut state = 0;
    if css_set != 0 && has(&CSS_SET_SUBSYS) && has(&MEMORY_CONTROLLER) {
        let controllers = css_set + u64::from(CSS_SET_SUBSYS.load());
        let controller = controllers + 8 * u64::from(MEMORY_CONTROLLER.load());
        // SAFETY: the helper fails where nothing can be read.
        state = unsafe { bpf_probe_read_kernel(controller as *const u64) }.unwrap_or(0);
    }
    read_path(at(state, &CSS_CGROUP), &mut victim.memory_cgroup);
}

/// Hook: `TRACE_EVENT(mark_victim, TP_PROTO(struct task_struct *task, uid_t uid))`
#[btf_tracepoint(function = "mark_victim")]
pub fn mark_victim(ctx: BtfTracePointContext) -> i32 {
    let task: u64 = ctx.arg(0);
    marked(at::<u32>(task, &TASK_PID).into());
    0
}

/// Hook: `TRACE_EVENT(mark_victim, TP_PROTO(int pid))`, before 72ba14deb40a (6.9)
#[btf_tracepoint(function = "mark_victim")]
pub fn mark_victim_pid(ctx: BtfTracePointContext) -> i32 {
    let pid: i32 = ctx.arg(0);
    marked(u64::from(pid as u32));
    0
}

#[inline(always)]
fn marked(victim: u64) {
    measure::count(Loss::Starts);
    let current = bpf_get_current_pid_tgid();
    let asker = current & 0xffff_ffff;
    let Some(entry) = pending(asker) else {
        return;
    };
    if entry.asker != asker || entry.kill.victim.tid != victim {
        // Dying already: it gets access to the reserves, and is not killed.
        return measure::count(Loss::Abandoned);
    }
    measure::count(Loss::Completions);
    let kill = &mut entry.kill;
    // SAFETY: a helper without arguments.
    kill.at_ns = unsafe { bpf_ktime_get_ns() };
    kill.asker_tid = asker;
    kill.asker_pid = current >> 32;
    kill.asker_comm = bpf_get_current_comm().unwrap_or_default();
    // By way of memory, of which the verifier knows nothing: of a product it remembers that it is a multiple of a page,
    // and where that is compared with the first bucket, 6.18 warns of bounds that contradict each other ("REG INVARIANTS
    // VIOLATION").
    let bytes = &raw mut entry.bytes;
    // SAFETY: a word of the entry.
    unsafe { bytes.write_volatile(held(&kill.victim)) };
    // SAFETY: as above.
    record_kill(&kill.victim, unsafe { bytes.read_volatile() });
    if EVENTS.output::<OomKill>(&*kill, 0).is_err() {
        measure::count(Loss::Events);
    }
    kill.victim.tid = 0;
}

/// What a victim held (bytes).
#[inline(always)]
fn held(victim: &Victim) -> u64 {
    let mut held = 0;
    for pages in [victim.anon, victim.file, victim.shmem] {
        if pages != UNKNOWN {
            held += pages;
        }
    }
    held * u64::from(PAGE_SIZE.load())
}

/// In the series of the victim, never of who asked.
#[inline(always)]
fn record_kill(victim: &Victim, bytes: u64) {
    let mut key = Key::default();
    if measure::by(Field::Cgroup) {
        key.cgroup = victim.cgroup.id;
    }
    if measure::by(Field::Comm) {
        key.comm = victim.comm;
    }
    measure::record(measure::slot(&key), OOM_KILL, bytes);
}
