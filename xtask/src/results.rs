//! What tests came to: how many, and what the failed ones said.

use std::fmt;
use std::ops::AddAssign;

use anyhow::Result;

/// The most tests of a stage that are tried again: where more fail, it is no accident.
const MOST_AGAIN: usize = 3;

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

/// Something that failed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Failure {
    /// Where, outermost first: the stage, the kernel.
    pub places: Vec<String>,
    /// The test; empty for what is none, as a kernel's warning.
    pub test: String,
    pub why: String,
}

impl Failure {
    pub fn of(test: &str, why: &str) -> Self {
        Self {
            places: Vec::new(),
            test: test.to_owned(),
            why: why.to_owned(),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for place in &self.places {
            write!(f, "{place}: ")?;
        }
        if !self.test.is_empty() {
            write!(f, "{}: ", self.test)?;
        }
        write!(f, "{}", self.why)
    }
}

/// How many tests, and one line for each that failed: those who read only the end of a long log find it there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Results {
    pub counts: Counts,
    pub failures: Vec<Failure>,
    /// Tests that passed when they were tried again: how they failed the first time.
    pub second_tries: Vec<Failure>,
    /// What was left out of what was asked for, and why.
    pub left_out: Vec<Failure>,
}

impl Results {
    pub fn passed() -> Self {
        let counts = Counts {
            passed: 1,
            ..Counts::default()
        };
        Self {
            counts,
            ..Self::default()
        }
    }

    pub fn failed(why: &str) -> Self {
        let counts = Counts {
            failed: 1,
            ..Counts::default()
        };
        Self {
            counts,
            failures: vec![Failure::of("", why)],
            ..Self::default()
        }
    }

    /// Of so many tests none was run.
    pub fn left_out(tests: usize, why: &str) -> Self {
        let counts = Counts {
            skipped: tests,
            ..Counts::default()
        };
        Self {
            counts,
            left_out: vec![Failure::of("", why)],
            ..Self::default()
        }
    }

    /// Says where all of them were.
    pub fn at(mut self, place: &str) -> Self {
        let named = self.failures.iter_mut().chain(&mut self.second_tries);
        for failure in named.chain(&mut self.left_out) {
            failure.places.insert(0, place.to_owned());
        }
        self
    }

    /// Prints a line for each test that failed, now or first, and for what was left out, and the counts.
    pub fn show(&self) {
        for left_out in &self.left_out {
            println!("skipped: {left_out}");
        }
        for failure in &self.second_tries {
            println!("passed at the second try: {failure}");
        }
        for failure in &self.failures {
            println!("failed: {failure}");
        }
        println!("{}", self.counts);
    }

    /// The tests to try again: those that failed, if they are few and nothing else has.
    fn again(&self) -> Vec<String> {
        let named = self.failures.iter().all(|failure| !failure.test.is_empty());
        if !named || self.failures.len() != self.counts.failed || self.counts.failed > MOST_AGAIN {
            return Vec::new();
        }
        let names = self.failures.iter().map(|failure| failure.test.clone());
        names.collect()
    }

    /// What they come to once `second` has tried those again that failed, if they are few.
    ///
    /// Machines that others use too are late now and then. What fails by itself fails twice, but not what fails because of a
    /// test before it, as the second try is without that: so what only then passes is named at the end of a run.
    pub fn with_second_try(self, second: impl FnOnce(&[Failure]) -> Result<Self>) -> Self {
        let again = self.again();
        if again.is_empty() {
            return self;
        }
        println!("a second try of: {}", again.join(", "));
        match second(&self.failures) {
            Ok(second) => self.after(&second),
            Err(error) => {
                eprintln!("error: failed to try them again: {error:#}");
                self
            }
        }
    }

    /// What they come to after a second try of those of [`Self::again`], and of nothing else.
    fn after(mut self, second: &Self) -> Self {
        let all = second.counts.passed + second.counts.failed + second.counts.skipped;
        if second.counts.skipped > 0 || all != self.counts.failed {
            return self;
        }
        let failed_twice = |failure: &Failure| {
            let same =
                |other: &Failure| (&other.places, &other.test) == (&failure.places, &failure.test);
            second.failures.iter().any(same)
        };
        let named = second
            .failures
            .iter()
            .all(|failure| !failure.test.is_empty());
        if !named || second.failures.len() != second.counts.failed {
            return self;
        }
        let (twice, once) = std::mem::take(&mut self.failures)
            .into_iter()
            .partition(failed_twice);
        self.failures = twice;
        self.second_tries = once;
        self.counts.passed += second.counts.passed;
        self.counts.failed = second.counts.failed;
        self
    }
}

impl AddAssign for Results {
    fn add_assign(&mut self, other: Self) {
        self.counts += other.counts;
        self.failures.extend(other.failures);
        self.second_tries.extend(other.second_tries);
        self.left_out.extend(other.left_out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn results(passed: usize, failed: &[&str]) -> Results {
        Results {
            counts: Counts {
                passed,
                failed: failed.len(),
                skipped: 0,
            },
            failures: failed
                .iter()
                .map(|name| Failure::of(name, "late"))
                .collect(),
            ..Results::default()
        }
    }

    #[test]
    fn what_passes_at_the_second_try_is_told() {
        let first = results(5, &["a", "b"]);
        assert_eq!(first.again(), ["a", "b"]);
        let both = first.after(&results(1, &["b"])).at("here");
        assert_eq!(both.counts, results(6, &["b"]).counts);
        assert_eq!(both.failures[0].to_string(), "here: b: late");
        assert_eq!(both.second_tries[0].to_string(), "here: a: late");
    }

    #[test]
    fn many_failures_and_those_of_no_test_are_not_tried_again() {
        assert!(results(5, &[]).again().is_empty());
        assert!(results(5, &["a", "b", "c", "d"]).again().is_empty());
        assert!(results(5, &["a", ""]).again().is_empty());
        let mut uncounted = results(5, &["a"]);
        uncounted.counts.failed += 1;
        assert!(uncounted.again().is_empty());
    }

    #[test]
    fn a_second_try_of_something_else_changes_nothing() {
        let first = results(5, &["a", "b"]);
        for second in [
            results(1, &[]),
            results(3, &[]),
            results(1, &[""]),
            Results::default(),
        ] {
            assert_eq!(first.clone().after(&second), first);
        }
        let mut skipped = results(1, &[]);
        skipped.counts.skipped = 1;
        assert_eq!(first.clone().after(&skipped), first);
    }
}
