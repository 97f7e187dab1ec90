//! Checks of what this process may do.

use std::{fs, path::Path};

use crate::report::doctor::{
    Check, Group,
    Status::{self, Fail, Skip, Warn},
};

/// The user namespace that the kernel boots with: `PROC_USER_INIT_INO` (`include/linux/proc_ns.h`).
const FIRST_USER_NAMESPACE: &str = "user:[4026531837]";

/// A capability, by its number (capabilities(7)).
struct Capability {
    name: &'static str,
    bit: u32,
    /// What it is needed for.
    purpose: &'static str,
    need: Need,
}

#[derive(Clone, Copy, PartialEq)]
enum Need {
    /// Nothing goes without it, unless `CAP_SYS_ADMIN` stands in.
    Main,
    /// The purpose is lost.
    Some,
    /// Nothing.
    None,
}

const SYS_ADMIN: u32 = 21;

const CAPABILITIES: [Capability; 6] = [
    Capability {
        name: "CAP_BPF",
        bit: 39,
        purpose: "loading programs and making maps",
        need: Need::Main,
    },
    Capability {
        name: "CAP_PERFMON",
        bit: 38,
        purpose: "attaching them, and reading the kernel's memory",
        need: Need::Main,
    },
    Capability {
        name: "CAP_SYS_ADMIN",
        bit: SYS_ADMIN,
        purpose: "seeing what other programs the kernel runs, which only doctor asks",
        need: Need::Some,
    },
    Capability {
        name: "CAP_SYSLOG",
        bit: 34,
        purpose: "the kernel's addresses: rules at fn:NAME, the losses of kretprobes",
        need: Need::Some,
    },
    Capability {
        name: "CAP_DAC_OVERRIDE",
        bit: 1,
        purpose: "directories that are closed to root: for --under, or with the socket",
        need: Need::Some,
    },
    Capability {
        name: "CAP_SYS_RESOURCE",
        bit: 24,
        purpose: "raising RLIMIT_MEMLOCK, which maps do not count against since Linux 5.11",
        need: Need::None,
    },
];

/// Who this process is to the kernel.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Privileges {
    /// Effective.
    pub uid: Option<u32>,
    /// Effective, a bit for each.
    pub capabilities: Option<u64>,
    /// As `readlink /proc/self/ns/user` shows it.
    user_namespace: Option<String>,
}

impl Privileges {
    /// Reads them from the host whose `/` is `root`.
    #[must_use]
    pub fn read(root: &Path) -> Self {
        let status = fs::read_to_string(root.join("proc/self/status")).unwrap_or_default();
        let field = |name: &str, place: usize| {
            let value = status.lines().find_map(|line| line.strip_prefix(name))?;
            value.split_whitespace().nth(place).map(str::to_owned)
        };
        let namespace = fs::read_link(root.join("proc/self/ns/user"));
        Self {
            // Real, effective, saved, of the file system.
            uid: field("Uid:", 1).and_then(|uid| uid.parse().ok()),
            capabilities: field("CapEff:", 0).and_then(|bits| u64::from_str_radix(&bits, 16).ok()),
            user_namespace: namespace.ok().map(|name| name.display().to_string()),
        }
    }
}

/// All of them; `pid_namespace` is whether this process is in one of its own.
#[must_use]
pub fn checks(privileges: &Privileges, pid_namespace: bool) -> Vec<Check> {
    let mut checks = vec![user(privileges)];
    checks.extend(CAPABILITIES.iter().map(|one| capability(one, privileges)));
    checks.push(user_namespace(privileges));
    checks.push(of_pid_namespace(pid_namespace));
    checks
}

fn check(name: &str, status: Status, value: impl Into<String>) -> Check {
    Check::new(Group::Privileges, name, status, value)
}

fn user(privileges: &Privileges) -> Check {
    match privileges.uid {
        None => check("user", Skip, "unknown").because("/proc/self/status does not tell"),
        Some(0) => check("user", Status::Ok, "root"),
        Some(uid) => check("user", Fail, uid.to_string())
            .because("the agent has to run as root")
            .remedy("sudo iolag doctor"),
    }
}

fn capability(capability: &Capability, privileges: &Privileges) -> Check {
    let name = capability.name;
    let purpose = capability.purpose;
    let Some(held) = privileges.capabilities else {
        return check(name, Skip, "unknown").because("/proc/self/status does not tell");
    };
    let has = |bit: u32| held & 1 << bit != 0;
    if has(capability.bit) {
        return check(name, Status::Ok, "yes");
    }
    let container = "run as root, in a container with this capability added";
    match capability.need {
        Need::Main if has(SYS_ADMIN) => check(name, Status::Ok, "no; CAP_SYS_ADMIN stands in"),
        Need::Main => check(name, Fail, "no")
            .because(format!("it is for {purpose}"))
            .remedy(container),
        Need::Some => check(name, Warn, "no")
            .because(format!("it is for {purpose}"))
            .remedy(container),
        Need::None => {
            check(name, Status::Ok, "no, nor needed").because(format!("it is for {purpose}"))
        }
    }
}

