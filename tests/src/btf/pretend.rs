//! The program on a kernel whose BTF is another: a file is mounted over it, where the program alone sees it.

use std::{
    ffi::{CStr, CString},
    fs,
    os::unix::{ffi::OsStrExt as _, process::CommandExt as _},
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::hostile;
use crate::{agent::scratch_dir, mounts, refusal::assert_refused};

/// Where kernels have theirs.
pub const BTF: &CStr = c"/sys/kernel/btf/vmlinux";

/// Gives the command mounts of its own, with this file as the kernel's BTF.
///
/// # Panics
/// The path has a zero.
pub fn pretend(command: &mut Command, file: &Path) {
    let file = CString::new(file.as_os_str().as_bytes()).unwrap();
    let change = move || {
        mounts::own()?;
        mounts::bind(&file, BTF)
    };
    // SAFETY: between fork and exec only system calls are made, and nothing is allocated.
    unsafe { command.pre_exec(change) };
}

/// Each hostile BTF of at most so many bytes is refused in one line, by an agent that needs BTF and by `hist`. With the
/// first of them, and then with one of `each`, an agent that needs none starts all the same. Returns what was seen.
///
/// # Errors
/// The program or a file cannot be used.
///
/// # Panics
/// A refusal is missing, or looks otherwise.
pub fn all_are_refused(program: &Path, largest: usize, each: usize) -> Result<String> {
    let dir = scratch_dir()?;
    let file = dir.join("vmlinux");
    let command = |args: &[&str]| {
        let mut command = Command::new(program);
        command
            .args(args)
            .arg("--socket")
            .arg(dir.join("iolag.sock"));
        command.env_remove("RUST_LOG");
        command
    };
    let mut slowest = (Duration::ZERO, "");
    let mut count = 0;
    let all = hostile();
    for (name, words, bytes) in all.iter().filter(|(.., bytes)| bytes.len() <= largest) {
        fs::write(&file, bytes)?;
        let told = ["failed to read the kernel's BTF", *words];
        for args in [
            &["run", "--backend", "fentry"][..],
            &["hist", "block", "1", "1"],
        ] {
            let mut refused = command(args);
            pretend(&mut refused, &file);
            let start = Instant::now();
            println!("{name}");
            assert_refused(&refused.output()?, 3, &told);
            slowest = slowest.max((start.elapsed(), name));
        }
        // It takes as long as any start of an agent.
        if count % each == 0 {
            let mut run = command(&["run", "--detach"]);
            pretend(&mut run, &file);
            let output = run.output()?;
            ensure!(
                output.status.success(),
                "{name}: {}",
                String::from_utf8_lossy(&output.stderr)
            );
            let status = command(&["status", "--format", "json"]).output()?.stdout;
            let status: Value = serde_json::from_slice(&status)?;
            let points = status["points"].as_array().context("no points")?;
            ensure!(!points.is_empty(), "{name}: {status}");
            let fentry = points.iter().any(|point| point["backend"] == "fentry");
            ensure!(!fentry, "{name}: {status}");
            ensure!(
                command(&["stop"]).status()?.success(),
                "{name}: it does not stop"
            );
        }
        count += 1;
    }
    fs::remove_dir_all(&dir)?;
    let (took, name) = slowest;
    let took = took.as_secs_f64();
    Ok(format!(
        "{count} kinds refused in one line each, auto goes on, slowest {took:.2} s ({name})"
    ))
}
