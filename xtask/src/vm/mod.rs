//! `cargo xtask vm`: boots kernels in QEMU, with `vm-tests` as PID 1.

mod accelerator;
mod console;
mod disk;
mod initramfs;
mod machine;
mod measure;
mod plan;

use std::fs;
use std::panic::resume_unwind;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::value_parser;

use crate::build::{self, Built};
use crate::cache::Cache;
use crate::explain::{explained, host_cannot};
use crate::results::{Failure, Results};
use crate::setup::{self, KERNELS, Kernel, Kernels};
use crate::workspace;

use console::Outcome;
use machine::Machine;
use plan::{Job, plan};

pub use console::ROW;
pub use measure::measure;

/// A machine that runs all tests is ended after this (s): emulated, on a busy host, it takes a quarter of an hour.
const LIMIT_S: u64 = 1800;

/// Set in the environment, faults are tried as often as `docs/reliability.md` says, here as in tests on the host.
pub const LONG: &str = "IOLAG_LONG";

/// A machine that is run for its figures is ended after this: emulated, it takes about a minute.
const FIGURES_LIMIT: Duration = Duration::from_secs(300);

/// A machine in which faults are tried that often: half an hour of it is one test.
const FAULTS_LIMIT: Duration = Duration::from_secs(3 * 3600);

/// Why kernels were left out that the deadline came before.
const LATE: &str = "not begun within the time that --within gives";

/// Machines at a time whose tests measure times: two emulated ones get half of each CPU.
const ALONE: u8 = 1;

/// Machines at a time that load and attach programs, at which a machine works with one CPU mostly.
const TWO_CPUS: u8 = 2;

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
    /// Machines that run at the same time; above 1, tests that measure times may fail
    #[arg(long, value_name = "N", default_value_t = ALONE, value_parser = value_parser!(u8).range(1..))]
    at_once: u8,
    /// Run only tests whose names contain one of these
    #[arg(last = true, value_name = "TEST")]
    tests: Vec<String>,
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
    plan::check(&plan::list(&built.vm_tests)?, &args.tests)?;
    let chosen = KERNELS.iter().filter(|kernel| kernels.contains(kernel));
    let jobs = chosen.map(|kernel| Job {
        kernel,
        tests: args.tests.clone(),
        log: kernel.name.to_owned(),
    });
    let jobs: Vec<Job> = jobs.collect();
    let limit = Duration::from_secs(args.timeout);
    let results = run_all(&cache, &built, &jobs, limit, args.at_once, None)?;
    results.show();
    let counts = results.counts;
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

/// Runs what `cargo xtask test` does. Of kernels that are not usual, and of tests that take long, those that are not begun by
/// `deadline` are left out.
pub fn run_default(
    cache: &Cache,
    built: &Built,
    full: bool,
    all_kernels: bool,
    deadline: Option<Instant>,
) -> Result<Results> {
    let limit = Duration::from_secs(LIMIT_S);
    let mut results = Results::default();
    for phase in plan(&plan::list(&built.vm_tests)?, full, all_kernels) {
        let at_once = if phase.side_by_side { TWO_CPUS } else { ALONE };
        let deadline = deadline.filter(|_| phase.by_deadline);
        results += run_all(cache, built, &phase.jobs, limit, at_once, deadline)?;
    }
    Ok(results
        .with_second_try(|failures| run_all(cache, built, &again(failures), limit, ALONE, None)))
}

/// Machines for tests that failed, each on its kernel.
fn again(failures: &[Failure]) -> Vec<Job> {
    let failed_on = |kernel: &Kernel| -> Vec<String> {
        let here = failures
            .iter()
            .filter(|failure| failure.places == [kernel.name]);
        here.map(|failure| failure.test.clone()).collect()
    };
    let jobs = KERNELS.iter().map(|kernel| Job {
        kernel,
        tests: failed_on(kernel),
        log: format!("{}-again", kernel.name),
    });
    jobs.filter(|job| !job.tests.is_empty()).collect()
}

