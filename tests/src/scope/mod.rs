//! Whom a rule delays, and whom not: for each filter two workers at once, one that it is for and one that it is not
//! for. The hits of the first are exact, and the second does not wait.

mod calls;
mod cgroups;
mod files;
mod functions;
mod pair;
mod processes;
mod requests;
mod tasks;
mod under;
mod worker;

use std::{
    cell::Cell,
    fs,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::agent::Agent;
use pair::{Pair, amid};

const DELAY: &str = "10ms";
const DELAY_NS: u64 = 10_000_000;
/// Who takes less by the median is not delayed, nor does it wait for who is, which would be half a delay. A busy machine
/// takes a CPU away for 1 or 2 ms.
const UNDELAYED_NS: u64 = DELAY_NS / 4;
/// Between two calls of a worker.
const PAUSE: Duration = Duration::from_millis(2);
/// Calls in a round of a worker that is delayed, and of one that is not: they last about as long.
const CALLS: usize = 10;
const OTHER_CALLS: usize = 40;
/// A busy machine disturbs any call, so that nobody waits is found out in one of some rounds. Hits are exact in each.
const TRIES: usize = 8;

type Scope = fn(&Stage) -> Result<()>;

/// What is tried, by name.
pub const SCOPES: &[(&str, Scope)] = &[
    ("pid", processes::pid),
    ("children", processes::children),
    ("exec", processes::exec),
    ("namespaces", processes::namespaces),
    ("comm", tasks::comm),
    ("uid", tasks::uid),
    ("all filters", tasks::all_filters),
    ("cgroup", cgroups::cgroup),
    ("cgroup moved", cgroups::moved),
    ("device", files::device),
    ("op", files::op),
    ("size", files::size),
    ("32 bits", files::of_32_bits),
    ("fsync", files::fsync),
    ("under", under::under),
    ("under renamed", under::renamed),
    ("under mounts", under::mounts),
    ("lookup", under::lookup),
    ("requests by task", requests::by_task),
    ("requests by cgroup", requests::by_cgroup),
    ("requests by kind", requests::by_kind),
    ("requests by device", requests::by_device),
    ("fn", functions::functions),
];

/// Runs one of [`SCOPES`].
///
/// # Errors
/// Somebody was delayed who should not be, or the other way round.
pub fn run(stage: &Stage, name: &str) -> Result<()> {
    let (_, scope) = SCOPES
        .iter()
        .find(|(known, _)| *known == name)
        .with_context(|| format!("no scope {name}"))?;
    scope(stage).with_context(|| name.to_owned())
}

/// An agent, and where workers find what they work on.
pub struct Stage {
    agent: Agent,
    /// Its backend at system calls and functions.
    backend: String,
    /// Directories on a block device's file system, and on one without.
    disk: PathBuf,
    memory: PathBuf,
    /// A block device that holds no file system, and can be read.
    pub other_device: Option<PathBuf>,
    /// fio, as a program to become.
    pub fio: Option<fn() -> Command>,
}

impl Stage {
    /// # Errors
    /// The agent does not start, or the directories cannot be written.
    pub fn new(
        program: &Path,
        backend: Option<&str>,
        (disk, memory): (&Path, &Path),
    ) -> Result<Self> {
        let args: Vec<&str> = backend
            .iter()
            .flat_map(|name| ["--backend", name])
            .collect();
        let agent = Agent::start(program, &args)?;
        let backend = agent.point("vfs.read")?["backend"].clone();
        let below = |dir: &Path| -> Result<PathBuf> {
            let dir = dir.join(format!("iolag-scope-{}", std::process::id()));
            fs::create_dir_all(&dir)?;
            // Workers are other users too.
            fs::set_permissions(&dir, fs::Permissions::from_mode(0o755))?;
            Ok(dir)
        };
        Ok(Self {
            agent,
            backend: backend.as_str().context("no backend")?.to_owned(),
            disk: below(disk)?,
            memory: below(memory)?,
            other_device: None,
            fio: None,
        })
    }

    fn rule(&self, point: &str, filters: &[&str]) -> Result<Rule<'_>> {
        let all = [
            &["inject", point, "--delay", DELAY, "--for", "60s"],
            filters,
        ]
        .concat();
        let name = self.agent.call(&all)?.trim().to_owned();
        Ok(Rule {
            agent: &self.agent,
            name,
            seen: Cell::new(0),
        })
    }

    /// A file of 64 KiB below one of its directories, whose bytes are in the file system.
    fn file(&self, dir: &Path, name: &str) -> Result<PathBuf> {
        let path = dir.join(name);
        fs::create_dir_all(path.parent().context("no directory")?)?;
        let file = fs::File::create(&path)?;
        std::io::Write::write_all(&mut &file, &[7; 64 << 10])?;
        file.sync_all()?;
        Ok(path)
    }

    /// The disk of the directory `disk`, and the number of the device that holds its file system.
    fn disk(&self) -> Result<Option<(String, String)>> {
        let device = fs::metadata(&self.disk)?.dev();
        let number = format!("{}:{}", libc::major(device), libc::minor(device));
        let Ok(link) = fs::canonicalize(format!("/sys/dev/block/{number}")) else {
            return Ok(None);
        };
        let whole = if link.join("partition").exists() {
            link.parent().context("a partition of nothing")?
        } else {
            &link
        };
        let name = whole.file_name().context("no name")?.to_string_lossy();
        Ok(Some((name.into_owned(), number)))
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        for dir in [&self.disk, &self.memory] {
            let _gone = fs::remove_dir_all(dir);
        }
    }
}

/// A rule in force. Dropping it removes it.
struct Rule<'a> {
    agent: &'a Agent,
    name: String,
    /// Hits that were asked for before.
    seen: Cell<u64>,
}

impl Rule<'_> {
    fn counts(&self) -> Result<Value> {
        let all = self.agent.call(&["rules", "--format", "json"])?;
        let all: Value = serde_json::from_str(&all)?;
        let mut rules = all["rules"].as_array().into_iter().flatten();
        rules
            .find(|rule| rule["spec"]["name"] == self.name.as_str() && rule["ended"].is_null())
            .map(|rule| rule["counts"].clone())
            .with_context(|| format!("failed to find the rule {}", self.name))
    }

    /// Hits since it was asked before, which are all that matched.
    fn new_hits(&self) -> Result<u64> {
        let counts = self.counts()?;
        let hits = counts["hits"].as_u64().context("no hits")?;
        ensure!(
            counts["matches"] == hits && counts["missed"] == 0,
            "not all matches are hits: {counts}"
        );
        Ok(hits - self.seen.replace(hits))
    }
}

impl Drop for Rule<'_> {
    fn drop(&mut self) {
        if let Err(error) = self.agent.call(&["remove", &self.name]) {
            println!("{error:#}");
        }
    }
}
