//! The probe `sched`: waits for a CPU, time on it and off it.
//!
//! A wait begins at the wake-up, or when a task that could go on has to leave its CPU, and ends when it is
//! switched in; moving to another CPU does not end it. `TASKS` keeps the beginnings.
//!
//! The tracepoints run with interrupts off and never inside each other on one CPU (but for wake-ups of
//! oneself, which are ignored before anything is written), hence plain additions everywhere; and with the
//! run queue's lock held, hence nobody else writes a task's entry at the same time.
#![no_std]
#![no_main]
#![feature(core_intrinsics)]
#![allow(internal_features, reason = "atomic addition without an answer")]

mod structure;

mod enabled;
mod measure;
mod tasks;

use agent_common::{
    probes::{
        Field, Loss,
        sched::{
            DEAD, PREEMPTED, TASK_BITS,
            metric::{COUNT, IDLE, OFFCPU, ONCPU, RUNQUEUE},
            op,
        },
    },
    series::Key,
};
use agent_ebpf as _;
use aya_ebpf::{
    helpers::{bpf_get_current_pid_tgid, bpf_ktime_get_ns},
    macros::{btf_tracepoint, map},
    maps::{Array, PerCpuArray},
    programs::BtfTracePointContext,
};
use structure::{has, read};
use tasks::{comm, comm_words, entry, forget, forget_name};

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

/// Histograms of a series.
const METRICS: usize = COUNT;

agent_ebpf::constants!(TASK_PID TASK_STATE TASK_ON_CPU TASK_CGROUPS CGROUPS_DEFAULT CGROUP_KN KN_ID);

/// A bit of a task's state (`include/linux/sched.h`), since 4.14.
const TASK_DEAD: u32 = 0x80;

/// What a task's series were when they were last looked up, at the same place as in `TASKS`; only used
/// where series are told apart by more than the kind of switch.
#[repr(C)]
#[derive(Clone, Copy)]
struct Slots {
    cgroup: u64,
    comm: [u64; 2],
    /// By op; 0 if not looked up.
    slots: [u32; 2],
}

#[map]
static TASK_SLOTS: Array<Slots> = Array::with_max_entries(1 << TASK_BITS, 0);

/// Slots of the series that are told apart by op only; 0 if not looked up.
#[map]
static OP_SLOTS: Array<u32> = Array::with_max_entries(op::COUNT, 0);

/// The last switch of a CPU.
#[repr(C)]
#[derive(Clone, Copy)]
struct Switch {
    /// When; 0 before the first one.
    ns: u64,
    /// Who was switched in.
    pid: u64,
}

#[map]
static SWITCHED: PerCpuArray<Switch> = PerCpuArray::with_max_entries(1, 0);

/// The cgroup of a task in the unified hierarchy.
#[inline(always)]
fn cgroup(task: *const u8) -> u64 {
    if !has(&TASK_CGROUPS) {
        return 0;
    }
    let set: *const u8 = read(task, &TASK_CGROUPS);
    let cgroup: *const u8 = read(set, &CGROUPS_DEFAULT);
    read(read(cgroup, &CGROUP_KN), &KN_ID)
}

/// The slot of the series of a task, of which `place` is the entry, or of an idle CPU.
#[inline(always)]
fn slot(task: *const u8, place: u32, op: u32) -> u32 {
    if !measure::by(Field::Comm) && !measure::by(Field::Cgroup) {
        return op_slot(op);
    }
    let Some(known) = TASK_SLOTS.get_ptr_mut(place) else {
        return 0;
    };
    // SAFETY: the kernel gave the pointer; see above for who else writes.
    let known = unsafe { &mut *known };
    let cgroup = if measure::by(Field::Cgroup) {
        cgroup(task)
    } else {
        0
    };
    let comm = if measure::by(Field::Comm) {
        comm_words(task)
    } else {
        [0; 2]
    };
    if known.cgroup != cgroup || known.comm != comm {
        *known = Slots {
            cgroup,
            comm,
            slots: [0; 2],
        };
    }
    let slot = if op == op::VOLUNTARY {
        &mut known.slots[0]
    } else {
        &mut known.slots[1]
    };
    if *slot == 0 {
        *slot = measure::slot(&Key {
            op,
            cgroup,
            // SAFETY: 16 bytes both.
            comm: unsafe { core::mem::transmute::<[u64; 2], [u8; 16]>(comm) },
            ..Key::default()
        });
    }
    *slot
}

#[inline(always)]
fn op_slot(op: u32) -> u32 {
    let Some(known) = OP_SLOTS.get_ptr_mut(op) else {
        return 0;
    };
    // SAFETY: the kernel gave the pointer; whoever writes it writes the same.
    let known = unsafe { &mut *known };
    if *known == 0 {
        *known = measure::slot(&Key {
            op,
            ..Key::default()
        });
    }
    *known
}

/// Whether the task is running: the wake-up came before it had gone to sleep, which it now will not.
#[inline(always)]
fn runs(task: *const u8, pid: u32) -> bool {
    if has(&TASK_ON_CPU) {
        // 0 or 1, in the first byte of a word; since 7.2 it is no more than that byte.
        read::<u8>(task, &TASK_ON_CPU) != 0
    } else {
        bpf_get_current_pid_tgid() as u32 == pid
    }
}

#[inline(always)]
fn woken(task: *const u8, created: bool) {
    let pid: u32 = read(task, &TASK_PID);
    if pid == 0 || runs(task, pid) || !enabled::enabled() {
        return;
    }
    let Some(found) = entry(pid, task) else {
        return;
    };
    let entry = found.task;
    if created && !found.new {
        // The entry of a dead task that had the same pid.
        forget(entry);
        entry.comm = comm(task);
    }
    if entry.queued_ns != 0 {
        // It had to leave its CPU on its way to sleep, and waits since then.
        return;
    }
    entry.flags = 0;
    // SAFETY: a helper without arguments.
    entry.queued_ns = unsafe { bpf_ktime_get_ns() };
    measure::count_alone(Loss::Starts);
}