fn run_all(
    cache: &Cache,
    built: &Built,
    jobs: &[Job],
    limit: Duration,
    at_once: u8,
    deadline: Option<Instant>,
) -> Result<Results> {
    let machines = jobs
        .iter()
        .map(|job| machine(cache, built, job))
        .collect::<Result<Vec<_>>>()?;
    let (next, all) = (Mutex::new(machines.iter()), Mutex::new(Results::default()));
    let work = || -> Result<()> {
        loop {
            let Some(machine) = locked(&next).next() else {
                return Ok(());
            };
            let start = Instant::now();
            if deadline.is_some_and(|deadline| start > deadline) {
                let why = format!("{LATE}: {}", machine.tests.join(" "));
                let left_out = Results::left_out(machine.tests.len(), &why).at(&machine.name);
                *locked(&all) += left_out;
                continue;
            }
            let outcome = machine.run(limit, true)?;
            *locked(&all) += results_of(&machine.name, &outcome, start.elapsed());
        }
    };
    std::thread::scope(|scope| -> Result<()> {
        let workers: Vec<_> = (0..at_once).map(|_| scope.spawn(work)).collect();
        // All are waited for before the first error is told.
        let ends: Vec<_> = workers.into_iter().map(|worker| worker.join()).collect();
        ends.into_iter()
            .try_for_each(|end| end.unwrap_or_else(|panic| resume_unwind(panic)))
    })?;
    Ok(all.into_inner().unwrap_or_else(PoisonError::into_inner))
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What the guest test `test` measured on the newest kernel, without showing its console.
pub fn figures(cache: &Cache, built: &Built, test: &str) -> Result<String> {
    let kernel = newest();
    let machine = machine(cache, built, &job(kernel, test))?;
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

/// Tries each fault as often as `docs/reliability.md` says, on the newest kernel: what passed, and the rows.
pub fn faults(cache: &Cache, built: &Built) -> Result<(Results, Vec<String>)> {
    let kernel = newest();
    let start = Instant::now();
    let mut machine = machine(cache, built, &job(kernel, "fault"))?;
    machine.long = true;
    let outcome = machine.run(FAULTS_LIMIT, true)?;
    let results = results_of(kernel.name, &outcome, start.elapsed());
    Ok((results, outcome.rows))
}

/// The newest kernel that set-up brings unasked.
pub fn newest() -> &'static Kernel {
    let mut usual = KERNELS.iter().filter(|kernel| kernel.usual);
    usual.next_back().expect("there is a kernel")
}

fn job(kernel: &'static Kernel, test: &str) -> Job {
    Job {
        kernel,
        tests: vec![test.to_owned()],
        log: kernel.name.to_owned(),
    }
}

fn machine(cache: &Cache, built: &Built, job: &Job) -> Result<Machine> {
    let kernel = job.kernel;
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
        log: logs().join(format!("{}.log", job.log)),
        tests: job.tests.clone(),
        long: std::env::var_os(LONG).is_some(),
        accelerator: accelerator::choose(cache, &vmlinuz, built)?,
        kernel: vmlinuz,
        initrd,
    })
}

/// Counts a machine's run. Each problem is a failure of its own: a test may pass while the kernel warns.
fn results_of(kernel: &str, outcome: &Outcome, took: Duration) -> Results {
    let mut counts = outcome.verdict.unwrap_or_default();
    for problem in &outcome.problems {
        println!("vm {kernel}: FAILED: {problem}");
        counts.failed += 1;
    }
    println!("vm {kernel}: {counts} ({:.1} s)", took.as_secs_f64());
    let problems = outcome
        .problems
        .iter()
        .map(|problem| Failure::of("", problem));
    Results {
        counts,
        failures: outcome.failures.iter().cloned().chain(problems).collect(),
        ..Results::default()
    }
    .at(kernel)
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

/// QEMU as set-up brought it, else the one on PATH.
fn qemu(cache: &Cache) -> Result<PathBuf> {
    cache.find("qemu-system-x86_64")
}

/// Where consoles are logged.
fn logs() -> PathBuf {
    workspace::target_dir().join("vm")
}
