//! bpf-linker: built once against Debian's LLVM, of which only the shared library is kept.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::Setup;
use super::tools::libraries;
use crate::cache::{Cache, remove};
use crate::debian::Suite;
use crate::process::run;

pub const VERSION: &str = "0.13.0";
/// The LLVM that it is built with: no older than the one of the eBPF toolchain.
pub const LLVM: u32 = 22;
const DIR: &str = "bpf-linker";
const RECIPE: &str = "1 bpf-linker 0.13.0 llvm-22";

pub fn check(setup: &Setup) -> Option<String> {
    let whole = setup.cache.holds(DIR, RECIPE) && setup.cache.program("bpf-linker").is_file();
    whole.then(|| format!("{VERSION}, LLVM {LLVM}"))
}

pub fn install(setup: &Setup) -> Result<()> {
    setup.cache.make(DIR, RECIPE, |dir| {
        let llvm = dir.join("llvm");
        setup.debian.unpack(
            Suite::Bookworm,
            &[&format!("llvm-{LLVM}-dev"), "libzstd-dev", "zlib1g-dev"],
            &llvm,
        )?;
        let built = build(dir, &llvm)?;
        keep_libraries(&built, &libraries(&llvm), &dir.join("lib"))?;
        fs::rename(&built, dir.join("bpf-linker")).context("failed to keep bpf-linker")?;
        for rest in ["llvm", "target", "root"] {
            remove(&dir.join(rest)).with_context(|| format!("failed to delete {rest}"))?;
        }
        Ok(())
    })?;
    setup
        .cache
        .write_wrapper("bpf-linker", &wrapper(setup.cache))
}

fn wrapper(cache: &Cache) -> String {
    let dir = cache.path(DIR);
    let dir = dir.display();
    format!("#!/bin/sh\nexport LD_LIBRARY_PATH='{dir}/lib'\nexec '{dir}/bpf-linker' \"$@\"\n")
}

fn build(dir: &Path, llvm: &Path) -> Result<PathBuf> {
    let libraries = libraries(llvm);
    let lib = &libraries[0];
    let prefix = llvm.join(format!("usr/lib/llvm-{LLVM}"));
    let flags = format!(
        "-L {0}/lib -L {1} -C link-arg=-Wl,-rpath-link,{1}",
        prefix.display(),
        lib.display()
    );
    let mut cargo = crate::workspace::cargo();
    // Not in the workspace: its .cargo/config.toml is not for this build.
    cargo.current_dir(dir).arg("install").args([
        "bpf-linker",
        "--version",
        VERSION,
        "--locked",
        "--quiet",
    ]);
    cargo
        .args([
            "--no-default-features",
            "--features",
            &format!("llvm-{LLVM}"),
            "--root",
        ])
        .arg(dir.join("root"));
    cargo
        .env("CARGO_TARGET_DIR", dir.join("target"))
        .env("RUSTFLAGS", flags)
        .env_remove("CARGO_ENCODED_RUSTFLAGS");
    cargo.env("LLVM_PREFIX", &prefix);
    cargo.env(
        "LIBRARY_PATH",
        format!("{}/lib:{}", prefix.display(), lib.display()),
    );
    // Build scripts run llvm-config, which needs its library.
    cargo.env("LD_LIBRARY_PATH", std::env::join_paths(&libraries)?);
    run(&mut cargo, "build bpf-linker")?;
    Ok(dir.join("root/bin/bpf-linker"))
}

/// Copies to `into` the libraries of `dirs` that `program` loads.
fn keep_libraries(program: &Path, dirs: &[PathBuf], into: &Path) -> Result<()> {
    let kept = loaded(program, dirs)?;
    let ours = kept
        .iter()
        .filter(|path| dirs.iter().any(|dir| path.starts_with(dir)));
    fs::create_dir_all(into)?;
    for path in ours {
        let name = path.file_name().context("failed to name a library")?;
        fs::copy(path, into.join(name))
            .with_context(|| format!("failed to keep {}", path.display()))?;
    }
    Ok(())
}

/// The files that the dynamic loader maps for `program`, with `dirs` searched first.
pub fn loaded(program: &Path, dirs: &[PathBuf]) -> Result<BTreeSet<PathBuf>> {
    let search = std::env::join_paths(dirs).context("failed to join library directories")?;
    let mut command = Command::new(program);
    // What ldd(1) does: the loader lists instead of running.
    command
        .env("LD_TRACE_LOADED_OBJECTS", "1")
        .env("LD_LIBRARY_PATH", search);
    let list = run(
        &mut command,
        &format!("list the libraries of {}", program.display()),
    )?;
    if let Some(line) = list.lines().find(|line| line.contains("not found")) {
        bail!(
            "failed to find a library of {}: {}",
            program.display(),
            line.trim()
        );
    }
    Ok(parse_loaded(&list))
}

/// Lines are `NAME => PATH (ADDRESS)` or `PATH (ADDRESS)`.
fn parse_loaded(list: &str) -> BTreeSet<PathBuf> {
    let paths = list
        .lines()
        .filter_map(|line| line.split_whitespace().find(|word| word.starts_with('/')));
    paths.map(PathBuf::from).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loaders_list_is_read() {
        let list = "\tlinux-vdso.so.1 (0x00007ffd)\n\tlibz.so.1 => /lib/libz.so.1 (0x00007f)\n\
                    \t/lib64/ld-linux-x86-64.so.2 (0x00007f)\n";
        let expected = ["/lib/libz.so.1", "/lib64/ld-linux-x86-64.so.2"].map(PathBuf::from);
        assert_eq!(parse_loaded(list), expected.into());
    }
}
