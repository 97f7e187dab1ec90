//! Any kernel function by name: `fn:NAME`. Each function that is asked for is an object of its own.

use super::{
    ASKED_FOR, Field, Kind, Part, Probe, Variant,
    shorthand::{
        CURRENT_TASK_BTF, PROCESS_EXIT, TRAMPOLINE, hook, key, on_request, required, time,
    },
};
use crate::catalogue::Backend;

const FUNCTION: &[&str] = &[ASKED_FOR];

pub(super) const PROBE: Probe = Probe {
    name: "fn",
    help: "time in any kernel function by its name: fn:NAME",
    metrics: &[time(
        "latency",
        "from the function's entry to its return; of a call inside another, the outer's",
    )],
    keys: &[
        key(Field::Function),
        on_request(Field::Cgroup),
        on_request(Field::Comm),
    ],
    ops: &[],
    parts: &[Part {
        measures: "latency of the function",
        required: true,
        // For the order see `vfs`.
        variants: &[
            Variant {
                backend: Backend::Fentry,
                hooks: &[
                    PROCESS_EXIT,
                    hook("fexit_function", Kind::Fexit, FUNCTION),
                    hook("fentry_function", Kind::Fentry, FUNCTION),
                ],
            },
            Variant {
                backend: Backend::Kprobe,
                hooks: &[
                    PROCESS_EXIT,
                    hook("kprobe_function", Kind::Kprobe, FUNCTION),
                    hook("kretprobe_function", Kind::Kretprobe, FUNCTION),
                ],
            },
        ],
    }],
    constants: &[
        TRAMPOLINE,
        required("TASK_STACK", &[("task_struct", "stack")]),
        CURRENT_TASK_BTF,
    ],
    recent: None,
};
