//! Set-up on other distributions than Debian 12: uses what is on PATH, and says what to install.

use std::path::PathBuf;

use anyhow::Result;

use super::{Setup, linker, no_cc, require_rustup, row, toolchain};
use crate::explain::host_cannot;
use crate::platform::Platform;
use crate::process::find;

/// Programs that must be on PATH.
const PROGRAMS: &[&str] = &["bpf-linker", "fio", "qemu-system-x86_64", "mke2fs", "xz"];

/// Says what is there and what is missing.
pub fn report(setup: &Setup) -> Result<()> {
    let missing: Vec<&str> = PROGRAMS
        .iter()
        .copied()
        .filter(|program| {
            let found = find(program);
            match &found {
                Some(path) => row("ok", program, &path.display().to_string()),
                None => row("missing", program, ""),
            }
            found.is_none()
        })
        .collect();
    finish(setup.platform, &missing)
}

pub fn run(setup: &Setup, verbose: bool) -> Result<()> {
    if find("cc").is_none() {
        return Err(no_cc(setup.platform));
    }
    require_rustup()?;
    if toolchain::check(setup).is_none() {
        let name = toolchain::from_rustup()?;
        setup
            .cache
            .write(toolchain::NAME_FILE, &format!("{name}\n"))?;
    }
    let missing: Vec<&str> = PROGRAMS
        .iter()
        .copied()
        .filter(|program| find(program).is_none())
        .collect();
    if verbose {
        return report(setup);
    }
    finish(setup.platform, &missing)
}

/// The directory of the tools that our probes are compared with.
pub fn peers(setup: &Setup) -> Result<PathBuf> {
    let found = find("biolatency").and_then(|path| Some(path.parent()?.to_owned()));
    found.ok_or_else(|| {
        let generic =
            || "with your package manager, install libbpf-tools, of the project bcc".into();
        host_cannot(
            "failed to find libbpf-tools: no biolatency on PATH",
            setup
                .platform
                .install_command(&["biolatency"])
                .unwrap_or_else(generic),
        )
    })
}

fn finish(platform: Platform, missing: &[&str]) -> Result<()> {
    if missing.is_empty() {
        return Ok(());
    }
    Err(host_cannot(
        format!(
            "failed to find {}: set-up installs by itself on Debian 12 only",
            missing.join(", ")
        ),
        commands(platform, missing).join("\n"),
    ))
}

/// The commands that install what is missing, in order.
fn commands(platform: Platform, missing: &[&str]) -> Vec<String> {
    let mut packaged: Vec<&str> = missing
        .iter()
        .copied()
        .filter(|program| *program != "bpf-linker")
        .collect();
    let linker = missing.contains(&"bpf-linker");
    if linker {
        packaged.push("llvm-config");
    }
    let mut commands = Vec::new();
    if !packaged.is_empty() {
        let generic = || {
            format!(
                "with your package manager, install what provides: {}",
                packaged.join(", ")
            )
        };
        commands.push(platform.install_command(&packaged).unwrap_or_else(generic));
    }
    if linker {
        commands.push(format!(
            "cargo install bpf-linker --version {} --no-default-features --features llvm-{}",
            linker::VERSION,
            linker::LLVM
        ));
    }
    commands
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_comes_with_its_commands() {
        let error = finish(Platform::Fedora, &["bpf-linker", "fio"]).unwrap_err();
        let explained = error.downcast_ref::<crate::explain::Explained>().unwrap();
        assert_eq!(explained.code, 3);
        assert_eq!(
            explained.hint,
            "sudo dnf install fio llvm-devel libzstd-devel zlib-devel\n\
             cargo install bpf-linker --version 0.13.0 --no-default-features --features llvm-22"
        );
        assert!(finish(Platform::Fedora, &[]).is_ok());
    }

    #[test]
    fn an_unknown_distribution_gets_the_names() {
        assert_eq!(
            commands(Platform::Other, &["fio", "mke2fs"]),
            ["with your package manager, install what provides: fio, mke2fs"]
        );
    }
}
