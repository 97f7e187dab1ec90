//! What cargo cannot do: set-up, static builds, tests in virtual machines, and the one command that runs every test.

mod bench;
mod build;
mod cache;
mod debian;
mod demo;
mod disk;
mod docs;
mod explain;
mod fuzz;
mod platform;
mod process;
mod reliability;
mod results;
mod setup;
mod test;
mod vm;
mod workspace;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Builds, tests and demonstrates iolag")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Bring everything that building and testing need (safe to repeat)
    Setup(setup::Args),
    /// Measure what iolag costs, and write docs/overhead.md (needs root)
    Bench(bench::Args),
    /// Boot Debian kernels in QEMU and run the tests of `vm-tests` there
    Vm(vm::Args),
    /// Slow this machine down for seconds, and show what fio and the kernel say of it
    Demo,
    /// Write the generated documents: docs/probes.md, docs/kernels.md, docs/reliability.md
    Docs,
    /// Feed what reads the input of others with a million changed inputs each
    Fuzz(fuzz::Args),
    /// Try each fault of docs/reliability.md as often as it says, and write that: over an hour (needs root)
    Reliability(reliability::Args),
    /// Format, clippy, host tests, privileged tests and VM tests
    Test(test::Args),
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Setup(args) => setup::command(&args),
        Command::Bench(args) => bench::command(&args),
        Command::Vm(args) => vm::command(&args),
        Command::Demo => demo::command(),
        Command::Docs => docs::command(),
        Command::Fuzz(args) => fuzz::command(&args),
        Command::Reliability(args) => reliability::command(&args),
        Command::Test(args) => test::command(&args),
    };
    explain::exit_code(result)
}
