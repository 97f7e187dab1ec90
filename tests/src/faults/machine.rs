//! What a machine has before an agent comes, and has to have behind it.

use std::{
    fs,
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
    path::Path,
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};

use crate::{
    agent::Agent,
    programs::{self, wait_gone},
};

const PINS: &str = "/sys/fs/bpf";

/// What the kernel holds of eBPF.
#[derive(Debug)]
pub struct Machine {
    links: Vec<u32>,
    programs: Vec<u32>,
    maps: Vec<u32>,
    pins: Vec<String>,
}

impl Machine {
    /// # Errors
    /// The kernel does not tell.
    pub fn now() -> Result<Self> {
        Ok(Self {
            links: programs::links()?,
            programs: programs::loaded()?,
            maps: programs::maps()?,
            pins: pins(),
        })
    }

    /// Waits until it has nothing more than then, and returns how long that took.
    ///
    /// # Errors
    /// Something is left after `limit`.
    pub fn wait_back(&self, limit: Duration) -> Result<Duration> {
        let start = Instant::now();
        wait_gone(programs::links, &self.links, limit).context("links")?;
        wait_gone(programs::loaded, &self.programs, limit).context("programs")?;
        wait_gone(programs::maps, &self.maps, limit).context("maps")?;
        let pins = pins();
        ensure!(pins == self.pins, "pins: {:?}, and now {pins:?}", self.pins);
        Ok(start.elapsed())
    }
}

/// How many links, programs and maps there are, once no more than `most`: the agent replaces its program at `sys_enter`
/// when a probe comes there, so they need not be the same.
///
/// # Errors
/// There still are more after `limit`.
pub fn wait_no_more(most: [usize; 3], limit: Duration) -> Result<[usize; 3]> {
    let start = Instant::now();
    loop {
        let now = counts()?;
        if now.iter().zip(most).all(|(now, most)| *now <= most) {
            return Ok(now);
        }
        ensure!(
            start.elapsed() < limit,
            "links, programs, maps: {most:?}, and now {now:?}"
        );
        sleep(Duration::from_millis(10));
    }
}

/// How many links, programs and maps there are.
///
/// # Errors
/// The kernel does not tell.
pub fn counts() -> Result<[usize; 3]> {
    Ok([
        programs::links()?.len(),
        programs::loaded()?.len(),
        programs::maps()?.len(),
    ])
}

/// Where no file system for pins is mounted there are none.
fn pins() -> Vec<String> {
    let entries = fs::read_dir(PINS).into_iter().flatten().flatten();
    let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
    let mut names: Vec<String> = names.collect();
    names.sort();
    names
}

/// Whether somebody listens at that path, by the kernel's list of Unix sockets.
///
/// # Errors
/// There is no such list.
pub fn listened_at(path: &Path) -> Result<bool> {
    /// `__SO_ACCEPTCON`, in the column `Flags`.
    const LISTENS: &str = "00010000";
    let list = fs::read_to_string("/proc/net/unix")?;
    Ok(list.lines().any(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        words.get(3) == Some(&LISTENS) && words.last().map(Path::new) == Some(path)
    }))
}

/// A process that can be waited for though it is not a child.
#[derive(Debug)]
pub struct Watched(OwnedFd);

impl Watched {
    /// # Errors
    /// It is gone already.
    pub fn new(agent: &Agent) -> Result<Self> {
        // SAFETY: no memory is passed.
        let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, agent.pid(), 0) };
        let error = std::io::Error::last_os_error();
        ensure!(fd >= 0, "failed to watch {}: {error}", agent.pid());
        // SAFETY: just opened, owned by nobody else.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(i32::try_from(fd)?) }))
    }

    /// Waits for its last thread to end.
    ///
    /// # Errors
    /// There still is one after `limit`.
    pub fn wait_end(&self, limit: Duration) -> Result<()> {
        let mut poll = libc::pollfd {
            fd: self.0.as_raw_fd(),
            events: libc::POLLIN,
            revents: 0,
        };
        let limit_ms = i32::try_from(limit.as_millis())?;
        // SAFETY: one entry, which lives for the time of the call.
        if unsafe { libc::poll(&raw mut poll, 1, limit_ms) } != 1 {
            bail!("the agent is still there after {limit:?}");
        }
        Ok(())
    }
}
