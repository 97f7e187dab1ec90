//! Has the kernel free the programs of an agent that died in some tens of ms instead of hundreds.
//!
//! System calls may fault, so since Linux 6.13 a program at `sys_enter` is kept until an RCU tasks trace grace
//! period after its link went, and nobody is in a hurry to begin one: it waits 250 ms for more to do
//! (`lazy_jiffies`, kernel/rcu/tasks.h). Taking down a program at a uprobe waits for such a period itself
//! (`perf_event_detach_bpf_prog`, kernel/trace/bpf_trace.c), which makes it begin at once for all.

use anyhow::{Context as _, anyhow};
use aya::{
    Ebpf,
    programs::{UProbe, uprobe::UProbeScope},
};
use log::debug;

use super::loader::{self, Given};

/// An empty program at a uprobe that is never hit. Nothing depends on it but how soon others are freed.
pub struct PromptEnd {
    _ebpf: Ebpf,
}

impl PromptEnd {
    /// Without uprobes in the kernel there is none.
    #[must_use]
    pub fn attach() -> Option<Self> {
        attach()
            .map_err(|error| debug!("programs may outlive a killed agent by 0.3 s: {error:#}"))
            .ok()
    }
}

fn attach() -> anyhow::Result<PromptEnd> {
    let mut ebpf = loader::load(super::empty::OBJECT, &Given::default())
        .context("failed to load the empty object")?;
    let name = "uprobe_empty";
    let program: &mut UProbe = ebpf
        .program_mut(name)
        .ok_or_else(|| anyhow!("the object has no program {name}"))?
        .try_into()?;
    program.load()?;
    // The first byte of an ELF file is not code, and nobody but this process would be bothered if it were.
    program.attach(0, "/proc/self/exe", UProbeScope::CallingProcess)?;
    Ok(PromptEnd { _ebpf: ebpf })
}
