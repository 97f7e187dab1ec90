//! The ways by which bytes come in that others wrote, each as a function of bytes that says whether they were accepted.
//! It panics if what was accepted is not what it has to be. `fuzz/` calls them by libFuzzer, `cargo xtask fuzz` and the
//! tests with input that was well formed before it was changed.

use std::{ffi::OsString, os::unix::ffi::OsStringExt as _};

use agent_common::{pod::MAX_DELAY_NS, quantiles::KNOTS};

use crate::{
    cli,
    control::protocol::{Command, parse_answer, parse_request, request},
    failure::USAGE,
    kernel::btf,
    rules::{check::check, profile::Profile},
};

/// Reads bytes as one of the inputs.
pub type Target = fn(&[u8]) -> bool;

/// All of them, by name.
pub const TARGETS: [(&str, Target); 4] = [
    ("protocol", protocol),
    ("profile", profile),
    ("btf", btf::exercise),
    ("command-line", command_line),
];

/// A line of the socket, up to where it would be carried out. What the agent would take it for, it takes it for again if
/// that is sent. As an answer it is read too, by the other side.
///
/// # Panics
/// It does not survive the way back, or its refusal is not the request's fault.
#[must_use]
pub fn protocol(line: &[u8]) -> bool {
    let _answer = parse_answer::<serde_json::Value>(line);
    match parse_request(line) {
        Ok(command) => {
            let again = parse_request(request(&command).as_bytes());
            assert_eq!(again.as_ref(), Ok(&command));
            match command {
                Command::Inject(spec) => check(&spec).is_ok(),
                _ => true,
            }
        }
        Err(failure) => {
            assert_eq!(failure.code, USAGE);
            false
        }
    }
}

/// A file that `--like`, `--from` or `--to` names, up to the delays that are drawn from it.
///
/// # Panics
/// There would be delays that cannot be.
#[must_use]
pub fn profile(document: &[u8]) -> bool {
    let Ok(profile) = Profile::read("--like", "x", document) else {
        return false;
    };
    let again = Profile::read("--like", "x", profile.document().as_bytes());
    assert_eq!(again.as_ref(), Ok(&profile));
    // Some are too slow to be delays.
    if let Ok(table) = profile.quantiles("--like", MAX_DELAY_NS) {
        assert_eq!(table.len(), KNOTS);
        assert!(table.is_sorted() && table[KNOTS - 1] <= MAX_DELAY_NS);
    }
    true
}

/// A command line, a word a line, the program's own name first; up to where an agent would be asked.
///
/// # Panics
/// Its refusal is no sentence.
#[must_use]
pub fn command_line(words: &[u8]) -> bool {
    let words = words.split(|byte| *byte == b'\n');
    let words = words.map(|word| OsString::from_vec(word.to_vec()));
    match cli::read(words) {
        Ok(()) => true,
        Err(failure) => {
            assert!(
                failure.code == USAGE && !failure.message.is_empty(),
                "{failure:?}"
            );
            false
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use iolag_tests::fuzz::input;

    use super::*;

    #[test]
    fn each_target_has_seeds_and_is_one_of_libfuzzers() {
        let names = TARGETS.map(|(name, _)| name);
        assert_eq!(names, iolag_tests::fuzz::TARGETS);
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz");
        let manifest = fs::read_to_string(dir.join("Cargo.toml")).unwrap();
        let (_package, programs) = manifest.split_once("[[bin]]").unwrap();
        let of = |line: &str| {
            Some(
                line.strip_prefix("name = \"")?
                    .strip_suffix('"')?
                    .to_owned(),
            )
        };
        let programs: Vec<String> = programs.lines().filter_map(of).collect();
        assert_eq!(programs, names);
    }

    /// `cargo xtask fuzz` runs more of the same; where one fails, its number is the input's.
    fn run(target: &str, inputs: u64, accepted: std::ops::Range<u64>) {
        let (_, read) = TARGETS.iter().find(|(name, _)| *name == target).unwrap();
        let mut taken = 0;
        for number in 0..inputs {
            let bytes = input(target, number);
            let survived = std::panic::catch_unwind(|| read(&bytes));
            taken += u64::from(survived.unwrap_or_else(|_| panic!("{target}: input {number}")));
        }
        // Both ways were gone.
        assert!(
            accepted.contains(&taken),
            "{target}: {taken} of {inputs} accepted"
        );
    }

    #[test]
    fn changed_lines_are_refused_or_requests() {
        run("protocol", 100_000, 1_000..60_000);
    }

    #[test]
    fn changed_profiles_are_refused_or_profiles() {
        run("profile", 100_000, 400..60_000);
    }

    #[test]
    fn changed_btf_is_refused_or_can_be_read() {
        run("btf", 100_000, 1_000..60_000);
    }

    #[test]
    fn changed_command_lines_are_refused_or_make_sense() {
        run("command-line", 20_000, 200..12_000);
    }
}
