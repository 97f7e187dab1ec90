//! A rule as it was sent -> what that is on this host.

use std::path::Path;

use agent_common::rules::FUNCTIONS;

use super::{
    check::check,
    force::Asked,
    functions::{self, Known},
    points::FUNCTION,
    resolve::{CgroupId, Hierarchy, resolve},
    spec::Spec,
    table::{Cgroup, Subjects},
};
use crate::{
    failure::{Failure, HOST, USAGE},
    functions::Function,
};

/// Checks a rule and looks up what it names. `hierarchy` gives the place of cgroup v2, or of a v1 controller, as the
/// programs have it.
///
/// # Errors
/// It makes no sense, or names what this host has not.
pub fn asked(
    spec: Spec,
    root: &Path,
    hierarchy: impl Fn(Option<&str>) -> Option<u64>,
) -> Result<Asked, Failure> {
    check(&spec)?;
    let resolved = resolve(&spec.filters, root)?;
    let cgroup = |found: CgroupId| {
        let controller = match &found.hierarchy {
            Hierarchy::Unified => None,
            Hierarchy::Controller(name) => Some(name.as_str()),
        };
        let hierarchy = hierarchy(controller).ok_or_else(|| {
            let what = controller.unwrap_or("v2");
            Failure::new(
                HOST,
                format!("--cgroup: this kernel's BTF does not tell of the hierarchy {what}"),
            )
            .hint("filter by --pid with --children, or by --comm")
        })?;
        Ok(Cgroup {
            hierarchy,
            id: found.id,
        })
    };
    let subjects = Subjects {
        pids: resolved.pids,
        children: spec.filters.children,
        uids: resolved.uids,
        comms: resolved.comms,
        cgroups: resolved
            .cgroups
            .into_iter()
            .map(cgroup)
            .collect::<Result<_, Failure>>()?,
        devices: resolved.devices,
        under: resolved.under,
        ops: resolved.ops,
        size: resolved.size,
    };
    Ok(Asked {
        functions: functions_of(&spec.points, root)?,
        subjects,
        spec,
    })
}

/// What the `fn:` points stand for, each once.
fn functions_of(points: &[String], root: &Path) -> Result<Vec<Function>, Failure> {
    let names = || {
        points
            .iter()
            .filter_map(|point| point.strip_prefix(FUNCTION))
    };
    if names().next().is_none() {
        return Ok(Vec::new());
    }
    let known = Known::read(root);
    let mut found = Vec::new();
    for name in names() {
        found.extend(functions::find(&known, name)?);
    }
    found.sort_unstable();
    found.dedup();
    if found.len() > FUNCTIONS {
        return Err(Failure::new(
            USAGE,
            format!(
                "the points at fn: are {} functions, and {FUNCTIONS} are delayed at most",
                found.len()
            ),
        )
        .hint("narrow the globs down"));
    }
    Ok(found.iter().map(|name| known.function(name)).collect())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, InotifyEvent};

    use super::*;

    /// The kernel takes some 100 ms to write them: 64 times of that, and the lease of the rules in force would be over.
    #[test]
    fn the_kernels_names_are_read_once_for_all_functions() {
        let root = std::env::temp_dir().join(format!("iolag-asked-{}", std::process::id()));
        fs::create_dir_all(root.join("proc")).unwrap();
        let table = root.join("proc/kallsyms");
        let text: String = (0..64)
            .map(|n| format!("{:x} t many_{n}\n", n + 1))
            .collect();
        fs::write(&table, text).unwrap();
        let points: Vec<String> = (0..64).map(|n| format!("fn:many_{n}")).collect();
        let readers = Inotify::init(InitFlags::IN_NONBLOCK).unwrap();
        // Both, as alike events in a row become one.
        let flags = AddWatchFlags::IN_OPEN | AddWatchFlags::IN_CLOSE;
        readers.add_watch(&table, flags).unwrap();
        let found = functions_of(&points, &root).unwrap();
        assert_eq!(found.len(), 64);
        let last = found.last().unwrap();
        assert_eq!((last.name.as_str(), last.address), ("many_9", Some(10)));
        let none = functions_of(&["vfs.read".into()], &root).unwrap();
        assert!(none.is_empty());
        let events = readers.read_events().unwrap();
        let opened = |event: &&InotifyEvent| event.mask.contains(AddWatchFlags::IN_OPEN);
        assert_eq!(events.iter().filter(opened).count(), 1);
        fs::remove_dir_all(&root).unwrap();
    }
}
