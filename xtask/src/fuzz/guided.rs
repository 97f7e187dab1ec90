//! libFuzzer: it looks which input takes new ways through the program, and goes on from there. Built with the flags of
//! cargo-fuzz but for the sanitizers, so any toolchain can.

use std::{path::PathBuf, process::Command};

use anyhow::{Context, Result, bail};

use super::bench;
use crate::workspace;

/// Has the compiler count which ways are taken, in code for the target only.
const FLAGS: &str = "--cfg fuzzing -Cpasses=sancov-module -Ccodegen-units=1 -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table";
const HOST: &str = "x86_64-unknown-linux-gnu";
/// Of one input: `-timeout` in seconds, `-rss_limit_mb` for the whole process, `-max_len` in bytes.
const LIMITS: [&str; 3] = ["-timeout=5", "-rss_limit_mb=512", "-max_len=8192"];

/// Runs each target for so long.
pub fn run(targets: &[&str], seconds: u64) -> Result<()> {
    let built = build()?;
    for target in targets {
        let corpus = fuzz().join("corpus").join(target);
        let artifacts = fuzz().join("artifacts").join(target);
        std::fs::create_dir_all(&artifacts)?;
        bench(&[target, "--seeds", &corpus.display().to_string()])?;
        println!(
            "{target}: {seconds} s; what it finds is in {}",
            artifacts.display()
        );
        let status = Command::new(built.join(target))
            .arg(&corpus)
            .arg(format!("-max_total_time={seconds}"))
            .arg(format!("-artifact_prefix={}/", artifacts.display()))
            .args(LIMITS)
            .args(["-print_final_stats=1", "-print_funcs=0", "-verbosity=0"])
            .status()
            .with_context(|| format!("failed to run the fuzz target {target}"))?;
        if !status.success() {
            bail!(
                "{target} failed: {status}; its input is in {}",
                artifacts.display()
            );
        }
    }
    Ok(())
}

fn fuzz() -> PathBuf {
    workspace::root().join("fuzz")
}

/// Builds all targets; where they are.
fn build() -> Result<PathBuf> {
    let dir = workspace::target_dir().join("fuzz");
    let status = workspace::cargo()
        .current_dir(fuzz())
        .args(["build", "--release", "--quiet", "--target", HOST])
        .env("CARGO_TARGET_DIR", &dir)
        .env("CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUSTFLAGS", FLAGS)
        .status()
        .context("failed to run cargo build")?;
    if !status.success() {
        bail!("failed to build the fuzz targets: they need a C++ compiler (g++)");
    }
    Ok(dir.join(HOST).join("release"))
}
