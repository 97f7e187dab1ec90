//! Checks of what this process may do.

use caps::Capability;

use crate::{
    privileges::{NEEDS, Need, Privileges, Role},
    report::doctor::{
        Check, Group,
        Status::{self, Fail, Skip, Warn},
    },
};

/// The user namespace that the kernel boots with: `PROC_USER_INIT_INO` (`include/linux/proc_ns.h`).
const FIRST_USER_NAMESPACE: &str = "user:[4026531837]";

/// All of them; `refused` are capabilities that this process would need here and lacks, `pid_namespace` is whether it is in
/// one of its own.
#[must_use]
pub fn checks(privileges: &Privileges, refused: &[Capability], pid_namespace: bool) -> Vec<Check> {
    let mut checks = vec![user(privileges)];
    checks.extend(
        NEEDS
            .iter()
            .map(|need| capability(need, privileges, refused)),
    );
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
        Some(uid) => check("user", Warn, uid.to_string())
            .because("capabilities are enough to start an agent, but only root may command it")
            .remedy("sudo iolag doctor"),
    }
}

fn capability(need: &Need, privileges: &Privileges, refused: &[Capability]) -> Check {
    let name = need.capability.to_string();
    let purpose = format!("it is for {}", need.purpose);
    let lacking = |status, value: &str| check(&name, status, value).because(&purpose);
    let remedy = "run as root, in a container with this capability added";
    let has = |one| privileges.has(one) == Some(true);
    match (privileges.has(need.capability), need.instead) {
        (None, _) => check(&name, Skip, "unknown").because("/proc/self/status does not tell"),
        (Some(true), _) => check(&name, Status::Ok, "yes"),
        (_, Some(instead)) if has(instead) => {
            check(&name, Status::Ok, format!("no; {instead} stands in"))
        }
        _ => match need.role {
            Role::Required => lacking(Fail, "no").remedy(remedy),
            Role::Wanted => lacking(Warn, "no").remedy(remedy),
            Role::Sometimes if refused.contains(&need.capability) => {
                lacking(Warn, "no").remedy(need.remedy.unwrap_or(remedy))
            }
            Role::Sometimes => lacking(Status::Ok, "no, nor needed here"),
            Role::Starting => lacking(Status::Ok, "no"),
        },
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
    use Capability::{CAP_SYS_ADMIN, CAP_SYS_PTRACE};

    fn of(status: &str, namespace: Option<&str>) -> Vec<Check> {
        let fixture = Fixture::new(&[("proc/self/status", status)]);
        if let Some(namespace) = namespace {
            fixture.link("proc/self/ns/user", namespace);
        }
        checks(&Privileges::read(&fixture.0), &[CAP_SYS_PTRACE], false)
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
        assert_eq!(checks.len(), 11);
    }

    #[test]
    fn another_user_is_told_of_each_privilege() {
        let status = "Uid:\t0\t1000\t0\t0\nCapEff:\t0000000000000000\n";
        let checks = of(status, Some("user:[4026532001]"));
        assert_eq!(
            statuses(&checks),
            [
                ("user", Warn),
                ("CAP_BPF", Fail),
                ("CAP_PERFMON", Fail),
                ("CAP_SYSLOG", Warn),
                ("CAP_DAC_READ_SEARCH", Warn),
                ("CAP_DAC_OVERRIDE", Status::Ok),
                ("CAP_SYS_PTRACE", Warn),
                ("CAP_SYS_ADMIN", Status::Ok),
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
        assert_eq!(status_of(&checks, "CAP_SYS_ADMIN"), Status::Ok);
        // DAC_OVERRIDE, as containers have it.
        let checks = of("Uid:\t0\t0\t0\t0\nCapEff:\t0000000000000002\n", None);
        assert_eq!(status_of(&checks, "CAP_DAC_READ_SEARCH"), Status::Ok);
    }

    #[test]
    fn what_the_kernel_asks_for_here_is_told_with_the_way_out() {
        let held = Privileges {
            capabilities: Some(0x000000c000000000),
            ..Privileges::default()
        };
        let checks = checks(&held, &[CAP_SYS_ADMIN], false);
        let admin = checks.iter().find(|one| one.name == "CAP_SYS_ADMIN");
        let admin = admin.unwrap();
        assert_eq!(admin.status, Warn);
        assert!(
            admin
                .remedy
                .as_ref()
                .unwrap()
                .contains("perf_event_paranoid")
        );
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
