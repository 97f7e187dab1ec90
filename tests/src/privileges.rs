//! Processes with few privileges, and what the kernel says that a process has.

use std::{
    fs, io,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};
use caps::{CapSet, Capability, CapsHashSet};

/// A user, and all that it may do besides.
#[derive(Clone, Copy, Debug)]
pub struct Who<'a> {
    pub uid: u32,
    /// As `CAP_BPF`.
    pub capabilities: &'a [&'a str],
}

impl Who<'_> {
    /// Lets the command run as this user with these capabilities and no others. Takes a caller that has all of them.
    ///
    /// # Panics
    /// There is no capability of such a name.
    pub fn run(&self, command: &mut Command) {
        let name = |name: &&str| name.parse().expect("a capability's name");
        let held: CapsHashSet = self.capabilities.iter().map(name).collect();
        let uid = self.uid;
        let become_it = move || {
            // Root is given by exec what is in the bounding set, others what is in the ambient one.
            for one in caps::all() {
                let there = caps::has_cap(None, CapSet::Bounding, one).unwrap_or(false);
                if there && !held.contains(&one) {
                    checked(caps::drop(None, CapSet::Bounding, one))?;
                }
            }
            if uid != 0 {
                switch_to(uid)?;
                checked(caps::set(None, CapSet::Inheritable, &held))?;
                checked(caps::set(None, CapSet::Ambient, &held))?;
            }
            Ok(())
        };
        // SAFETY: system calls, and allocations, which glibc allows between fork and exec.
        unsafe { command.pre_exec(become_it) };
    }
}

fn checked<T, E: std::fmt::Display>(result: Result<T, E>) -> io::Result<T> {
    result.map_err(|error| io::Error::other(error.to_string()))
}

/// Its permitted capabilities stay, so that they can be handed on.
fn switch_to(uid: u32) -> io::Result<()> {
    // SAFETY: these take no memory but an empty list.
    let switched = unsafe {
        libc::prctl(libc::PR_SET_KEEPCAPS, 1, 0, 0, 0) == 0
            && libc::setgroups(0, std::ptr::null()) == 0
            && libc::setresgid(uid, uid, uid) == 0
            && libc::setresuid(uid, uid, uid) == 0
    };
    if switched {
        return Ok(());
    }
    Err(io::Error::last_os_error())
}

/// What the kernel says of one thread.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Thread {
    pub name: String,
    pub inheritable: u64,
    pub permitted: u64,
    pub effective: u64,
    pub bounding: u64,
    pub ambient: u64,
    pub no_new_privileges: bool,
}

/// What the kernel says of each thread of a process.
///
/// # Errors
/// It is gone.
pub fn threads(pid: i32) -> Result<Vec<Thread>> {
    let mut threads = Vec::new();
    for entry in fs::read_dir(format!("/proc/{pid}/task"))? {
        let dir = entry?.path();
        match thread(&dir) {
            // One that has ended since.
            Err(_) if !dir.exists() => {}
            thread => threads.push(thread?),
        }
    }
    Ok(threads)
}

fn thread(dir: &Path) -> Result<Thread> {
    let file: PathBuf = dir.join("status");
    let status = fs::read_to_string(&file)?;
    let field = |name: &str| {
        let value = status.lines().find_map(|line| line.strip_prefix(name));
        let value = value.with_context(|| format!("no {name} in {}", file.display()))?;
        Ok::<_, anyhow::Error>(value.trim())
    };
    let bits = |name: &str| Ok::<_, anyhow::Error>(u64::from_str_radix(field(name)?, 16)?);
    Ok(Thread {
        name: field("Name:")?.into(),
        inheritable: bits("CapInh:")?,
        permitted: bits("CapPrm:")?,
        effective: bits("CapEff:")?,
        bounding: bits("CapBnd:")?,
        ambient: bits("CapAmb:")?,
        no_new_privileges: field("NoNewPrivs:")? == "1",
    })
}

/// The bits of these capabilities.
///
/// # Panics
/// There is no capability of such a name.
#[must_use]
pub fn bits<'a>(names: impl IntoIterator<Item = &'a str>) -> u64 {
    let one = |name: &str| -> Capability { name.parse().expect("a capability's name") };
    names
        .into_iter()
        .map(|name| one(name).bitmask())
        .fold(0, |all, bit| all | bit)
}
