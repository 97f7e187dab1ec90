//! The probe `irq`: softirqs and interrupt handlers.
//!
//! Neither a vector's softirq nor interrupt handlers run inside each other on one CPU, so what began is
//! kept per CPU. But an interrupt may raise a softirq, and run its handlers, while a program for softirqs
//! runs on that CPU: what they share is written so that it does not matter, or in rows of their own.
//!
//! The programs at entries are attached last: until a CPU's first entry nothing is recorded there.
#![no_std]
#![no_main]
#![feature(core_intrinsics)]
#![allow(internal_features, reason = "atomic addition without an answer")]

mod measure;

use agent_common::{
    probes::{
        Loss,
        irq::{
            SOFTIRQS, kind,
            metric::{COUNT, HARDIRQ, RAISE, SOFTIRQ},
        },
    },
    series::Key,
};
use agent_ebpf as _;
use aya_ebpf::{
    helpers::bpf_ktime_get_ns,
    macros::{btf_tracepoint, map},
    maps::PerCpuArray,
    programs::BtfTracePointContext,
};

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

/// Histograms of a series.
const METRICS: usize = COUNT;

/// A vector on one CPU. Times are 0 where there is nothing to tell.
///
/// The kernel takes all pending vectors at once and then serves one after the other. A raise after that
/// and before its vector's entry is a new one, served by the next entry; one before that adds nothing. We
/// cannot tell which it was, but the next entry can: if nothing was raised since the entry before it, what
/// it serves was raised last before that entry.
#[repr(C)]
#[derive(Clone, Copy)]
struct Vector {
    /// First raise since the last entry.
    raised_ns: u64,
    /// Last raise.
    last_ns: u64,
    entered_ns: u64,
    /// Of its series; 0 if not looked up.
    slot: u32,
    /// Not 0 once it was entered.
    seen: u32,
}

#[map]
static VECTORS: PerCpuArray<Vector> = PerCpuArray::with_max_entries(SOFTIRQS.len() as u32, 0);

/// The interrupt handler that runs on this CPU.
#[repr(C)]
#[derive(Clone, Copy)]
struct Handler {
    /// 0: none.
    entered_ns: u64,
    irq: u64,
}

#[map]
static HANDLER: PerCpuArray<Handler> = PerCpuArray::with_max_entries(1, 0);

/// The slot of an interrupt's series, at the lower bits of its number.
#[repr(C)]
#[derive(Clone, Copy)]
struct IrqSlot {
    irq: u32,
    /// 0 if not looked up.
    slot: u32,
}

const IRQ_SLOTS_COUNT: u32 = 1 << 10;

#[map]
static IRQ_SLOTS: PerCpuArray<IrqSlot> = PerCpuArray::with_max_entries(IRQ_SLOTS_COUNT, 0);

#[inline(always)]
fn vector(number: u32) -> Option<&'static mut Vector> {
    // SAFETY: this CPU's own entry.
    VECTORS
        .get_ptr_mut(number)
        .map(|vector| unsafe { &mut *vector })
}

#[inline(always)]
fn now_ns() -> u64 {
    // SAFETY: a helper without arguments.
    unsafe { bpf_ktime_get_ns() }
}

#[inline(never)]
fn look_up(kind: u32, number: u32) -> u32 {
    measure::slot(&Key {
        op: number,
        magic: kind,
        ..Key::default()
    })
}

/// Hook: `TRACE_EVENT(softirq_raise, TP_PROTO(unsigned int vec_nr))`, with interrupts off
#[btf_tracepoint(function = "softirq_raise")]
pub fn softirq_raise(ctx: BtfTracePointContext) -> i32 {
    let Some(vector) = vector(ctx.arg(0)) else {
        return 0;
    };
    let now_ns = now_ns();
    vector.last_ns = now_ns;
    if vector.raised_ns == 0 {
        vector.raised_ns = now_ns;
    }
    0
}

