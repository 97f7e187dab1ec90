//! Requests of block devices, from the tracepoints at issue and completion.

use super::{
    ABSENT, Constant, Field, Hook, Metric, Part, Probe, Unit, Value, Variant,
    shorthand::{key, on_request, optional, required, time, tracepoint},
};
use crate::{catalogue::Backend, recent::Entry};

/// Its name, for who needs this very probe.
pub const NAME: &str = "block";

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

    /// Of a request, by its `cmd_flags` (`enum req_op`, `include/linux/blk_types.h`).
    #[inline(always)]
    #[must_use]
    pub const fn of_flags(flags: u32) -> u32 {
        match flags & 0xff {
            0 => READ,
            // WRITE, ZONE_APPEND (7 since 6.6, 13 before), WRITE_ZEROES, as in /proc/diskstats
            1 | 7 | 9 | 13 => WRITE,
            2 => FLUSH,
            3 | 5 => DISCARD, // DISCARD, SECURE_ERASE
            _ => OTHER,
        }
    }
}

/// Sets of requests that are remembered from issue to completion, in the map `.data.starts`, and requests of each.
pub const SETS: usize = 256;
pub const WAYS: usize = 3;

/// A set, in words: the second has how many requests of it were issued (count) and, above that, whether one was ever kept
/// elsewhere.
pub type Set = [u64; 2 + 2 * WAYS];

/// What is above the count.
pub const IN_FAR: u64 = 1 << 48;

/// Requests of all sets that were issued (count).
#[must_use]
pub fn starts(sets: &[Set; SETS]) -> u64 {
    sets.iter().map(|set| set[1] % IN_FAR).sum()
}

/// What an entry records in a metric: it has the times of the queue and of the device (ns), and the size (bytes).
#[inline(always)]
#[must_use]
pub fn recent(entry: &Entry, metric: usize) -> Option<u64> {
    let [queue, device, size] = entry.values.map(u64::from);
    match metric {
        metric::QUEUE => Some(queue),
        metric::DEVICE => Some(device),
        metric::TOTAL => Some(queue + device),
        metric::SIZE => Some(size),
        _ => None,
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
    name: NAME,
    help: "requests of block devices: time in the queue, in the device and in total, and sizes",
    metrics: &[
        time(
            "queue",
            "from the request's allocation to its last hand-over to the driver",
        ),
        time(
            "device",
            "from the last hand-over to the driver to the request's completion",
        ),
        time("total", "from the request's allocation to its completion"),
        Metric {
            name: "size",
            unit: Unit::Bytes,
            help: "bytes that the request's completion still had to account for; 0 for a flush",
        },
    ],
    keys: &[
        key(Field::Device),
        key(Field::Op),
        on_request(Field::Cgroup),
        on_request(Field::Comm),
    ],
    ops: &["read", "write", "flush", "discard", "other"],
    // Ends are attached before starts: a start whose end is not yet watched would never end.
    parts: &[Part {
        measures: "latency and size of requests",
        required: true,
        variants: &[
            Variant {
                backend: Backend::Tp,
                hooks: &[
                    tracepoint("rq_complete", COMPLETE, 3),
                    tracepoint("rq_requeue", REQUEUE, 1),
                    only_by(Field::Comm, tracepoint("rq_insert", INSERT, 1)),
                    tracepoint("rq_issue", ISSUE, 1),
                ],
            },
            // Before 5.11 and 5.10.137 (a54895fa057c) the queue came first.
            Variant {
                backend: Backend::Tp,
                hooks: &[
                    tracepoint("rq_complete", COMPLETE, 3),
                    tracepoint("rq_requeue_with_queue", REQUEUE, 2),
                    only_by(Field::Comm, tracepoint("rq_insert_with_queue", INSERT, 2)),
                    tracepoint("rq_issue_with_queue", ISSUE, 2),
                ],
            },
        ],
    }],
    constants: &[
        required("RQ_START_NS", &[("request", "start_time_ns")]),
        required("RQ_IO_START_NS", &[("request", "io_start_time_ns")]),
        required("RQ_CMD_FLAGS", &[("request", "cmd_flags")]),
        required("RQ_FLAGS", &[("request", "rq_flags")]),
        required("RQ_DATA_LEN", &[("request", "__data_len")]),
        required("RQ_QUEUE", &[("request", "q")]),
        optional("RQ_DISK", &[("request", "rq_disk")]),
        // Since 5.17 (f3fa33acca9f) only the queue knows the disk.
        optional("QUEUE_DISK", &[("request_queue", "disk")]),
        required("DISK_MAJOR", &[("gendisk", "major")]),
        required("DISK_MINOR", &[("gendisk", "first_minor")]),
        required("RQ_BIO", &[("request", "bio")]),
        optional("BIO_BLKG", &[("bio", "bi_blkg")]),
        optional("BLKG_BLKCG", &[("blkcg_gq", "blkcg")]),
        optional("BLKCG_CGROUP", &[("blkcg", "css.cgroup")]),
        optional("CGROUP_KN", &[("cgroup", "kn")]),
        optional("KN_ID", &[("kernfs_node", "id")]),
        // Since 6.9 (06b23f92af87) the kernel's stamps are the time at which the submitter's plug was
        // opened, which for the last request of a batch is long ago: then we stamp the hand-over ourselves.
        optional("PLUG_TIME", &[("blk_plug", "cur_ktime")]),
        // A bit number; 1 << 4 until the flags became an enumeration (5f89154e8e9e).
        Constant {
            global: "FLUSH_SEQ_BIT",
            value: Value::Enumerator("__RQF_FLUSH_SEQ", 4),
        },
        // A bit number. Since 6.13 a request's allocation is stamped as this is set (`blk_account_io_start`), and what
        // stands in the others is older than they are. Before, the kernel's stamp is 0 or right, and needs no flag; of
        // the kernels without the enumeration we ask for none.
        Constant {
            global: "IO_STAT_BIT",
            value: Value::Enumerator("__RQF_IO_STAT", ABSENT),
        },
    ],
    recent: Some(recent),
};
