//! What tests came to: how many, and what the failed ones said.

use std::fmt;
use std::ops::AddAssign;

/// How many tests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub passed: usize,
    pub failed: usize,
    pub skipped: usize,
}

impl AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            passed,
            failed,
            skipped,
        } = self;
        write!(f, "{passed} passed, {failed} failed, {skipped} skipped")
    }
}

/// How many tests, and one line for each that failed: those who read only the end of a long log find it there.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Results {
    pub counts: Counts,
    pub failures: Vec<String>,
}

impl Results {
    pub fn passed() -> Self {
        let counts = Counts {
            passed: 1,
            ..Counts::default()
        };
        Self {
            counts,
            failures: Vec::new(),
        }
    }

    /// Prints a line for each test that failed, and the counts.
    pub fn show(&self) {
        for failure in &self.failures {
            println!("failed: {failure}");
        }
        println!("{}", self.counts);
    }

    pub fn failed(failure: String) -> Self {
        let counts = Counts {
            failed: 1,
            ..Counts::default()
        };
        Self {
            counts,
            failures: vec![failure],
        }
    }
}

impl AddAssign for Results {
    fn add_assign(&mut self, other: Self) {
        self.counts += other.counts;
        self.failures.extend(other.failures);
    }
}
