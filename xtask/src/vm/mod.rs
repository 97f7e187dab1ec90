//! `cargo xtask vm`: boots kernels in QEMU, with `vm-tests` as PID 1.

mod accelerator;
mod console;
mod disk;
mod initramfs;
mod machine;
mod measure;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::build::{self, Built};
use crate::cache::Cache;
use crate::explain::{explained, host_cannot};
use crate::process::run;
use crate::setup::{self, KERNELS, Kernel, Kernels};
use crate::workspace;

use console::Outcome;
use machine::Machine;

pub use measure::measure;

/// A machine that runs all tests is ended after this (s): emulated, on a busy host, it takes a quarter of an hour.
const LIMIT_S: u64 = 1800;

/// A machine that is run for its figures is ended after this: emulated, it takes about a minute.
const FIGURES_LIMIT: Duration = Duration::from_secs(300);

#[derive(clap::Args)]
pub struct Args {
    /// The kernel to boot; may be given several times [default: the usual ones]
    #[arg(long, value_name = "NAME")]
    kernel: Vec<String>,
    /// All kernels that are known
    #[arg(long, conflicts_with = "kernel")]
    all_kernels: bool,
    /// Ends a machine that takes longer
    #[arg(long, value_name = "SECONDS", default_value_t = LIMIT_S)]
    timeout: u64,
    /// Run only tests whose names contain one of these
    #[arg(last = true, value_name = "TEST")]
    tests: Vec<String>,
}

/// What the tests of all machines came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub passed: usize,
    pub failed: usize,
    pub skipped: usize,
}

impl std::ops::AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }
}

impl std::fmt::Display for Counts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            passed,
            failed,
            skipped,
        } = self;
        write!(f, "{passed} passed, {failed} failed, {skipped} skipped")
    }
}

/// The command.
pub fn command(args: &Args) -> Result<()> {
    let cache = Cache::locate()?;
    check_kernels(&args.kernel)?;
    let kernels = match args.kernel.as_slice() {
        [] => Kernels::all_if(args.all_kernels),
        names => Kernels::These(names),
    };
    setup::ensure(&cache, kernels)?;
    let built = build::build()?;
    let limit = Duration::from_secs(args.timeout);
    let counts = run_all(&cache, &built, kernels, &args.tests, limit)?;
    println!("{counts}");
    if counts.failed > 0 {
        bail!(
            "failed to pass the VM tests: {} failed; see {}",
            counts.failed,
            logs().display()
        );
    }
    Ok(())
}

/// The first of these kernels that set-up did not bring.
pub fn missing_kernel(cache: &Cache, kernels: Kernels) -> Option<&'static str> {
    KERNELS
        .iter()
        .filter(|kernel| kernels.contains(kernel))
        .find(|kernel| kernel.installed(cache).is_none())
        .map(|kernel| kernel.name)
}

/// Runs all tests on the usual kernels, or those that are quick.
pub fn run_default(cache: &Cache, built: &Built, full: bool) -> Result<Counts> {
    let tests = if full {
        Vec::new()
    } else {
        list(&built.vm_tests, &["--quick"])?
    };
    let limit = Duration::from_secs(LIMIT_S);
    run_all(cache, built, Kernels::Usual, &tests, limit)
}

/// Runs, on the kernels that are not usual, what tells whether all that there is works there.
pub fn run_matrix(cache: &Cache, built: &Built) -> Result<Counts> {
    let tests = ["smoke", "matrix", "verified"].map(str::to_owned);
    let limit = Duration::from_secs(LIMIT_S);
    run_all(cache, built, Kernels::Unusual, &tests, limit)
}

fn list(program: &Path, which: &[&str]) -> Result<Vec<String>> {
    let mut command = Command::new(program);
    let list = run(command.arg("--list").args(which), "list the VM tests")?;
    Ok(list.lines().map(str::to_owned).collect())
}

