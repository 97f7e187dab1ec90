//! A machine that runs the bench instead of the tests, and whose clock counts instructions.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::accelerator::Accelerator;
use super::machine::Machine;
use super::{disk, initramfs, logs, newest, qemu};
use crate::build::Built;
use crate::cache::Cache;

/// As long as a machine of the tests may take.
const LIMIT: Duration = Duration::from_secs(600);

/// Runs `bench` on the newest kernel; its rows and the kernel's name.
pub fn measure(cache: &Cache, built: &Built, bench: &Path) -> Result<(String, &'static str)> {
    let kernel = newest();
    let dir = kernel
        .installed(cache)
        .with_context(|| format!("failed to find kernel {}", kernel.name))?;
    fs::create_dir_all(logs()).context("failed to make target/vm")?;
    let initrd = logs().join("bench.cpio");
    initramfs::write(&initrd, built, &dir.join("modules"), &[("bench", bench)])?;
    let machine = Machine {
        name: "bench".into(),
        qemu: qemu(cache)?,
        kernel: dir.join("vmlinuz"),
        initrd,
        disk: disk::image(cache)?,
        log: logs().join("bench.log"),
        tests: vec!["bench".into()],
        long: false,
        accelerator: Accelerator::Instructions,
    };
    let outcome = machine.run(LIMIT, true)?;
    if !outcome.problems.is_empty() || outcome.verdict.is_none_or(|counts| counts.failed > 0) {
        bail!(
            "failed to measure in a virtual machine: see {}",
            machine.log.display()
        );
    }
    let log = fs::read_to_string(&machine.log)?;
    let rows: String = log
        .lines()
        .filter(|line| line.starts_with("| `"))
        .map(|line| format!("{line}\n"))
        .collect();
    Ok((rows, kernel.name))
}
