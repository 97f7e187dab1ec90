//! Memory that ran short: OOM kills, reclaim in the caller's own time, major page faults.

use super::{
    ABSENT, Constant, Field, Hook, Kind, Metric, Part, Probe, Unit, Value, Variant,
    shorthand::{hook, on_request, optional, required, time, tracepoint},
};
use crate::catalogue::Backend;

/// Places of the metrics.
pub mod metric {
    pub const OOM_KILL: usize = 0;
    pub const DIRECT_RECLAIM: usize = 1;
    pub const MEMCG_RECLAIM: usize = 2;
    pub const MAJOR_FAULT: usize = 3;
    pub const COUNT: usize = 4;
}

const SIGNAL: Hook = tracepoint("signal_generate", &["signal_generate"], 5);
const MARK: &[&str] = &["mark_victim"];
const OOM_KILL_PROCESS: &[&str] = &["oom_kill_process"];

/// Programs at tracepoints of which no argument is read.
const fn plain(program: &'static str, tracepoint: &'static [&'static str]) -> Hook {
    hook(program, Kind::TpBtf, tracepoint)
}

/// Its name, for who needs this very probe.
pub const NAME: &str = "memory";

pub const PROBE: Probe = Probe {
    name: NAME,
    help: "OOM kills, time spent in reclaiming memory, major page faults",
    metrics: &[
        Metric {
            name: "oom_kill",
            unit: Unit::Bytes,
            help: "processes killed for want of memory, by the memory that each held (anonymous, file and shared)",
        },
        time(
            "direct_reclaim",
            "time that a task spent freeing pages before it got its own",
        ),
        time(
            "memcg_reclaim",
            "time that a task spent freeing pages of a cgroup at its limit",
        ),
        Metric {
            name: "major_fault",
            unit: Unit::Count,
            help: "page faults that had to wait for a device",
        },
    ],
    keys: &[on_request(Field::Cgroup), on_request(Field::Comm)],
    ops: &[],
    parts: &[
        Part {
            measures: "OOM kills",
            required: true,
            variants: &[
                Variant {
                    backend: Backend::Tp,
                    hooks: &[SIGNAL, tracepoint("mark_victim", MARK, 2)],
                },
                // Before 72ba14deb40a (6.9, and stable kernels that took it) it had the PID only.
                Variant {
                    backend: Backend::Tp,
                    hooks: &[SIGNAL, tracepoint("mark_victim_pid", MARK, 1)],
                },
            ],
        },
        Part {
            measures: "constraint and limit of OOM kills",
            required: false,
            variants: &[
                Variant {
                    backend: Backend::Fentry,
                    hooks: &[hook("oom_fentry", Kind::Fentry, OOM_KILL_PROCESS)],
                },
                Variant {
                    backend: Backend::Kprobe,
                    hooks: &[hook("oom_kprobe", Kind::Kprobe, OOM_KILL_PROCESS)],
                },
            ],
        },
        Part {
            measures: "direct reclaim",
            required: false,
            variants: &[Variant {
                backend: Backend::Tp,
                hooks: &[
                    plain("direct_begin", &["mm_vmscan_direct_reclaim_begin"]),
                    plain("direct_end", &["mm_vmscan_direct_reclaim_end"]),
                ],
            }],
        },
        Part {
            measures: "reclaim at a cgroup's limit",
            required: false,
            variants: &[Variant {
                backend: Backend::Tp,
                hooks: &[
                    plain("memcg_begin", &["mm_vmscan_memcg_reclaim_begin"]),
                    plain("memcg_end", &["mm_vmscan_memcg_reclaim_end"]),
                ],
            }],
        },
        Part {
            measures: "major faults",
            required: false,
            variants: &[Variant {
                backend: Backend::Tp,
                hooks: &[hook("major_fault", Kind::MajorFaults, &[])],
            }],
        },
    ],
    constants: &[
        required("TASK_PID", &[("task_struct", "pid")]),
        required("TASK_TGID", &[("task_struct", "tgid")]),
        required("TASK_COMM", &[("task_struct", "comm")]),
        required("TASK_MM", &[("task_struct", "mm")]),
        required("TASK_SIGNAL", &[("task_struct", "signal")]),
        optional("TASK_CGROUPS", &[("task_struct", "cgroups")]),
        required(
            "SIGNAL_OOM_SCORE_ADJ",
            &[("signal_struct", "oom_score_adj")],
        ),
        optional("CSS_SET_DEFAULT", &[("css_set", "dfl_cgrp")]),
        optional("CSS_SET_SUBSYS", &[("css_set", "subsys")]),
        optional("CSS_CGROUP", &[("cgroup_subsys_state", "cgroup")]),
        optional("CGROUP_KN", &[("cgroup", "kn")]),
        optional("KN_ID", &[("kernfs_node", "id")]),
        optional("KN_NAME", &[("kernfs_node", "name")]),
        // `parent` until it became an RCU pointer (633488947ef6, 6.15).
        optional(
            "KN_PARENT",
            &[("kernfs_node", "__parent"), ("kernfs_node", "parent")],
        ),
        Constant {
            global: "MEMORY_CONTROLLER",
            value: Value::Enumerator("memory_cgrp_id", ABSENT),
        },
        Constant {
            global: "PAGE_SIZE",
            value: Value::PageSize,
        },
        optional("MM_TOTAL_VM", &[("mm_struct", "total_vm")]),
        // Per-CPU counters since f1a7941243c1 (6.2); the kernel's own report reads the shared part, too.
        optional(
            "MM_FILE",
            &[
                ("mm_struct", "rss_stat[0].count"),
                ("mm_struct", "rss_stat.count[0]"),
            ],
        ),
        optional(
            "MM_ANON",
            &[
                ("mm_struct", "rss_stat[1].count"),
                ("mm_struct", "rss_stat.count[1]"),
            ],
        ),
        optional(
            "MM_SHMEM",
            &[
                ("mm_struct", "rss_stat[3].count"),
                ("mm_struct", "rss_stat.count[3]"),
            ],
        ),
        optional("OC_MEMCG", &[("oom_control", "memcg")]),
        optional("OC_ORDER", &[("oom_control", "order")]),
        optional("OC_CONSTRAINT", &[("oom_control", "constraint")]),
        optional("MEMCG_CGROUP", &[("mem_cgroup", "css.cgroup")]),
    ],
    recent: None,
};
