//! The programs that the kernel holds, whoever loaded them.

use anyhow::Context as _;
use aya::programs::{ProgramError, loaded_programs};
use aya_obj::generated::bpf_prog_type::{
    self, BPF_PROG_TYPE_KPROBE, BPF_PROG_TYPE_PERF_EVENT, BPF_PROG_TYPE_RAW_TRACEPOINT,
    BPF_PROG_TYPE_RAW_TRACEPOINT_WRITABLE, BPF_PROG_TYPE_TRACEPOINT, BPF_PROG_TYPE_TRACING,
};

/// Types of programs that are at tracepoints, functions or events, as ours are.
const TRACING: [bpf_prog_type; 6] = [
    BPF_PROG_TYPE_KPROBE,
    BPF_PROG_TYPE_PERF_EVENT,
    BPF_PROG_TYPE_RAW_TRACEPOINT,
    BPF_PROG_TYPE_RAW_TRACEPOINT_WRITABLE,
    BPF_PROG_TYPE_TRACEPOINT,
    BPF_PROG_TYPE_TRACING,
];

/// A program that traces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TracingProgram {
    pub id: u32,
    /// At most 15 bytes; empty if it was given none.
    pub name: String,
}

/// All that trace. One that goes away meanwhile is left out.
///
/// # Errors
/// The caller may not ask: it takes `CAP_SYS_ADMIN`.
pub fn tracing_programs() -> anyhow::Result<Vec<TracingProgram>> {
    let mut found = Vec::new();
    for program in loaded_programs() {
        let program = match program {
            Err(ProgramError::SyscallError(error))
                if error.io_error.raw_os_error() == Some(libc::ENOENT) =>
            {
                continue;
            }
            program => program.context("failed to list the kernel's programs")?,
        };
        if TRACING.contains(&program.program_type()) {
            found.push(TracingProgram {
                id: program.id(),
                name: String::from_utf8_lossy(program.name()).into_owned(),
            });
        }
    }
    Ok(found)
}
