//! Requests of block devices, from the tracepoints at issue and completion.

use super::{Constant, Field, Hook, KeyField, Kind, Metric, Part, Probe, Unit, Value, Variant};
use crate::catalogue::Backend;

/// Places of the metrics.
pub mod metric {
    pub const QUEUE: usize = 0;
    pub const DEVICE: usize = 1;
    pub const TOTAL: usize = 2;
    pub const SIZE: usize = 3;
    pub const COUNT: usize = 4;
}

/// Places of the operations in `ops`. Not the kernel's `REQ_OP_*`, which have changed.
pub mod op {
    pub const READ: u32 = 0;
    pub const WRITE: u32 = 1;
    pub const FLUSH: u32 = 2;
    pub const DISCARD: u32 = 3;
    pub const OTHER: u32 = 4;
    pub const COUNT: u32 = 5;
}

const fn hook(
    program: &'static str,
    tracepoint: &'static [&'static str],
    arguments: usize,
) -> Hook {
    Hook {
        program,
        kind: Kind::TpBtf,
        symbols: tracepoint,
        arguments: Some(arguments),
        only_by: None,
    }
}

const fn only_by(field: Field, hook: Hook) -> Hook {
    Hook {
        only_by: Some(field),
        ..hook
    }
}

const INSERT: &[&str] = &["block_rq_insert"];
const ISSUE: &[&str] = &["block_rq_issue"];
const REQUEUE: &[&str] = &["block_rq_requeue"];
const COMPLETE: &[&str] = &["block_rq_complete"];

pub(super) const PROBE: Probe = Probe {
    name: "block",
    help: "requests of block devices: time in the queue, in the device and in total, and sizes",
    metrics: &[
        Metric {
            name: "queue",
            unit: Unit::Nanoseconds,
            help: "from the request's allocation to its last hand-over to the driver",
        },
        Metric {
            name: "device",
            unit: Unit::Nanoseconds,
            help: "from the last hand-over to the driver to the request's completion",
        },
        Metric {
            name: "total",
            unit: Unit::Nanoseconds,
            help: "from the request's allocation to its completion",
        },
        Metric {
            name: "size",
            unit: Unit::Bytes,
            help: "bytes that the request's completion still had to account for; 0 for a flush",
        },
    ],
    keys: &[
        KeyField {
            field: Field::Device,
            default: true,
        },
        KeyField {
            field: Field::Op,
            default: true,
        },
        KeyField {
            field: Field::Cgroup,
            default: false,
        },
        KeyField {
            field: Field::Comm,
            default: false,
        },
    ],
    ops: &["read", "write", "flush", "discard", "other"],
    parts: &[Part {
        measures: "latency and size of requests",
        required: true,
        variants: &[
            Variant {
                backend: Backend::Tp,
                hooks: &[
                    only_by(Field::Comm, hook("rq_insert", INSERT, 1)),
                    hook("rq_issue", ISSUE, 1),
                    hook("rq_requeue", REQUEUE, 1),
                    hook("rq_complete", COMPLETE, 3),
                ],
            },
            // Before 5.11 and 5.10.137 (a54895fa057c) the queue came first.
            Variant {
                backend: Backend::Tp,
                hooks: &[
                    only_by(Field::Comm, hook("rq_insert_with_queue", INSERT, 2)),
                    hook("rq_issue_with_queue", ISSUE, 2),
                    hook("rq_requeue", REQUEUE, 2),
                    hook("rq_complete", COMPLETE, 3),
                ],
            },
        ],
    }],
    constants: &[
        offset("RQ_START_NS", &[("request", "start_time_ns")]),
        offset("RQ_IO_START_NS", &[("request", "io_start_time_ns")]),
        offset("RQ_CMD_FLAGS", &[("request", "cmd_flags")]),
        offset("RQ_FLAGS", &[("request", "rq_flags")]),
        offset("RQ_DATA_LEN", &[("request", "__data_len")]),
        offset("RQ_QUEUE", &[("request", "q")]),
        offset("RQ_TAG", &[("request", "tag")]),
        offset("RQ_INTERNAL_TAG", &[("request", "internal_tag")]),
        Constant {
            global: "RQ_DISK",
            value: Value::Offset(&[("request", "rq_disk")]),
        },
        // Since 5.17 (f3fa33acca9f) only the queue knows the disk.
        Constant {
            global: "QUEUE_DISK",
            value: Value::Offset(&[("request_queue", "disk")]),
        },
        offset("DISK_MAJOR", &[("gendisk", "major")]),
        offset("DISK_MINOR", &[("gendisk", "first_minor")]),
        offset("RQ_BIO", &[("request", "bio")]),
        Constant {
            global: "BIO_BLKG",
            value: Value::Offset(&[("bio", "bi_blkg")]),
        },
        Constant {
            global: "BLKG_BLKCG",
            value: Value::Offset(&[("blkcg_gq", "blkcg")]),
        },
        Constant {
            global: "BLKCG_CGROUP",
            value: Value::Offset(&[("blkcg", "css.cgroup")]),
        },
        Constant {
            global: "CGROUP_KN",
            value: Value::Offset(&[("cgroup", "kn")]),
        },
        Constant {
            global: "KN_ID",
            value: Value::Offset(&[("kernfs_node", "id")]),
        },
        // Since 6.9 (06b23f92af87) the kernel's stamps are the time at which the submitter's plug was
        // opened, which for the last request of a batch is long ago: then we stamp the hand-over ourselves.
        Constant {
            global: "PLUG_TIME",
            value: Value::Offset(&[("blk_plug", "cur_ktime")]),
        },
        // A bit number; 1 << 4 until the flags became an enumeration (5f89154e8e9e).
        Constant {
            global: "FLUSH_SEQ_BIT",
            value: Value::Enumerator("__RQF_FLUSH_SEQ", 4),
        },
    ],
};

const fn offset(global: &'static str, paths: &'static [(&'static str, &'static str)]) -> Constant {
    Constant {
        global,
        value: Value::RequiredOffset(paths),
    }
}