/// Hook: `TRACE_EVENT(sched_wakeup, TP_PROTO(struct task_struct *p))`
#[btf_tracepoint(function = "sched_wakeup")]
pub fn task_wakeup(ctx: BtfTracePointContext) -> i32 {
    woken(ctx.arg(0), false);
    0
}

/// Hook: `TRACE_EVENT(sched_wakeup_new, TP_PROTO(struct task_struct *p))`
#[btf_tracepoint(function = "sched_wakeup_new")]
pub fn task_wakeup_new(ctx: BtfTracePointContext) -> i32 {
    woken(ctx.arg(0), true);
    0
}

/// Hook: `TRACE_EVENT(task_rename, TP_PROTO(struct task_struct *task, const char *comm))`
///
/// Before the name changes (`__set_task_comm`). Not every kernel lets programs read an argument that is a string.
#[btf_tracepoint(function = "task_rename")]
pub fn task_renamed(ctx: BtfTracePointContext) -> i32 {
    forget_name(read(ctx.arg::<*const u8>(0), &TASK_PID));
    0
}

/// Hook: `TRACE_EVENT(sched_switch, TP_PROTO(bool preempt, struct task_struct *prev, struct task_struct *next,
/// unsigned int prev_state))`, of which the last is not read
/// Hook: `TRACE_EVENT(sched_switch, TP_PROTO(bool preempt, struct task_struct *prev, struct task_struct *next))`
/// before 5.18
#[btf_tracepoint(function = "sched_switch")]
pub fn task_switch(ctx: BtfTracePointContext) -> i32 {
    if !enabled::enabled() {
        return 0;
    }
    let preempted = ctx.arg::<u64>(0) as u8 != 0;
    let prev: *const u8 = ctx.arg(1);
    let next: *const u8 = ctx.arg(2);
    let Some(switched) = SWITCHED.get_ptr_mut(0) else {
        return 0;
    };
    let prev_pid: u32 = read(prev, &TASK_PID);
    let next_pid: u32 = read(next, &TASK_PID);
    // SAFETY: a helper without arguments.
    let now_ns = unsafe { bpf_ktime_get_ns() };
    // SAFETY: this CPU's own entry.
    let before = unsafe {
        core::mem::replace(
            &mut *switched,
            Switch {
                ns: now_ns,
                pid: next_pid.into(),
            },
        )
    };
    let mut since_ns = before.ns;
    if since_ns != 0 && before.pid != prev_pid.into() {
        // There was a switch that the kernel did not report.
        measure::count(Loss::Unmatched);
        since_ns = 0;
    }
    if prev_pid != 0 {
        left(prev, prev_pid, preempted, since_ns, now_ns);
    } else if since_ns != 0 {
        measure::record_span(op_slot(op::IDLE), IDLE, since_ns, now_ns);
    }
    if next_pid != 0 {
        came(next, next_pid, now_ns);
    }
    0
}

/// A task left the CPU on which it had been since `since_ns`; 0 if that was not seen.
#[inline(always)]
fn left(task: *const u8, pid: u32, preempted: bool, since_ns: u64, now_ns: u64) {
    let Some(found) = entry(pid, task) else {
        return;
    };
    let entry = found.task;
    if entry.queued_ns != 0 {
        // It was waiting and then it ran, but the switch between was not seen.
        measure::count(Loss::Lost);
    }
    let state: u32 = read(task, &TASK_STATE);
    let runnable = preempted || state == 0;
    let op = if runnable {
        entry.queued_ns = now_ns;
        entry.off_ns = 0;
        entry.flags = PREEMPTED;
        measure::count_alone(Loss::Starts);
        op::INVOLUNTARY
    } else {
        entry.queued_ns = 0;
        entry.off_ns = now_ns;
        if state & TASK_DEAD != 0 {
            entry.off_ns = 0;
            entry.flags = DEAD;
            entry.comm = comm(task);
        }
        op::VOLUNTARY
    };
    if entry.comm[0] == 0 {
        entry.comm = comm(task);
    }
    if since_ns != 0 {
        entry.oncpu_ns += now_ns - since_ns;
        measure::record_span(slot(task, found.place, op), ONCPU, since_ns, now_ns);
    }
}

/// A task got a CPU.
#[inline(always)]
fn came(task: *const u8, pid: u32, now_ns: u64) {
    let Some(found) = entry(pid, task) else {
        return;
    };
    let entry = found.task;
    let queued_ns = core::mem::replace(&mut entry.queued_ns, 0);
    let off_ns = core::mem::replace(&mut entry.off_ns, 0);
    if queued_ns == 0 {
        // A task that was not known had been waiting since before the probe was loaded, or somebody took
        // its entry and counted that.
        if !found.new {
            measure::count(Loss::Unmatched);
        }
        return;
    }
    let op = if entry.flags & PREEMPTED != 0 {
        op::INVOLUNTARY
    } else {
        op::VOLUNTARY
    };
    let slot = slot(task, found.place, op);
    let waited_ns = now_ns.wrapping_sub(queued_ns);
    if waited_ns as i64 >= 0 {
        entry.waits += 1;
        entry.wait_ns += waited_ns;
        measure::record(slot, RUNQUEUE, waited_ns);
        measure::count_alone(Loss::Completions);
    } else {
        measure::count(Loss::Negative);
    }
    if off_ns != 0 {
        measure::record_span(slot, OFFCPU, off_ns, now_ns);
    }
}