fn run_all(
    cache: &Cache,
    built: &Built,
    kernels: Kernels,
    tests: &[String],
    limit: Duration,
) -> Result<Counts> {
    check_tests(&built.vm_tests, tests)?;
    let mut counts = Counts::default();
    // One after the other: two emulated machines at a time get half a CPU each, and the tests measure times.
    for kernel in KERNELS.iter().filter(|kernel| kernels.contains(kernel)) {
        let start = Instant::now();
        let machine = machine(cache, built, kernel, tests)?;
        let outcome = machine.run(limit, true)?;
        counts += count(kernel.name, &outcome, start.elapsed());
    }
    Ok(counts)
}

/// What the guest test `test` measured on the newest kernel, without showing its console.
pub fn figures(cache: &Cache, built: &Built, test: &str) -> Result<String> {
    let kernel = newest();
    let machine = machine(cache, built, kernel, &[test.to_owned()])?;
    let outcome = machine.run(FIGURES_LIMIT, false)?;
    let passed = outcome.problems.is_empty() && outcome.verdict.is_some_and(|it| it.failed == 0);
    outcome.figures.filter(|_| passed).ok_or_else(|| {
        let problems = outcome.problems.join("; ");
        explained(
            format!(
                "failed to pass the guest test {test} on kernel {}: {problems}",
                kernel.name
            ),
            format!("its console is in {}", machine.log.display()),
        )
    })
}

/// The newest kernel that set-up brings unasked.
pub fn newest() -> &'static Kernel {
    let mut usual = KERNELS.iter().filter(|kernel| kernel.usual);
    usual.next_back().expect("there is a kernel")
}

fn machine(cache: &Cache, built: &Built, kernel: &Kernel, tests: &[String]) -> Result<Machine> {
    let Some(dir) = kernel.installed(cache) else {
        return Err(host_cannot(
            format!(
                "failed to find kernel {}: set-up brings kernels on Debian 12 only",
                kernel.name
            ),
            "run the VM tests on Debian 12, in a container for example; or: cargo xtask test --no-vm",
        ));
    };
    fs::create_dir_all(logs()).context("failed to make target/vm")?;
    let initrd = logs().join(format!("{}.cpio", kernel.name));
    initramfs::write(&initrd, built, &dir.join("modules"), &[])?;
    let vmlinuz = dir.join("vmlinuz");
    Ok(Machine {
        name: kernel.name.to_owned(),
        qemu: qemu(cache)?,
        disk: disk::image(cache)?,
        log: logs().join(format!("{}.log", kernel.name)),
        tests: tests.to_owned(),
        accelerator: accelerator::choose(cache, &vmlinuz, built)?,
        kernel: vmlinuz,
        initrd,
    })
}

/// Counts a machine's run. Each problem is a failure of its own: a test may pass while the kernel warns.
fn count(kernel: &str, outcome: &Outcome, took: Duration) -> Counts {
    let mut counts = outcome.verdict.unwrap_or_default();
    for problem in &outcome.problems {
        println!("vm {kernel}: FAILED: {problem}");
        counts.failed += 1;
    }
    println!("vm {kernel}: {counts} ({:.1} s)", took.as_secs_f64());
    counts
}

fn check_kernels(wanted: &[String]) -> Result<()> {
    let known: Vec<&str> = KERNELS.iter().map(|kernel| kernel.name).collect();
    match wanted.iter().find(|name| !known.contains(&name.as_str())) {
        None => Ok(()),
        Some(name) => Err(explained(
            format!("failed to find kernel {name}"),
            format!("one of: {}", known.join(", ")),
        )),
    }
}

/// Refuses names that select nothing, which would otherwise look like a passed run.
fn check_tests(program: &Path, wanted: &[String]) -> Result<()> {
    let names = list(program, &[])?;
    match wanted
        .iter()
        .find(|part| !names.iter().any(|name| name.contains(part.as_str())))
    {
        None => Ok(()),
        Some(part) => Err(explained(
            format!("failed to find a test named {part}"),
            format!("there are: {}", names.join(", ")),
        )),
    }
}

/// QEMU as set-up brought it, else the one on PATH.
fn qemu(cache: &Cache) -> Result<PathBuf> {
    cache.find("qemu-system-x86_64")
}

/// Where consoles are logged.
fn logs() -> PathBuf {
    workspace::target_dir().join("vm")
}
