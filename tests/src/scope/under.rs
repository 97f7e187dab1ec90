//! Files below a directory, however they are reached and wherever they go.

use std::{
    ffi::CString,
    fs,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
};

use anyhow::{Context as _, Result};

use super::{Pair, Rule, Stage, amid, calls, worker::Work};
use crate::mounts;

/// The directory that rules name, a file in it and one beside it, all on the file system of `dir`.
struct Tree {
    wanted: PathBuf,
    inside: PathBuf,
    outside: PathBuf,
}

impl Tree {
    fn new(stage: &Stage, dir: &Path) -> Result<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let top = dir.join(format!("under-{}", COUNT.fetch_add(1, Ordering::Relaxed)));
        Ok(Self {
            wanted: top.join("wanted"),
            inside: stage.file(&top, "wanted/some/where/file")?,
            // Its name begins as the directory's does.
            outside: stage.file(&top, "wanted-not/file")?,
        })
    }

    fn rule<'a>(&self, stage: &'a Stage, point: &str) -> Result<Rule<'a>> {
        stage.rule(
            point,
            &["--under", self.wanted.to_str().unwrap_or_default()],
        )
    }
}

/// At each point that has a file, on a disk and in memory; and a file without a name stays where it was.
pub fn under(stage: &Stage) -> Result<()> {
    let points = ["vfs.read", "vfs.write", "vfs.fsync", "vfs.open"];
    for (dir, points) in [(&stage.disk, &points[..]), (&stage.memory, &points[..1])] {
        let tree = Tree::new(stage, dir)?;
        let (inside, outside) = (&tree.inside, &tree.outside);
        let of = |point: &str, file: &Path| -> Result<Work> {
            Ok(match point {
                "vfs.read" => Work::new(calls::read(file, &[100])?),
                "vfs.write" => Work::new(calls::write(file, &[100])?),
                "vfs.fsync" => Work::new(calls::sync(file)?),
                // Opens are `vfs.opened` with this filter.
                _ => Work::new(calls::opening(file)?),
            })
        };
        for point in points {
            let rule = tree.rule(stage, point)?;
            Pair::start(of(point, inside)?, of(point, outside)?)?
                .differ_by(&rule)
                .context(*point)?;
        }
        let mut pair = Pair::start(of("vfs.read", inside)?, of("vfs.read", outside)?)?;
        fs::remove_file(inside)?;
        fs::remove_file(outside)?;
        let rule = tree.rule(stage, "vfs.read")?;
        pair.differ_by(&rule)?;
    }
    Ok(())
}

/// Open files that change places, first while nobody reads, then meanwhile; and directories with them.
pub fn renamed(stage: &Stage) -> Result<()> {
    for dir in [&stage.disk, &stage.memory] {
        let tree = Tree::new(stage, dir)?;
        let (inside, outside) = (&tree.inside, &tree.outside);
        // Each begins where it does not stay.
        let mut pair = Pair::start(
            Work::new(calls::read(outside, &[100])?),
            Work::new(calls::read(inside, &[100])?),
        )?;
        let rule = tree.rule(stage, "vfs.read")?;
        let aside = outside.with_file_name("aside");
        fs::rename(inside, &aside)?;
        fs::rename(outside, inside)?;
        pair.differ_by(&rule)?;
        let out = outside.with_file_name("out");
        amid(
            &rule,
            &mut pair.first,
            &|| Ok(fs::rename(inside, &out)?),
            &|| Ok(fs::rename(&out, inside)?),
        )?;
        if dir == &stage.memory {
            continue;
        }
        let (some, moved) = (tree.wanted.join("some"), outside.with_file_name("some"));
        amid(
            &rule,
            &mut pair.first,
            &|| Ok(fs::rename(&some, &moved)?),
            &|| Ok(fs::rename(&moved, &some)?),
        )?;
    }
    Ok(())
}

/// A bind mount shows files that are below the directory, and one below it shows some that are not; a file system
/// that is mounted below it is below it.
pub fn mounts(stage: &Stage) -> Result<()> {
    let tree = Tree::new(stage, &stage.disk)?;
    let top = tree.wanted.parent().unwrap_or(&tree.wanted);
    let mount_point = |name: &str| -> Result<CString> {
        let dir = top.join(name);
        fs::create_dir_all(&dir)?;
        calls::c_path(&dir)
    };
    let rule = tree.rule(stage, "vfs.open")?;
    let some = calls::c_path(&tree.wanted.join("some"))?;
    let not = calls::c_path(&top.join("wanted-not"))?;
    let shown = mount_point("shown")?;
    let beside = mount_point("beside")?;
    let mut pair = Pair::start(
        in_mounts(&top.join("shown/where/file"), Some(some), shown)?,
        in_mounts(&top.join("beside/file"), Some(not), beside)?,
    )?;
    pair.differ_by(&rule)?;
    let [first, second] = [mount_point("wanted/memory")?, mount_point("memory")?];
    let mut pair = Pair::start(
        in_mounts(&top.join("wanted/memory/file"), None, first)?,
        in_mounts(&top.join("memory/file"), None, second)?,
    )?;
    // The file was made there with the rule in force.
    rule.new_hits()?;
    pair.differ_by(&rule)
}

/// Opens a file where something is mounted: a directory, or else an empty file system with that file in it. Others see
/// nothing of the mount, and it goes with the worker.
fn in_mounts(file: &Path, source: Option<CString>, target: CString) -> Result<Work> {
    let path = calls::c_path(file)?;
    let work = Work::new(calls::opening(file)?);
    Ok(work.set_up(move |_| {
        let mounted = mounts::own().and_then(|()| match &source {
            Some(source) => mounts::bind(source, &target),
            None => mounts::tmpfs(&target, 0, c""),
        });
        let made = libc::O_CREAT | libc::O_WRONLY;
        // SAFETY: a C string for the time of the call.
        let open = || unsafe { libc::open(path.as_ptr(), made, 0o644) };
        mounted.is_ok() && (source.is_some() || open() >= 0)
    }))
}

/// Names that are not cached yet, by the directory in which they are looked up.
pub fn lookup(stage: &Stage) -> Result<()> {
    if stage.backend == "tp" {
        println!("skipped: lookup: it has no tracepoint");
        return Ok(());
    }
    let tree = Tree::new(stage, &stage.disk)?;
    let looking = |beside: &Path| -> Result<Work> {
        let mut path = calls::c_path(&beside.with_file_name("absent-aaaa"))?.into_bytes_with_nul();
        let mut count = 0u32;
        Ok(Work::new(move |_| {
            // Another name each time: of one that is not there the kernel keeps that.
            let digits = path.len() - 5;
            for (place, byte) in path[digits..digits + 4].iter_mut().enumerate() {
                *byte = b'a' + ((count >> (4 * place)) & 15) as u8;
            }
            count += 1;
            // SAFETY: a C string for the time of the call.
            unsafe { libc::access(path.as_ptr().cast(), libc::F_OK) != 0 }
        }))
    };
    let rule = tree.rule(stage, "vfs.lookup")?;
    Pair::start(looking(&tree.inside)?, looking(&tree.outside)?)?.differ_by(&rule)
}
