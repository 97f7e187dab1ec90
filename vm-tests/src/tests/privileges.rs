//! The agent with the privileges that it needs and no others, on a kernel that has all backends. Debian's
//! asks for `CAP_SYS_ADMIN` at perf events, unless a setting is lowered.

use std::{fs, path::Path, time::Duration};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use iolag_tests::{
    agent::Agent,
    privileges::{Who, bits, threads},
    timing::{median, writes},
};

const PROGRAM: &str = "/iolag";
const PARANOID: &str = "/proc/sys/kernel/perf_event_paranoid";
const FILE: &str = "/tmp/privileges";
const DELAY: &str = "10ms";
const DELAY_NS: u64 = 10_000_000;

const TWO: &[&str] = &["CAP_BPF", "CAP_PERFMON"];
/// A user other than root.
const OTHER: u32 = 1000;

pub fn fentry() -> Result<()> {
    suffice("fentry", TWO, 0)?;
    suffice("fentry", TWO, OTHER)
}

pub fn tp() -> Result<()> {
    suffice("tp", TWO, 0)?;
    suffice("tp", TWO, OTHER)
}

/// And functions that rules name, which takes their addresses.
pub fn kprobe() -> Result<()> {
    let strict = fs::read_to_string(PARANOID)?;
    ensure!(strict.trim() == "3", "{PARANOID}: {strict}");
    let words = ["perf_event_paranoid", "CAP_SYS_ADMIN"];
    let given = [TWO, starting()?].concat();
    refused(&["--backend", "kprobe"], &given, &words)?;
    let admin = ["CAP_BPF", "CAP_PERFMON", "CAP_SYS_ADMIN", "CAP_SYSLOG"];
    delays_functions(&suffice_with("kprobe", &admin, 0)?)?;
    fs::write(PARANOID, "2")?;
    let lowered = lowered();
    fs::write(PARANOID, strict)?;
    lowered
}

fn lowered() -> Result<()> {
    suffice("kprobe", TWO, OTHER)?;
    let agent = suffice_with("kprobe", &["CAP_BPF", "CAP_PERFMON", "CAP_SYSLOG"], 0)?;
    delays_functions(&agent)
}

/// What is missing is told in one line, and nothing is left; what is there in excess is given up.
pub fn missing() -> Result<()> {
    for (capabilities, words) in [
        (
            &["CAP_BPF"][..],
            ["failed to load", "CAP_PERFMON is missing"],
        ),
        (&["CAP_PERFMON"], ["failed to load", "CAP_BPF is missing"]),
        (
            &[],
            ["failed to load", "CAP_BPF and CAP_PERFMON are missing"],
        ),
    ] {
        refused(&[], capabilities, &words)?;
    }
    if let [starting] = starting()? {
        refused(&[], TWO, &["failed to load", starting])?;
    }
    let agent = Agent::start(Path::new(PROGRAM), &[])?;
    let kept = [TWO, &["CAP_SYSLOG", "CAP_DAC_READ_SEARCH", "CAP_SYS_ADMIN"]].concat();
    holds(&agent, &kept)?;
    agent.call(&["stop"])?;
    fs::write(PARANOID, "2")?;
    let agent = Agent::start(Path::new(PROGRAM), &[]);
    fs::write(PARANOID, "3")?;
    let agent = agent?;
    holds(&agent, &kept[..kept.len() - 1]).map(drop)
}

/// Before 5.11 maps count as locked memory, of which a process may have 64 KiB unless it may raise that.
fn starting() -> Result<&'static [&'static str]> {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease")?;
    let counted = release.starts_with("5.10.");
    Ok(if counted { &["CAP_SYS_RESOURCE"] } else { &[] })
}

fn suffice(backend: &str, capabilities: &[&str], uid: u32) -> Result<()> {
    suffice_with(backend, capabilities, uid).map(drop)
}

