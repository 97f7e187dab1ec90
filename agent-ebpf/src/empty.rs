//! Programs that do nothing, one for each backend: what a hook costs before any work of ours.
//! The bench subtracts their cost from that of the probe's programs.
#![no_std]
#![no_main]

use agent_ebpf as _;
use aya_ebpf::{
    helpers::bpf_ktime_get_ns,
    macros::{btf_tracepoint, fentry, kprobe, raw_tracepoint, uprobe},
    programs::{BtfTracePointContext, FEntryContext, ProbeContext, RawTracePointContext},
};

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

/// Hook: any function; no argument is read
#[fentry]
pub fn fentry_empty(_ctx: FEntryContext) -> i32 {
    0
}

/// Hook: any function; no argument is read
#[kprobe]
pub fn kprobe_empty(_ctx: ProbeContext) -> u32 {
    0
}

/// Hook: any function of a program; no argument is read
#[uprobe]
pub fn uprobe_empty(_ctx: ProbeContext) -> u32 {
    0
}

/// Hook: `TRACE_EVENT(sys_enter, TP_PROTO(struct pt_regs *regs, long id))`
#[raw_tracepoint(tracepoint = "sys_enter")]
pub fn tp_sys_enter(_ctx: RawTracePointContext) -> i32 {
    0
}

/// Hook: `TRACE_EVENT(block_rq_issue, TP_PROTO(struct request *rq))`
/// Hook: `TRACE_EVENT(block_rq_issue, TP_PROTO(struct request_queue *q, struct request *rq))`, before 5.11 and 5.10.137
///
/// No argument is read.
#[raw_tracepoint(tracepoint = "block_rq_issue")]
pub fn tp_block_rq_issue(_ctx: RawTracePointContext) -> i32 {
    0
}

/// Hook: any tracepoint for which it is loaded; no argument is read
#[btf_tracepoint]
pub fn tp_btf_empty(_ctx: BtfTracePointContext) -> i32 {
    0
}

/// Hook: any tracepoint for which it is loaded; no argument is read
///
/// As `tp_btf_empty`, but for what no program that measures a time can do without.
#[btf_tracepoint]
pub fn tp_btf_clock(_ctx: BtfTracePointContext) -> i32 {
    // SAFETY: a helper without arguments.
    let _now_ns = unsafe { bpf_ktime_get_ns() };
    0
}
