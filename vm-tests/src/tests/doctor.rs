//! `iolag doctor`, on a kernel with all backends.

use std::{path::Path, process::Command};

use anyhow::{Result, ensure};
use iolag_tests::{
    btf::all_are_refused,
    doctor::{
        backends_are_the_agents, it_leaves_nothing, points_are_the_agents, probes_are_the_agents,
    },
    faults,
};

/// What it says of the kernel is what the agent does.
pub fn claims() -> Result<()> {
    let program = Path::new("/iolag");
    points_are_the_agents(program)?;
    backends_are_the_agents(program)?;
    probes_are_the_agents(program)?;
    it_leaves_nothing(program)
}

/// The kernel's own BTF is found sound, by a probe that cannot do without, and each hostile one is not.
pub fn btf() -> Result<()> {
    let output = Command::new("/iolag")
        .args(["hist", "block", "100ms", "1"])
        .output()?;
    let told = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "the kernel's own BTF: {told}");
    let seen = all_are_refused(Path::new("/iolag"), 1 << 20, usize::MAX)?;
    faults::row("hostile BTF", "auto", seen);
    Ok(())
}
