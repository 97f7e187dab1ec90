//! The compiler for eBPF: one that may use unstable flags and has the source of `core`.
//!
//! Its LLVM must be no newer than the one that bpf-linker is built with, so a nightly is pinned by date.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::{Setup, Source, linker, tools};
use crate::debian::Suite;
use crate::process::run_within;

/// The nightly that rustup is asked for: of Rust 1.97, with LLVM 22.
const NIGHTLY: &str = "nightly-2026-05-20";
/// The toolchain made of Debian's packages, as rustup knows it.
const LINKED: &str = "iolag-ebpf";
/// Debian's packages and their directory in the cache.
const PACKAGES: &[&str] = &["rustc-web", "cargo-web", "rust-web-src", "rust-web-clippy"];
const DIR: &str = "rust";
const RECIPE: &str = "1 rustc-web cargo-web rust-web-src rust-web-clippy";
/// Holds the name of the toolchain, for agent/build.rs.
pub const NAME_FILE: &str = "ebpf-toolchain";
/// Longer than any download that is under way; a blocked network is given up after this.
const DOWNLOAD: Duration = Duration::from_secs(240);

pub fn check(setup: &Setup) -> Option<String> {
    let name = fs::read_to_string(setup.cache.path(NAME_FILE)).ok()?;
    let name = name.trim().to_owned();
    let linked = name == LINKED;
    let wanted = match setup.source {
        Source::Auto => true,
        Source::Rustup => !linked,
        Source::Debian => linked,
    };
    let works = if linked {
        let link = fs::read_link(toolchains()?.join(LINKED)).ok();
        setup.cache.holds(DIR, RECIPE) && link == Some(setup.cache.path(DIR).join("toolchain"))
    } else {
        has_source(&name)
    };
    (wanted && works).then_some(name)
}

pub fn install(setup: &Setup) -> Result<()> {
    if setup.source != Source::Debian {
        match from_rustup() {
            Ok(name) => return setup.cache.write(NAME_FILE, &format!("{name}\n")),
            Err(error) if setup.source == Source::Rustup => return Err(error),
            Err(error) => eprintln!("rustup cannot, so Debian's packages are used: {error:#}"),
        }
    }
    from_debian(setup)?;
    setup.cache.write(NAME_FILE, &format!("{LINKED}\n"))
}

/// A nightly that rustup has or can download.
pub fn from_rustup() -> Result<String> {
    let installed = ["nightly", NIGHTLY]
        .into_iter()
        .find(|name| has_source(name) && links(name));
    if let Some(name) = installed {
        return Ok(name.to_owned());
    }
    let mut rustup = Command::new("rustup");
    rustup.args([
        "toolchain",
        "install",
        NIGHTLY,
        "--profile",
        "minimal",
        "--no-self-update",
    ]);
    rustup.args(["--component", "rust-src", "--component", "clippy"]);
    run_within(&mut rustup, &format!("install {NIGHTLY}"), DOWNLOAD)?;
    if !has_source(NIGHTLY) {
        bail!("failed to install {NIGHTLY}: the library source is not there afterwards");
    }
    Ok(NIGHTLY.to_owned())
}

/// Whether rustup has the toolchain, with the library source. Looks at files only: asking rustup takes longer than
/// all other checks together.
pub fn has_source(name: &str) -> bool {
    let lock = "lib/rustlib/src/rust/library/Cargo.lock";
    installed(name).is_some_and(|dir| dir.join(lock).is_file() && dir.join("bin/cargo").exists())
}

fn installed(name: &str) -> Option<PathBuf> {
    let toolchains = toolchains()?;
    let host = format!("{name}-{}-unknown-linux-gnu", std::env::consts::ARCH);
    [host.as_str(), name]
        .iter()
        .map(|name| toolchains.join(name))
        .find(|dir| dir.is_dir())
}

/// Whether bpf-linker can read what this toolchain's LLVM writes.
fn links(name: &str) -> bool {
    let output = Command::new("rustup")
        .args(["run", name, "rustc", "-vV"])
        .output();
    let text = output
        .map(|output| String::from_utf8_lossy(&output.stdout).into_owned())
        .unwrap_or_default();
    llvm_major(&text).is_some_and(|major| major <= linker::LLVM)
}

fn llvm_major(version: &str) -> Option<u32> {
    let line = version
        .lines()
        .find_map(|line| line.strip_prefix("LLVM version: "))?;
    line.split('.').next()?.parse().ok()
}

fn toolchains() -> Option<PathBuf> {
    let home = std::env::var_os("RUSTUP_HOME").map(PathBuf::from);
    Some(
        home.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".rustup")))?
            .join("toolchains"),
    )
}

/// Debian's packages, as a toolchain that rustup can run.
fn from_debian(setup: &Setup) -> Result<()> {
    setup.cache.make(DIR, RECIPE, |dir| {
        setup.debian.unpack(Suite::Bookworm, PACKAGES, dir)?;
        link_toolchain(dir, &setup.cache.path(DIR)).context("failed to lay out the eBPF toolchain")
    })?;
    let mut rustup = Command::new("rustup");
    rustup
        .args(["toolchain", "link", LINKED])
        .arg(setup.cache.path(DIR).join("toolchain"));
    run_within(&mut rustup, "link the eBPF toolchain", DOWNLOAD)?;
    Ok(())
}

/// In `dir`, what will be `home`: `toolchain/bin` with scripts, as the programs need the libraries beside them, and
/// `toolchain/lib`, the sysroot that rustup and aya-build look into.
fn link_toolchain(dir: &Path, home: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    let bin = dir.join("toolchain/bin");
    fs::create_dir_all(&bin)?;
    symlink("../usr/lib", dir.join("toolchain/lib"))?;
    for program in ["rustc", "cargo", "cargo-clippy", "clippy-driver"] {
        let path = format!("usr/bin/{program}");
        if !dir.join(&path).exists() {
            bail!("{path} is not in the packages");
        }
        let script = bin.join(program);
        fs::write(&script, tools::wrapper(home, &path, ""))?;
        fs::set_permissions(&script, fs::Permissions::from_mode(0o755))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_llvm_of_a_toolchain_is_read() {
        assert_eq!(
            llvm_major("rustc 1.97.0-nightly\nrelease: 1.97.0-nightly\nLLVM version: 22.1.4\n"),
            Some(22)
        );
        assert_eq!(llvm_major("rustc 1.97.0-nightly\n"), None);
        assert_eq!(llvm_major(""), None);
    }
}
