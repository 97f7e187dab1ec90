//! `iolag doctor` for who may do nothing: takes no root.

use std::{
    fs,
    os::unix::{fs::PermissionsExt as _, process::CommandExt as _},
    path::PathBuf,
    process::{Command, Output},
};

use iolag_tests::{
    agent::scratch_dir,
    refusal::{assert_refused, program},
};
use serde_json::Value;

const NOBODY: u32 = 65534;

/// The program where everybody may run it, and a socket beside it. Dropping it removes both.
struct Place(PathBuf);

impl Place {
    fn new() -> Option<Self> {
        let program = program()?;
        let dir = scratch_dir().unwrap();
        let open = fs::Permissions::from_mode(0o755);
        // By another process: while one of ours has it open for writing, a test that forks keeps it so, and it
        // cannot be executed.
        let copied = Command::new("cp")
            .arg(program)
            .arg(dir.join("iolag"))
            .status();
        assert!(copied.unwrap().success());
        for path in [&dir, &dir.join("iolag")] {
            fs::set_permissions(path, open.clone()).unwrap();
        }
        Some(Self(dir))
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(self.0.join("iolag"));
        command.args(args).arg("--socket");
        command
            .arg(self.0.join("iolag.sock"))
            .env_remove("RUST_LOG");
        command
    }

    /// What it says to a user without any privilege.
    fn as_nobody(&self, args: &[&str]) -> Output {
        let mut command = self.command(args);
        if is_root() {
            command.uid(NOBODY).gid(NOBODY);
        }
        command.output().unwrap()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _gone = fs::remove_dir_all(&self.0);
    }
}

fn is_root() -> bool {
    // SAFETY: geteuid cannot fail and has no arguments.
    unsafe { libc::geteuid() == 0 }
}

#[track_caller]
fn document(output: &Output) -> Value {
    assert_eq!(output.status.code(), Some(3));
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    let document: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(document["schema"], 1);
    assert_eq!(document["main_job"], false);
    document
}

fn of_group<'a>(document: &'a Value, group: &str) -> Vec<&'a Value> {
    let checks = document["checks"].as_array().unwrap();
    checks
        .iter()
        .filter(|check| check["group"] == group)
        .collect()
}

fn failed(document: &Value) -> Vec<&str> {
    let checks = document["checks"].as_array().unwrap();
    let failed = checks.iter().filter(|check| check["status"] == "fail");
    failed
        .map(|check| check["name"].as_str().unwrap())
        .collect()
}

/// Nothing was loaded, and each row says so.
#[track_caller]
fn assert_not_tried(document: &Value) {
    for group in ["delay", "probes"] {
        let checks = of_group(document, group);
        assert!(checks.len() >= 6, "{document:#}");
        for check in checks {
            assert_eq!(check["status"], "skip", "{check}");
            assert_eq!(check["value"], "not tried", "{check}");
        }
    }
}

#[test]
fn without_root_each_privilege_has_its_line_and_nothing_is_tried() {
    let Some(place) = Place::new() else { return };
    let document = document(&place.as_nobody(&["doctor", "--format", "json"]));
    assert_eq!(failed(&document), ["CAP_BPF", "CAP_PERFMON"]);
    assert_not_tried(&document);
    for check in of_group(&document, "privileges") {
        if check["status"] == "fail" {
            assert!(
                check["reason"].is_string() && check["remedy"].is_string(),
                "{check}"
            );
        }
    }
    assert!(!place.0.join("iolag.sock.lock").exists());
}

#[test]
fn people_are_told_the_same_in_lines_that_fit() {
    let Some(place) = Place::new() else { return };
    let output = place.as_nobody(&["doctor"]);
    assert_eq!(output.status.code(), Some(3));
    assert!(output.stderr.is_empty());
    let text = String::from_utf8(output.stdout).unwrap();
    for line in text.lines() {
        assert!(line.chars().count() < 80, "{line}");
        assert_eq!(line.trim_end(), line);
    }
    for line in ["  warn  user ", "  fail  CAP_BPF ", "  fail  CAP_PERFMON "] {
        assert_eq!(text.matches(line).count(), 1, "{text}");
    }
    let (_, sum) = text.trim_end().rsplit_once("\n\n").unwrap();
    assert!(sum.starts_with("ok "), "{sum}");
    let sum: String = sum.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(
        sum.ends_with("delays cannot run here (CAP_BPF, CAP_PERFMON)"),
        "{sum}"
    );
}

/// To the kernel a user like any other.
#[test]
fn root_without_capabilities_is_told_which_it_lacks() {
    let Some(place) = Place::new() else { return };
    let there = Command::new("setpriv").arg("--version").output().is_ok();
    if !is_root() || !there {
        println!("skipped: needs root and setpriv (util-linux)");
        return;
    }
    let inner = place.command(&["doctor", "--format", "json"]);
    let without = |capabilities: &str| {
        let mut command = Command::new("setpriv");
        command
            .arg(format!("--bounding-set={capabilities}"))
            .arg("--inh-caps=-all");
        command
            .arg("--")
            .arg(inner.get_program())
            .args(inner.get_args());
        document(&command.output().unwrap())
    };
    let none = without("-all");
    assert_eq!(failed(&none), ["CAP_BPF", "CAP_PERFMON"]);
    assert_not_tried(&none);
    // Of two that are needed, the one that is there helps nobody.
    let one = without("-sys_admin,-perfmon");
    assert_eq!(failed(&one), ["CAP_PERFMON"]);
    assert_not_tried(&one);
}

#[test]
fn bad_input_is_one_line() {
    let Some(place) = Place::new() else { return };
    for args in [&["doctor", "--format", "xml"][..], &["doctor", "more"]] {
        assert_refused(&place.as_nobody(args), 2, &[args[args.len() - 1]]);
    }
    let output = Command::new(place.0.join("iolag"))
        .args(["doctor", "--socket", &"x".repeat(200)])
        .output()
        .unwrap();
    assert_refused(&output, 2, &["longer than 107 bytes"]);
}
