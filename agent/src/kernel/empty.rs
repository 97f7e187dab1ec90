//! Programs that do nothing, at the hooks of the delay probe: what the bench subtracts.

use std::{os::fd::AsFd as _, path::Path};

use agent_common::catalogue::Backend;
use anyhow::{Context as _, anyhow};
use aya::{Ebpf, include_bytes_aligned, programs::BtfTracePoint};

use super::{
    HostTypes,
    attach::attach,
    btf::Vetted,
    loader::{self, Given},
    prog_info::{ProgStats, prog_stats},
};
use crate::plan::Attempt;

pub(super) static OBJECT: &[u8] = include_bytes_aligned!(concat!(env!("OUT_DIR"), "/empty"));

/// An empty program at one hook. Dropping it detaches.
pub struct EmptyProbe {
    ebpf: Ebpf,
    program: String,
}

impl EmptyProbe {
    /// Loads and attaches where the delay probe did. `fentry` needs the kernel's BTF.
    ///
    /// # Errors
    /// The kernel's reason.
    pub fn load(attempt: Attempt, btf: Option<&Path>) -> anyhow::Result<Self> {
        let program = match attempt.backend {
            Backend::Fentry | Backend::Kprobe => format!("{}_empty", attempt.backend.name()),
            Backend::Tp => format!("tp_{}", attempt.symbol),
        };
        let btf = btf
            .map(|path| Vetted::read(path)?.aya())
            .transpose()
            .map_err(|failure| anyhow!("{failure}"))?;
        let mut ebpf =
            loader::load(OBJECT, &Given::default()).context("failed to load the empty object")?;
        attach(&mut ebpf, btf.as_ref(), &program, attempt).map_err(|reason| anyhow!(reason))?;
        Ok(Self { ebpf, program })
    }

    /// Loads and attaches at a tracepoint, as the measuring probes do: its arguments typed by BTF.
    ///
    /// # Errors
    /// The kernel's reason.
    pub fn at_tracepoint(symbol: &str, types: &HostTypes) -> anyhow::Result<Self> {
        Self::named_at_tracepoint("tp_btf_empty", symbol, types)
    }

    /// As [`Self::at_tracepoint`], with a program that reads the clock and does nothing else.
    ///
    /// # Errors
    /// The kernel's reason.
    pub fn clock_at_tracepoint(symbol: &str, types: &HostTypes) -> anyhow::Result<Self> {
        Self::named_at_tracepoint("tp_btf_clock", symbol, types)
    }

    fn named_at_tracepoint(name: &str, symbol: &str, types: &HostTypes) -> anyhow::Result<Self> {
        let program = name.to_owned();
        let mut ebpf =
            loader::load(OBJECT, &Given::default()).context("failed to load the empty object")?;
        let loaded: &mut BtfTracePoint = ebpf
            .program_mut(&program)
            .ok_or_else(|| anyhow!("failed to find program {program}"))?
            .try_into()?;
        loaded.load(symbol, &types.aya)?;
        loaded
            .attach()
            .with_context(|| format!("failed to attach at {symbol}"))?;
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
