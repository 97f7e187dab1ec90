//! Programs that do nothing, at the hooks of the delay probe: what the bench subtracts.

use std::os::fd::AsFd as _;

use agent_common::catalogue::{Backend, POINTS};
use anyhow::{Context as _, anyhow};
use aya::{Ebpf, EbpfLoader, include_bytes_aligned};

use super::{
    attach::attach,
    prog_info::{ProgStats, prog_stats},
};
use crate::plan::Attempt;

static OBJECT: &[u8] = include_bytes_aligned!(concat!(env!("OUT_DIR"), "/empty"));

/// An empty program at one raw tracepoint. Dropping it detaches.
pub struct EmptyProbe {
    ebpf: Ebpf,
    program: String,
}

impl EmptyProbe {
    /// Loads and attaches at the tracepoint of the point in `slot`.
    ///
    /// # Errors
    /// The kernel's reason.
    pub fn load(slot: usize) -> anyhow::Result<Self> {
        let attempt = Attempt {
            backend: Backend::Tp,
            symbol: POINTS[slot].tracepoint,
        };
        let program = format!("tp_{}", attempt.symbol);
        let mut ebpf = EbpfLoader::new()
            .load(OBJECT)
            .context("failed to load the empty object")?;
        attach(&mut ebpf, None, &program, attempt).map_err(|reason| anyhow!(reason))?;
        Ok(Self { ebpf, program })
    }

    /// What the kernel counted of it.
    ///
    /// # Errors
    /// The system call's own.
    pub fn stats(&self) -> anyhow::Result<ProgStats> {
        let program = self
            .ebpf
            .program(&self.program)
            .ok_or_else(|| anyhow!("failed to find program {}", self.program))?;
        prog_stats(program.fd()?.as_fd()).context("failed to read program info")
    }
}

/// Has the kernel measure each run of each program while the result lives.
///
/// # Errors
/// The kernel is older than 5.8, or the caller may not.
pub fn measure_programs() -> anyhow::Result<std::os::fd::OwnedFd> {
    aya::sys::enable_stats(aya::sys::Stats::RunTime).context("failed to enable BPF statistics")
}
