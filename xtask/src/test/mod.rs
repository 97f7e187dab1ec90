//! `cargo xtask test`: the tests, and one line at the end that counts them.

mod stage;

use std::ffi::OsStr;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use crate::build::{self, Built};
use crate::cache::Cache;
use crate::process::run;
use crate::results::Results;
use crate::setup::{self, Kernels};
use crate::vm;
use crate::workspace;

use stage::{Stages, capture};

/// The privileged tests that print rows of `docs/reliability.md`.
const FAULTS: [&str; 3] = ["faults::", "crowd::", "hostile_btf::"];

#[derive(clap::Args)]
pub struct Args {
    /// Leave out the tests in virtual machines
    #[arg(long)]
    no_vm: bool,
    /// Fail, rather than skip, where the kernels of the virtual machines cannot be had
    #[arg(long, conflicts_with = "no_vm")]
    require_vm: bool,
    /// Every test there is: also those in virtual machines that take long
    #[arg(long, conflicts_with = "no_vm")]
    full: bool,
    /// Also what loads, attaches and is met on every kernel that is known
    #[arg(long, conflicts_with = "no_vm")]
    all_kernels: bool,
    /// Skip what --full and --all-kernels add where it is not begun so long after the start
    #[arg(long, value_name = "MINUTES")]
    within: Option<u64>,
}

impl Args {
    /// Why the tests in virtual machines are left out, where the kernel `missing` is.
    fn vm_skip(&self, missing: Option<&str>) -> Option<String> {
        if self.no_vm {
            return Some("--no-vm".into());
        }
        let missing = missing.filter(|_| !self.require_vm)?;
        Some(format!(
            "no kernel {missing}: the kernels are Debian's packages, and set-up brings them on Debian 12 only"
        ))
    }
}

/// The command. A stage that fails does not keep the later ones from running.
pub fn command(args: &Args) -> Result<()> {
    let within = args.within.map(|minutes| Duration::from_secs(minutes * 60));
    let deadline = within.map(|within| Instant::now() + within);
    let mut stages = Stages::default();
    let cache = Cache::locate()?;
    let kernels = Kernels::all_if(args.all_kernels);
    stages.required("set-up", || setup::ensure(&cache, kernels))?;
    stages.check("format", || cargo(&["fmt", "--all", "--check"]));
    stages.check("clippy", clippy);
    let (toolchain, path) = setup::ebpf_environment(&cache)?;
    if has_clippy(&toolchain) {
        stages.check("clippy of the eBPF side", || clippy_ebpf(&toolchain, &path));
    } else {
        let reason = format!("no clippy: rustup component add clippy --toolchain {toolchain}");
        stages.skip("clippy of the eBPF side", &reason);
    }
    let built = stages.required("build", build::build)?;
    stages.count("host tests", || host_tests(&cache, &built));
    if is_root() {
        stages.count("privileged tests", || privileged_tests(&cache, &built));
    } else {
        stages.skip(
            "privileged tests",
            "they need root: sudo -E cargo xtask test",
        );
    }
    match args.vm_skip(vm::missing_kernel(&cache, kernels)) {
        Some(reason) => stages.skip("VM tests", &reason),
        None => {
            stages.count("VM tests", || {
                vm::run_default(&cache, &built, args.full, args.all_kernels, deadline)
            });
            if !args.full {
                stages.skip(
                    "thorough VM tests",
                    "they take long: cargo xtask test --full",
                );
            }
        }
    }
    stages.finish()
}

fn cargo(arguments: &[&str]) -> Result<()> {
    passes(workspace::cargo().args(arguments))
}

fn passes(command: &mut Command) -> Result<()> {
    let status = command.status()?;
    if !status.success() {
        bail!(
            "{} {}: {status}",
            command.get_program().display(),
            words(command)
        );
    }
    Ok(())
}

fn words(command: &Command) -> String {
    let words: Vec<_> = command
        .get_args()
        .map(|word| word.to_string_lossy())
        .collect();
    words.join(" ")
}

fn clippy() -> Result<()> {
    cargo(&["clippy", "--quiet", "--all-targets", "--", "-D", "warnings"])
}

fn has_clippy(toolchain: &str) -> bool {
    let mut version = Command::new("rustup");
    version.args(["run", toolchain, "cargo-clippy", "--version"]);
    run(&mut version, "ask clippy for its version").is_ok()
}

