//! The stages of a test run: their names, durations and counts.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::vm::Counts;

/// What the stages so far came to.
#[derive(Default)]
pub struct Stages {
    counts: Counts,
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
        self.count(name, || {
            stage().map(|()| Counts {
                passed: 1,
                ..Counts::default()
            })
        });
    }

    /// A stage of many tests.
    pub fn count(&mut self, name: &str, stage: impl FnOnce() -> Result<Counts>) {
        let start = begin(name);
        let counts = stage().unwrap_or_else(|error| {
            eprintln!("error: failed to pass {name}: {error:#}");
            Counts {
                failed: 1,
                ..Counts::default()
            }
        });
        self.counts += counts;
        self.end(name, &counts.to_string(), start.elapsed());
    }

    /// A stage that is left out, which counts as one skipped test.
    pub fn skip(&mut self, name: &str, reason: &str) {
        self.counts.skipped += 1;
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
        println!("{}", self.counts);
        if self.counts.failed > 0 {
            bail!("failed to pass all tests: {} failed", self.counts.failed);
        }
        Ok(())
    }
}

fn begin(name: &str) -> Instant {
    println!("=== {name}");
    Instant::now()
}

/// Runs `cargo test`, shows what it prints, and counts; leaves out test programs whose source is named `other_stage`.
pub fn capture(command: &mut Command, other_stage: Option<&str>) -> Result<Counts> {
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
    }
    let status = child.wait().context("failed to wait for cargo")?;
    if !status.success() && tally.counts.failed == 0 {
        // It did not compile, or a test process died before it could count.
        bail!("cargo: {status}");
    }
    Ok(tally.counts)
}

/// Counts the results in what `cargo test` prints.
#[derive(Default)]
struct Tally<'a> {
    other_stage: Option<&'a str>,
    /// The program at hand is counted in another stage.
    elsewhere: bool,
    /// Skips of the program at hand, whose result follows.
    skips: usize,
    counts: Counts,
}

impl Tally<'_> {
    fn line(&mut self, line: &str) {
        if let Some(program) = line.trim_start().strip_prefix("Running ") {
            self.elsewhere = self.other_stage.is_some_and(|name| program.contains(name));
        } else if line.trim_start().starts_with("Doc-tests ") {
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

    fn result(&mut self, result: &str) {
        let number = |word: &str| {
            let part = result
                .split([';', '.'])
                .find_map(|part| part.trim().strip_suffix(word));
            part.and_then(|number| number.trim().parse::<usize>().ok())
                .unwrap_or(0)
        };
        let skips = std::mem::take(&mut self.skips);
        if self.elsewhere {
            return;
        }
        self.counts.passed += number("passed").saturating_sub(skips);
        self.counts.failed += number("failed");
        self.counts.skipped += number("ignored") + skips;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(output: &str) -> Counts {
        let mut tally = Tally {
            other_stage: Some("privileged.rs"),
            ..Tally::default()
        };
        output.lines().for_each(|line| tally.line(line));
        tally.counts
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
