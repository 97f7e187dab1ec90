//! What works on this kernel: every point and every measuring probe over every backend, loaded, attached, met by work
//! that has to be seen there, and detached. Held against `vm-tests/matrix.tsv`, from which `docs/kernels.md` is made.

use std::{
    collections::BTreeMap,
    path::Path,
    process::Command,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use agent_common::{
    catalogue::{BACKENDS, Backend, POINTS},
    probes::PROBES,
};
use anyhow::{Context as _, Result, ensure};
use iolag_tests::{
    agent::Agent,
    programs::{links, loaded, wait_gone},
};
use serde_json::Value;

use super::{everywhere, table};

/// What was seen before: kernel, what, backend, and [`WORKS`] or the reason.
const BEFORE: &str = include_str!("../../matrix.tsv");
pub const WORKS: &str = "works";
const PROGRAM: &str = "/iolag";
/// A function that any rule or histogram may name.
const FUNCTION: &str = "fn:vfs_statx";
/// Points that only rules want, and whose programs stay loaded for the next one.
const WANTED: [&str; 2] = ["vfs.fsync", "vfs.lookup"];
/// The kernel here that is older than 5.13 and refuses to attach a program by `fentry` twice.
const REFUSES_AGAIN: &str = "5.10";
/// Programs are freed some RCU grace periods after their links.
const GONE: Duration = Duration::from_secs(5);
/// Between two passes of the load, of which the second that a histogram takes has to see one.
const PAUSE: Duration = Duration::from_millis(50);

/// What there is and over which backend, and whether it works or why not.
type Rows = BTreeMap<(String, &'static str), String>;

pub fn everything() -> Result<()> {
    let before = (links()?, loaded()?);
    let mut rows = Rows::new();
    for backend in BACKENDS {
        points(backend, &mut rows).with_context(|| format!("{}: points", backend.name()))?;
        probes(backend, &mut rows).with_context(|| format!("{}: probes", backend.name()))?;
    }
    wait_gone(links, &before.0, GONE).context("links are left")?;
    wait_gone(loaded, &before.1, GONE).context("programs are left")?;
    let kernel = table::kernel()?;
    for ((what, backend), result) in &rows {
        println!("matrix\t{kernel}\t{what}\t{backend}\t{result}");
    }
    compare(&kernel, &rows)
}

/// The points of the probe `delay`: those that are attached from the start, and those that rules want.
fn points(backend: Backend, rows: &mut Rows) -> Result<()> {
    let mut add = |point: &str, result: String| {
        rows.insert((format!("delay {point}"), backend.name()), result);
    };
    let agent = match Agent::start(Path::new(PROGRAM), &["--backend", backend.name()]) {
        Ok(agent) => agent,
        Err(error) => {
            let reason = reason(&format!("{error:#}"));
            POINTS
                .iter()
                .for_each(|point| add(point.name, reason.clone()));
            return Ok(());
        }
    };
    let mut names: Vec<&str> = POINTS.iter().map(|point| point.name).collect();
    // One program, a kprobe, for any function: no other backend can have it.
    names.extend((backend == Backend::Kprobe).then_some(FUNCTION));
    for name in names {
        let inject = ["inject", name, "--delay", "1us", "--name", "rule"];
        if let Err(error) = agent.call(&inject) {
            add(name, reason(&format!("{error:#}")));
            continue;
        }
        let programs = loaded()?;
        hit(&agent, name)?;
        if WANTED.contains(&name) && backend != Backend::Tp {
            agent.call(&inject).context("for the second time")?;
            let again = loaded()?;
            ensure!(
                again == programs
                    || backend == Backend::Fentry && table::kernel()? == REFUSES_AGAIN,
                "{name}: programs {again:?} were {programs:?} before the rule went and came again"
            );
            hit(&agent, name)?;
        }
        add(name, WORKS.into());
    }
    agent.call(&["stop"])?;
    Ok(())
}

/// The rule at this point is hit, and goes.
fn hit(agent: &Agent, name: &str) -> Result<()> {
    everywhere::pass()?;
    agent.call(&["remove", "rule"])?;
    let outcome = agent.rule("rule")?;
    let (hits, asked) = (outcome.count("hits"), outcome.count("asked_ns"));
    ensure!(hits > 0, "{name}: attached, and never hit");
    let achieved = outcome.count("achieved_ns");
    ensure!(
        achieved >= asked,
        "{name}: {achieved} ns of {asked} ns achieved"
    );
    Ok(())
}

/// The measuring probes, each loaded by `hist` alone.
fn probes(backend: Backend, rows: &mut Rows) -> Result<()> {
    for probe in PROBES {
        let name = match probe.name {
            "fn" => FUNCTION,
            name => name,
        };
        let result = measured(name, backend).with_context(|| name.to_owned())?;
        rows.insert((format!("hist {name}"), backend.name()), result);
    }
    Ok(())
}

fn measured(probe: &str, backend: Backend) -> Result<String> {
    let over = AtomicBool::new(false);
    let output = thread::scope(|scope| {
        let load = scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                everywhere::pass()?;
                // The machine has two CPUs, and what loads the probe wants one.
                thread::sleep(PAUSE);
            }
            anyhow::Ok(())
        });
        let mut hist = Command::new(PROGRAM);
        hist.args(["hist", probe, "1", "1", "--format", "json"]);
        hist.args(["--backend", backend.name(), "--socket", "/tmp/no-agent"]);
        let output = hist.output();
        over.store(true, Ordering::Relaxed);
        load.join().expect("the load does not panic")?;
        anyhow::Ok(output?)
    })?;
    let said = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        ensure!(
            !said.contains("panicked"),
            "iolag hist {probe} panicked: {said}"
        );
        return Ok(reason(said.trim()));
    }
    let text = String::from_utf8(output.stdout)?;
    let dump: Value = serde_json::from_str(&text).context("failed to read the histograms")?;
    let series = dump["series"].as_array().context("no series")?;
    let metrics = series
        .iter()
        .filter_map(|series| series["metrics"].as_array());
    let count: u64 = metrics
        .flatten()
        .filter_map(|metric| metric["count"].as_u64())
        .sum();
    ensure!(count > 0, "attached, and nothing was measured: {dump}");
    let missing = dump["not_measured"].as_array().context("no not_measured")?;
    let missing: Vec<String> = missing
        .iter()
        .map(|part| format!("{}: {}", part["what"], part["reason"]).replace('"', ""))
        .collect();
    Ok(match missing.as_slice() {
        [] => WORKS.into(),
        missing => format!("{WORKS} without {}", missing.join("; ")),
    })
}

