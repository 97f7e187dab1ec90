//! The agent keeps what it or a later request may need, and gives up all else for good.

use std::{fs, path::Path};

use caps::{CapSet, Capability, CapsHashSet, errors::CapsError};
use log::{info, warn};
use nix::{
    fcntl::{AT_FDCWD, AtFlags},
    sys::{
        prctl::set_no_new_privs,
        resource::{RLIM_INFINITY, Resource, setrlimit},
    },
    unistd::{AccessFlags, faccessat},
};
use serde::{Deserialize, Serialize};

use super::{NEEDS, Need, Role};
use crate::kernel;

/// A capability of the agent, and what it is for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    pub name: String,
    pub purposes: Vec<String>,
}

/// Gives up what the agent does not need, and what a program that it would start could be given. Capabilities are a
/// thread's: to be called before there are others, which have what the one has that starts them.
///
/// What cannot be given up is kept with a warning: [`kept`] tells.
pub fn give_up(socket: &Path) {
    if let Err(error) = reduce(socket) {
        warn!("failed to drop privileges: {error}");
    }
    for one in kept() {
        info!("kept {}: {}", one.name, one.purposes.join("; "));
    }
}

fn reduce(socket: &Path) -> Result<(), CapsError> {
    let held = caps::read(None, CapSet::Permitted)?;
    if held.contains(&Capability::CAP_SYS_RESOURCE) {
        // Before Linux 5.11 what maps take counts against it; the kernel refuses them if this did not help.
        let _refused = setrlimit(Resource::RLIMIT_MEMLOCK, RLIM_INFINITY, RLIM_INFINITY);
    }
    let keep = needed(&held, |one, with| works_with(one, with, socket))?;
    // Of the bounding set only who may.
    if caps::has_cap(None, CapSet::Effective, Capability::CAP_SETPCAP)? {
        caps::clear(None, CapSet::Bounding)?;
    }
    caps::clear(None, CapSet::Ambient)?;
    caps::clear(None, CapSet::Inheritable)?;
    caps::set(None, CapSet::Effective, &keep)?;
    caps::set(None, CapSet::Permitted, &keep)?;
    // The agent starts no program, so nothing is lost.
    set_no_new_privs().map_err(|error| CapsError::from(error.to_string()))
}

/// Of those that are held, those that are needed. `works` says whether what the first is for works with all of the second.
fn needed(
    held: &CapsHashSet,
    mut works: impl FnMut(Capability, &CapsHashSet) -> Result<bool, CapsError>,
) -> Result<CapsHashSet, CapsError> {
    let mut keep: CapsHashSet = NEEDS
        .iter()
        .filter(|need| matches!(need.role, Role::Required | Role::Wanted))
        .filter_map(|need| serves(need, held))
        .collect();
    for need in NEEDS.iter().filter(|need| need.role == Role::Sometimes) {
        let one = need.capability;
        if !held.contains(&one) || keep.contains(&one) || works(one, &keep)? {
            continue;
        }
        let mut with = keep.clone();
        with.insert(one);
        if works(one, &with)? {
            keep = with;
        }
    }
    Ok(keep)
}

/// Itself, or what does instead.
fn serves(need: &Need, held: &CapsHashSet) -> Option<Capability> {
    let candidates = [Some(need.capability), need.instead];
    candidates
        .into_iter()
        .flatten()
        .find(|one| held.contains(one))
}

/// Tries with these effective, and all others of this thread again behind it.
fn works_with(one: Capability, with: &CapsHashSet, socket: &Path) -> Result<bool, CapsError> {
    let before = caps::read(None, CapSet::Effective)?;
    caps::set(None, CapSet::Effective, with)?;
    let works = works(one, socket);
    caps::set(None, CapSet::Effective, &before)?;
    Ok(works)
}

/// Whether this thread may do what it is sometimes needed for.
fn works(one: Capability, socket: &Path) -> bool {
    match one {
        Capability::CAP_DAC_OVERRIDE => may_remove(socket),
        Capability::CAP_SYS_PTRACE => sees_processes(),
        Capability::CAP_SYS_ADMIN => kernel::may_open_perf_events(),
        _ => true,
    }
}

/// All may read this of any process, unless `/proc` hides those of others. Some hosts keep the first one to themselves; the
/// second is the kernel's own.
fn sees_processes() -> bool {
    let read = |pid| fs::read_to_string(format!("/proc/{pid}/status"));
    [1, 2].into_iter().any(|pid| read(pid).is_ok())
}

/// Those that most hosts do without, and this thread may not.
#[must_use]
pub fn refused(socket: &Path) -> Vec<Capability> {
    let held = caps::read(None, CapSet::Effective).unwrap_or_default();
    let sometimes = NEEDS.iter().filter(|need| need.role == Role::Sometimes);
    let lacked = sometimes.map(|need| need.capability).filter(|one| {
        // Without this one nobody may open perf events, wherever.
        let asked = *one != Capability::CAP_SYS_ADMIN || held.contains(&Capability::CAP_PERFMON);
        asked && !held.contains(one) && !works(*one, socket)
    });
    lacked.collect()
}

