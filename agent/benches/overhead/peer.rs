//! Another tool with BPF programs, running beside us.

use std::{
    collections::BTreeMap,
    fs,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use iolag::kernel::ProgStats;

use crate::side::Program;

/// How long a tool may take to attach.
const PATIENCE: Duration = Duration::from_secs(20);

/// Killed when dropped.
pub struct Peer(Child);

impl Peer {
    /// Starts the tool, and waits until it has a program at each of `hooks` and no more come.
    pub fn start(command: &str, hooks: &[&str]) -> Result<Self> {
        let mut words = command.split_whitespace();
        let program = words.next().context("no command")?;
        let mut peer = Self(
            Command::new(program)
                .args(words)
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .spawn()
                .with_context(|| format!("failed to run {program}"))?,
        );
        let deadline = Instant::now() + PATIENCE;
        let mut seen = Vec::new();
        loop {
            std::thread::sleep(Duration::from_millis(300));
            if let Some(status) = peer.0.try_wait()? {
                bail!("failed to measure {program}: it ended: {status}");
            }
            let now: Vec<String> = peer.programs()?.into_iter().map(|it| it.hook).collect();
            let all = hooks.iter().all(|hook| now.iter().any(|it| it == hook));
            if all && now == seen {
                return Ok(peer);
            }
            ensure!(
                Instant::now() < deadline,
                "failed to measure {program}: it has programs at {now:?} only"
            );
            seen = now;
        }
    }

    /// Its programs at tracepoints, as its open files tell of them: `/proc/PID/fdinfo` has the counters of
    /// programs and the tracepoints of links, and names the program in both.
    pub fn programs(&self) -> Result<Vec<Program>> {
        let mut stats = BTreeMap::new();
        let mut hooks = BTreeMap::new();
        let directory = format!("/proc/{}/fdinfo", self.0.id());
        for entry in
            fs::read_dir(&directory).with_context(|| format!("failed to read {directory}"))?
        {
            // A file may have been closed meanwhile.
            let Ok(text) = fs::read_to_string(entry?.path()) else {
                continue;
            };
            let field = |name: &str| {
                text.lines()
                    .find_map(|line| line.strip_prefix(name)?.strip_prefix(":\t"))
            };
            let number = |name: &str| field(name).and_then(|text| text.parse::<u64>().ok());
            let Some(id) = number("prog_id") else {
                continue;
            };
            if let Some(hook) = field("tp_name") {
                hooks.insert(id, hook.to_owned());
            } else if let (Some(run_time_ns), Some(run_count)) =
                (number("run_time_ns"), number("run_cnt"))
            {
                stats.insert(
                    id,
                    ProgStats {
                        run_time_ns,
                        run_count,
                        missed: 0,
                    },
                );
            }
        }
        Ok(hooks
            .into_iter()
            .filter_map(|(id, hook)| {
                Some(Program {
                    hook,
                    stats: *stats.get(&id)?,
                })
            })
            .collect())
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ended = self.0.kill();
        let _status = self.0.wait();
    }
}
