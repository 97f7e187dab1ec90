//! The scheduler: waits for a CPU, time on it and off it, from the tracepoints at wake-up and switch.

use super::{
    Field, Hook, Part, Probe, Variant,
    shorthand::{key, on_request, optional, required, time, tracepoint},
};
use crate::catalogue::Backend;

/// Its name, for who needs this very probe.
pub const NAME: &str = "sched";

/// Places of the metrics.
pub mod metric {
    pub const RUNQUEUE: usize = 0;
    pub const ONCPU: usize = 1;
    pub const OFFCPU: usize = 2;
    pub const IDLE: usize = 3;
    pub const COUNT: usize = 4;
}

/// Places of the kinds of switch in `ops`.
pub mod op {
    /// The task went to sleep or ended; its next wait begins when it is woken.
    pub const VOLUNTARY: u32 = 0;
    /// The task could have gone on; its next wait begins at once.
    pub const INVOLUNTARY: u32 = 1;
    /// The CPU had nothing to do.
    pub const IDLE: u32 = 2;
    pub const COUNT: u32 = 3;
}

/// log2 of the entries of `TASKS`.
pub const TASK_BITS: u32 = 17;

/// What is known of a task since the probe was loaded: an entry of the map `TASKS`, in one cache line.
///
/// The entry of a task is at the lower [`TASK_BITS`] bits of its pid, or at that place with the highest of
/// these bits flipped.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Task {
    /// In the kernel's own pid namespace; 0 if the entry is free.
    pub pid: u32,
    /// Bits: [`PREEMPTED`], [`DEAD`].
    pub flags: u32,
    /// Since when it has been waiting for a CPU (`CLOCK_MONOTONIC`, ns); 0 if it is not.
    pub queued_ns: u64,
    /// When it left its CPU to sleep; 0 if it did not.
    pub off_ns: u64,
    /// Time on CPUs (ns).
    pub oncpu_ns: u64,
    /// Waits for a CPU (count).
    pub waits: u64,
    /// Sum of these waits (ns).
    pub wait_ns: u64,
    /// Command; zeros from its change to the next time that the task leaves its CPU.
    pub comm: [u8; 16],
}

/// The wait began as the task had to leave its CPU.
pub const PREEMPTED: u32 = 1;
/// It has ended; the entry may be taken.
pub const DEAD: u32 = 2;

const _: () = assert!(size_of::<Task>() == 64);

const WAKEUP: Hook = tracepoint("task_wakeup", &["sched_wakeup"], 1);
const WAKEUP_NEW: Hook = tracepoint("task_wakeup_new", &["sched_wakeup_new"], 1);

pub(super) const PROBE: Probe = Probe {
    name: NAME,
    help: "tasks: waits for a CPU, time on it and off it, voluntary and involuntary switches",
    metrics: &[
        time(
            "runqueue",
            "from wake-up, or from having to leave a CPU (involuntary), to running",
        ),
        time(
            "oncpu",
            "from being switched in to being switched out; its count by op is that of switches",
        ),
        time(
            "offcpu",
            "from leaving a CPU to sleep to running again, the wait for a CPU included",
        ),
        time("idle", "stretches in which a CPU had nothing to run"),
    ],
    keys: &[
        key(Field::Op),
        on_request(Field::Cpu),
        on_request(Field::Cgroup),
        on_request(Field::Comm),
    ],
    ops: &["voluntary", "involuntary", "idle"],
    parts: &[
        Part {
            measures: "waits and switches of tasks",
            required: true,
            variants: &[
                Variant {
                    backend: Backend::Tp,
                    hooks: &[
                        WAKEUP,
                        WAKEUP_NEW,
                        tracepoint("task_switch", &["sched_switch"], 4),
                    ],
                },
                // Until 5.18 (fa2c3254d7cf) the task's state was no argument. We read it from the task, where
                // it also tells of those who stay because a signal came, so one program does for both.
                Variant {
                    backend: Backend::Tp,
                    hooks: &[
                        WAKEUP,
                        WAKEUP_NEW,
                        tracepoint("task_switch", &["sched_switch"], 3),
                    ],
                },
            ],
        },
        Part {
            measures: "names of tasks that change them",
            required: false,
            variants: &[Variant {
                backend: Backend::Tp,
                hooks: &[tracepoint("task_renamed", &["task_rename"], 2)],
            }],
        },
    ],
    constants: &[
        required("TASK_PID", &[("task_struct", "pid")]),
        // Renamed in 5.14 (2f064a59a11f).
        required(
            "TASK_STATE",
            &[("task_struct", "__state"), ("task_struct", "state")],
        ),
        required("TASK_COMM", &[("task_struct", "comm")]),
        // A kernel for one CPU may have none.
        optional("TASK_ON_CPU", &[("task_struct", "on_cpu")]),
        optional("TASK_CGROUPS", &[("task_struct", "cgroups")]),
        optional("CGROUPS_DEFAULT", &[("css_set", "dfl_cgrp")]),
        optional("CGROUP_KN", &[("cgroup", "kn")]),
        optional("KN_ID", &[("kernfs_node", "id")]),
    ],
    recent: None,
};