/// With what it takes to start on this kernel besides, which is not kept: a delay, a probe that is loaded later, a rule with
/// a filter; and `status` tells what the kernel does.
fn suffice_with(backend: &str, capabilities: &[&str], uid: u32) -> Result<Agent> {
    let given = [capabilities, starting()?].concat();
    let who = Who {
        uid,
        capabilities: &given,
    };
    let context = || format!("{backend}, {who:?}");
    let agent =
        Agent::start_as(Path::new(PROGRAM), &["--backend", backend], who).with_context(context)?;
    holds(&agent, capabilities).with_context(context)?;
    ensure!(agent.point("vfs.write")?["backend"] == backend);
    fs::write(FILE, [0])?;
    agent.call(&["set", DELAY])?;
    let slow = median(writes(Path::new(FILE), 5, Duration::ZERO)?);
    ensure!(slow >= DELAY_NS, "{}: a write takes {slow} ns", context());
    agent.call(&["reset"])?;
    let threads = std::thread::scope(|scope| {
        let load = scope.spawn(|| agent.call(&["probe", "load", "block"]));
        // While another thread loads it.
        let mut most = 0;
        while !load.is_finished() {
            most = holds(&agent, capabilities)?.max(most);
        }
        load.join().map_err(|_| anyhow!("the load panicked"))??;
        anyhow::Ok(most)
    });
    let threads = threads.with_context(context)?;
    ensure!(threads > 1, "{}: no thread was seen that loads", context());
    let own = std::process::id().to_string();
    let rule = ["inject", "vfs.write", "--delay", DELAY, "--pid", &own];
    agent.call(&rule).with_context(context)?;
    let slow = median(writes(Path::new(FILE), 5, Duration::ZERO)?);
    ensure!(slow >= DELAY_NS, "{}: a write takes {slow} ns", context());
    agent.call(&["reset"])?;
    println!("{}: enough", context());
    Ok(agent)
}

fn delays_functions(agent: &Agent) -> Result<()> {
    agent.call(&["inject", "fn:ksys_write", "--delay", DELAY, "--name", "f"])?;
    let slow = median(writes(Path::new(FILE), 5, Duration::ZERO)?);
    ensure!(slow >= DELAY_NS, "fn:ksys_write: a write takes {slow} ns");
    agent.call(&["remove", "f"])?;
    agent.call(&["stop"])?;
    agent.wait_gone(Duration::from_secs(10)).map(drop)
}

/// `status` names these, and each thread has them and no others. Returns how many threads there are.
fn holds(agent: &Agent, capabilities: &[&str]) -> Result<usize> {
    let status = agent.status()?;
    let told = status["agent"]["capabilities"].as_array();
    let told: Vec<&str> = told
        .context("no capabilities in the status")?
        .iter()
        .filter_map(|one| one["name"].as_str())
        .collect();
    let expected = bits(capabilities.iter().copied());
    ensure!(bits(told.iter().copied()) == expected, "told {told:?}");
    let threads = threads(agent.pid())?;
    for thread in &threads {
        ensure!(
            (thread.effective, thread.permitted) == (expected, expected),
            "{thread:?}"
        );
        ensure!((thread.inheritable, thread.ambient) == (0, 0), "{thread:?}");
        ensure!(thread.no_new_privileges, "{thread:?}");
    }
    Ok(threads.len())
}

/// The start is refused with one line that has these words, and a hint.
fn refused(args: &[&str], capabilities: &[&str], words: &[&str]) -> Result<()> {
    let who = Who {
        uid: 0,
        capabilities,
    };
    let error = match Agent::start_as(Path::new(PROGRAM), args, who) {
        Ok(_) => bail!("an agent started as {who:?}"),
        Err(error) => format!("{error:#}"),
    };
    println!("{who:?}: {error}");
    ensure!(error.contains("exit status: 3"), "{error}");
    ensure!(
        error.lines().count() == 1 && error.contains("(hint: "),
        "{error}"
    );
    for word in words {
        ensure!(error.contains(word), "no {word:?} in: {error}");
    }
    Ok(())
}
