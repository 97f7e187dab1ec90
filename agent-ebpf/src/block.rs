//! The probe `block`: requests of block devices.
//!
//! `rq_issue` remembers each request that is handed to the driver, so that each end in the books has its start. The
//! times are mostly the kernel's: it stamps a request when it is allocated and when it is handed over. Where the second
//! stamp is missing (no writeback throttling or other user of block statistics on that device) or stale (`PLUG_TIME`),
//! `rq_issue` reads the clock itself.
//!
//! A write that asks for flushes around it (`REQ_PREFLUSH`, `REQ_FUA`) completes twice: when its data are
//! in the device, with `RQF_FLUSH_SEQ` set, and when all flushes are done, without length
//! (`block/blk-flush.c`). The first gives `queue`, `device` and `size`, the second `total`.
#![no_std]
#![no_main]
#![feature(core_intrinsics)]
#![allow(internal_features, reason = "atomic addition without an answer")]

mod structure;

#[path = "block/flags.rs"]
mod flags;
mod measure;
mod recent;
#[path = "block/starts.rs"]
mod starts;

use agent_common::{
    probes::{
        Field, Loss,
        block::{
            metric::{COUNT, DEVICE, QUEUE, SIZE, TOTAL},
            op, recent as recent_value,
        },
    },
    recent::{Entry, Recent},
    series::{Key, OTHER},
};
use agent_ebpf as _;
use aya_ebpf::{helpers::bpf_ktime_get_ns, macros::btf_tracepoint, programs::BtfTracePointContext};
use flags::{accounted, in_sequence, start_ns};
use starts::{inserted, issue_ns, issued, near, not_stamped, requeued, take};
use structure::{has, read};

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

agent_ebpf::constants!(RQ_START_NS RQ_IO_START_NS RQ_CMD_FLAGS RQ_FLAGS RQ_DATA_LEN RQ_QUEUE RQ_DISK QUEUE_DISK
    DISK_MAJOR DISK_MINOR RQ_BIO BIO_BLKG BLKG_BLKCG BLKCG_CGROUP CGROUP_KN KN_ID PLUG_TIME FLUSH_SEQ_BIT IO_STAT_BIT);

/// Histograms of a series.
const METRICS: usize = COUNT;

/// Hook: `TRACE_EVENT(block_rq_issue, TP_PROTO(struct request *rq))`
#[btf_tracepoint(function = "block_rq_issue")]
pub fn rq_issue(ctx: BtfTracePointContext) -> i32 {
    issued(ctx.arg(0));
    0
}

/// Hook: `TRACE_EVENT(block_rq_issue, TP_PROTO(struct request_queue *q, struct request *rq))`, before 5.11 and 5.10.137
#[btf_tracepoint(function = "block_rq_issue")]
pub fn rq_issue_with_queue(ctx: BtfTracePointContext) -> i32 {
    issued(ctx.arg(1));
    0
}

/// Hook: `TRACE_EVENT(block_rq_insert, TP_PROTO(struct request *rq))`
#[btf_tracepoint(function = "block_rq_insert")]
pub fn rq_insert(ctx: BtfTracePointContext) -> i32 {
    inserted(ctx.arg(0));
    0
}

/// Hook: `TRACE_EVENT(block_rq_insert, TP_PROTO(struct request_queue *q, struct request *rq))`, before 5.11 and 5.10.137
#[btf_tracepoint(function = "block_rq_insert")]
pub fn rq_insert_with_queue(ctx: BtfTracePointContext) -> i32 {
    inserted(ctx.arg(1));
    0
}

/// Hook: `TRACE_EVENT(block_rq_requeue, TP_PROTO(struct request *rq))`
#[btf_tracepoint(function = "block_rq_requeue")]
pub fn rq_requeue(ctx: BtfTracePointContext) -> i32 {
    requeued(ctx.arg(0));
    0
}

