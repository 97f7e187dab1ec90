//! Where this machine cannot run the agent: the same workloads in a virtual machine, whose kernel can.

use anyhow::{Context, Result};

use super::{interrupt, table};
use crate::build::Built;
use crate::cache::Cache;
use crate::vm;

/// The guest test that runs the workloads and prints the figures.
const TEST: &str = "demo";

const NOTE: &str = "\
This machine stops it now and then, most of all where QEMU has to emulate: means
such as ACHIEVED suffer from that, medians hardly.
";

/// Boots the virtual machine if `error` says that this host cannot; else it is the failure.
pub fn run(cache: &Cache, built: &Built, error: anyhow::Error) -> Result<()> {
    let reason = format!("{error:#}");
    if !host_cannot(&reason) {
        return Err(error);
    }
    // Nothing of ours is on this host now, and the kernel ends QEMU with us.
    interrupt::release()?;
    let kernel = vm::newest().name;
    eprintln!("this machine cannot: {reason}");
    eprintln!("doing the rest on Debian's kernel {kernel} in QEMU, which takes about a minute ...");
    let figures = vm::figures(cache, built, TEST)?;
    let results = serde_json::from_str(&figures).context("failed to read the guest's figures")?;
    println!("measured in a virtual machine with Debian's kernel {kernel}\n{NOTE}");
    print!("{}", table::render(&results));
    Ok(())
}

/// Exit code 3 of `iolag`, as [`iolag_tests::agent::Agent::call`] words it.
fn host_cannot(reason: &str) -> bool {
    reason.contains("exit status: 3: ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_host_that_cannot_falls_back() {
        assert!(host_cannot(
            "failed to run iolag run: exit status: 3: not root"
        ));
        assert!(!host_cannot(
            "failed to run iolag run: exit status: 1: no space"
        ));
    }
}
