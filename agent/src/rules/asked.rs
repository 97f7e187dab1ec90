//! A rule as it was sent -> what that is on this host.

use std::path::Path;

use agent_common::rules::FUNCTIONS;

use super::{
    check::check,
    force::Asked,
    functions,
    points::FUNCTION,
    resolve::{CgroupId, Hierarchy, resolve},
    spec::Spec,
    table::{Cgroup, Subjects},
};
use crate::failure::{Failure, HOST, USAGE};

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
fn functions_of(points: &[String], root: &Path) -> Result<Vec<String>, Failure> {
    let mut found = Vec::new();
    for name in points
        .iter()
        .filter_map(|point| point.strip_prefix(FUNCTION))
    {
        found.extend(functions::find(root, name)?);
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
    Ok(found)
}