/// What was said, on one line, from the cause on: what failed stands in the row already.
fn reason(text: &str) -> String {
    let line = text.replace(['\n', '\t'], " ");
    let causes = ["failed to attach at ", "failed to load the probe "];
    let cause = causes.iter().find_map(|begin| {
        let (_, rest) = line.split_once(begin)?;
        rest.split_once(": ").map(|(_, cause)| cause)
    });
    let cause = cause.unwrap_or(&line);
    let end = cause.find(" (hint:").unwrap_or(cause.len());
    cause[..end].chars().take(300).collect()
}

/// What was seen before of one row.
pub fn before(kernel: &str, what: &str, backend: &str) -> Result<Option<&'static str>> {
    let rows = table::rows(BEFORE, kernel)?;
    let row = rows.iter().find(|row| row[..2] == [what, backend]);
    Ok(row.map(|row| row[2]))
}

/// What worked has to work, and what is new has to be in the table.
fn compare(kernel: &str, rows: &Rows) -> Result<()> {
    let mut changes = Vec::new();
    for ((what, backend), result) in rows {
        match before(kernel, what, backend)? {
            None => changes.push(format!("{what} over {backend} is not in the table")),
            Some(was) if was.starts_with(WORKS) && result != was => {
                changes.push(format!("{what} over {backend}: {was}, and now: {result}"));
            }
            Some(_) => {}
        }
    }
    ensure!(
        changes.is_empty(),
        "not as in vm-tests/matrix.tsv (if that is meant, put the lines `matrix` there): {}",
        changes.join("; ")
    );
    Ok(())
}
