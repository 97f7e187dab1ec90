//! Whom a rule is for, and whether its points can tell.

use std::path::{Component, Path};

use agent_common::{probes::block, probes::probe, rules::COMM};

use super::{cut, refused, twice};
use crate::{
    failure::Failure,
    measure::unknown,
    rules::{points::At, spec::Filters},
};

/// Values of one filter.
const VALUES: usize = 64;
/// Longest path, with its zero (`PATH_MAX`).
const PATH: usize = 4096;
/// Longest name of a device (bytes).
const DEVICE: usize = 256;
/// The kernel's largest pid (`PID_MAX_LIMIT`).
const MAX_PID: u32 = 1 << 22;

pub fn check(filters: &Filters, points: &[At<'_>]) -> Result<(), Failure> {
    values(filters)?;
    matches(filters, points)
}

/// Each value by itself.
fn values(filters: &Filters) -> Result<(), Failure> {
    several("--pid", &filters.pids)?;
    several("--comm", &filters.comms)?;
    several("--cgroup", &filters.cgroups)?;
    several("--uid", &filters.uids)?;
    several("--device", &filters.devices)?;
    several("--op", &filters.ops)?;
    several("--under", &filters.under)?;
    if let Some(pid) = filters
        .pids
        .iter()
        .find(|pid| **pid == 0 || **pid > MAX_PID)
    {
        return Err(refused(
            format!("--pid {pid} is no process"),
            format!("pids are from 1 to {MAX_PID}"),
        ));
    }
    if filters.children && filters.pids.is_empty() {
        return Err(refused(
            "--children needs --pid",
            "whose children? Name it: --pid P --children",
        ));
    }
    filters.comms.iter().try_for_each(|comm| command(comm))?;
    for (flag, paths) in [("--cgroup", &filters.cgroups), ("--under", &filters.under)] {
        paths.iter().try_for_each(|path| absolute(flag, path))?;
    }
    for device in &filters.devices {
        if device.is_empty() || device.len() > DEVICE || device.contains('\0') {
            return Err(refused(
                format!("--device {:?} is no name of a device", cut(device)),
                "write vda, /dev/vda1 or 8:0",
            ));
        }
    }
    let known = operations();
    if let Some(op) = filters.ops.iter().find(|op| !known.contains(&op.as_str())) {
        return Err(unknown("operation of --op:", &cut(op), known));
    }
    match filters.size {
        Some((least, most)) if least > most => Err(refused(
            format!("--size {least}..{most} ends before it starts, so no size matches"),
            "the smaller one comes first: 4k..64k",
        )),
        _ => Ok(()),
    }
}

fn several<T: PartialEq + std::fmt::Debug>(flag: &str, values: &[T]) -> Result<(), Failure> {
    if values.len() > VALUES {
        return Err(refused(
            format!("{} values of {flag} are too many", values.len()),
            format!("a rule has at most {VALUES}; a cgroup has any number of processes"),
        ));
    }
    match twice(values) {
        Some(twice) => Err(refused(
            format!("{flag} {} is given twice", cut(&format!("{twice:?}"))),
            "give it once",
        )),
        None => Ok(()),
    }
}

fn command(comm: &str) -> Result<(), Failure> {
    if comm.is_empty() || comm.contains('\0') {
        return Err(refused(
            format!("--comm {comm:?} is no command's name"),
            "as in /proc/PID/comm: --comm postgres",
        ));
    }
    if comm.len() < COMM {
        return Ok(());
    }
    let kept: String = comm
        .char_indices()
        .take_while(|(start, c)| start + c.len_utf8() < COMM)
        .map(|(_, c)| c)
        .collect();
    Err(refused(
        format!(
            "--comm {:?} never matches: the kernel keeps 15 bytes of a name",
            cut(comm)
        ),
        format!("write --comm {kept:?}"),
    ))
}

fn absolute(flag: &str, path: &Path) -> Result<(), Failure> {
    let bytes = path.as_os_str().as_encoded_bytes();
    let why = if bytes.len() >= PATH {
        "is too long"
    } else if !path.is_absolute() {
        "is not absolute"
    } else if bytes.contains(&0) || path.components().any(|part| part == Component::ParentDir) {
        "has .. or a zero in it"
    } else {
        return Ok(());
    };
    Err(refused(
        format!("{flag} {} {why}", cut(&path.display().to_string())),
        "name the directory from / on",
    ))
}

/// Names of operations, by place.
pub fn operations() -> &'static [&'static str] {
    probe(block::NAME).map_or(&[], |probe| probe.ops)
}

/// Each filter against the points: one that a point cannot tell would never match there.
fn matches(filters: &Filters, points: &[At<'_>]) -> Result<(), Failure> {
    let first = |cannot: &dyn Fn(At<'_>) -> bool| points.iter().copied().find(|at| cannot(*at));
    for op in &filters.ops {
        let place = operations().iter().position(|known| known == op);
        let place = place.unwrap_or_default() as u32;
        if !points.iter().any(|at| at.may_be(place)) {
            return Err(refused(
                format!(
                    "--op {op} is an empty match: no hit at {} is one",
                    names(points)
                ),
                "reads are at vfs.read, writes at vfs.write, flushes at vfs.fsync, all at block.issue",
            ));
        }
    }
    if filters.size.is_some()
        && let Some(at) = first(&|at| !at.has_size())
    {
        return Err(refused(
            format!(
                "--size is an empty match: hits at {} have none",
                names(&[at])
            ),
            "sizes are at vfs.read, vfs.write and block.issue",
        ));
    }
    if !filters.under.is_empty()
        && let Some(at) = first(&|at| !at.has_file())
    {
        return Err(refused(
            format!(
                "--under is an empty match: at {} no file is known",
                names(&[at])
            ),
            "requests have a --device; opens of certain files are at vfs.opened",
        ));
    }
    if !filters.devices.is_empty()
        && let Some(at) = first(&|at| !at.has_file() && !at.is_block())
    {
        return Err(refused(
            format!(
                "--device is an empty match: at {} none is known",
                names(&[at])
            ),
            "it is for block.issue and for files; opens of certain files are at vfs.opened",
        ));
    }
    Ok(())
}

fn names(points: &[At<'_>]) -> String {
    let name = |at: &At<'_>| match at {
        At::Point(point) => point.name.to_owned(),
        At::Function(function) => format!("fn:{function}"),
    };
    points.iter().map(name).collect::<Vec<_>>().join(", ")
}
