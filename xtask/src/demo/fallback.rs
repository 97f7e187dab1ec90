//! Where this machine cannot run the agent: the guest tests on a kernel that can.

use std::process::Command;

use anyhow::{Result, anyhow};
use clap::Parser;

use crate::build::Built;
use crate::process::run as output;
use crate::vm;

/// The newest kernel that set-up brings.
const KERNEL: &str = "6.12";
/// A guest test that prints figures of its own, where there is one.
const TEST: &str = "demo";

#[derive(Parser)]
struct Guest {
    #[command(flatten)]
    args: vm::Args,
}

/// Boots the virtual machine if `error` says that this host cannot; else it is the failure.
pub fn run(built: &Built, error: anyhow::Error) -> Result<()> {
    let reason = format!("{error:#}");
    if !host_cannot(&reason) {
        return Err(error);
    }
    eprintln!("this machine cannot: {reason}");
    let list = output(
        Command::new(&built.vm_tests).arg("--list"),
        "list the VM tests",
    )?;
    let demo = list.lines().any(|name| name.contains(TEST));
    eprintln!("falling back to Debian's kernel {KERNEL} in QEMU");
    let mut words = vec!["demo", "--kernel", KERNEL];
    if demo {
        words.extend(["--", TEST]);
    } else {
        eprintln!("no demo for guests yet: running all guest tests, no table");
    }
    let guest = Guest::try_parse_from(words).map_err(|error| anyhow!("{error}"))?;
    vm::command(&guest.args)
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

    #[test]
    fn the_vm_command_takes_these_words() {
        Guest::try_parse_from(["demo", "--kernel", KERNEL, "--", TEST]).unwrap();
        assert!(
            crate::setup::KERNELS
                .iter()
                .any(|kernel| kernel.name == KERNEL)
        );
    }
}
