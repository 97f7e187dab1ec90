//! Which tests run on which kernels, and which of them in two machines at a time.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use crate::explain::explained;
use crate::process::run;
use crate::setup::{KERNELS, Kernel};

use super::newest;

/// What tells, on kernels that are not usual, whether all that there is works there.
const EVERYWHERE: [&str; 5] = [
    "smoke",
    "prototypes",
    "matrix",
    "verified",
    "truth-block-iostats",
];

/// A test, as the machine lists it (`vm_tests::tests::Test`).
#[derive(Clone, Debug)]
pub struct Test {
    pub name: String,
    level: String,
    timed: bool,
}

/// A machine that runs these tests on that kernel.
#[derive(Clone)]
pub struct Job {
    pub kernel: &'static Kernel,
    /// All if empty.
    pub tests: Vec<String>,
    /// Name of its console's log, without the end.
    pub log: String,
}

/// What runs on two machines at a time, then what runs alone, and then, on two again, the kernels that are not usual.
#[derive(Default)]
pub struct Plan {
    pub side_by_side: Vec<Job>,
    pub alone: Vec<Job>,
    pub unusual: Vec<Job>,
}

/// All tests that the program has.
pub fn list(program: &Path) -> Result<Vec<Test>> {
    let list = run(Command::new(program).arg("--list"), "list the VM tests")?;
    list.lines()
        .map(|line| {
            test(line).with_context(|| format!("failed to read the list of VM tests: {line}"))
        })
        .collect()
}

fn test(line: &str) -> Option<Test> {
    let mut words = line.split('\t');
    let mut word = || words.next().map(str::to_owned);
    let (name, level, timed) = (word()?, word()?, word()?);
    Some(Test {
        name,
        level,
        timed: timed == "timed",
    })
}

/// Refuses names that select nothing, which would otherwise look like a passed run.
pub fn check(tests: &[Test], wanted: &[String]) -> Result<()> {
    let missing = |part: &&String| !tests.iter().any(|test| test.name.contains(*part));
    match wanted.iter().find(missing) {
        None => Ok(()),
        Some(part) => {
            let names: Vec<&str> = tests.iter().map(|test| test.name.as_str()).collect();
            Err(explained(
                format!("failed to find a test named {part}"),
                format!("there are: {}", names.join(", ")),
            ))
        }
    }
}

/// What `cargo xtask test` runs: the usual kernels' quick tests, with `full` all; with `all_kernels` also what is of
/// interest on the others.
pub fn plan(tests: &[Test], full: bool, all_kernels: bool) -> Plan {
    let mut plan = Plan::default();
    for kernel in KERNELS {
        let usual = kernel.usual;
        let runs = |test: &&Test| match (usual, test.level.as_str()) {
            (false, _) => all_kernels && EVERYWHERE.contains(&test.name.as_str()),
            (true, "quick") => true,
            (true, "thorough") => full,
            (true, _) => full && kernel.name == newest().name,
        };
        let (timed, untimed): (Vec<&Test>, _) = tests
            .iter()
            .filter(runs)
            .partition(|test| usual && test.timed);
        let together = if usual {
            &mut plan.side_by_side
        } else {
            &mut plan.unusual
        };
        for (jobs, tests, end) in [(together, untimed, ""), (&mut plan.alone, timed, "-alone")] {
            if !tests.is_empty() {
                jobs.push(Job {
                    kernel,
                    tests: tests.iter().map(|test| test.name.clone()).collect(),
                    log: format!("{}{end}", kernel.name),
                });
            }
        }
    }
    plan
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(jobs: &[Job]) -> Vec<String> {
        let name = |job: &Job| format!("{}: {}", job.kernel.name, job.tests.join(" "));
        jobs.iter().map(name).collect()
    }

    fn tests() -> Vec<Test> {
        let list =
            "smoke\tquick\tuntimed\ndelay\tquick\ttimed\nstop\tthorough\ttimed\ndemo\tonce\ttimed";
        list.lines().map(|line| test(line).unwrap()).collect()
    }

    #[test]
    fn quick_tests_run_on_the_usual_kernels() {
        let plan = plan(&tests(), false, false);
        assert_eq!(names(&plan.side_by_side), ["6.1: smoke", "6.12: smoke"]);
        assert_eq!(names(&plan.alone), ["6.1: delay", "6.12: delay"]);
        assert!(plan.unusual.is_empty());
    }

    #[test]
    fn all_tests_run_on_the_newest_usual_kernel_and_few_on_the_unusual() {
        let plan = plan(&tests(), true, true);
        assert_eq!(
            names(&plan.alone),
            ["6.1: delay stop", "6.12: delay stop demo"]
        );
        assert_eq!(plan.side_by_side.len() + plan.unusual.len(), KERNELS.len());
        assert!(plan.unusual.iter().all(|job| job.tests == ["smoke"]));
    }

    #[test]
    fn a_name_that_selects_nothing_is_refused() {
        assert!(check(&tests(), &["stop".into(), "mok".into()]).is_ok());
        let error = check(&tests(), &["nothing".into()]).unwrap_err();
        assert_eq!(error.to_string(), "failed to find a test named nothing");
    }
}
