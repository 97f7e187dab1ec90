//! The demo in the virtual machine, for hosts that cannot run the agent: `cargo xtask demo` shows its figures.

use std::path::Path;

use anyhow::{Result, ensure};
use iolag_tests::{
    agent::Agent,
    demo::{Demo, write_file},
};

use crate::guest;

/// On the virtio disk.
const FILE: &str = "/mnt/demo-file";

/// Runs the workloads, and prints the figures for the host.
pub fn figures() -> Result<()> {
    let agent = Agent::start(Path::new("/iolag"), &[])?;
    let file = Path::new(FILE);
    write_file(file)?;
    let results = Demo {
        agent: &agent,
        fio: &guest::fio,
        file,
        step: &|what| {
            println!("{what}");
            Ok(())
        },
    }
    .run()?;
    println!("iolag-vm: figures: {}", serde_json::to_string(&results)?);
    for row in &results.rows {
        ensure!(row.kernel.delayed > 0, "nothing was delayed: {row:?}");
        ensure!(
            row.kernel.mean_achieved_ns() >= row.asked_ns,
            "less than asked: {row:?}"
        );
    }
    Ok(())
}