/// Hook: `TRACE_EVENT(block_rq_requeue, TP_PROTO(struct request_queue *q, struct request *rq))`, before 5.11 and 5.10.137
#[btf_tracepoint(function = "block_rq_requeue")]
pub fn rq_requeue_with_queue(ctx: BtfTracePointContext) -> i32 {
    requeued(ctx.arg(1));
    0
}

/// Hook: `TRACE_EVENT(block_rq_complete, TP_PROTO(struct request *rq, blk_status_t error, unsigned int nr_bytes))`
/// Hook: `TRACE_EVENT(block_rq_complete, TP_PROTO(struct request *rq, int error, unsigned int nr_bytes))` on 5.10
///
/// Of an `int` the lower byte is 0 only if all of it is: an error number is above -256.
#[btf_tracepoint(function = "block_rq_complete")]
pub fn rq_complete(ctx: BtfTracePointContext) -> i32 {
    let request: *const u8 = ctx.arg(0);
    let error: u32 = ctx.arg(1);
    let bytes: u32 = ctx.arg(2);
    let left: u32 = read(request, &RQ_DATA_LEN);
    if bytes < left {
        // A part of it: the last one tells how long it took.
        return 0;
    }
    let failed = error as u8 != 0;
    if failed {
        measure::count(Loss::Errors);
    }
    // SAFETY: a helper without arguments.
    let now_ns = unsafe { bpf_ktime_get_ns() };
    if plain(request, left, now_ns).is_none() {
        core::intrinsics::cold_path();
        unusual(request, left, now_ns, failed);
    }
    0
}

/// Records a read or write with both stamps, accounted, of usual times and by itself: nearly all are. If it is another, or if
/// series are told apart by what is not cheap to know, nothing is recorded.
///
/// All that is read from the request is read before `near`: the verifier goes through what follows it once for each way, and
/// a load from a trusted pointer has it search the kernel's BTF by name.
#[inline(always)]
fn plain(request: *const u8, bytes: u32, now_ns: u64) -> Option<()> {
    let flags: u32 = read(request, &RQ_CMD_FLAGS);
    let rq_flags: u32 = read(request, &RQ_FLAGS);
    // REQ_OP_READ and REQ_OP_WRITE; ours are the same.
    let op = flags & 0xff;
    if measure::by(Field::Comm)
        || measure::by(Field::Cgroup)
        || op > op::WRITE
        || bytes == 0
        || rq_flags & (in_sequence() | accounted()) != accounted()
    {
        return None;
    }
    let start_ns: u64 = read(request, &RQ_START_NS);
    let stamped_ns: u64 = read(request, &RQ_IO_START_NS);
    let recent = recent::recent()?;
    let slot = slot(recent, request, op)?;
    let start = near(request)?;
    let issue_ns = issue_ns(stamped_ns, start.issue_ns);
    if start_ns == 0 || issue_ns == 0 {
        return None;
    }
    let queue = issue_ns.wrapping_sub(start_ns);
    let device = now_ns.wrapping_sub(issue_ns);
    // Negative ones are larger still.
    if queue | device > u32::MAX.into() {
        return None;
    }
    start.request = 0;
    let values = [queue as u32, device as u32, bytes];
    recent::append(recent, Entry { slot, values });
    Some(())
}

