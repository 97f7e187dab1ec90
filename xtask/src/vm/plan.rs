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

/// Machines that run one after the other, or two at a time.
pub struct Phase {
    pub jobs: Vec<Job>,
    /// The tests measure no times: one machine may slow down another.
    pub side_by_side: bool,
    /// What is not begun in time is left out.
    pub by_deadline: bool,
}

/// Tests in a machine of which others may be left out: some minutes.
const FEW: usize = 6;

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

/// What `cargo xtask test` runs: the usual kernels' quick tests; with `all_kernels` then what is of interest on the
/// others; and with `full` at last those tests that take long.
pub fn plan(tests: &[Test], full: bool, all_kernels: bool) -> Vec<Phase> {
    let runs = |kernel: &Kernel, test: &Test, long: bool| match test.level.as_str() {
        "quick" => !long,
        "thorough" => long && full,
        _ => long && full && kernel.name == newest().name,
    };
    let phase = |end: &str, timed: bool, long: bool| {
        let most = if long { FEW } else { tests.len().max(1) };
        let usual = KERNELS.iter().filter(|kernel| kernel.usual);
        let jobs = usual.flat_map(|kernel| {
            let wanted = |test: &Test| test.timed == timed && runs(kernel, test, long);
            chunks(kernel, tests, end, most, wanted)
        });
        Phase {
            jobs: jobs.collect(),
            side_by_side: !timed,
            by_deadline: long,
        }
    };
    let mut plan = vec![phase("", false, false), phase("-alone", true, false)];
    if all_kernels {
        plan.push(Phase {
            jobs: unusual(tests),
            side_by_side: true,
            by_deadline: true,
        });
    }
    plan.extend([
        phase("-long", false, true),
        phase("-long-alone", true, true),
    ]);
    plan
}

/// The tests that are wanted, in machines that each run as many at most.
fn chunks(
    kernel: &'static Kernel,
    tests: &[Test],
    end: &str,
    most: usize,
    wanted: impl Fn(&Test) -> bool,
) -> Vec<Job> {
    let names: Vec<String> = tests
        .iter()
        .filter(|test| wanted(test))
        .map(|test| test.name.clone())
        .collect();
    let jobs = names.chunks(most).enumerate().map(|(number, tests)| Job {
        kernel,
        tests: tests.to_vec(),
        log: match number {
            0 => format!("{}{end}", kernel.name),
            number => format!("{}{end}-{}", kernel.name, number + 1),
        },
    });
    jobs.collect()
}

/// The oldest and the newest kernel first: there may be no time for all, and those between are most like the usual ones.
fn unusual(tests: &[Test]) -> Vec<Job> {
    let mut kernels: Vec<&'static Kernel> = KERNELS.iter().filter(|kernel| !kernel.usual).collect();
    let middle = kernels.len() / 2;
    let places: Vec<&str> = kernels.iter().map(|kernel| kernel.name).collect();
    kernels.sort_by_key(|kernel| {
        let place = places.iter().position(|name| *name == kernel.name);
        std::cmp::Reverse(place.unwrap_or(middle).abs_diff(middle))
    });
    let everywhere = |test: &Test| EVERYWHERE.contains(&test.name.as_str());
    let jobs = kernels.into_iter();
    jobs.flat_map(|kernel| chunks(kernel, tests, "", FEW, everywhere))
        .collect()
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
        assert_eq!(names(&plan[0].jobs), ["6.1: smoke", "6.12: smoke"]);
        assert_eq!(names(&plan[1].jobs), ["6.1: delay", "6.12: delay"]);
        assert!(plan[..2].iter().all(|phase| !phase.by_deadline));
        assert!(plan[2..].iter().all(|phase| phase.jobs.is_empty()));
    }

    #[test]
    fn few_tests_run_on_unusual_kernels_and_then_those_that_take_long() {
        let plan = plan(&tests(), true, true);
        assert_eq!(names(&plan[1].jobs), ["6.1: delay", "6.12: delay"]);
        let unusual: Vec<&Kernel> = KERNELS.iter().filter(|one| !one.usual).collect();
        assert_eq!(plan[2].jobs.len(), unusual.len());
        assert!(plan[2].jobs.iter().all(|job| job.tests == ["smoke"]));
        assert_eq!(plan[2].jobs[0].kernel.name, unusual[0].name);
        assert_eq!(plan[2].jobs[1].kernel.name, unusual[unusual.len() - 1].name);
        assert!(plan[3].jobs.is_empty());
        assert_eq!(names(&plan[4].jobs), ["6.1: stop", "6.12: stop demo"]);
        assert!(plan[2..].iter().all(|phase| phase.by_deadline));
    }

    #[test]
    fn a_machine_runs_few_long_tests_and_each_is_run() {
        let many: Vec<Test> = (0..FEW * 2 + 1)
            .map(|number| test(&format!("t{number}\tthorough\ttimed")).unwrap())
            .collect();
        let plan = plan(&many, true, false);
        let of_one = plan[3].jobs.iter().filter(|job| job.kernel.name == "6.1");
        let counts: Vec<usize> = of_one.clone().map(|job| job.tests.len()).collect();
        assert_eq!(counts, [FEW, FEW, 1]);
        let logs: Vec<&str> = of_one.map(|job| job.log.as_str()).collect();
        assert_eq!(
            logs,
            ["6.1-long-alone", "6.1-long-alone-2", "6.1-long-alone-3"]
        );
    }

    #[test]
    fn a_name_that_selects_nothing_is_refused() {
        assert!(check(&tests(), &["stop".into(), "mok".into()]).is_ok());
        let error = check(&tests(), &["nothing".into()]).unwrap_err();
        assert_eq!(error.to_string(), "failed to find a test named nothing");
    }
}
