//! The command `doctor`: what of iolag works on this host, what does not, why, and what to do.
//!
//! Facts are read and things are tried first; what they mean is decided by pure functions, a row for each check.

mod delay;
mod facts;
mod host;
mod kernel;
mod owners;
mod privileges;
mod probes;
mod tools;

use std::path::Path;

use agent_common::probes::PROBES;

use crate::{
    control::{client::call_if_any, protocol::Command, socket::check_length},
    failure::{Failure, HOST, USAGE},
    host::Facts as Plan,
    kernel::{PromptEnd, tracing_programs},
    render::{self, Format},
    report::{
        Status as Agent,
        doctor::{Check, Diagnosis, Status},
    },
};

/// Examines this host and hands the result to `print`. Returns the exit code: 3 if the main job cannot run here.
///
/// # Errors
/// The socket's path makes no sense; `print` failed.
pub fn run(
    socket: &Path,
    format: Format,
    print: impl FnOnce(&str) -> Result<(), Failure>,
) -> Result<u8, Failure> {
    let socket = std::path::absolute(socket).map_err(|error| {
        Failure::new(USAGE, format!("failed to read the socket's path: {error}"))
    })?;
    check_length(&socket)?;
    let diagnosis = examine(Path::new("/"), &socket);
    print(&match format {
        Format::Text => render::doctor::text(&diagnosis),
        Format::Json => render::json::document(&diagnosis)?,
    })?;
    Ok(if diagnosis.main_job { 0 } else { HOST })
}

fn examine(root: &Path, socket: &Path) -> Diagnosis {
    let facts = facts::Facts::read(root);
    let plan = Plan::read(root);
    // Others are looked at before anything of ours is loaded.
    let programs = tools::Programs {
        loaded: tracing_programs().map_err(|error| format!("{error:#}")),
        owners: owners::read(root),
    };
    let agent = call_if_any::<Agent>(socket, &Command::Status);
    let wanted = PROBES.iter().map(|probe| probes::memory(probe)).sum();
    let made = facts::writeable(root, socket);
    let mut checks = kernel::checks(&facts);
    checks.extend(host::checks(&facts, wanted, socket, made));
    let refused = crate::privileges::refused(socket);
    let may = privileges::checks(&plan.privileges, &refused, plan.pid_namespace);
    let barred = failed(&may);
    checks.extend(may);
    let (tried, main_job, lost) = match barred.as_slice() {
        [] => attempt(&plan, facts.available),
        _ => (not_tried("see privileges"), false, Vec::new()),
    };
    checks.extend(tried);
    let agent = agent.as_ref().map(Option::as_ref);
    checks.extend(tools::checks(&facts, socket, agent, &programs));
    let summary = summary(main_job, &failed(&checks), &lost);
    Diagnosis::new(checks, main_job, summary)
}

fn not_tried(why: &str) -> Vec<Check> {
    let mut checks = delay::not_tried(why);
    checks.extend(probes::not_tried(Status::Skip, why, None));
    checks
}

/// Loads, attaches and detaches: the rows, whether the main job can run, and what does not work at all.
fn attempt(plan: &Plan, available: Option<u64>) -> (Vec<Check>, bool, Vec<String>) {
    // Without it the kernel keeps programs at `sys_enter` for some 0.3 s more.
    let prompt_end = PromptEnd::attach();
    let (mut checks, main_job) = match delay::attempt(plan) {
        Ok((trials, others)) => (delay::checks(&trials, &others), delay::main_job(&trials)),
        Err(failure) => (delay::refused(&failure), false),
    };
    checks.extend(match probes::attempt(plan, available) {
        Ok(came) => probes::checks(&came),
        Err(failure) => probes::not_tried(Status::Warn, &failure.message, failure.hint.as_deref()),
    });
    drop(prompt_end);
    let without = checks.iter().filter(|check| check.status == Status::Warn);
    let lost = without.filter(|check| ["none", "not tried"].contains(&check.value.as_str()));
    let lost = lost.map(|check| check.name.clone()).collect();
    (checks, main_job, lost)
}

/// Names of the checks that failed.
fn failed(checks: &[Check]) -> Vec<String> {
    let failed = checks.iter().filter(|check| check.status == Status::Fail);
    failed.map(|check| check.name.clone()).collect()
}

fn summary(main_job: bool, failed: &[String], lost: &[String]) -> String {
    match (main_job, lost) {
        (false, _) => format!("delays cannot run here ({})", failed.join(", ")),
        (true, []) => "delays and measurements work here".into(),
        (true, lost) => format!(
            "delays and measurements work here, but for {}",
            lost.join(", ")
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::facts::fixture::Fixture;

    #[test]
    fn the_summary_says_what_is_lost() {
        let names =
            |names: &[&str]| -> Vec<String> { names.iter().map(|name| (*name).into()).collect() };
        let none = names(&[]);
        assert_eq!(
            summary(true, &none, &none),
            "delays and measurements work here"
        );
        let lost = names(&["vfs.lookup", "fn"]);
        assert!(summary(true, &none, &lost).ends_with("but for vfs.lookup, fn"));
        let failed = names(&["user", "CAP_BPF"]);
        assert_eq!(
            summary(false, &failed, &none),
            "delays cannot run here (user, CAP_BPF)"
        );
    }

    /// A host on which this process may do nothing: it is not asked to.
    #[test]
    fn without_privileges_nothing_is_tried() {
        let status = "Uid:\t1000\t1000\t1000\t1000\nCapEff:\t0\n";
        let fixture = Fixture::new(&[("proc/self/status", status)]);
        let diagnosis = examine(&fixture.0, Path::new("/nowhere/iolag.sock"));
        assert!(!diagnosis.main_job);
        assert_eq!(diagnosis.counts.fail, 2, "{diagnosis:?}");
        assert!(diagnosis.summary.contains("(CAP_BPF, CAP_PERFMON)"));
        let tried = diagnosis
            .checks
            .iter()
            .filter(|check| check.value == "not tried");
        assert_eq!(tried.count(), not_tried("").len());
    }

    #[test]
    fn names_are_unique_in_the_whole() {
        let diagnosis = examine(&Fixture::new(&[]).0, Path::new("/nowhere/iolag.sock"));
        let mut names: Vec<_> = diagnosis.checks.iter().map(|check| &check.name).collect();
        let all = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), all, "{names:?}");
    }
}