/// Records any request. Out of line, so that the other is short.
#[inline(never)]
fn unusual(request: *const u8, bytes: u32, now_ns: u64, failed: bool) -> u32 {
    let flags: u32 = read(request, &RQ_CMD_FLAGS);
    let op = op::of_flags(flags);
    let rq_flags: u32 = read(request, &RQ_FLAGS);
    let in_sequence = op != op::FLUSH && rq_flags & in_sequence() != 0;
    let sequence_end = op == op::WRITE && bytes == 0;
    let start_ns = start_ns(request);
    let stamped_ns: u64 = read(request, &RQ_IO_START_NS);
    let mut key = key(request, op);
    let taken = take(request);
    let seen = taken.issue_ns != 0;
    let issue_ns = if seen {
        issue_ns(stamped_ns, taken.issue_ns)
    } else if stamped_ns == 0 {
        0
    } else {
        // Issued before the probe was attached, or there was no room: the kernel's stamps have to do, of
        // which the plug's may be older than the request's own.
        stamped_ns.max(start_ns)
    };
    if measure::by(Field::Comm)
        && let Some(comm) = taken.comm()
    {
        key.comm = comm;
    }
    let Some(mut row) = measure::row(measure::slot(&key)) else {
        measure::count(Loss::Lost);
        return 0;
    };
    if failed && issue_ns == 0 {
        // Refused before it was handed over: the disk is gone.
        measure::count_alone(Loss::Early);
    } else if !sequence_end {
        // Each start has one end: one whose start was not counted is none.
        measure::count(if seen { Loss::Completions } else { Loss::Early });
        row.record(SIZE, bytes.into());
        if issue_ns == 0 {
            not_stamped(op);
        } else {
            row.record_span(DEVICE, issue_ns, now_ns);
            if start_ns != 0 {
                row.record_span(QUEUE, start_ns, issue_ns);
            }
        }
    }
    if !in_sequence {
        if start_ns != 0 {
            row.record_span(TOTAL, start_ns, now_ns);
        } else if op != op::OTHER {
            measure::count(Loss::Unmatched);
        }
    }
    0
}

/// The slot of a read's or write's series, which is known by device and operation, and mostly the same as before on this
/// CPU: `own` has, by operation, the device as in [`Key`], and in the lower half its slot. That is `OTHER` if none is known:
/// then it is looked up, and counted, each time.
#[inline(always)]
fn slot(recent: &mut Recent, request: *const u8, op: u32) -> Option<u32> {
    let device = device(request);
    let last = recent.own.get_mut(op as usize)?;
    if (*last >> 32) as u32 != device || *last as u32 == OTHER {
        core::intrinsics::cold_path();
        *last = u64::from(device) << 32 | u64::from(find_slot(request, op));
    }
    Some(*last as u32)
}

/// Out of line, as it is seldom needed, and the program is then short and needs little stack: with 64 bytes
/// or more it gets its stack elsewhere in memory since 6.13.
#[inline(never)]
fn find_slot(request: *const u8, op: u32) -> u32 {
    measure::slot(&key(request, op))
}

/// Without the command, which only [`take`] knows.
#[inline(always)]
fn key(request: *const u8, op: u32) -> Key {
    let mut key = Key {
        op,
        device: device(request),
        ..Key::default()
    };
    if measure::by(Field::Cgroup) {
        key.cgroup = cgroup(request);
    }
    key
}

/// `request->q->disk`, or `request->rq_disk` on older kernels, as major << 20 | minor. A request without a
/// disk has device 0.
#[inline(always)]
fn device(request: *const u8) -> u32 {
    let disk: *const u8 = if has(&RQ_DISK) {
        read(request, &RQ_DISK)
    } else {
        read(read(request, &RQ_QUEUE), &QUEUE_DISK)
    };
    if disk.is_null() {
        return 0;
    }
    let major: u32 = read(disk, &DISK_MAJOR);
    let minor: u32 = read(disk, &DISK_MINOR);
    major << 20 | minor
}

/// The cgroup to which the request's first bio is charged: whoever dirtied or asked for the data, not who
/// happens to run now.
#[inline(always)]
fn cgroup(request: *const u8) -> u64 {
    if !has(&BIO_BLKG) {
        return 0;
    }
    let bio: *const u8 = read(request, &RQ_BIO);
    let blkg: *const u8 = read(bio, &BIO_BLKG);
    let blkcg: *const u8 = read(blkg, &BLKG_BLKCG);
    let cgroup: *const u8 = read(blkcg, &BLKCG_CGROUP);
    read(read(cgroup, &CGROUP_KN), &KN_ID)
}
