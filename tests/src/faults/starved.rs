//! The agent gets no CPU: its cgroup is full of processes that spin, or frozen. Only in a machine of our own.

use std::{
    fs,
    path::{Path, PathBuf},
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};

use super::{DELAY, FILE, Place, fast, fast_again, row, slow};
use crate::{agent::Agent, timing::reads};

const TOP: &str = "/sys/fs/cgroup";
/// Processes that spin there. So many may be there: the kernel refuses one more, but not that they are moved there.
const PROCESSES: usize = 64;
/// A read takes no longer, however busy the machine: one delay, and what others take before.
const LONGEST: Duration = Duration::from_secs(1);
/// Of each 100 ms the whole cgroup has 5 ms of one CPU.
const SHARE: &str = "5000 100000";
const STARVED: Duration = Duration::from_secs(8);
/// What the lease and one delay may take.
const LEASE: Duration = Duration::from_secs(5);

/// A cgroup of version 2. Dropping it kills what is in it but the agent.
struct Cgroup {
    dir: PathBuf,
    bombs: Vec<i32>,
}

impl Cgroup {
    fn new(agent: i32) -> Result<Self> {
        fs::write(format!("{TOP}/cgroup.subtree_control"), "+cpu +pids")
            .context("failed to enable the controllers")?;
        let dir = PathBuf::from(format!("{TOP}/iolag-starved-{agent}"));
        fs::create_dir(&dir).with_context(|| format!("failed to make {}", dir.display()))?;
        let new = Self {
            dir,
            bombs: Vec::new(),
        };
        new.write("pids.max", &PROCESSES.to_string())?;
        new.write("cgroup.procs", &agent.to_string())?;
        Ok(new)
    }

    fn write(&self, file: &str, text: &str) -> Result<()> {
        let path = self.dir.join(file);
        fs::write(&path, text).with_context(|| format!("failed to write {}", path.display()))
    }

    /// As many processes that spin as may be there, which with the agent is one more.
    fn bomb(&mut self) -> Result<()> {
        let procs = self.dir.join("cgroup.procs");
        for _ in 0..PROCESSES {
            // SAFETY: the child calls nothing that might wait for a lock of the parent.
            let pid = unsafe { libc::fork() };
            ensure!(pid >= 0, "failed to fork");
            if pid == 0 {
                loop {
                    std::hint::spin_loop();
                }
            }
            self.bombs.push(pid);
            fs::write(&procs, pid.to_string()).context("failed to move a process")?;
        }
        self.write("cpu.max", SHARE)
    }

    fn defuse(&mut self) -> Result<()> {
        self.write("cpu.max", "max")?;
        for pid in self.bombs.drain(..) {
            // SAFETY: our own child; a null status pointer is allowed.
            unsafe {
                libc::kill(pid, libc::SIGKILL);
                libc::waitpid(pid, std::ptr::null_mut(), 0);
            }
        }
        Ok(())
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        let _thawed = self.write("cgroup.freeze", "0");
        let _defused = self.defuse();
        let procs = fs::read_to_string(self.dir.join("cgroup.procs")).unwrap_or_default();
        for pid in procs.lines() {
            let _gone = fs::write(format!("{TOP}/cgroup.procs"), pid);
        }
        let _left = fs::remove_dir(&self.dir);
    }
}

/// A fork bomb beside the agent in its cgroup: a delay is in force or its lease is over, a request that needs a thread is
/// refused, and once the bomb is gone all is as before.
///
/// # Errors
/// It is not.
pub fn fork_bomb(place: &Place<'_>) -> Result<()> {
    let agent = Agent::start(place.program, &["--backend", place.backend])?;
    agent.call(&["set", "10ms"])?;
    ensure!(slow()?, "nothing is delayed");
    let mut cgroup = Cgroup::new(agent.pid())?;
    cgroup.bomb()?;
    // Full: the kernel refuses the agent a thread, and the agent says so.
    let refusal = agent.output(&["probe", "load", "sched"])?;
    let said = String::from_utf8_lossy(&refusal.stderr).into_owned();
    ensure!(!refusal.status.success(), "a thread was to be had");
    ensure!(
        said.lines().count() == 1 && said.contains("thread"),
        "{said}"
    );
    let (mut looks, mut delayed, mut longest) = (0, 0, 0);
    let start = Instant::now();
    while start.elapsed() < STARVED {
        let times = reads(Path::new(FILE), 1, Duration::ZERO)?;
        looks += 1;
        delayed += usize::from(times[0] >= DELAY.as_nanos() as u64);
        longest = longest.max(times[0]);
        sleep(Duration::from_millis(20));
    }
    ensure!(
        longest < LONGEST.as_nanos() as u64,
        "a read took {longest} ns"
    );
    cgroup.defuse()?;
    let resumed = resumes(&agent)?;
    agent
        .call(&["probe", "load", "sched"])
        .context("a thread")?;
    agent.call(&["reset"])?;
    ensure!(fast()?, "slow after reset");
    row(
        "fork bomb in its cgroup",
        place.backend,
        format_args!(
            "{PROCESSES} processes spin for {} s on 5 % of a CPU: {delayed} of {looks} reads delayed, the longest {} ms, a request \
             that needs a thread refused; as before {} ms behind its end",
            STARVED.as_secs(),
            longest / 1_000_000,
            resumed.as_millis()
        ),
    );
    Ok(())
}

/// A frozen cgroup: the lease ends, and once it is thawed all is as before.
///
/// # Errors
/// It is not.
pub fn frozen(place: &Place<'_>) -> Result<()> {
    let agent = Agent::start(place.program, &["--backend", place.backend])?;
    agent.call(&["set", "10ms"])?;
    ensure!(slow()?, "nothing is delayed");
    let cgroup = Cgroup::new(agent.pid())?;
    cgroup.write("cgroup.freeze", "1")?;
    let ended = fast_again(2 * LEASE)?;
    ensure!(ended <= LEASE, "fast only {ended:?} after it froze");
    cgroup.write("cgroup.freeze", "0")?;
    let resumed = resumes(&agent)?;
    row(
        "frozen cgroup",
        place.backend,
        format_args!(
            "full speed after {:.1} s, delays again {} ms after the thaw",
            ended.as_secs_f64(),
            resumed.as_millis()
        ),
    );
    Ok(())
}

/// How long until delays are in force again and the agent answers.
fn resumes(agent: &Agent) -> Result<Duration> {
    let start = Instant::now();
    while !slow()? {
        ensure!(start.elapsed() < Duration::from_secs(2), "not slow again");
    }
    agent.status()?;
    Ok(start.elapsed())
}
