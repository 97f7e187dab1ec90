//! The stages of a test run: their names, durations and counts.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::results::{Failure, Results};

/// What the stages so far came to.
#[derive(Default)]
pub struct Stages {
    results: Results,
    lines: Vec<String>,
}

impl Stages {
    /// A stage without which the rest makes no sense.
    pub fn required<T>(&mut self, name: &str, stage: impl FnOnce() -> Result<T>) -> Result<T> {
        let start = begin(name);
        let value = stage()?;
        self.end(name, "done", start.elapsed());
        Ok(value)
    }

    /// A stage that is one test.
    pub fn check(&mut self, name: &str, stage: impl FnOnce() -> Result<()>) {
        self.count(name, || stage().map(|()| Results::passed()));
    }

    /// A stage of many tests.
    pub fn count(&mut self, name: &str, stage: impl FnOnce() -> Result<Results>) {
        let start = begin(name);
        let results = stage().unwrap_or_else(|error| {
            eprintln!("error: failed to pass {name}: {error:#}");
            Results::failed(&format!("{error:#}"))
        });
        let counts = results.counts;
        self.results += results.at(name);
        self.end(name, &counts.to_string(), start.elapsed());
    }

    /// A stage that is left out, which counts as one skipped test.
    pub fn skip(&mut self, name: &str, reason: &str) {
        self.results.counts.skipped += 1;
        self.lines.push(format!("{name:<24} skipped: {reason}"));
    }

    fn end(&mut self, name: &str, result: &str, took: Duration) {
        self.lines
            .push(format!("{name:<24} {result} ({:.1} s)", took.as_secs_f64()));
        println!("=== {name}: {result} ({:.1} s)", took.as_secs_f64());
    }

    /// Prints the summary; an error if a test failed.
    pub fn finish(self) -> Result<()> {
        println!();
        for line in &self.lines {
            println!("{line}");
        }
        self.results.show();
        let counts = self.results.counts;
        if counts.failed > 0 {
            bail!("failed to pass all tests: {} failed", counts.failed);
        }
        Ok(())
    }
}

fn begin(name: &str) -> Instant {
    println!("=== {name}");
    Instant::now()
}

/// Runs `cargo test`, shows what it prints, and counts; leaves out test programs whose source is named `other_stage`.
pub fn capture(command: &mut Command, other_stage: Option<&str>) -> Result<Results> {
    capture_lines(command, other_stage, |_| {})
}

/// The same, and hands each line on.
pub fn capture_lines(
    command: &mut Command,
    other_stage: Option<&str>,
    mut each: impl FnMut(&str),
) -> Result<Results> {
    // One pipe for both, as cargo says on stderr which program's results follow on stdout.
    let (reader, writer) = std::io::pipe().context("failed to make a pipe")?;
    let clone = writer.try_clone().context("failed to make a pipe")?;
    let mut child = command
        .stdout(writer)
        .stderr(clone)
        .spawn()
        .context("failed to run cargo")?;
    // The command holds our ends of the pipe, which would never close.
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let mut tally = Tally {
        other_stage,
        ..Tally::default()
    };
    for line in BufReader::new(reader).split(b'\n') {
        let line = line.context("failed to read cargo's output")?;
        let line = String::from_utf8_lossy(&line);
        println!("{line}");
        tally.line(&line);
        each(&line);
    }
    tally.end_program();
    let status = child.wait().context("failed to wait for cargo")?;
    if !status.success() && tally.results.counts.failed == 0 {
        // It did not compile, or a test process died before it could count.
        bail!("cargo: {status}");
    }
    Ok(tally.results)
}

/// Counts the results in what `cargo test` prints.
#[derive(Default)]
struct Tally<'a> {
    other_stage: Option<&'a str>,
    /// The program whose result is to come.
    open: Option<String>,
    /// The program at hand is counted in another stage.
    elsewhere: bool,
    /// Skips of the program at hand, whose result follows.
    skips: usize,
    /// Panics of the program at hand: the thread, which libtest names as its test, and the first line of what it said.
    panics: Vec<(String, String)>,
    /// The next line is what a panic said.
    in_panic: bool,
    /// The lines are names of tests that failed.
    in_failures: bool,
    failed: Vec<String>,
    results: Results,
}

