//! Whether `iolag doctor` says of this host what the agent then does.

use std::{
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use crate::{agent::Agent, programs};

/// The points of `set` and `set-blk`.
const MAIN: [&str; 4] = ["vfs.read", "vfs.write", "vfs.open", "block.issue"];
const BACKENDS: [&str; 3] = ["fentry", "kprobe", "tp"];

/// What `doctor` found.
#[derive(Clone, Debug)]
pub struct Diagnosis(pub Value);

impl Diagnosis {
    /// Runs `program doctor` beside the agent at `socket`, or where there is none.
    ///
    /// # Errors
    /// It failed, or contradicts itself.
    pub fn of(program: &Path, socket: &Path) -> Result<Self> {
        let mut command = Command::new(program);
        command.args(["doctor", "--format", "json", "--socket"]);
        let output = command.arg(socket).env_remove("RUST_LOG").output()?;
        let code = output.status.code();
        let stderr = String::from_utf8_lossy(&output.stderr);
        ensure!(matches!(code, Some(0 | 3)), "{}: {stderr}", output.status);
        ensure!(stderr.is_empty(), "on stderr: {stderr}");
        let document: Value =
            serde_json::from_slice(&output.stdout).context("failed to read the diagnosis")?;
        ensure!(document["schema"] == 1, "{document:#}");
        let fine = code == Some(0);
        ensure!(document["main_job"] == fine, "{code:?}: {document:#}");
        let unfailed = document["counts"]["fail"] == 0;
        ensure!(unfailed == fine, "{code:?}: {document:#}");
        Ok(Self(document))
    }

    /// Whether the main job can run.
    #[must_use]
    pub fn works(&self) -> bool {
        self.0["main_job"] == true
    }

    /// The check of that name.
    ///
    /// # Errors
    /// There is none.
    pub fn check(&self, name: &str) -> Result<&Value> {
        let checks = self.0["checks"].as_array().context("no checks")?;
        let found = checks.iter().find(|check| check["name"] == name);
        found.with_context(|| format!("no check {name} in {:#}", self.0))
    }

    /// What it found.
    ///
    /// # Errors
    /// There is no such check.
    pub fn value(&self, name: &str) -> Result<&str> {
        self.check(name)?["value"].as_str().context("no value")
    }

    /// Whether a point can be had with a backend.
    fn has(&self, point: &str, backend: &str) -> Result<bool> {
        let value = self.value(point)?;
        let mut served = value.split("; also ").flat_map(|part| part.split(", "));
        Ok(served.any(|one| one.starts_with(&format!("{backend} at "))))
    }
}

fn diagnosis(program: &Path) -> Result<Diagnosis> {
    Diagnosis::of(program, Path::new("/nonexistent/iolag.sock"))
}

/// The agent starts if and only if the main job can run, and takes at each point what was named first.
///
/// # Errors
/// It does otherwise.
pub fn points_are_the_agents(program: &Path) -> Result<()> {
    let diagnosis = diagnosis(program)?;
    let agent = match Agent::start(program, &[]) {
        Ok(agent) => agent,
        Err(error) if diagnosis.works() => return Err(error),
        Err(_) => return Ok(()),
    };
    ensure!(diagnosis.works(), "the agent starts: {:#}", diagnosis.0);
    for name in MAIN {
        let point = agent.point(name)?;
        let word = |field: &str| point[field].as_str().unwrap_or_default().to_owned();
        let taken = format!("{} at {}", word("backend"), word("symbol"));
        let value = diagnosis.value(name)?;
        println!("{name}: {value}");
        ensure!(
            value.split(';').next() == Some(&taken),
            "{value} is {taken}"
        );
        // What the agent was refused before, with the same reasons.
        let known = diagnosis.check(name)?["refused"].as_array();
        for refusal in point["refused"].as_array().context("no refusals")? {
            let told = known.is_some_and(|known| known.contains(refusal));
            ensure!(told, "{refusal} is not in {known:?}");
        }
    }
    Ok(())
}

/// The agent can be forced to a backend if and only if each point has it.
///
/// # Errors
/// It is otherwise.
pub fn backends_are_the_agents(program: &Path) -> Result<()> {
    let diagnosis = diagnosis(program)?;
    for backend in BACKENDS {
        let mut served = true;
        for point in MAIN {
            served &= diagnosis.has(point, backend)?;
        }
        println!("{backend}: {served}");
        match Agent::start(program, &["--backend", backend]) {
            Ok(_) if !served => bail!("the agent runs with {backend}: {:#}", diagnosis.0),
            Err(error) if served => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// The agent loads a probe if and only if it was loaded here, with the same parts.
///
/// # Errors
/// It is otherwise.
pub fn probes_are_the_agents(program: &Path) -> Result<()> {
    let diagnosis = diagnosis(program)?;
    if !diagnosis.works() {
        return Ok(());
    }
    let agent = Agent::start(program, &[])?;
    for probe in agent_common::probes::PROBES {
        let check = diagnosis.check(&format!("probe.{}", probe.name))?;
        let works = check["value"] != "none" && check["value"] != "not tried";
        let name = match probe.takes_function() {
            true => format!("{}:vfs_read", probe.name),
            false => probe.name.to_owned(),
        };
        println!("{name}: {}, {}", check["status"], check["value"]);
        let load = agent.output(&["probe", "load", &name])?;
        ensure!(load.status.success() == works, "{name}: {load:?}: {check}");
        if !works {
            continue;
        }
        let list = agent.call(&["probe", "list", "--format", "json"])?;
        let list: Value = serde_json::from_str(&list)?;
        let rows = list["probes"].as_array().context("no probes")?;
        let loaded = rows.iter().find(|row| row["name"] == name.as_str());
        let parts = loaded.and_then(|row| row["backends"].as_array());
        let lacks = |part: &Value| part.as_str().is_some_and(|part| part.starts_with("no "));
        let lacking = parts.context("no parts")?.iter().any(lacks);
        ensure!(
            lacking == (check["status"] == "warn"),
            "{loaded:?}: {check}"
        );
        agent.call(&["probe", "unload", &name])?;
    }
    Ok(())
}

type List = fn() -> Result<Vec<u32>>;

/// What there is, how it is listed, and what fdinfo has its id under.
const LISTS: [(&str, List, &str); 3] = [
    ("programs", programs::loaded, "prog_id:"),
    ("links", programs::links, "link_id:"),
    ("maps", programs::maps, "map_id:"),
];
/// How long the kernel may take to free what nobody has open.
const FREED: Duration = Duration::from_secs(5);

/// No program, link or map is in the kernel that was not there before `work`, but for what others that live have
/// open: there may be some that came meanwhile.
///
/// # Errors
/// There is one, after 5 s.
pub fn nothing_stays(work: impl FnOnce() -> Result<()>) -> Result<()> {
    let mut before = Vec::new();
    for (_, list, _) in LISTS {
        before.push(list()?);
    }
    work()?;
    let start = Instant::now();
    for ((what, list, id), before) in LISTS.into_iter().zip(before) {
        loop {
            let new = list()?.into_iter().filter(|id| !before.contains(id));
            let new: Vec<u32> = new.collect();
            let held = match new.as_slice() {
                [] => break,
                _ => programs::held(id),
            };
            if new.iter().all(|id| held.contains(id)) {
                break;
            }
            ensure!(
                start.elapsed() < FREED,
                "{what} {new:?} stay, {held:?} are held"
            );
        }
    }
    println!("all gone after {:?}", start.elapsed());
    Ok(())
}

/// As [`nothing_stays`], of a run.
///
/// # Errors
/// As there.
pub fn it_leaves_nothing(program: &Path) -> Result<()> {
    nothing_stays(|| diagnosis(program).map(drop))
}