/// Hook: `TRACE_EVENT(softirq_entry, TP_PROTO(unsigned int vec_nr))`
#[btf_tracepoint(function = "softirq_entry")]
pub fn softirq_enter(ctx: BtfTracePointContext) -> i32 {
    let number: u32 = ctx.arg(0);
    let Some(vector) = vector(number) else {
        return 0;
    };
    measure::count_alone(Loss::Starts);
    if vector.slot == 0 {
        vector.slot = look_up(kind::SOFTIRQ, number);
    }
    let slot = vector.slot;
    let now_ns = now_ns();
    // An interrupt may raise this vector here: as long as `raised_ns` is set it writes `last_ns` only, and if
    // it is not, we write `last_ns` only.
    let raised_ns = vector.raised_ns;
    let last_ns = vector.last_ns;
    if vector.seen == 0 {
        // The first here: the raise may have been served by an entry that we did not see. If the last raise
        // is for the next entry, that will need it.
        vector.raised_ns = 0;
        vector.seen = 1;
    } else if raised_ns != 0 {
        measure::record_span(slot, RAISE, raised_ns, now_ns);
        vector.raised_ns = 0;
    } else if last_ns != 0 {
        measure::record_span(slot, RAISE, last_ns, now_ns);
        vector.last_ns = 0;
    } else {
        measure::count(Loss::Unmatched);
    }
    vector.entered_ns = now_ns;
    0
}

/// Hook: `TRACE_EVENT(softirq_exit, TP_PROTO(unsigned int vec_nr))`
#[btf_tracepoint(function = "softirq_exit")]
pub fn softirq_leave(ctx: BtfTracePointContext) -> i32 {
    let Some(vector) = vector(ctx.arg(0)) else {
        return 0;
    };
    let entered_ns = core::mem::replace(&mut vector.entered_ns, 0);
    if entered_ns == 0 {
        if vector.seen != 0 {
            measure::count(Loss::Unmatched);
        }
        return 0;
    }
    measure::record_span(vector.slot, SOFTIRQ, entered_ns, now_ns());
    measure::count_alone(Loss::Completions);
    0
}

/// Hook: `TRACE_EVENT(irq_handler_entry, TP_PROTO(int irq, struct irqaction *action))`, with interrupts off
#[btf_tracepoint(function = "irq_handler_entry")]
pub fn hardirq_enter(ctx: BtfTracePointContext) -> i32 {
    let Some(handler) = HANDLER.get_ptr_mut(0) else {
        return 0;
    };
    // SAFETY: this CPU's own entry.
    let handler = unsafe { &mut *handler };
    let irq: u32 = ctx.arg(0);
    if handler.entered_ns != 0 {
        // The one before never left, as far as we saw.
        measure::count(Loss::Lost);
    }
    measure::count_inside(Loss::Starts);
    *handler = Handler {
        entered_ns: now_ns(),
        irq: irq.into(),
    };
    0
}

/// Hook: `TRACE_EVENT(irq_handler_exit, TP_PROTO(int irq, struct irqaction *action, int ret))`, with
/// interrupts off
#[btf_tracepoint(function = "irq_handler_exit")]
pub fn hardirq_leave(ctx: BtfTracePointContext) -> i32 {
    let Some(handler) = HANDLER.get_ptr_mut(0) else {
        return 0;
    };
    // SAFETY: this CPU's own entry.
    let handler = unsafe { &mut *handler };
    let irq: u32 = ctx.arg(0);
    let entered_ns = core::mem::replace(&mut handler.entered_ns, 0);
    if entered_ns == 0 || handler.irq != irq.into() {
        // Of the first on a CPU the entry was before the probe was loaded.
        if handler.irq != 0 {
            measure::count(Loss::Unmatched);
        }
        return 0;
    }
    measure::record_span(irq_slot(irq), HARDIRQ, entered_ns, now_ns());
    measure::count_inside(Loss::Completions);
    0
}

#[inline(always)]
fn irq_slot(irq: u32) -> u32 {
    let Some(known) = IRQ_SLOTS.get_ptr_mut(irq & (IRQ_SLOTS_COUNT - 1)) else {
        return 0;
    };
    // SAFETY: this CPU's own entry.
    let known = unsafe { &mut *known };
    if known.slot == 0 || known.irq != irq {
        *known = IrqSlot {
            irq,
            slot: look_up(kind::HARDIRQ, irq),
        };
    }
    known.slot
}
