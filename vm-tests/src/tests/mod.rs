//! The tests that run as root in the virtual machine.

mod blocks;
mod delay;
mod demo;
mod doctor;
mod everywhere;
mod faults;
mod gone;
mod matrix;
mod privileges;
mod prototypes;
mod raised;
mod rules;
mod safety;
mod scope;
mod scsi;
mod smoke;
mod soak;
mod table;
mod truth;
mod verified;

use std::panic::catch_unwind;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Result, anyhow};

/// A test: it passes by returning `Ok`, is skipped by returning [`skip`], and fails by any other error or a panic.
pub struct Test {
    pub name: &'static str,
    pub level: Level,
    /// Whether what it shows depends on how fast the machine is; those that are not run in two machines at a time.
    pub timed: bool,
    run: fn() -> Result<()>,
}

/// How often a test is run.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// By `cargo xtask test`, on each usual kernel.
    Quick,
    /// With `--full`, on each usual kernel: what it shows, tests on the host or quick ones here show too, if not of
    /// this kernel or backend.
    Thorough,
    /// With `--full`, on one kernel: what it shows is hardly the kernel's.
    Once,
}

impl Level {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Quick => "quick",
            Self::Thorough => "thorough",
            Self::Once => "once",
        }
    }
}

/// To add a test, add its line: as `thorough` unless only a virtual machine can show what it shows, and `once` if that is
/// hardly the kernel's; and as `untimed` if a machine that is half as fast shows it as well.
pub const TESTS: &[Test] = &[
    untimed(quick("smoke", smoke::machine_is_as_the_tests_expect)),
    quick("delay-auto", delay::auto),
    quick("delay-fentry", delay::fentry),
    quick("delay-kprobe", delay::kprobe),
    thorough("delay-tp", delay::tp),
    once("delay-same", delay::same),
    untimed(quick("matrix", matrix::everything)),
    untimed(quick("prototypes", prototypes::are_the_kernels)),
    untimed(once("doctor", doctor::claims)),
    untimed(quick("hostile-btf", doctor::btf)),
    untimed(quick("verified", verified::instructions_are_few)),
    quick("blocks", blocks::counted),
    quick("scope-fentry", scope::fentry),
    once("scope-kprobe", scope::kprobe),
    once("scope-tp", scope::tp),
    untimed(quick("privileges-fentry", privileges::fentry)),
    untimed(quick("privileges-kprobe", privileges::kprobe)),
    untimed(once("privileges-tp", privileges::tp)),
    untimed(quick("privileges-missing", privileges::missing)),
    quick("kill", safety::kill),
    thorough("stop-slow", safety::stop_while_slow),
    once("fault-deaths-fentry", faults::deaths_fentry),
    once("fault-deaths-kprobe", faults::deaths_kprobe),
    thorough("fault-deaths-tp", faults::deaths_tp),
    untimed(once("fault-cycles", faults::cycles)),
    once("fault-stopped", faults::stopped),
    once("fault-fork-bomb", faults::fork_bomb),
    once("fault-frozen", faults::frozen),
    once("fault-everybody", faults::everybody_is_slow),
    once("fault-gone-cpu", gone::cpu),
    once("fault-gone-cgroup", gone::cgroup),
    once("fault-gone-file-system", gone::file_system),
    thorough("fault-gone-module", gone::disk_and_module),
    untimed(once(
        "fault-surroundings",
        faults::what_the_surroundings_lack,
    )),
    once("fault-soak", soak::soak),
    once("rules-everybody", rules::everybody),
    quick("rules-budget", rules::budget),
    quick("rules-lease", rules::lease),
    quick("rules-batch", rules::batch),
    quick("truth-block-counts", truth::block_counts),
    thorough("truth-block-oracle", truth::block_oracle),
    thorough("truth-block-anchor-3", truth::block_anchor_3),
    thorough("truth-block-books", truth::block_books),
    quick("truth-block-iostats", truth::block_iostats),
    quick(
        "truth-block-anchor-1",
        scsi::anchor_1_parts_of_a_request_are_one,
    ),
    thorough("truth-block-vanish", scsi::a_disk_that_vanishes),
    once("demo", demo::figures),
    quick("truth-vfs-fentry", truth::vfs_fentry),
    thorough("truth-vfs-kprobe", truth::vfs_kprobe),
    once("truth-vfs-tp", truth::vfs_tp),
    quick("truth-fn", truth::functions),
    thorough("truth-vfs-books-fentry", truth::vfs_books_fentry),
    once("truth-vfs-books-kprobe", truth::vfs_books_kprobe),
    once("truth-vfs-books-tp", truth::vfs_books_tp),
    untimed(quick("truth-memory-oom-counts", truth::memory_oom_counts)),
    untimed(thorough(
        "truth-memory-oom-victim",
        truth::memory_oom_victim,
    )),
    untimed(thorough("truth-memory-oom-alone", truth::memory_oom_alone)),
    thorough("truth-memory-reclaim", truth::memory_reclaim),
    thorough("truth-memory-faults", truth::memory_faults),
    quick("truth-irq-softirqs", truth::irq_softirqs),
    thorough("truth-irq-interrupts", truth::irq_interrupts),
    thorough("truth-irq-anchor-7", truth::irq_anchor_7),
    thorough("truth-irq-offline", truth::irq_offline),
    thorough("truth-sched-switches", truth::sched_switches),
    quick("truth-sched-schedstat", truth::sched_schedstat),
    thorough("truth-sched-owner", truth::sched_owner),
    thorough("truth-sched-tasks", truth::sched_tasks),
    thorough("truth-sched-top", truth::sched_top),
    thorough("truth-sched-offline", truth::sched_offline),
    // Nothing that loads a program works behind it.
    once("fault-lockdown", faults::lockdown),
];

