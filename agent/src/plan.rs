//! Pure: what was asked and what the host is -> what to try, in which order, or why not.

use agent_common::catalogue::{BACKENDS, Backend, Layer, POINTS, Point};
use serde::{Deserialize, Serialize};

use crate::{
    failure::{Failure, HOST, USAGE},
    host::Facts,
};

/// The backend that the user asked for; `None` is `auto`.
pub type Choice = Option<Backend>;

/// Reads `auto` or the name of a backend.
///
/// # Errors
/// Any other word.
pub fn parse_choice(name: &str) -> Result<Choice, Failure> {
    if name == "auto" {
        return Ok(None);
    }
    BACKENDS
        .into_iter()
        .find(|backend| backend.name() == name)
        .map(Some)
        .ok_or_else(|| {
            Failure::new(USAGE, format!("unknown backend {name:?}"))
                .hint("use auto, fentry, kprobe or tp")
        })
}

/// One thing to try at a point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attempt {
    pub backend: Backend,
    /// Kernel function, or tracepoint.
    pub symbol: &'static str,
}

/// Why an attempt was not made, or failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    pub backend: String,
    pub symbol: String,
    pub reason: String,
}

impl Refusal {
    pub fn new(attempt: Attempt, reason: impl Into<String>) -> Self {
        Self {
            backend: attempt.backend.name().into(),
            symbol: attempt.symbol.into(),
            reason: reason.into(),
        }
    }
}

/// What to try at one point, best first, and what need not be tried.
#[derive(Clone, Debug)]
pub struct PointPlan {
    pub point: &'static Point,
    pub attempts: Vec<Attempt>,
    pub refused: Vec<Refusal>,
}

/// Plans all points of the delay probe. Only what cannot even be tried is refused here: fentry
/// without BTF has no function to name. All else is found out by trying.
///
/// # Errors
/// A capability is missing, or the agent could not tell itself from those it delays.
pub fn plan(choice: Choice, facts: &Facts) -> Result<Vec<PointPlan>, Failure> {
    may_load(facts, "iolag run")?;
    if facts.pid_namespace {
        // eBPF programs see the process ids of the first namespace, which are not known in another.
        return Err(Failure::new(
            HOST,
            "failed to exempt the agent from its own delays: it runs in a PID namespace of its own",
        )
        .hint("run it in the host's: --pid=host for a container"));
    }
    Ok(POINTS
        .iter()
        .filter(|point| point.layer != Layer::Rules)
        .map(|point| plan_point(point, choice, facts))
        .collect())
}

/// Whether this process may load programs at all, for `command`.
///
/// # Errors
/// It lacks a capability.
pub fn may_load(facts: &Facts, command: &str) -> Result<(), Failure> {
    let missing = facts.privileges.missing();
    let names: Vec<String> = missing.iter().map(ToString::to_string).collect();
    let lacks = match names.as_slice() {
        [] => return Ok(()),
        [one] => format!("{one} is missing"),
        several => format!("{} are missing", several.join(" and ")),
    };
    let failure = Failure::new(HOST, format!("failed to load eBPF programs: {lacks}"));
    Err(match facts.privileges.uid {
        Some(0) => failure
            .hint("root was left without: add what is missing to the container or the service"),
        _ => failure.hint(format!("sudo {command}")),
    })
}

/// Plans one point.
#[must_use]
pub fn plan_point(point: &'static Point, choice: Choice, facts: &Facts) -> PointPlan {
    let mut plan = PointPlan {
        point,
        attempts: Vec::new(),
        refused: Vec::new(),
    };
    for backend in BACKENDS {
        if choice.is_some_and(|chosen| chosen != backend) {
            continue;
        }
        let symbols = match backend {
            Backend::Fentry | Backend::Kprobe => point.functions,
            Backend::Tp if point.tracepoint.is_empty() => &[],
            Backend::Tp => std::slice::from_ref(&point.tracepoint),
        };
        if symbols.is_empty() {
            plan.refused.push(Refusal {
                backend: backend.name().into(),
                symbol: point.name.into(),
                reason: "there is no tracepoint on this path".into(),
            });
        }
        for symbol in symbols {
            let attempt = Attempt { backend, symbol };
            match impossible(backend, facts) {
                Some(reason) => {
                    plan.refused.push(Refusal::new(attempt, reason));
                    break;
                }
                None => plan.attempts.push(attempt),
            }
        }
    }
    plan
}

