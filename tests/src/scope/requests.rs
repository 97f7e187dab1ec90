//! Requests of a block device: by who submitted them, of whatever kind, to which device.

use std::path::Path;

use anyhow::Result;

use super::{Pair, Stage, calls, cgroups::hierarchies, tasks::USER, worker::Work};

const POINT: &str = "block.issue";
const BLOCK: &[usize] = &[4096];

/// Reads of the disk, by two workers of their own files, once each so that the file system knows where they are.
fn readers(stage: &Stage, dress: fn(Work, bool) -> Work) -> Result<Option<Pair>> {
    if stage.disk()?.is_none() {
        println!("skipped: {} is not on a block device", stage.disk.display());
        return Ok(None);
    }
    let work = |name, first| -> Result<Work> {
        let file = stage.file(&stage.disk, name)?;
        Ok(dress(Work::new(calls::read_direct(&file, BLOCK)?), first))
    };
    let mut pair = Pair::start(work("requests-1", true)?, work("requests-2", false)?)?;
    warm(&mut pair)?;
    Ok(Some(pair))
}

/// A call each before anything is counted.
fn warm(pair: &mut Pair) -> Result<()> {
    pair.first.begin(1);
    pair.second.begin(1);
    pair.first.finish()?;
    pair.second.finish()?;
    Ok(())
}

/// Processes, users and commands, of requests that are handed over by whoever comes by.
pub fn by_task(stage: &Stage) -> Result<()> {
    let Some(mut pair) = readers(stage, |work, first| {
        work.set_up(move |_| {
            let (name, user) = if first {
                (c"scope-reads", USER)
            } else {
                (c"scope-other", USER + 1)
            };
            calls::take_name(name) && calls::become_user(user, 0)
        })
    })?
    else {
        return Ok(());
    };
    let pid = pair.first.pid().to_string();
    let user = USER.to_string();
    pair.differ(stage, POINT, &["--pid", &pid])?;
    pair.differ(stage, POINT, &["--uid", &user])?;
    pair.differ(stage, POINT, &["--comm", "scope-reads"])?;
    let Some(mut pair) = readers(stage, |work, _| work.by_child())? else {
        return Ok(());
    };
    let pid = pair.first.pid().to_string();
    pair.differ(stage, POINT, &["--pid", &pid, "--children"])
}

/// By where the submitter is.
pub fn by_cgroup(stage: &Stage) -> Result<()> {
    for (_, cgroups) in hierarchies()? {
        let Some(mut pair) = readers(stage, |work, _| work)? else {
            return Ok(());
        };
        cgroups.below.take(pair.first.pid())?;
        cgroups.beside.take(pair.second.pid())?;
        pair.differ(stage, POINT, &["--cgroup", cgroups.wanted.path()])?;
    }
    Ok(())
}

fn ours(call: impl FnMut(u32) -> bool + 'static) -> Work {
    Work::new(call).set_up(|_| calls::become_user(USER, 0))
}

/// Reads and writes, and how large they are.
pub fn by_kind(stage: &Stage) -> Result<()> {
    let Some((name, number)) = stage.disk()? else {
        println!("skipped: {} is not on a block device", stage.disk.display());
        return Ok(());
    };
    let files = [
        stage.file(&stage.disk, "kind-1")?,
        stage.file(&stage.disk, "kind-2")?,
    ];
    let user = USER.to_string();
    let differ = |first: Work, second: Work, filters: &[&str]| -> Result<()> {
        let mut pair = Pair::start(first, second)?;
        warm(&mut pair)?;
        let ours = ["--uid", user.as_str()];
        pair.differ(stage, POINT, &[filters, ours.as_slice()].concat())
    };
    let read = |file: &Path, sizes| calls::read_direct(file, sizes).map(ours);
    let write = |file: &Path, sizes| calls::write_direct(file, sizes).map(ours);
    let [first, second] = &files;
    differ(
        read(first, BLOCK)?,
        write(second, BLOCK)?,
        &["--op", "read", "--device", &name],
    )?;
    differ(
        write(second, BLOCK)?,
        read(first, BLOCK)?,
        &["--op", "write", "--device", &number],
    )?;
    differ(
        read(first, &[4096, 8192])?,
        read(second, &[16384, 12288])?,
        &["--size", "4k..8k"],
    )
}

/// The disk and another device.
pub fn by_device(stage: &Stage) -> Result<()> {
    let Some((name, number)) = stage.disk()? else {
        println!("skipped: {} is not on a block device", stage.disk.display());
        return Ok(());
    };
    let Some(other) = &stage.other_device else {
        println!("skipped: requests by device: there is no other device to read");
        return Ok(());
    };
    let file = stage.file(&stage.disk, "disk")?;
    let user = USER.to_string();
    let start = || -> Result<[Work; 2]> {
        Ok([
            ours(calls::read_direct(&file, BLOCK)?),
            ours(calls::read_direct(other, BLOCK)?),
        ])
    };
    for device in [name.as_str(), number.as_str()] {
        let [first, second] = start()?;
        let mut pair = Pair::start(first, second)?;
        warm(&mut pair)?;
        pair.differ(stage, POINT, &["--device", device, "--uid", &user])?;
    }
    let [second, first] = start()?;
    let mut pair = Pair::start(first, second)?;
    warm(&mut pair)?;
    let device = other.to_str().unwrap_or_default();
    pair.differ(stage, POINT, &["--device", device, "--uid", &user])
}
