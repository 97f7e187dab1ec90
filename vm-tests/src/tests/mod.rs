//! The tests that run as root in the virtual machine.

mod blocks;
mod delay;
mod demo;
mod raised;
mod safety;
mod scsi;
mod smoke;
mod truth;

use std::panic::catch_unwind;
use std::process::ExitCode;

use anyhow::{Result, anyhow};

/// A test: it passes by returning `Ok`, is skipped by returning [`skip`], and fails by any other error or a panic.
pub struct Test {
    pub name: &'static str,
    run: fn() -> Result<()>,
}

/// To add a test, add its line.
pub const TESTS: &[Test] = &[
    test("smoke", smoke::machine_is_as_the_tests_expect),
    test("delay-auto", delay::auto),
    test("delay-fentry", delay::fentry),
    test("delay-kprobe", delay::kprobe),
    test("delay-tp", delay::tp),
    test("delay-same", delay::same),
    test("blocks", blocks::counted),
    test("kill", safety::kill),
    test("stop-slow", safety::stop_while_slow),
    test("stopped", safety::stopped),
    test("truth-block-counts", truth::block_counts),
    test("truth-block-oracle", truth::block_oracle),
    test("truth-block-anchor-3", truth::block_anchor_3),
    test("truth-block-books", truth::block_books),
    test(
        "truth-block-anchor-1",
        scsi::anchor_1_parts_of_a_request_are_one,
    ),
    test("truth-block-vanish", scsi::a_disk_that_vanishes),
    test("demo", demo::figures),
    test("truth-vfs-fentry", truth::vfs_fentry),
    test("truth-vfs-kprobe", truth::vfs_kprobe),
    test("truth-vfs-tp", truth::vfs_tp),
    test("truth-fn", truth::functions),
    test("truth-vfs-books-fentry", truth::vfs_books_fentry),
    test("truth-vfs-books-kprobe", truth::vfs_books_kprobe),
    test("truth-vfs-books-tp", truth::vfs_books_tp),
    test("truth-memory-oom-counts", truth::memory_oom_counts),
    test("truth-memory-oom-victim", truth::memory_oom_victim),
    test("truth-memory-oom-alone", truth::memory_oom_alone),
    test("truth-memory-reclaim", truth::memory_reclaim),
    test("truth-memory-faults", truth::memory_faults),
    test("truth-irq-softirqs", truth::irq_softirqs),
    test("truth-irq-interrupts", truth::irq_interrupts),
    test("truth-irq-offline", truth::irq_offline),
    test("truth-sched-switches", truth::sched_switches),
    test("truth-sched-schedstat", truth::sched_schedstat),
    test("truth-sched-owner", truth::sched_owner),
    test("truth-sched-tasks", truth::sched_tasks),
    test("truth-sched-offline", truth::sched_offline),
];

const fn test(name: &'static str, run: fn() -> Result<()>) -> Test {
    Test { name, run }
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
    let result = match TESTS.iter().find(|test| test.name == name) {
        Some(test) => catch_unwind(test.run)
            .unwrap_or_else(|panic| Err(anyhow!("panicked: {}", message(&*panic)))),
        None => Err(anyhow!("no such test")),
    };
    match result {
        Ok(()) => {
            println!("iolag-vm: test {name} ... ok");
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