/// Why a backend need not even be tried.
#[must_use]
pub fn impossible(backend: Backend, facts: &Facts) -> Option<&'static str> {
    match backend {
        Backend::Fentry if facts.btf.is_none() => {
            Some("this kernel has no BTF (/sys/kernel/btf/vmlinux; CONFIG_DEBUG_INFO_BTF)")
        }
        Backend::Kprobe if !facts.kprobe_pmu => Some(
            "this kernel has no kprobes (/sys/bus/event_source/devices/kprobe; CONFIG_KPROBE_EVENTS)",
        ),
        _ => None,
    }
}

/// The refusal of a point at which nothing could be attached.
#[must_use]
pub fn refusal(point: &Point, choice: Choice, refused: &[Refusal]) -> Failure {
    let reasons: Vec<String> = refused
        .iter()
        .map(|refusal| format!("{} {}: {}", refusal.backend, refusal.symbol, refusal.reason))
        .collect();
    let failure = Failure::new(
        HOST,
        format!("failed to attach at {}: {}", point.name, reasons.join("; ")),
    );
    match choice {
        Some(_) => failure.hint("--backend auto takes whichever this kernel allows"),
        None => failure.hint(
            "it takes a kernel with CONFIG_BPF_SYSCALL and CONFIG_BPF_EVENTS that lets programs read its memory, which \
             lockdown=confidentiality forbids; iolag doctor tells more",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::privileges::Privileges;

    fn facts() -> Facts {
        Facts {
            privileges: Privileges::default(),
            pid_namespace: false,
            btf: Some("/sys/kernel/btf/vmlinux".into()),
            kprobe_pmu: true,
        }
    }

    #[test]
    fn auto_tries_the_cheapest_first_and_the_newest_function_first() {
        let plans = plan(None, &facts()).unwrap();
        let block = plans
            .iter()
            .find(|plan| plan.point.name == "block.issue")
            .unwrap();
        let tried: Vec<_> = block
            .attempts
            .iter()
            .map(|a| (a.backend, a.symbol))
            .collect();
        assert_eq!(
            tried,
            [
                (Backend::Fentry, "blk_mq_start_request"),
                (Backend::Fentry, "blk_start_request"),
                (Backend::Kprobe, "blk_mq_start_request"),
                (Backend::Kprobe, "blk_start_request"),
                (Backend::Tp, "block_rq_issue"),
            ]
        );
    }

    #[test]
    fn a_forced_backend_is_the_only_one() {
        for plan in plan(Some(Backend::Tp), &facts()).unwrap() {
            assert!(plan.attempts.iter().all(|a| a.backend == Backend::Tp));
            assert_eq!(plan.attempts.len(), 1);
        }
    }

    #[test]
    fn without_btf_only_fentry_is_lost_and_the_reason_is_kept() {
        let bare = Facts {
            btf: None,
            ..facts()
        };
        for plan in plan(None, &bare).unwrap() {
            assert!(plan.attempts.iter().all(|a| a.backend != Backend::Fentry));
            assert!(!plan.attempts.is_empty());
            assert!(plan.refused[0].reason.contains("no BTF"));
        }
        let forced = plan(Some(Backend::Fentry), &bare).unwrap();
        assert!(forced[0].attempts.is_empty());
        let failure = refusal(forced[0].point, Some(Backend::Fentry), &forced[0].refused);
        assert_eq!(failure.code, HOST);
        assert!(failure.message.contains("no BTF"), "{failure}");
    }

    #[test]
    fn who_may_not_is_told_what_is_missing() {
        let told = |uid, capabilities| {
            let privileges = Privileges {
                uid: Some(uid),
                capabilities: Some(capabilities),
                ..Privileges::default()
            };
            let facts = Facts {
                privileges,
                ..facts()
            };
            let failure = plan(None, &facts).unwrap_err();
            assert_eq!(failure.code, HOST);
            failure.to_string()
        };
        let nobody = told(65534, 0);
        assert!(nobody.contains("CAP_BPF and CAP_PERFMON are missing"));
        assert!(nobody.contains("sudo iolag run"));
        let half = told(0, 1 << 39);
        assert!(half.contains("CAP_PERFMON is missing (hint: "), "{half}");
        assert!(!half.contains("sudo"), "{half}");
    }
}
