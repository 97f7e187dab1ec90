//! The agent: how soon it is ready, what it takes at rest, how fast it answers.

use std::{
    io::{Read as _, Write as _},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use agent_common::probes::{Field, PROBES};
use anyhow::{Context as _, Result, anyhow, ensure};
use iolag::{
    control::{
        client::call,
        protocol::{self, parse_answer},
    },
    failure::Failure,
    report::{Status, dump::Dump, probes::Row},
};

use crate::{cost::verdict, load, median};

const STARTS: usize = 5;
const DUMPS: usize = 9;
const REST: Duration = Duration::from_secs(30);
const SERIES: usize = 1_000;

/// A detached agent; stopped when dropped.
struct Agent {
    socket: PathBuf,
    /// From the command's start to its end.
    ready: Duration,
}

impl Agent {
    fn start(probes: &[&str]) -> Result<Self> {
        let socket = std::env::temp_dir().join(format!("iolag-bench-{}.sock", std::process::id()));
        let start = Instant::now();
        let status = Command::new(env!("CARGO_BIN_EXE_iolag"))
            .arg("--socket")
            .arg(&socket)
            .args(["run", "--detach"])
            .args(probes)
            .stdin(Stdio::null())
            .status()
            .context("failed to run iolag")?;
        ensure!(status.success(), "failed to start the agent: {status}");
        Ok(Self {
            socket,
            ready: start.elapsed(),
        })
    }

    fn ask<T: serde::de::DeserializeOwned>(&self, command: &protocol::Command) -> Result<T> {
        call(&self.socket, command).map_err(told)
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        if let Err(failure) = call::<()>(&self.socket, &protocol::Command::Stop) {
            eprintln!("failed to stop the agent: {failure}");
        }
        // Its log, beside the socket.
        let _gone = std::fs::remove_file(self.socket.with_extension("log"));
    }
}

fn told(failure: Failure) -> anyhow::Error {
    anyhow!("{failure}")
}

/// Prints the table.
pub fn run() -> Result<()> {
    println!("\n| the agent | | goal | |\n| --- | --- | --- | --- |");
    ready("ready, by `iolag run --detach`", &[])?;
    ready("ready, with `--probes all`", &["--probes", "all"])?;
    rest()?;
    dumps()
}

fn row(what: &str, value: f64, unit: &str, goal: f64) {
    let digits = if value < 1.0 { 4 } else { 1 };
    let met = verdict(value < goal);
    println!("| {what} | {value:.digits$} {unit} | < {goal} {unit} | {met} |");
}

fn ready(what: &str, arguments: &[&str]) -> Result<()> {
    let times = (0..STARTS)
        .map(|_| Ok(Agent::start(arguments)?.ready.as_secs_f64() * 1e3))
        .collect::<Result<Vec<_>>>()?;
    row(what, median(times, |ms| *ms), "ms", 300.0);
    Ok(())
}

/// With all probes loaded and nobody asking.
fn rest() -> Result<()> {
    let agent = Agent::start(&["--probes", "all"])?;
    let status: Status = agent.ask(&protocol::Command::Status)?;
    let process = PathBuf::from(format!("/proc/{}", status.agent.pid));
    std::thread::sleep(Duration::from_secs(1));
    let (before, start) = (cpu_ns(&process)?, Instant::now());
    std::thread::sleep(REST);
    let share = (cpu_ns(&process)? - before) / start.elapsed().as_nanos() as f64;
    row("CPU at rest, all probes loaded", share * 100.0, "%", 0.1);
    row("memory (RSS), the same", rss_mib(&process)?, "MiB", 20.0);
    Ok(())
}

/// The first field of `schedstat`: time on a CPU (ns). Of all threads.
fn cpu_ns(process: &Path) -> Result<f64> {
    let mut sum = 0.0;
    for task in std::fs::read_dir(process.join("task"))? {
        let text = std::fs::read_to_string(task?.path().join("schedstat"))?;
        let first = text
            .split_whitespace()
            .next()
            .context("an empty schedstat")?;
        sum += first.parse::<f64>()?;
    }
    Ok(sum)
}

fn rss_mib(process: &Path) -> Result<f64> {
    let text = std::fs::read_to_string(process.join("status"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB"));
    Ok(kib.context("no VmRSS")?.parse::<f64>()? / 1024.0)
}

/// Of each probe that tells commands apart.
fn dumps() -> Result<()> {
    let agent = Agent::start(&[])?;
    for probe in PROBES {
        if probe.takes_function() || probe.keys.iter().all(|key| key.field != Field::Comm) {
            continue;
        }
        let load = protocol::Command::ProbeLoad {
            probe: probe.name.into(),
            by: vec![Field::Comm.name().into()],
            backend: "auto".into(),
        };
        let _loaded: Row = agent.ask(&load)?;
        load::named_threads(SERIES)?;
        let request = protocol::request(&protocol::Command::Dump {
            probe: probe.name.into(),
            by_cpu: false,
        });
        let mut times = Vec::new();
        let mut series = 0;
        for _ in 0..DUMPS {
            let start = Instant::now();
            let answer = exchange(&agent.socket, &request)?;
            times.push(start.elapsed().as_secs_f64() * 1e3);
            series = parse_answer::<Dump>(&answer).map_err(told)?.series.len();
        }
        let what = format!("dump of {series} series of `{}`", probe.name);
        row(&what, median(times, |ms| *ms), "ms", 20.0);
    }
    Ok(())
}

/// The answer as it comes, not read: that is the client's time.
fn exchange(socket: &Path, request: &str) -> Result<Vec<u8>> {
    let mut stream = UnixStream::connect(socket).context("failed to reach the agent")?;
    stream.write_all(format!("{request}\n").as_bytes())?;
    let mut answer = Vec::new();
    let mut part = vec![0; 1 << 16];
    while !answer.ends_with(b"\n") {
        let count = stream.read(&mut part)?;
        ensure!(count > 0, "the agent hung up");
        answer.extend_from_slice(&part[..count]);
    }
    Ok(answer)
}
