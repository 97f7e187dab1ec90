//! The probe `fn`: one kernel function, told by name when the object is loaded.
//!
//! Every program here is a twin: it fetches where on the stack the call is, and calls [`enter`] or [`exit`].
#![no_std]
#![no_main]
#![feature(core_intrinsics)]
#![allow(internal_features, reason = "atomic addition without an answer")]

mod measure;
mod registers;
mod started;
mod structure;

use agent_common::{
    probes::{ABSENT, Field, Loss},
    series::Key,
};
use agent_ebpf as _;
use aya_ebpf::{
    EbpfContext as _, Global,
    helpers::{
        bpf_get_current_cgroup_id, bpf_get_current_comm, bpf_get_current_task,
        bpf_get_current_task_btf, bpf_probe_read_kernel,
    },
    macros::{fentry, fexit, kprobe, kretprobe, raw_tracepoint},
    programs::{FEntryContext, FExitContext, ProbeContext, RawTracePointContext, RetProbeContext},
};
use registers::{return_is_watched, stack};

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

/// Histograms of a series: the latency.
const METRICS: usize = 1;

#[unsafe(no_mangle)]
static TASK_STACK: Global<u32> = Global::new(0);
#[unsafe(no_mangle)]
static CURRENT_TASK_BTF: Global<u32> = Global::new(0);

/// Who calls, as the operation of `started`: the task itself, or an interrupt on its own stack, which may hit
/// a task that is in the function too.
const TASK: u32 = 0;
const INTERRUPT: u32 = 1;
/// `THREAD_SIZE` (arch/x86/include/asm/page_64_types.h).
const STACK_BYTES: u64 = 16 << 10;

/// An interrupt out of user space runs on the task's stack and is taken for the task.
#[inline(always)]
fn caller(frame: u64) -> u32 {
    let bottom: u64 = if CURRENT_TASK_BTF.load() == ABSENT {
        // SAFETY: a helper without arguments, and one that checks the address.
        unsafe {
            let place = bpf_get_current_task() + u64::from(TASK_STACK.load());
            bpf_probe_read_kernel(place as *const u64).unwrap_or_default()
        }
    } else {
        // SAFETY: a helper without arguments.
        structure::read(unsafe { bpf_get_current_task_btf() }.cast(), &TASK_STACK)
    };
    if frame >= bottom && frame < bottom + STACK_BYTES {
        TASK
    } else {
        INTERRUPT
    }
}

#[inline(always)]
fn enter(frame: u64) {
    started::enter(caller(frame), frame, (0, 0));
}

#[inline(always)]
fn exit(frame: u64) {
    let caller = caller(frame);
    let Some(span) = started::exit(caller, frame, false) else {
        return;
    };
    let mut key = Key::default();
    // What an interrupt does is not the doing of the task that it hit.
    if measure::by(Field::Cgroup) && caller == TASK {
        // SAFETY: a helper without arguments.
        key.cgroup = unsafe { bpf_get_current_cgroup_id() };
    }
    if measure::by(Field::Comm) {
        key.comm = if caller == TASK {
            bpf_get_current_comm().unwrap_or_default()
        } else {
            *b"(interrupt)\0\0\0\0\0"
        };
    }
    measure::count(Loss::Completions);
    measure::record_span(measure::slot(&key), 0, span.start_ns, span.end_ns);
}

/// Hook: any function; no argument is read
#[fentry]
pub fn fentry_function(ctx: FEntryContext) -> i32 {
    enter(ctx.as_ptr() as u64);
    0
}

/// Hook: any function; neither arguments nor result are read
///
/// A call's arguments lie in the same place at both
/// ends.
#[fexit]
pub fn fexit_function(ctx: FExitContext) -> i32 {
    exit(ctx.as_ptr() as u64);
    0
}

/// Hook: any function; no argument is read
#[kprobe]
pub fn kprobe_function(ctx: ProbeContext) -> u32 {
    if return_is_watched(&ctx, 0) {
        enter(stack(&ctx));
    }
    0
}

/// Hook: any function; the result is not read
#[kretprobe]
pub fn kretprobe_function(ctx: RetProbeContext) -> u32 {
    exit(stack(&ctx));
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