impl Tally<'_> {
    fn line(&mut self, line: &str) {
        self.failure(line);
        let program = line.trim_start().strip_prefix("Running ");
        if let Some(program) = program.filter(|program| program.contains("/deps/")) {
            self.end_program();
            self.open = Some(program.to_owned());
            self.elsewhere = self.other_stage.is_some_and(|name| program.contains(name));
        } else if line.trim_start().starts_with("Doc-tests ") {
            self.end_program();
            self.elsewhere = false;
        } else if let Some(result) = line.strip_prefix("test result: ") {
            self.result(result);
        } else if line.starts_with("skipped: ")
            || (line.starts_with("test ") && line.contains(" ... skipped: "))
        {
            // It cannot run here, said so and returned, which libtest counts as passed.
            self.skips += 1;
        }
    }

    /// A program that died has no result, and tests of which nobody knows.
    fn end_program(&mut self) {
        if let Some(program) = self.open.take() {
            self.results += Results::failed(&format!("{program} ended without a result"));
        }
    }

    fn result(&mut self, result: &str) {
        self.open = None;
        let number = |word: &str| {
            let part = result
                .split([';', '.'])
                .find_map(|part| part.trim().strip_suffix(word));
            part.and_then(|number| number.trim().parse::<usize>().ok())
                .unwrap_or(0)
        };
        let skips = std::mem::take(&mut self.skips);
        let failed = std::mem::take(&mut self.failed);
        let panics = std::mem::take(&mut self.panics);
        if self.elsewhere {
            return;
        }
        let counts = &mut self.results.counts;
        counts.passed += number("passed").saturating_sub(skips);
        counts.failed += number("failed");
        counts.skipped += number("ignored") + skips;
        for name in failed {
            let panic = panics.iter().find(|(thread, _)| *thread == name);
            let why = panic.map_or("it printed no panic", |(_, why)| why);
            self.results.failures.push(Failure::of(&name, why));
        }
    }

    /// Reads the names of tests that failed off libtest's list, and what they said off their panics.
    fn failure(&mut self, line: &str) {
        if std::mem::take(&mut self.in_panic) {
            if let Some((_, why)) = self.panics.last_mut() {
                why.push_str(line.trim());
            }
        } else if let Some((thread, _)) = line
            .split_once("thread '")
            .filter(|(_, rest)| rest.contains(" panicked at "))
            .and_then(|(_, rest)| rest.split_once('\''))
        {
            self.panics.push((thread.to_owned(), String::new()));
            self.in_panic = true;
        } else if line == "failures:" {
            // Printed twice where output was captured: the second list is the same.
            self.in_failures = true;
            self.failed.clear();
        } else if let Some(name) = line.strip_prefix("    ").filter(|_| self.in_failures) {
            self.failed.push(name.trim().to_owned());
        } else if !line.is_empty() {
            self.in_failures = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::Counts;

    fn results(output: &str) -> Results {
        let mut tally = Tally {
            other_stage: Some("privileged.rs"),
            ..Tally::default()
        };
        output.lines().for_each(|line| tally.line(line));
        tally.end_program();
        tally.results
    }

    fn count(output: &str) -> Counts {
        results(output).counts
    }

    #[test]
    fn failed_tests_are_named_with_what_they_said() {
        let captured = "test a::b ... FAILED\n\nfailures:\n\n---- a::b stdout ----\n\n\
            thread 'a::b' (12) panicked at src/a.rs:1:2:\nassertion failed: 1 > 2\n  left: 1\n\n\n\
            failures:\n    a::b\n\n\
            test result: FAILED. 1 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s\n";
        assert_eq!(
            results(captured).failures,
            [Failure::of("a::b", "assertion failed: 1 > 2")]
        );
        let shown = "test a::c ... thread 'a::c' panicked at src/a.rs:1:2:\nno disk\nFAILED\n\n\
            failures:\n\nfailures:\n    a::c\n    a::d\n\n\
            test result: FAILED. 1 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s\n";
        assert_eq!(
            results(shown).failures,
            [
                Failure::of("a::c", "no disk"),
                Failure::of("a::d", "it printed no panic")
            ]
        );
    }

    #[test]
    fn results_of_several_programs_add_up() {
        let output = "test a ... ok\n\
            test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s\n\
            test result: FAILED. 1 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s\n";
        assert_eq!(
            count(output),
            Counts {
                passed: 4,
                failed: 2,
                skipped: 1
            }
        );
    }

    #[test]
    fn a_test_that_says_so_is_skipped() {
        let output = "test kprobe ... skipped: this kernel has no kprobes\nok\n\
            test result: ok. 2 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s\n";
        assert_eq!(
            count(output),
            Counts {
                passed: 1,
                failed: 0,
                skipped: 1
            }
        );
    }

    #[test]
    fn a_program_that_dies_is_a_failure_that_is_not_tried_again() {
        let output = "     Running tests/one.rs (target/debug/deps/one-1)\n\
            test a ... \n\
                 Running tests/two.rs (target/debug/deps/two-1)\n\
            failures:\n    b\n\n\
            test result: FAILED. 1 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s\n";
        let results = results(output);
        assert_eq!(results.counts.failed, 2);
        let first = results.failures[0].to_string();
        assert_eq!(
            first,
            "tests/one.rs (target/debug/deps/one-1) ended without a result"
        );
        let again = results.with_second_try(|failures| panic!("{failures:?} are tried again"));
        assert_eq!(again.counts.failed, 2);
    }

    #[test]
    fn a_program_of_another_stage_is_left_out() {
        let output = "     Running tests/privileged.rs (target/debug/deps/privileged-1)\n\
            test result: ok. 2 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s\n\
                 Running tests/setup.rs (target/debug/deps/setup-1)\n\
            test result: ok. 5 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s\n";
        assert_eq!(
            count(output),
            Counts {
                passed: 5,
                failed: 0,
                skipped: 0
            }
        );
    }
}
