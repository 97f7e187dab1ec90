//! `iolag doctor`, on a kernel with all backends.

use std::path::Path;

use anyhow::Result;
use iolag_tests::doctor::{
    backends_are_the_agents, it_leaves_nothing, points_are_the_agents, probes_are_the_agents,
};

/// What it says of the kernel is what the agent does.
pub fn claims() -> Result<()> {
    let program = Path::new("/iolag");
    points_are_the_agents(program)?;
    backends_are_the_agents(program)?;
    probes_are_the_agents(program)?;
    it_leaves_nothing(program)
}
