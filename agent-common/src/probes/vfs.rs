//! Reads, writes, opens and fsyncs, from the functions behind them or from the system calls.
//!
//! The functions see every caller (system calls, the kernel's own, `io_uring` where it passes them); `tp`
//! sees the 64-bit system calls of `crate::syscalls` only.

use super::{
    Field, Kind, Part, Probe, Variant,
    shorthand::{
        CURRENT_TASK_BTF, PROCESS_EXIT, TRAMPOLINE, hook, key, on_request, optional, required,
        time, tracepoint,
    },
};
use crate::catalogue::Backend;

/// Places of the operations in `ops`.
pub mod op {
    pub const READ: u32 = 0;
    pub const WRITE: u32 = 1;
    pub const OPEN: u32 = 2;
    pub const FSYNC: u32 = 3;
    pub const LOOKUP: u32 = 4;
}

const READ: &[&str] = &["vfs_read"];
const WRITE: &[&str] = &["vfs_write"];
const OPEN: &[&str] = &["do_sys_openat2"];
/// Not `vfs_fsync`, which is only a wrapper that fsync(2) does not pass (`fs/sync.c`). This one is shared with
/// synchronous writes and others, but some compilers inline it into one of the calls or both, so these are
/// watched too; of the two, one inside the other, the outer is measured.
const FSYNC: &[&str] = &["vfs_fsync_range"];
const SYS_FSYNC: &[&str] = &["__x64_sys_fsync", "__arm64_sys_fsync"];
const SYS_FDATASYNC: &[&str] = &["__x64_sys_fdatasync", "__arm64_sys_fdatasync"];
/// Static both; which of them is not inlined depends on the kernel.
const LOOKUP: &[&str] = &["lookup_slow", "__lookup_slow"];

// Ends are attached before starts: a start whose end is not yet watched would never end. Of kprobes, the other
// way round: what was attached last runs first, and a kprobe can tell whether a kretprobe watches the call
// only after that has set itself up (`agent-ebpf/src/registers.rs`).
pub(super) const PROBE: Probe = Probe {
    name: "vfs",
    help: "time in read, write, open, fsync and in lookups that miss the dentry cache",
    metrics: &[time(
        "latency",
        "from the operation's entry to its return; of one inside another of its kind, the outer's",
    )],
    keys: &[
        key(Field::Op),
        key(Field::Fs),
        key(Field::Device),
        on_request(Field::Cgroup),
        on_request(Field::Comm),
    ],
    ops: &["read", "write", "open", "fsync", "lookup"],
    parts: &[
        Part {
            measures: "latency of read, write, open and fsync",
            required: true,
            variants: &[
                Variant {
                    backend: Backend::Fentry,
                    hooks: &[
                        PROCESS_EXIT,
                        hook("fexit_read", Kind::Fexit, READ),
                        hook("fexit_write", Kind::Fexit, WRITE),
                        hook("fexit_open", Kind::Fexit, OPEN),
                        hook("fexit_fsync", Kind::Fexit, FSYNC),
                        hook("fexit_sys_fsync", Kind::Fexit, SYS_FSYNC),
                        hook("fexit_sys_fdatasync", Kind::Fexit, SYS_FDATASYNC),
                        hook("fentry_read", Kind::Fentry, READ),
                        hook("fentry_write", Kind::Fentry, WRITE),
                        hook("fentry_open", Kind::Fentry, OPEN),
                        hook("fentry_fsync", Kind::Fentry, FSYNC),
                        hook("fentry_sys_fsync", Kind::Fentry, SYS_FSYNC),
                        hook("fentry_sys_fdatasync", Kind::Fentry, SYS_FDATASYNC),
                    ],
                },
                Variant {
                    backend: Backend::Kprobe,
                    hooks: &[
                        PROCESS_EXIT,
                        hook("kprobe_read", Kind::Kprobe, READ),
                        hook("kprobe_write", Kind::Kprobe, WRITE),
                        hook("kprobe_open", Kind::Kprobe, OPEN),
                        hook("kprobe_fsync", Kind::Kprobe, FSYNC),
                        hook("kprobe_sys_fsync", Kind::Kprobe, SYS_FSYNC),
                        hook("kprobe_sys_fdatasync", Kind::Kprobe, SYS_FDATASYNC),
                        hook("kretprobe_read", Kind::Kretprobe, READ),
                        hook("kretprobe_write", Kind::Kretprobe, WRITE),
                        hook("kretprobe_open", Kind::Kretprobe, OPEN),
                        hook("kretprobe_fsync", Kind::Kretprobe, FSYNC),
                        hook("kretprobe_sys_fsync", Kind::Kretprobe, SYS_FSYNC),
                        hook("kretprobe_sys_fdatasync", Kind::Kretprobe, SYS_FDATASYNC),
                    ],
                },
                Variant {
                    backend: Backend::Tp,
                    hooks: &[
                        PROCESS_EXIT,
                        tracepoint("sys_exit", &["sys_exit"], 2),
                        tracepoint("sys_enter", &["sys_enter"], 2),
                    ],
                },
            ],
        },
        Part {
            measures: "latency of lookups that miss the dentry cache",
            required: false,
            variants: &[
                Variant {
                    backend: Backend::Fentry,
                    hooks: &[
                        hook("fexit_lookup", Kind::Fexit, LOOKUP),
                        hook("fentry_lookup", Kind::Fentry, LOOKUP),
                    ],
                },
                Variant {
                    backend: Backend::Kprobe,
                    hooks: &[
                        hook("kprobe_lookup", Kind::Kprobe, LOOKUP),
                        hook("kretprobe_lookup", Kind::Kretprobe, LOOKUP),
                    ],
                },
            ],
        },
    ],
    constants: &[
        TRAMPOLINE,
        required("FILE_INODE", &[("file", "f_inode")]),
        required("INODE_SB", &[("inode", "i_sb")]),
        required("SB_DEV", &[("super_block", "s_dev")]),
        required("SB_MAGIC", &[("super_block", "s_magic")]),
        required("DENTRY_SB", &[("dentry", "d_sb")]),
        required("TASK_FILES", &[("task_struct", "files")]),
        required("FILES_FDT", &[("files_struct", "fdt")]),
        required("FDT_FD", &[("fdtable", "fd")]),
        required("FDT_MAX", &[("fdtable", "max_fds")]),
        required(
            "REGS_NUMBER",
            &[("pt_regs", "orig_ax"), ("pt_regs", "syscallno")],
        ),
        required("REGS_FIRST", &[("pt_regs", "di"), ("pt_regs", "orig_x0")]),
        // x86 marks 32-bit system calls there; absent elsewhere.
        optional("TASK_STATUS", &[("task_struct", "thread_info.status")]),
        CURRENT_TASK_BTF,
    ],
    recent: None,
};