/// Loading takes capabilities in the first one (`bpf_capable`, include/linux/capability.h).
fn user_namespace(privileges: &Privileges) -> Check {
    match privileges.user_namespace.as_deref() {
        None => check("user_namespace", Skip, "unknown").because("/proc/self/ns/user is not there"),
        Some(FIRST_USER_NAMESPACE) => check("user_namespace", Status::Ok, "the host's"),
        Some(_) => check("user_namespace", Fail, "its own")
            .because("capabilities in it do not count where programs are loaded")
            .remedy("run it as the host's root, not in a rootless container"),
    }
}

fn of_pid_namespace(own: bool) -> Check {
    if !own {
        return check("pid_namespace", Status::Ok, "the host's");
    }
    check("pid_namespace", Fail, "its own")
        .because("the agent could not exempt itself from its own delays: it does not know its id on the host")
        .remedy("run it in the host's: --pid=host for a container")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::facts::fixture::Fixture;

    fn of(status: &str, namespace: Option<&str>) -> Vec<Check> {
        let fixture = Fixture::new(&[("proc/self/status", status)]);
        if let Some(namespace) = namespace {
            fixture.link("proc/self/ns/user", namespace);
        }
        checks(&Privileges::read(&fixture.0), false)
    }

    fn statuses(checks: &[Check]) -> Vec<(&str, Status)> {
        let pairs = checks.iter().map(|one| (one.name.as_str(), one.status));
        pairs.collect()
    }

    fn status_of(checks: &[Check], name: &str) -> Status {
        checks.iter().find(|one| one.name == name).unwrap().status
    }

    const ALL: &str = "Uid:\t0\t0\t0\t0\nCapEff:\t000001ffffffffff\n";

    #[test]
    fn root_with_all_may_do_all() {
        let checks = of(ALL, Some(FIRST_USER_NAMESPACE));
        assert!(
            statuses(&checks)
                .iter()
                .all(|(_, status)| *status == Status::Ok),
            "{checks:?}"
        );
        assert_eq!(checks.len(), 9);
    }

    #[test]
    fn another_user_is_told_once_for_each_privilege() {
        let status = "Uid:\t0\t1000\t0\t0\nCapEff:\t0000000000000000\n";
        let checks = of(status, Some("user:[4026532001]"));
        assert_eq!(
            statuses(&checks),
            [
                ("user", Fail),
                ("CAP_BPF", Fail),
                ("CAP_PERFMON", Fail),
                ("CAP_SYS_ADMIN", Warn),
                ("CAP_SYSLOG", Warn),
                ("CAP_DAC_OVERRIDE", Warn),
                ("CAP_SYS_RESOURCE", Status::Ok),
                ("user_namespace", Fail),
                ("pid_namespace", Status::Ok),
            ]
        );
        for check in checks.iter().filter(|check| check.status != Status::Ok) {
            assert!(
                check.reason.is_some() && check.remedy.is_some(),
                "{check:?}"
            );
        }
    }

    #[test]
    fn sys_admin_stands_in_for_what_it_was_split_into() {
        let checks = of("Uid:\t0\t0\t0\t0\nCapEff:\t0000000000200000\n", None);
        for name in ["CAP_BPF", "CAP_PERFMON", "CAP_SYS_ADMIN"] {
            assert_eq!(status_of(&checks, name), Status::Ok, "{name}");
        }
        assert_eq!(status_of(&checks, "CAP_SYSLOG"), Warn);
        let checks = of("Uid:\t0\t0\t0\t0\nCapEff:\t000000c000000000\n", None);
        assert_eq!(status_of(&checks, "CAP_BPF"), Status::Ok);
        assert_eq!(status_of(&checks, "CAP_PERFMON"), Status::Ok);
        assert_eq!(status_of(&checks, "CAP_SYS_ADMIN"), Warn);
    }

    #[test]
    fn a_proc_that_tells_nothing_leaves_all_open() {
        let checks = of("", None);
        let (namespace, others) = checks.split_last().unwrap();
        assert!(statuses(others).iter().all(|(_, status)| *status == Skip));
        assert_eq!(namespace.status, Status::Ok);
        assert_eq!(of_pid_namespace(true).status, Fail);
    }
}