/// The eBPF side builds for its own target, with its own toolchain.
fn clippy_ebpf(toolchain: &str, path: &OsStr) -> Result<()> {
    let mut cargo = Command::new("rustup");
    cargo
        .current_dir(workspace::root())
        .env("PATH", path)
        .env("RUSTC_BOOTSTRAP", "1");
    cargo.args([
        "run",
        toolchain,
        "cargo",
        "clippy",
        "--quiet",
        "--package",
        "agent-ebpf",
    ]);
    cargo.args([
        "--target",
        "bpfel-unknown-none",
        "-Z",
        "build-std=core",
        "--",
        "-D",
        "warnings",
    ]);
    // As aya-build does: eBPF code asks which machine it will run on, as it reads that machine's registers.
    let flag = format!("--cfg=bpf_target_arch=\"{}\"", std::env::consts::ARCH);
    cargo
        .env("CARGO_ENCODED_RUSTFLAGS", flag)
        .env_remove("RUSTFLAGS");
    // A directory of its own: another compiler would throw out what the other stages built.
    cargo.env(
        "CARGO_TARGET_DIR",
        workspace::target_dir().join("ebpf-clippy"),
    );
    for name in ["RUSTC", "RUSTDOC", "RUSTUP_TOOLCHAIN", "CARGO"] {
        cargo.env_remove(name);
    }
    passes(&mut cargo)
}

fn host_tests(cache: &Cache, built: &Built) -> Result<Results> {
    let mut cargo = workspace::cargo();
    cargo.args(["test", "--no-fail-fast"]);
    with_programs(&mut cargo, cache, built);
    capture(&mut cargo, Some("privileged.rs"))
}

/// Tests that need root: those of the binary, and those of set-up that mount a disk to fill it.
fn privileged_tests(cache: &Cache, built: &Built) -> Result<Results> {
    let packages = ["--package", "iolag-tests", "--package", "xtask"];
    let results = capture(&mut privileged(cache, built, &packages, &[]), None)?;
    Ok(results.with_second_try(|failures| {
        let names = ["--exact"]
            .into_iter()
            .chain(failures.iter().map(|failure| failure.test.as_str()));
        let names: Vec<&str> = names.collect();
        capture(&mut privileged(cache, built, &packages, &names), None)
    }))
}

/// Tries each fault as often as `docs/reliability.md` says, on this host: what passed, and the rows.
pub fn faults(cache: &Cache, built: &Built) -> Result<(Results, Vec<String>)> {
    let mut cargo = privileged(cache, built, &["--package", "iolag-tests"], &FAULTS);
    let mut rows = Vec::new();
    let results = stage::capture_lines(cargo.env(vm::LONG, "1"), None, |line| {
        // Behind what libtest has not ended with a newline.
        rows.extend(line.split_once(vm::ROW).map(|(_, row)| row.to_owned()));
    })?;
    Ok((results, rows))
}

/// One at a time: they attach to the one kernel.
fn privileged(cache: &Cache, built: &Built, packages: &[&str], names: &[&str]) -> Command {
    let mut cargo = workspace::cargo();
    cargo.args(["test", "--no-fail-fast"]).args(packages);
    // The reasons of skipped tests are wanted, and libtest hides what a test prints that passes.
    cargo.args(["--test", "privileged", "--"]);
    cargo.args(["--test-threads=1", "--nocapture"]).args(names);
    cargo.env("IOLAG_PRIVILEGED", "1");
    with_programs(&mut cargo, cache, built);
    cargo
}

fn with_programs(command: &mut Command, cache: &Cache, built: &Built) {
    command.env("IOLAG_BIN", &built.iolag);
    if let Ok(fio) = cache.find("fio") {
        command.env("IOLAG_FIO", fio);
    }
}

fn is_root() -> bool {
    // SAFETY: geteuid has no preconditions and cannot fail.
    unsafe { libc::geteuid() == 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_kernel_is_a_skip_unless_it_is_required() {
        let args = |no_vm, require_vm| Args {
            no_vm,
            require_vm,
            full: false,
            all_kernels: false,
            within: None,
        };
        let skip = args(false, false).vm_skip(Some("6.1")).unwrap();
        assert!(skip.starts_with("no kernel 6.1: "), "{skip}");
        assert_eq!(args(false, true).vm_skip(Some("6.1")), None);
        assert_eq!(args(false, false).vm_skip(None), None);
        assert_eq!(args(true, false).vm_skip(None).unwrap(), "--no-vm");
    }
}
