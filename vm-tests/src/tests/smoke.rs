//! The machine itself.

use std::fs;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::guest;

/// What every other test takes for granted: BTF, an ext4 on a virtio disk, fio, and the file systems of tracing.
pub fn machine_is_as_the_tests_expect() -> Result<()> {
    let btf = fs::metadata("/sys/kernel/btf/vmlinux").context("failed to find the kernel's BTF")?;
    ensure!(
        btf.len() > 1 << 20,
        "the kernel's BTF has {} bytes only",
        btf.len()
    );

    let mounts = fs::read_to_string("/proc/mounts")?;
    ensure!(
        mounts.contains("/dev/vda /mnt ext4 rw"),
        "/mnt is not an ext4 on the virtio disk:\n{mounts}"
    );
    for kind in ["tracefs", "debugfs", "bpf", "cgroup2"] {
        ensure!(
            mounts
                .lines()
                .any(|line| line.split(' ').nth(2) == Some(kind)),
            "no {kind}:\n{mounts}"
        );
    }
    let agent = Command::new("/iolag")
        .arg("--version")
        .output()
        .context("failed to run /iolag")?;
    ensure!(agent.status.success(), "/iolag --version: {}", agent.status);

    let version = guest::fio()
        .arg("--version")
        .output()
        .context("failed to run fio")?;
    let text = String::from_utf8_lossy(&version.stdout);
    ensure!(
        version.status.success() && text.starts_with("fio-"),
        "fio --version: {}: {text}",
        version.status
    );

    guest::load_module("null_blk", "nr_devices=1")?;
    ensure!(
        fs::exists("/dev/nullb0")?,
        "null_blk is loaded and /dev/nullb0 is not there"
    );
    guest::unload_module("null_blk")
}
