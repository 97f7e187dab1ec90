//! Softirqs and interrupt handlers, from the tracepoints around them.

use super::{
    Field, Part, Probe, Variant,
    shorthand::{key, on_request, time, tracepoint},
};
use crate::catalogue::Backend;

/// Places of the metrics.
pub mod metric {
    pub const RAISE: usize = 0;
    pub const SOFTIRQ: usize = 1;
    pub const HARDIRQ: usize = 2;
    pub const COUNT: usize = 3;
}

/// What `Key::op` numbers, in `Key::magic`.
pub mod kind {
    pub const SOFTIRQ: u32 = 0;
    pub const HARDIRQ: u32 = 1;
}

/// Softirqs by vector, as in /proc/softirqs (`softirq_to_name`, `kernel/softirq.c`).
pub const SOFTIRQS: [&str; 10] = [
    "HI", "TIMER", "NET_TX", "NET_RX", "BLOCK", "IRQ_POLL", "TASKLET", "SCHED", "HRTIMER", "RCU",
];

pub(super) const PROBE: Probe = Probe {
    name: "irq",
    help: "softirqs from raise to entry and to exit, interrupt handlers from entry to exit",
    metrics: &[
        time(
            "raise",
            "from the first raise of a softirq to the entry that serves it",
        ),
        time("softirq", "from a softirq's entry to its exit"),
        time(
            "hardirq",
            "one handler of an interrupt; of a shared one each that is called",
        ),
    ],
    keys: &[key(Field::Vector), on_request(Field::Cpu)],
    ops: &[],
    // Entries last, see agent-ebpf/src/irq.rs.
    parts: &[
        Part {
            measures: "softirqs",
            required: true,
            variants: &[Variant {
                backend: Backend::Tp,
                hooks: &[
                    tracepoint("softirq_leave", &["softirq_exit"], 1),
                    tracepoint("softirq_raise", &["softirq_raise"], 1),
                    tracepoint("softirq_enter", &["softirq_entry"], 1),
                ],
            }],
        },
        Part {
            measures: "interrupt handlers",
            required: false,
            variants: &[Variant {
                backend: Backend::Tp,
                hooks: &[
                    tracepoint("hardirq_leave", &["irq_handler_exit"], 3),
                    tracepoint("hardirq_enter", &["irq_handler_entry"], 2),
                ],
            }],
        },
    ],
    constants: &[],
    recent: None,
};
