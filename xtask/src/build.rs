//! The static programs that run on this host and in the virtual machines alike.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::process::run;
use crate::workspace;

/// Where the programs are.
pub struct Built {
    pub iolag: PathBuf,
    pub vm_tests: PathBuf,
}

/// Builds `iolag` and `vm-tests` for release, as static programs; shows cargo's progress.
///
/// Static, because the virtual machine has no libraries. The target is named even though it is the host's, as cargo
/// then leaves build scripts and proc macros alone, which cannot be static.
pub fn build() -> Result<Built> {
    let target = host()?;
    let mut cargo = workspace::cargo();
    cargo.args([
        "build",
        "--release",
        "--package",
        "iolag",
        "--package",
        "vm-tests",
        "--target",
        &target,
    ]);
    static_program(&mut cargo, &target);
    let status = cargo.status().context("failed to run cargo")?;
    if !status.success() {
        bail!("failed to build iolag: cargo: {status}");
    }
    let dir = workspace::target_dir().join(&target).join("release");
    Ok(Built {
        iolag: dir.join("iolag"),
        vm_tests: dir.join("vm-tests"),
    })
}

/// Builds the bench like the above, for a virtual machine, and returns where it is.
pub fn bench() -> Result<PathBuf> {
    let target = host()?;
    let mut cargo = workspace::cargo();
    cargo.args([
        "bench",
        "--no-run",
        "--package",
        "iolag",
        "--bench",
        "overhead",
    ]);
    cargo.args(["--target", &target, "--message-format", "json"]);
    static_program(&mut cargo, &target);
    let messages = run(&mut cargo, "build the bench")?;
    // One JSON object a line; the last program is the bench.
    let program = messages.lines().rev().find_map(|line| {
        let message: serde_json::Value = serde_json::from_str(line).ok()?;
        message["executable"].as_str().map(PathBuf::from)
    });
    program.context("failed to find the bench in what cargo said")
}

fn static_program(cargo: &mut Command, target: &str) {
    let variable = format!(
        "CARGO_TARGET_{}_RUSTFLAGS",
        target.to_uppercase().replace('-', "_")
    );
    cargo.env(variable, "-C target-feature=+crt-static");
    // Either would take the place of the flags above.
    cargo
        .env_remove("RUSTFLAGS")
        .env_remove("CARGO_ENCODED_RUSTFLAGS");
}

/// The target triple of this host.
fn host() -> Result<String> {
    let version = run(Command::new("rustc").arg("-vV"), "ask rustc for its host")?;
    let host = version.lines().find_map(|line| line.strip_prefix("host: "));
    host.map(str::to_owned)
        .context("failed to read rustc's host")
}
