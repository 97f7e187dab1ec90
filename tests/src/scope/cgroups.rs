//! cgroups of both versions, with what is below them; and processes that move in and out meanwhile.

use std::{fs, path::PathBuf};

use anyhow::{Context as _, Result};

use super::{Pair, Stage, amid, calls, worker::Work};

/// A cgroup without settings. Dropping it removes it, once nobody is in it.
pub struct Cgroup(PathBuf);

impl Cgroup {
    fn new(top: &std::path::Path, name: &str) -> Result<Self> {
        let dir = top.join(format!("{name}-{}", std::process::id()));
        fs::create_dir(&dir).with_context(|| format!("failed to make {}", dir.display()))?;
        Ok(Self(dir))
    }

    fn within(&self, name: &str) -> Result<Self> {
        Self::new(&self.0, name)
    }

    pub fn path(&self) -> &str {
        self.0.to_str().unwrap_or_default()
    }

    /// Moves a process here.
    pub fn take(&self, pid: libc::pid_t) -> Result<()> {
        fs::write(self.0.join("cgroup.procs"), pid.to_string())
            .with_context(|| format!("failed to move {pid} to {}", self.0.display()))
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        for _ in 0..200 {
            match fs::remove_dir(&self.0) {
                Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {
                    std::thread::sleep(std::time::Duration::from_millis(5));
                }
                Err(error) => return println!("{} is left: {error}", self.0.display()),
                Ok(()) => return,
            }
        }
    }
}

/// A cgroup, one below it, and one beside it.
pub struct Three {
    pub below: Cgroup,
    pub wanted: Cgroup,
    pub beside: Cgroup,
}

/// In each hierarchy that is mounted here with a controller, or is the unified one.
pub fn hierarchies() -> Result<Vec<(String, Three)>> {
    let mut found = Vec::new();
    let table = fs::read_to_string("/proc/self/mountinfo")?;
    for line in table.lines() {
        let (before, after) = line.split_once(" - ").context("mountinfo looks odd")?;
        let top = PathBuf::from(before.split(' ').nth(4).context("mountinfo looks odd")?);
        let mut after = after.split(' ');
        let kind = after.next().unwrap_or_default();
        let options = after.nth(1).unwrap_or_default();
        // Of those with controllers one without settings that a new cgroup needs.
        let is_v1 = kind == "cgroup" && options.split(',').any(|name| name == "memory");
        if !is_v1 && kind != "cgroup2" {
            continue;
        }
        let wanted = Cgroup::new(&top, "scope")?;
        let three = Three {
            below: wanted.within("below")?,
            wanted,
            beside: Cgroup::new(&top, "scope-beside")?,
        };
        found.push((format!("{kind} at {}", top.display()), three));
    }
    if !found.iter().any(|(kind, _)| kind.starts_with("cgroup at")) {
        println!("skipped: version 1 of cgroups is not mounted here");
    }
    if !found.iter().any(|(kind, _)| kind.starts_with("cgroup2")) {
        println!("skipped: version 2 of cgroups is not mounted here");
    }
    Ok(found)
}

fn pair() -> Result<Pair> {
    Pair::start(Work::new(calls::zero()?), Work::new(calls::zero()?))
}

/// Those in it and below it, not those beside it; and by where they are, not by where they were.
pub fn cgroup(stage: &Stage) -> Result<()> {
    for (kind, cgroups) in hierarchies()? {
        let mut pair = pair()?;
        let filters = ["--cgroup", cgroups.wanted.path()];
        let rule = stage.rule("vfs.read", &filters)?;
        for (first, second) in [
            (&cgroups.wanted, &cgroups.beside),
            (&cgroups.below, &cgroups.beside),
        ] {
            first.take(pair.first.pid())?;
            second.take(pair.second.pid())?;
            pair.differ_by(&rule)
                .with_context(|| format!("{kind}: {}", first.path()))?;
        }
        drop(rule);
        // Who is above is not below.
        cgroups.wanted.take(pair.second.pid())?;
        pair.differ(stage, "vfs.read", &["--cgroup", cgroups.below.path()])
            .context(kind)?;
    }
    Ok(())
}

/// A process that is moved out, and in again, in the midst of its calls.
pub fn moved(stage: &Stage) -> Result<()> {
    for (kind, cgroups) in hierarchies()? {
        let mut pair = pair()?;
        let pid = pair.first.pid();
        cgroups.below.take(pid)?;
        let rule = stage.rule("vfs.read", &["--cgroup", cgroups.wanted.path()])?;
        amid(
            &rule,
            &mut pair.first,
            &|| cgroups.beside.take(pid),
            &|| cgroups.below.take(pid),
        )
        .context(kind)?;
    }
    Ok(())
}