const fn quick(name: &'static str, run: fn() -> Result<()>) -> Test {
    at(Level::Quick, name, run)
}

const fn thorough(name: &'static str, run: fn() -> Result<()>) -> Test {
    at(Level::Thorough, name, run)
}

const fn once(name: &'static str, run: fn() -> Result<()>) -> Test {
    at(Level::Once, name, run)
}

const fn at(level: Level, name: &'static str, run: fn() -> Result<()>) -> Test {
    Test {
        name,
        level,
        timed: true,
        run,
    }
}

const fn untimed(test: Test) -> Test {
    Test {
        timed: false,
        ..test
    }
}

/// The exit code of a test that was skipped.
pub const SKIPPED: u8 = 77;

/// Why a test does not apply to this kernel.
#[derive(Debug)]
pub struct Skip(String);

impl std::fmt::Display for Skip {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Skip {}

/// The error that marks a test as skipped: `return Err(skip("this kernel has no bpf_loop"))`.
pub fn skip(reason: impl Into<String>) -> anyhow::Error {
    Skip(reason.into()).into()
}

/// Runs one test in this process and says how it went.
pub fn run(name: &str) -> ExitCode {
    let start = Instant::now();
    let result = match TESTS.iter().find(|test| test.name == name) {
        Some(test) => catch_unwind(test.run)
            .unwrap_or_else(|panic| Err(anyhow!("panicked: {}", message(&*panic)))),
        None => Err(anyhow!("no such test")),
    };
    match result {
        Ok(()) => {
            let took = start.elapsed().as_secs_f64();
            println!("iolag-vm: test {name} ... ok ({took:.1} s)");
            ExitCode::SUCCESS
        }
        Err(error) if error.is::<Skip>() => {
            println!("iolag-vm: test {name} ... skipped: {}", one_line(&error));
            ExitCode::from(SKIPPED)
        }
        Err(error) => {
            println!("iolag-vm: test {name} ... FAILED: {}", one_line(&error));
            ExitCode::FAILURE
        }
    }
}

fn message(panic: &(dyn std::any::Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message")
}

fn one_line(error: &anyhow::Error) -> String {
    format!("{error:#}").replace('\n', " | ")
}
