//! Reads a machine's console: the verdict of the tests, and signs that the kernel is in trouble.

use crate::results::{Counts, Failure};

/// The machine is of no more use after these.
const FATAL: &[&str] = &[
    "Kernel panic - not syncing",
    "detected stalls on CPUs",
    "self-detected stall on CPU",
    "BUG: soft lockup",
    "hard LOCKUP",
    "blocked for more than",
];

/// The machine goes on after these, and the run has failed.
const TROUBLE: &[&str] = &[
    "WARNING: ",
    "BUG: ",
    "Oops: ",
    "general protection fault",
    "INFO: possible recursive locking",
];

/// Warnings of a stock kernel while it boots in QEMU, before the first line of PID 1. Nothing is known so far.
const KNOWN_AT_BOOT: &[&str] = &[];

/// What a row of `docs/reliability.md` begins with, as `iolag_tests::faults` prints it.
pub const ROW: &str = "reliability\t";

/// What a run of a machine came to.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Missing if the machine did not get so far.
    pub verdict: Option<Counts>,
    /// What a test measured, for the host to read.
    pub figures: Option<String>,
    /// The tests that failed, and why.
    pub failures: Vec<Failure>,
    /// What faults came to.
    pub rows: Vec<String>,
    pub problems: Vec<String>,
}

/// Follows a console, line by line.
#[derive(Default)]
pub struct Watcher {
    started: bool,
    outcome: Outcome,
}

impl Watcher {
    /// Takes a line. True: nothing useful follows, except for the rest of a trace.
    pub fn feed(&mut self, line: &str) -> bool {
        if let Some((_, ours)) = line.split_once("iolag-vm: ") {
            return self.feed_ours(ours);
        }
        if let Some(row) = line.strip_prefix(ROW) {
            self.outcome.rows.push(row.to_owned());
            return false;
        }
        let Some(message) = kernel_message(line) else {
            return false;
        };
        let fatal = FATAL.iter().any(|sign| message.contains(sign));
        let trouble = TROUBLE.iter().any(|sign| message.contains(sign));
        let known = !self.started && KNOWN_AT_BOOT.iter().any(|text| message.contains(text));
        if (fatal || trouble) && !known {
            self.problem(format!("the kernel says: {message}"));
        }
        fatal
    }

    fn feed_ours(&mut self, message: &str) -> bool {
        self.started = true;
        if let Some(figures) = message.strip_prefix("figures: ") {
            self.outcome.figures = Some(figures.to_owned());
        }
        if let Some((test, why)) = message.split_once(" ... FAILED: ") {
            let name = test.strip_prefix("test ").unwrap_or(test);
            self.outcome.failures.push(Failure::of(name, why));
        }
        let Some(verdict) = message.strip_prefix("verdict: ") else {
            return false;
        };
        self.outcome.verdict = parse_counts(verdict);
        true
    }

    pub fn problem(&mut self, text: String) {
        self.outcome.problems.push(text);
    }

    pub fn finish(mut self) -> Outcome {
        match self.outcome.verdict {
            None if self.outcome.problems.is_empty() => {
                self.problem("the machine ended without a verdict".into())
            }
            Some(Counts {
                passed: 0,
                failed: 0,
                skipped: 0,
            }) if self.outcome.problems.is_empty() => {
                self.problem("the machine ran no test".into());
            }
            _ => {}
        }
        self.outcome
    }
}

/// The part of a line that the kernel wrote: what follows its time stamp, `[    1.234567] `. It may stand behind
/// unfinished output of a program, and what programs print is no sign of trouble.
fn kernel_message(line: &str) -> Option<&str> {
    line.match_indices('[').find_map(|(start, _)| {
        let (stamp, message) = line[start + 1..].split_once(']')?;
        let (seconds, fraction) = stamp.trim_start().split_once('.')?;
        let digits =
            |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        (digits(seconds) && digits(fraction)).then(|| message.trim())
    })
}

