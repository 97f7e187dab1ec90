//! Checks of the probe `delay`: each point is attached with each backend, and detached at once.

use agent_common::catalogue::{BACKENDS, Backend, Layer, POINTS, Point};

use crate::{
    failure::Failure,
    host::Facts,
    kernel::{DelayTrial, Fields},
    plan::{Refusal, impossible, plan_point},
    report::doctor::{
        Check, Group,
        Status::{self, Fail, Skip, Warn},
    },
};

/// The function at which rules and measurements of functions are tried: every kernel has it.
pub const FUNCTION: &str = "vfs_read";

/// What came of one backend at one point.
#[derive(Debug)]
pub struct Trial {
    pub point: &'static Point,
    pub backend: Backend,
    pub came: Came,
}

#[derive(Debug)]
pub enum Came {
    /// It was attached there.
    Attached(&'static str),
    /// The kernel refused.
    Refused(Vec<Refusal>),
    /// There is nothing to try.
    Nothing(Vec<Refusal>),
}

/// Of what is no point of the catalogue.
#[derive(Debug)]
pub struct Others {
    pub exit: Result<(), String>,
    pub functions: Result<(), String>,
    pub filters: Result<Vec<&'static str>, String>,
}

/// Tries all.
///
/// # Errors
/// The object cannot be loaded, so nothing was.
pub fn attempt(facts: &Facts) -> Result<(Vec<Trial>, Others), Failure> {
    let mut trial = DelayTrial::load(facts)?;
    let mut trials = Vec::new();
    for backend in BACKENDS {
        for point in &POINTS {
            let plan = plan_point(point, Some(backend), facts);
            let came = if plan.attempts.is_empty() {
                Came::Nothing(plan.refused)
            } else {
                match trial.point(plan) {
                    Ok(attempt) => Came::Attached(attempt.symbol),
                    Err(refused) => Came::Refused(refused),
                }
            };
            trials.push(Trial {
                point,
                backend,
                came,
            });
        }
    }
    let filters = Fields::read(facts).map_err(|failure| failure.to_string());
    let others = Others {
        exit: trial.exit(),
        functions: match impossible(Backend::Kprobe, facts) {
            Some(why) => Err(why.into()),
            None => trial
                .function(FUNCTION)
                .map_err(|failure| failure.to_string())
                .and_then(|()| interrupts_are_told(&filters)),
        },
        filters: filters.and_then(|fields| {
            let watched = trial.watch(&fields.submitters);
            watched.map_err(|error| format!("{error:#}"))
        }),
    };
    Ok((trials, others))
}

/// Rules at functions, which an interrupt may call, are refused where it cannot be told.
fn interrupts_are_told(fields: &Result<Fields, String>) -> Result<(), String> {
    match fields {
        Ok(fields) if fields.preempt_count.is_some() => Ok(()),
        Ok(_) => Err("this kernel does not tell what is an interrupt".into()),
        Err(why) => Err(format!("what is an interrupt is not told: {why}")),
    }
}

/// Whether the switches `set` and `set-blk` have a backend at each of their points.
#[must_use]
pub fn main_job(trials: &[Trial]) -> bool {
    let main = POINTS.iter().filter(|point| point.layer != Layer::Rules);
    main.into_iter().all(|point| {
        let mut of_point = trials.iter().filter(|trial| trial.point.name == point.name);
        of_point.any(|trial| matches!(trial.came, Came::Attached(_)))
    })
}

/// A row for each backend and for each point, then the others.
#[must_use]
pub fn checks(trials: &[Trial], others: &Others) -> Vec<Check> {
    let mut checks: Vec<Check> = BACKENDS
        .into_iter()
        .map(|backend| of_backend(backend, trials))
        .collect();
    checks.extend(POINTS.iter().map(|point| of_point(point, trials)));
    checks.extend([functions(others), filters(others), exit(others)]);
    checks
}

/// The same rows where nothing was tried.
#[must_use]
pub fn not_tried(why: &str) -> Vec<Check> {
    let backends = BACKENDS.map(|backend| format!("backend.{}", backend.name()));
    let points = POINTS.iter().map(|point| point.name.to_owned());
    let others = ["fn:NAME", "filters", "exit"].map(Into::into);
    let names = backends.into_iter().chain(points).chain(others);
    names
        .map(|name| check(&name, Skip, "not tried").because(why))
        .collect()
}

/// The same rows where the kernel refused the whole object: each point fails with its reason.
#[must_use]
pub fn refused(failure: &Failure) -> Vec<Check> {
    let mut checks = not_tried("the probe could not be loaded");
    let main = POINTS.iter().filter(|point| point.layer != Layer::Rules);
    for point in main {
        for check in checks.iter_mut().filter(|check| check.name == point.name) {
            check.status = Fail;
            check.value = "none".into();
            check.reason = Some(failure.message.clone());
            check.remedy.clone_from(&failure.hint);
        }
    }
    checks
}

fn check(name: &str, status: Status, value: impl Into<String>) -> Check {
    Check::new(Group::Delay, name, status, value)
}

fn of_backend(backend: Backend, trials: &[Trial]) -> Check {
    let name = format!("backend.{}", backend.name());
    let of_backend = || trials.iter().filter(|trial| trial.backend == backend);
    let attached = of_backend().filter(|trial| matches!(trial.came, Came::Attached(_)));
    let attached = attached.count();
    let refused: Vec<(&str, &[Refusal])> = of_backend()
        .filter_map(|trial| match &trial.came {
            Came::Refused(refused) => Some((trial.point.name, refused.as_slice())),
            _ => None,
        })
        .collect();
    let value = format!("{attached} of {} points", POINTS.len());
    if !refused.is_empty() {
        return check(&name, Warn, value)
            .because(by_reason(&refused))
            .remedy(match backend {
                Backend::Fentry => {
                    "none needed where another backend serves; else a kernel with BPF \
                     trampolines (CONFIG_FUNCTION_TRACER) that lets root attach them"
                }
                Backend::Kprobe => {
                    "none needed where another backend serves; else a kernel with \
                     CONFIG_KPROBE_EVENTS that lets these functions be probed"
                }
                Backend::Tp => {
                    "none needed where another backend serves; else a kernel with \
                     CONFIG_BPF_EVENTS and CONFIG_FTRACE_SYSCALLS"
                }
            });
    }
    if attached > 0 {
        return check(&name, Status::Ok, value);
    }
    let nothing = of_backend().find_map(|trial| match &trial.came {
        Came::Nothing(refused) => refused.last(),
        _ => None,
    });
    let reason = nothing.map_or("there is nothing to try", |refusal| &refusal.reason);
    check(&name, Skip, "not there").because(reason)
}

/// What was said most often, with the points of which it was said; then what was said of the others. Of several
/// functions of a point most are not there, which says little.
fn by_reason(refused: &[(&str, &[Refusal])]) -> String {
    let all = || refused.iter().flat_map(|(_, refused)| *refused);
    let often = |reason: &str| all().filter(|refusal| refusal.reason == reason).count();
    let mut told: Vec<(&str, Vec<&str>)> = Vec::new();
    for (point, refused) in refused {
        let reasons = refused.iter().map(|refusal| refusal.reason.as_str());
        let Some(reason) = reasons.max_by_key(|reason| often(reason)) else {
            continue;
        };
        match told.iter_mut().find(|(known, _)| *known == reason) {
            Some((_, points)) => points.push(point),
            None => told.push((reason, vec![point])),
        }
    }
    if let [(reason, _)] = told.as_slice() {
        return (*reason).into();
    }
    told.sort_by_key(|(_, points)| std::cmp::Reverse(points.len()));
    let told = told
        .iter()
        .map(|(reason, points)| format!("{}: {reason}", points.join(", ")));
    told.collect::<Vec<_>>().join("; ")
}

/// The backend that `run` takes, and what else there is; or all that stood in the way.
fn of_point(point: &'static Point, trials: &[Trial]) -> Check {
    let of_point = || trials.iter().filter(|trial| trial.point.name == point.name);
    let attached: Vec<String> = of_point()
        .filter_map(|trial| match trial.came {
            Came::Attached(symbol) => Some(format!("{} at {symbol}", trial.backend.name())),
            _ => None,
        })
        .collect();
    let refused = of_point().flat_map(|trial| match &trial.came {
        Came::Attached(_) => &[][..],
        Came::Refused(refused) | Came::Nothing(refused) => refused,
    });
    let refused: Vec<Refusal> = refused.cloned().collect();
    let mut check = match attached.split_first() {
        Some((taken, [])) => check(point.name, Status::Ok, taken),
        Some((taken, others)) => check(
            point.name,
            Status::Ok,
            format!("{taken}; also {}", others.join(", ")),
        ),
        None => {
            let main = point.layer != Layer::Rules;
            let status = if main { Fail } else { Warn };
            let reasons = refused.iter().map(|refusal| match refusal.symbol.as_str() {
                // Nothing was tried at any symbol.
                symbol if symbol == point.name => {
                    format!("{}: {}", refusal.backend, refusal.reason)
                }
                symbol => format!("{} {symbol}: {}", refusal.backend, refusal.reason),
            });
            check(point.name, status, "none")
                .because(reasons.collect::<Vec<_>>().join("; "))
                .remedy(if main {
                    "a kernel with CONFIG_BPF_SYSCALL, CONFIG_BPF_EVENTS and one of the backends"
                } else {
                    "a kernel with kprobes or fentry; nothing but rules at this point is lost"
                })
        }
    };
    check.refused = refused;
    check
}

fn functions(others: &Others) -> Check {
    match &others.functions {
        Ok(()) => check("fn:NAME", Status::Ok, "kprobe"),
        Err(why) => check("fn:NAME", Warn, "none")
            .because(why)
            .remedy("it takes kprobes (CONFIG_KPROBE_EVENTS), BTF and CAP_SYSLOG; only rules at fn:NAME are lost"),
    }
}

fn filters(others: &Others) -> Check {
    match &others.filters {
        Ok(places) => check("filters", Status::Ok, places.join(", ")),
        Err(why) => check("filters", Warn, "none")
            .because(why)
            .remedy("rules without filters work; a kernel with CONFIG_DEBUG_INFO_BTF=y has all"),
    }
}

fn exit(others: &Others) -> Check {
    match &others.exit {
        Ok(()) => check("exit", Status::Ok, "delays end as a killed agent exits"),
        Err(why) => check("exit", Warn, "delays end when the kernel has detached all")
            .because(why)
            .remedy(
                "none needed: that takes less than a second, and the lease ends them after 3.5 s",
            ),
    }
}

#[cfg(test)]
mod tests;
