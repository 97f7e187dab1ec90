//! Any kernel function by name: `fn:NAME`. Each function that is asked for is an object of its own.

use super::{
    ASKED_FOR, Constant, Field, Hook, KeyField, Kind, Metric, Part, Probe, Unit, Value, Variant,
};
use crate::catalogue::Backend;

const fn hook(program: &'static str, kind: Kind) -> Hook {
    Hook {
        program,
        kind,
        symbols: &[ASKED_FOR],
        arguments: None,
        only_by: None,
    }
}

const PROCESS_EXIT: Hook = Hook {
    program: "process_exit",
    kind: Kind::RawTp,
    symbols: &["sched_process_exit"],
    arguments: None,
    only_by: None,
};

pub(super) const PROBE: Probe = Probe {
    name: "fn",
    help: "time in any kernel function by its name: fn:NAME",
    metrics: &[Metric {
        name: "latency",
        unit: Unit::Nanoseconds,
        help: "from the function's entry to its return; of a call inside another, the outer's",
    }],
    keys: &[
        KeyField {
            field: Field::Function,
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
                    hook("fexit_function", Kind::Fexit),
                    hook("fentry_function", Kind::Fentry),
                ],
            },
            Variant {
                backend: Backend::Kprobe,
                hooks: &[
                    PROCESS_EXIT,
                    hook("kprobe_function", Kind::Kprobe),
                    hook("kretprobe_function", Kind::Kretprobe),
                ],
            },
        ],
    }],
    constants: &[
        super::TRAMPOLINE,
        Constant {
            global: "TASK_STACK",
            value: Value::RequiredOffset(&[("task_struct", "stack")]),
        },
        Constant {
            global: "CURRENT_TASK_BTF",
            value: Value::Enumerator("BPF_FUNC_get_current_task_btf", super::ABSENT),
        },
    ],
};
