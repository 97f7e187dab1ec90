//! `cargo xtask demo`: delays real I/O on this machine for some seconds, and shows both sides of it.
//!
//! Where this machine cannot, the same is tested in a virtual machine.

mod delta;
mod fallback;
mod histogram;
mod interrupt;
mod measure;
mod scratch;
mod table;

use anyhow::Result;
use iolag_tests::agent::Agent;

use crate::build;
use crate::cache::Cache;
use crate::setup;

use measure::Demo;

/// How many steps [`step`] counts to.
const STEPS: usize = 6;

/// The command.
pub fn command() -> Result<()> {
    let cache = Cache::locate()?;
    setup::ensure(&cache)?;
    step(1, "build iolag");
    let built = build::build()?;
    let fio = cache.find("fio")?;
    // From here on there is something to restore: a signal ends the demo by way of the drops.
    interrupt::catch()?;
    step(2, "start the agent, delay 0");
    let agent = match Agent::start(&built.iolag, &[]) {
        Ok(agent) => agent,
        Err(error) => {
            interrupt::check()?;
            return fallback::run(&built, error);
        }
    };
    let demo = Demo {
        agent,
        fio,
        scratch: scratch::Scratch::new()?,
    };
    // A command that the Ctrl-C of the terminal ended as well is no failure of its own.
    let results = demo.run().inspect_err(|_| eprintln!("restoring ..."));
    interrupt::check()?;
    print!("{}", table::render(&results?));
    Ok(())
}

/// Says on stderr what comes next.
fn step(number: usize, what: &str) {
    eprintln!("[{number}/{STEPS}] {what} ...");
}
