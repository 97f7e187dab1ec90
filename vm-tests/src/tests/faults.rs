//! Faults: what may happen to the agent and the machine, and what has to hold then (`docs/reliability.md`).

use std::{fs, path::Path, process::Command, time::Duration};

use anyhow::{Context as _, Result, ensure};
use iolag_tests::faults::{
    Place, cycles, death, path, rounds, row, starved, stopped, surroundings,
};

use super::skip;

fn over(backend: &str) -> Place<'_> {
    Place {
        program: Path::new("/iolag"),
        backend,
    }
}

pub fn deaths_fentry() -> Result<()> {
    death::deaths(&over("fentry"), rounds(4, 24))
}

pub fn deaths_kprobe() -> Result<()> {
    death::deaths(&over("kprobe"), rounds(4, 24))
}

pub fn deaths_tp() -> Result<()> {
    death::deaths(&over("tp"), rounds(4, 24))
}

pub fn cycles() -> Result<()> {
    cycles::cycles(&over("auto"), rounds(10, 100))
}

pub fn stopped() -> Result<()> {
    stopped::stopped(&over("fentry"), Duration::from_secs(rounds(8, 60) as u64))
}

pub fn fork_bomb() -> Result<()> {
    starved::fork_bomb(&over("auto"))
}

pub fn frozen() -> Result<()> {
    starved::frozen(&over("auto"))
}

pub fn everybody_is_slow() -> Result<()> {
    path::everybody_is_slow(&over("auto"))
}

pub fn what_the_surroundings_lack() -> Result<()> {
    surroundings::surroundings(&over("auto"))
}

/// The kernel's lockdown, which only a reboot lifts: the last test of a machine.
pub fn lockdown() -> Result<()> {
    const LOCKDOWN: &str = "/sys/kernel/security/lockdown";
    if !fs::exists(LOCKDOWN)? {
        return Err(skip("this kernel has no lockdown"));
    }
    let commands: [&[&str]; 2] = [&["run", "--detach"], &["hist", "irq", "1", "1"]];
    for level in ["integrity", "confidentiality"] {
        fs::write(LOCKDOWN, level).with_context(|| format!("failed to set {level}"))?;
        for args in commands {
            let mut command = Command::new("/iolag");
            let socket = ["--socket", "/tmp/lockdown.sock"];
            let output = command.args(args).args(socket).output()?;
            let said = String::from_utf8_lossy(&output.stderr)
                .trim_end()
                .to_owned();
            let figures = match output.status.success() {
                true => "works".to_owned(),
                false => said.clone(),
            };
            // Whether a probe has to read the kernel's memory differs; the delays have to.
            let (delays, allowed) = (args[0] == "run", level == "integrity");
            let works = output.status.success();
            ensure!(works || !allowed, "{level}: {args:?}: {said}");
            ensure!(!works || allowed || !delays, "{level}: {args:?} works");
            let told = said.lines().count() == 1 && said.starts_with("error: ");
            let named = !delays || said.contains("lockdown");
            ensure!(works || told && named, "{level}: {args:?}: {said}");
            row(
                &format!("lockdown={level}, iolag {}", args[0]),
                "auto",
                figures,
            );
        }
        let stop = ["stop", "--socket", "/tmp/lockdown.sock"];
        let _not_there = Command::new("/iolag").args(stop).output()?;
    }
    Ok(())
}
