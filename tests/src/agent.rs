//! The program under test, run from outside.

use std::{
    path::{Path, PathBuf},
    process::{Command, Output},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use crate::{
    held::{Held, dead},
    privileges::Who,
};

/// An agent in the background, with a socket in a directory of its own. Dropping it ends it.
#[derive(Debug)]
pub struct Agent {
    program: PathBuf,
    dir: PathBuf,
    pid: i32,
}

impl Agent {
    /// Starts `program` with `iolag run --detach` and these arguments besides.
    ///
    /// # Errors
    /// What the program said.
    pub fn start(program: &Path, args: &[&str]) -> Result<Self> {
        Self::start_by(program, args, None)
    }

    /// As [`Self::start`], by somebody with no more than these privileges, whose directory the socket's is.
    ///
    /// # Errors
    /// What the program said.
    pub fn start_as(program: &Path, args: &[&str], who: Who<'_>) -> Result<Self> {
        Self::start_by(program, args, Some(who))
    }

    fn start_by(program: &Path, args: &[&str], who: Option<Who<'_>>) -> Result<Self> {
        let mut agent = Self {
            program: program.to_owned(),
            dir: scratch_dir()?,
            pid: 0,
        };
        let mut all = vec!["run", "--detach"];
        all.extend(args);
        let mut command = agent.command(&all);
        if let Some(who) = who {
            std::os::unix::fs::chown(&agent.dir, Some(who.uid), None)?;
            who.run(&mut command);
        }
        succeeded(&all, command.output()?)?;
        let pid = agent.status()?["agent"]["pid"].as_i64();
        agent.pid = i32::try_from(pid.context("failed to read the agent's pid")?)?;
        Ok(agent)
    }

    #[must_use]
    pub fn pid(&self) -> i32 {
        self.pid
    }

    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.dir.join("iolag.sock")
    }

    /// Runs a command against this agent.
    ///
    /// # Errors
    /// The program cannot be run.
    pub fn output(&self, args: &[&str]) -> Result<Output> {
        let output = self.command(args).output();
        output.with_context(|| format!("failed to run {}", self.program.display()))
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.args(args).arg("--socket").arg(self.socket());
        command
    }

    /// Runs a command that has to succeed, and returns its stdout.
    ///
    /// # Errors
    /// It failed: what it said.
    pub fn call(&self, args: &[&str]) -> Result<String> {
        succeeded(args, self.output(args)?)
    }

    /// `iolag status --format json`.
    ///
    /// # Errors
    /// No answer, or not JSON.
    pub fn status(&self) -> Result<Value> {
        let text = self.call(&["status", "--format", "json"])?;
        serde_json::from_str(&text).context("failed to read the status")
    }

    /// What `status` says of one point.
    ///
    /// # Errors
    /// No answer, or no such point.
    pub fn point(&self, name: &str) -> Result<Value> {
        let mut status = self.status()?;
        let points = status["points"]
            .as_array_mut()
            .context("no points in the status")?;
        points
            .drain(..)
            .find(|point| point["point"] == name)
            .with_context(|| format!("failed to find the point {name}"))
    }

    /// Waits until the agent's one thread is left. What loading a probe read is freed behind the answer, and the first delay
    /// has it read what it need not wait for; where another machine is emulated, that takes seconds of a CPU that something
    /// timed would share.
    ///
    /// # Errors
    /// It is gone, or still has several after a minute.
    pub fn settle(&self) -> Result<()> {
        let start = Instant::now();
        while Held::by(self.pid)?.threads > 1 {
            ensure!(
                start.elapsed() < Duration::from_secs(60),
                "the agent still has several threads"
            );
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }

    /// Sends a signal to the agent.
    pub fn signal(&self, signal: i32) {
        // SAFETY: kill has no memory to harm; the pid is that of the agent that this value started.
        unsafe { libc::kill(self.pid, signal) };
    }

    /// Waits until the process runs no more.
    ///
    /// # Errors
    /// It still does after `limit`.
    pub fn wait_gone(&self, limit: Duration) -> Result<Duration> {
        let start = Instant::now();
        while !dead(self.pid) {
            // Where this process is init, it is the one to wait for its children.
            // SAFETY: a null status pointer is allowed.
            unsafe { libc::waitpid(self.pid, std::ptr::null_mut(), libc::WNOHANG) };
            if start.elapsed() > limit {
                bail!("the agent is still there after {limit:?}");
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(start.elapsed())
    }
}

/// The stdout of a command that has to have succeeded.
fn succeeded(args: &[&str], output: Output) -> Result<String> {
    if !output.status.success() {
        bail!(
            "failed to run iolag {}: {}: {}",
            args.join(" "),
            output.status,
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(String::from_utf8(output.stdout)?)
}

impl Drop for Agent {
    fn drop(&mut self) {
        if self.pid > 0 {
            self.signal(libc::SIGCONT);
            self.signal(libc::SIGTERM);
            if self.wait_gone(Duration::from_secs(5)).is_err() {
                self.signal(libc::SIGKILL);
            }
        }
        let _gone = std::fs::remove_dir_all(&self.dir);
    }
}

/// A new directory below the system's temporary one.
///
/// # Errors
/// It cannot be made.
pub fn scratch_dir() -> Result<PathBuf> {
    use std::sync::atomic::{AtomicU32, Ordering};
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let name = format!(
        "iolag-{}-{}",
        std::process::id(),
        COUNT.fetch_add(1, Ordering::Relaxed)
    );
    let dir = std::env::temp_dir().join(name);
    std::fs::create_dir_all(&dir).with_context(|| format!("failed to make {}", dir.display()))?;
    Ok(dir)
}