/// The socket comes into its directory when the agent is ready, and goes from there when it ends.
fn may_remove(socket: &Path) -> bool {
    let directory = socket.parent().unwrap_or(Path::new("/"));
    let mode = AccessFlags::W_OK | AccessFlags::X_OK;
    faccessat(AT_FDCWD, directory, mode, AtFlags::AT_EACCESS).is_ok()
}

/// What this thread has, by what the kernel says.
#[must_use]
pub fn kept() -> Vec<Kept> {
    let held = caps::read(None, CapSet::Effective).unwrap_or_default();
    let mut sorted: Vec<Capability> = held.iter().copied().collect();
    // As in the list, and behind it what should not be there.
    let place = |one: &Capability| NEEDS.iter().position(|need| need.capability == *one);
    sorted.sort_by_key(|one| (place(one).unwrap_or(NEEDS.len()), one.index()));
    let kept = sorted.into_iter().map(|one| Kept {
        name: one.to_string(),
        purposes: purposes(one, &held),
    });
    kept.collect()
}

fn purposes(one: Capability, held: &CapsHashSet) -> Vec<String> {
    let needs = NEEDS.iter().filter(|need| serves(need, held) == Some(one));
    let purposes: Vec<String> = needs.map(|need| need.purpose.into()).collect();
    if purposes.is_empty() {
        return vec!["nothing: it could not be dropped".into()];
    }
    purposes
}

#[cfg(test)]
mod tests {
    use Capability::{
        CAP_BPF, CAP_CHOWN, CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH, CAP_PERFMON, CAP_SYS_ADMIN,
        CAP_SYS_PTRACE, CAP_SYSLOG,
    };

    use super::*;

    fn set(of: &[Capability]) -> CapsHashSet {
        of.iter().copied().collect()
    }

    const LATER: [Capability; 4] = [CAP_BPF, CAP_PERFMON, CAP_SYSLOG, CAP_DAC_READ_SEARCH];

    #[test]
    fn what_a_later_request_may_need_is_kept_and_nothing_else() {
        let all = caps::all();
        let keep = needed(&all, |_, _| Ok(true)).unwrap();
        assert_eq!(keep, set(&LATER));
        let two = set(&[CAP_BPF, CAP_PERFMON]);
        assert_eq!(needed(&two, |_, _| Ok(false)).unwrap(), two);
    }

    #[test]
    fn what_does_not_work_without_one_keeps_it_if_it_works_with_it() {
        let works = |one: Capability, with: &CapsHashSet| {
            Ok(match one {
                CAP_SYS_ADMIN => with.contains(&CAP_SYS_ADMIN),
                // Nor with it.
                CAP_SYS_PTRACE => false,
                _ => true,
            })
        };
        let keep = needed(&caps::all(), works).unwrap();
        let mut expected = set(&LATER);
        expected.insert(CAP_SYS_ADMIN);
        assert_eq!(keep, expected);
    }

    #[test]
    fn a_wider_one_serves_where_the_narrow_one_is_not_held() {
        let held = set(&[CAP_SYS_ADMIN, CAP_DAC_OVERRIDE, CAP_CHOWN]);
        let keep = needed(&held, |_, _| Ok(true)).unwrap();
        assert_eq!(keep, set(&[CAP_SYS_ADMIN, CAP_DAC_OVERRIDE]));
        assert_eq!(purposes(CAP_SYS_ADMIN, &keep).len(), 3);
        assert!(purposes(CAP_DAC_OVERRIDE, &keep)[0].contains("--under"));
        assert!(purposes(CAP_CHOWN, &keep)[0].contains("could not be dropped"));
        let both = set(&[CAP_BPF, CAP_PERFMON, CAP_SYS_ADMIN]);
        let of_admin = purposes(CAP_SYS_ADMIN, &both);
        assert_eq!(of_admin.len(), 1, "{of_admin:?}");
        assert!(of_admin[0].contains("perf events"));
    }

    /// In a thread of its own, as what is given up is gone.
    #[test]
    fn what_is_given_up_is_gone_to_the_kernel_too() {
        let given_up = std::thread::spawn(|| {
            give_up(&std::env::temp_dir().join("iolag.sock"));
            let status = fs::read_to_string("/proc/thread-self/status").unwrap();
            (kept(), status)
        });
        let (kept, status) = given_up.join().unwrap();
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            line.unwrap().trim().to_owned()
        };
        let bits = |name: &str| u64::from_str_radix(&field(name), 16).unwrap();
        let named = kept.iter().map(|one| one.name.parse::<Capability>());
        let named: u64 = named.map(|one| one.unwrap().bitmask()).sum();
        assert_eq!(
            (bits("CapEff:"), bits("CapPrm:")),
            (named, named),
            "{kept:?}"
        );
        assert_eq!((bits("CapInh:"), bits("CapAmb:")), (0, 0));
        assert_eq!(field("NoNewPrivs:"), "1");
        for one in [CAP_CHOWN, Capability::CAP_SETPCAP] {
            assert_eq!(named & one.bitmask(), 0, "{kept:?}");
        }
    }
}
