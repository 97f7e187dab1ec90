//! Short forms of the catalogue's entries.

use super::{ABSENT, Constant, Field, Hook, KeyField, Kind, Metric, Unit, Value};

/// Whose arguments no program reads by their number.
pub const fn hook(program: &'static str, kind: Kind, symbols: &'static [&'static str]) -> Hook {
    Hook {
        program,
        kind,
        symbols,
        arguments: None,
        only_by: None,
    }
}

/// A tracepoint whose arguments are typed by BTF, and as many as the program was written for.
pub const fn tracepoint(
    program: &'static str,
    symbol: &'static [&'static str],
    arguments: usize,
) -> Hook {
    Hook {
        arguments: Some(arguments),
        ..hook(program, Kind::TpBtf, symbol)
    }
}

/// What a task leaves behind that dies inside an operation.
pub const PROCESS_EXIT: Hook = hook("process_exit", Kind::RawTp, &["sched_process_exit"]);

/// A time span.
pub const fn time(name: &'static str, help: &'static str) -> Metric {
    Metric {
        name,
        unit: Unit::Nanoseconds,
        help,
    }
}

/// A field that series are told apart by without being asked.
pub const fn key(field: Field) -> KeyField {
    KeyField {
        field,
        default: true,
    }
}

/// A field that series are told apart by on request.
pub const fn on_request(field: Field) -> KeyField {
    KeyField {
        field,
        default: false,
    }
}

type Paths = &'static [(&'static str, &'static str)];

/// The offset of a field without which the probe cannot work.
pub const fn required(global: &'static str, paths: Paths) -> Constant {
    Constant {
        global,
        value: Value::RequiredOffset(paths),
    }
}

/// The offset of a field that not every kernel has.
pub const fn optional(global: &'static str, paths: Paths) -> Constant {
    Constant {
        global,
        value: Value::Offset(paths),
    }
}

/// The number of a helper, since 5.11 (3ca1032ab7ab): whether there is one.
pub const CURRENT_TASK_BTF: Constant = Constant {
    global: "CURRENT_TASK_BTF",
    value: Value::Enumerator("BPF_FUNC_get_current_task_btf", ABSENT),
};

/// Where functions return to whose return a kretprobe watches, for `agent-ebpf/src/registers.rs`. Renamed
/// in 5.16 (adf8a61a940c) and with rethook in 5.18 (f3a112c0c40d).
pub const TRAMPOLINE: Constant = Constant {
    global: "TRAMPOLINE",
    value: Value::KprobeSymbol(&[
        "arch_rethook_trampoline",
        "__kretprobe_trampoline",
        "kretprobe_trampoline",
    ]),
};
