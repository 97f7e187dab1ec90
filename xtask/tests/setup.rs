//! Set-up on hosts that cannot: each gives one clear line, a hint and its exit code.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// A directory that is gone after the test.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let dir = std::env::temp_dir().join(format!("iolag-setup-{name}-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        Self(dir)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn setup(cache: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_xtask"));
    command.arg("setup").env("IOLAG_CACHE", cache);
    command
}

/// The lines of stderr, and the exit code.
fn end(output: &Output) -> (Vec<String>, Option<i32>) {
    let stderr = String::from_utf8_lossy(&output.stderr);
    (
        stderr.lines().map(str::to_owned).collect(),
        output.status.code(),
    )
}

fn is_bookworm() -> bool {
    let release = fs::read_to_string("/etc/os-release").unwrap_or_default();
    release.contains("ID=debian") && release.contains("VERSION_ID=\"12\"")
}

#[test]
fn no_network() {
    if !is_bookworm() {
        println!("skipped: set-up downloads on Debian 12 only");
        return;
    }
    let scratch = Scratch::new("network");
    let mut command = setup(&scratch.0);
    // Nothing listens on the discard port: every connection is refused at once.
    for variable in ["http_proxy", "https_proxy"] {
        command.env(variable, "http://127.0.0.1:9");
    }
    let (lines, code) = end(&command.args(["--toolchain", "debian"]).output().unwrap());
    assert_eq!(code, Some(1), "{lines:?}");
    assert!(
        lines[0].starts_with(
            "error: failed to fetch Debian's package lists for bookworm: no network ("
        ),
        "{lines:?}"
    );
    assert!(
        lines[1].starts_with("hint: connect this machine"),
        "{lines:?}"
    );
}

#[test]
fn no_compiler() {
    let scratch = Scratch::new("cc");
    let (lines, code) = end(&setup(&scratch.0).env("PATH", &scratch.0).output().unwrap());
    assert_eq!(code, Some(3), "{lines:?}");
    assert_eq!(
        lines[0],
        "error: failed to find a C compiler: no cc on PATH"
    );
    assert!(lines[1].starts_with("hint: "), "{lines:?}");
}

#[test]
fn no_rustup() {
    let scratch = Scratch::new("rustup");
    fs::write(scratch.0.join("cc"), "").unwrap();
    let (lines, code) = end(&setup(&scratch.0).env("PATH", &scratch.0).output().unwrap());
    assert_eq!(code, Some(3), "{lines:?}");
    assert!(
        lines[0].starts_with("error: failed to find rustup"),
        "{lines:?}"
    );
    assert!(
        lines[1].starts_with("hint: install Rust with rustup"),
        "{lines:?}"
    );
}

#[test]
fn another_distribution_gets_its_commands() {
    let scratch = Scratch::new("fedora");
    let release = scratch.0.join("os-release");
    fs::write(&release, "ID=fedora\nVERSION_ID=43\n").unwrap();
    let mut command = setup(&scratch.0);
    command
        .arg("--check")
        .env("IOLAG_OS_RELEASE", release)
        .env("PATH", &scratch.0);
    let (lines, code) = end(&command.output().unwrap());
    assert_eq!(code, Some(3), "{lines:?}");
    assert!(
        lines[0].contains("bpf-linker, fio, qemu-system-x86_64"),
        "{lines:?}"
    );
    assert!(
        lines[1].starts_with("hint: sudo dnf install fio"),
        "{lines:?}"
    );
}

#[test]
fn check_reports_and_writes_nothing() {
    let scratch = Scratch::new("check");
    let cache = scratch.0.join("cache");
    let mut command = setup(&cache);
    let release = scratch.0.join("os-release");
    fs::write(&release, "ID=debian\nVERSION_ID=\"12\"\n").unwrap();
    let output = command
        .arg("--check")
        .env("IOLAG_OS_RELEASE", release)
        .output()
        .unwrap();
    let (lines, code) = end(&output);
    assert_eq!(code, Some(1), "{lines:?}");
    assert!(
        lines[0].starts_with("error: failed to find eBPF toolchain, fio, stress-ng, QEMU"),
        "{lines:?}"
    );
    assert_eq!(lines[1], "hint: run: cargo xtask setup");
    assert!(String::from_utf8_lossy(&output.stdout).starts_with("missing"));
    assert!(!cache.exists());
}
