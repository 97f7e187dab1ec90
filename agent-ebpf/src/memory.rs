//! The probe `memory`: OOM kills as events, reclaim in the caller's own time, major page faults.
#![no_std]
#![no_main]
#![feature(core_intrinsics)]
#![allow(internal_features, reason = "atomic addition without an answer")]

mod measure;
#[path = "memory/oom.rs"]
mod oom;
#[path = "memory/reclaim.rs"]
mod reclaim;
mod structure;

use agent_common::{
    probes::{
        Field,
        memory::metric::{COUNT, MAJOR_FAULT},
    },
    series::Key,
};
use agent_ebpf as _;
use aya_ebpf::{
    helpers::{bpf_get_current_cgroup_id, bpf_get_current_comm, bpf_get_current_pid_tgid},
    macros::perf_event,
    programs::PerfEventContext,
};

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

/// Histograms of a series.
const METRICS: usize = COUNT;

/// The place of a number in a table of `1 << bits`.
#[inline(always)]
const fn place(number: u64, bits: u32) -> u32 {
    (number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (64 - bits)) as u32
}

/// The current thread.
#[inline(always)]
fn thread() -> u64 {
    bpf_get_current_pid_tgid() & 0xffff_ffff
}

/// The series of the current task.
#[inline(always)]
fn current_slot() -> u32 {
    let mut key = Key::default();
    if measure::by(Field::Cgroup) {
        // SAFETY: a helper without arguments.
        key.cgroup = unsafe { bpf_get_current_cgroup_id() };
    }
    if measure::by(Field::Comm) {
        key.comm = bpf_get_current_comm().unwrap_or_default();
    }
    measure::slot(&key)
}

/// Hook: perf event `PERF_COUNT_SW_PAGE_FAULTS_MAJ`, counted when the fault is done, in the task that had it
/// (`mm_account_fault` in `mm/memory.c`).
#[perf_event]
pub fn major_fault(_ctx: PerfEventContext) -> u32 {
    measure::record(current_slot(), MAJOR_FAULT, 1);
    0
}
