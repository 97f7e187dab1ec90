//! `cargo xtask demo`: delays real I/O on this machine for some seconds, and shows both sides of it.
//!
//! Where this machine cannot, the same is tested in a virtual machine.

mod fallback;
mod histogram;
mod interrupt;
mod scratch;
mod table;

use std::cell::Cell;
use std::process::Command;

use anyhow::Result;
use iolag_tests::agent::Agent;
use iolag_tests::demo::Demo;

use crate::build;
use crate::cache::Cache;
use crate::setup::{self, Kernels};

/// Steps before those of [`Demo::run`].
const FIRST: usize = 2;

/// The command.
pub fn command() -> Result<()> {
    let cache = Cache::locate()?;
    setup::ensure(&cache, Kernels::Usual)?;
    let steps = Steps::default();
    steps.next("build iolag");
    let built = build::build()?;
    let fio = cache.find("fio")?;
    // From here on there is something to restore: a signal ends the demo by way of the drops.
    interrupt::catch()?;
    steps.next("start the agent, delay 0");
    let agent = match Agent::start(&built.iolag, &[]) {
        Ok(agent) => agent,
        Err(error) => {
            interrupt::check()?;
            return fallback::run(&cache, &built, error);
        }
    };
    let scratch = scratch::Scratch::new()?;
    let demo = Demo {
        agent: &agent,
        fio: &|| Command::new(&fio),
        file: scratch.path(),
        step: &|what| {
            interrupt::check()?;
            steps.next(what);
            Ok(())
        },
    };
    // A command that the Ctrl-C of the terminal ended as well is no failure of its own.
    let results = demo.run().inspect_err(|_| eprintln!("restoring ..."));
    interrupt::check()?;
    print!("{}", table::render(&results?));
    Ok(())
}

/// Says on stderr what comes next.
#[derive(Default)]
struct Steps(Cell<usize>);

impl Steps {
    fn next(&self, what: &str) {
        self.0.set(self.0.get() + 1);
        eprintln!("[{}/{}] {what} ...", self.0.get(), FIRST + Demo::STEPS);
    }
}