/// Reads `3 passed, 0 failed, 1 skipped`.
pub fn parse_counts(text: &str) -> Option<Counts> {
    let number =
        |part: Option<&str>, word: &str| part?.trim().strip_suffix(word)?.trim().parse().ok();
    let mut parts = text.split(',');
    Some(Counts {
        passed: number(parts.next(), "passed")?,
        failed: number(parts.next(), "failed")?,
        skipped: number(parts.next(), "skipped")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn watch(console: &str) -> (Outcome, usize) {
        let mut watcher = Watcher::default();
        let lines: Vec<&str> = console.lines().collect();
        let read = lines
            .iter()
            .position(|line| watcher.feed(line))
            .map_or(lines.len(), |index| index + 1);
        (watcher.finish(), read)
    }

    const PASSED: &str = "[    0.000000] Linux version 6.1.0\n\
                          iolag-vm: start 6.1.0-56-cloud-amd64\n\
                          iolag-vm: test smoke ... ok\n\
                          iolag-vm: verdict: 1 passed, 0 failed, 0 skipped\n";

    #[test]
    fn a_quiet_run_passes() {
        let (outcome, _) = watch(PASSED);
        assert_eq!(
            outcome.verdict,
            Some(Counts {
                passed: 1,
                failed: 0,
                skipped: 0
            })
        );
        assert!(outcome.problems.is_empty(), "{outcome:?}");
    }

    #[test]
    fn rows_are_kept() {
        let console = PASSED.replace("iolag-vm: test", "reliability\ta\tb\tc\niolag-vm: test");
        assert_eq!(watch(&console).0.rows, ["a\tb\tc"]);
    }

    #[test]
    fn figures_are_kept() {
        let console = PASSED.replace("iolag-vm: test", "iolag-vm: figures: {}\niolag-vm: test");
        let (outcome, _) = watch(&console);
        assert_eq!(outcome.figures.as_deref(), Some("{}"));
        assert_eq!(watch(PASSED).0.figures, None);
    }

    #[test]
    fn a_failed_test_is_named() {
        let console = PASSED.replace("smoke ... ok", "smoke ... FAILED: no disk: nothing");
        assert_eq!(
            watch(&console).0.failures,
            [Failure::of("smoke", "no disk: nothing")]
        );
        assert!(watch(PASSED).0.failures.is_empty());
    }

    #[test]
    fn fatal_signs_end_the_run_and_fail_it() {
        for sign in [
            "[    3.100000] Kernel panic - not syncing: Attempted to kill init! exitcode=0x00000100",
            "[   25.000000] rcu: INFO: rcu_preempt detected stalls on CPUs/tasks:",
            "[   25.000000] rcu: INFO: rcu_sched self-detected stall on CPU",
            "[   30.000000] watchdog: BUG: soft lockup - CPU#1 stuck for 26s! [fio:77]",
            "[  242.000000] INFO: task fio:77 blocked for more than 120 seconds.",
        ] {
            let (outcome, read) = watch(&format!("iolag-vm: start 6.1\n{sign}\nnever read\n"));
            assert_eq!(read, 2, "{sign}");
            assert_eq!(outcome.problems.len(), 1, "{sign}");
            assert_eq!(outcome.verdict, None);
        }
    }

    #[test]
    fn a_warning_fails_a_run_whose_tests_pass() {
        for sign in [
            "[    5.000000] WARNING: CPU: 0 PID: 1 at kernel/bpf/core.c:1 f+0x1/0x2",
            "[    5.000000] BUG: kernel NULL pointer dereference, address: 0000000000000000",
            "[    5.000000] Oops: 0000 [#1] PREEMPT SMP NOPTI",
            "test output without its end[    5.000000] WARNING: CPU: 0 PID: 1",
        ] {
            let (outcome, _) =
                watch(&PASSED.replace("iolag-vm: test", &format!("{sign}\niolag-vm: test")));
            assert_eq!(outcome.verdict.unwrap().failed, 0);
            assert_eq!(outcome.problems.len(), 1, "{sign}: {outcome:?}");
        }
    }

    #[test]
    fn what_programs_print_is_no_trouble() {
        let console = PASSED.replace(
            "iolag-vm: test",
            "WARNING: from a program\nerror [a.b] BUG: x\niolag-vm: test",
        );
        assert!(watch(&console).0.problems.is_empty());
    }

    #[test]
    fn silence_and_no_tests_are_failures() {
        assert_eq!(
            watch("[    0.1] Linux\n").0.problems,
            ["the machine ended without a verdict"]
        );
        let (outcome, _) = watch("iolag-vm: verdict: 0 passed, 0 failed, 0 skipped");
        assert_eq!(outcome.problems, ["the machine ran no test"]);
    }
}
