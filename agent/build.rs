//! Builds the eBPF objects with the toolchain that `cargo xtask setup` found or brought.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use aya_build::{Package, Toolchain};

/// Where `cargo xtask setup` keeps what it brings; `xtask/src/cache.rs` says the same.
fn cache() -> Option<PathBuf> {
    let of = |name| {
        env::var_os(name)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    of("IOLAG_CACHE")
        .or_else(|| of("XDG_CACHE_HOME").map(|dir| dir.join("iolag")))
        .or_else(|| of("HOME").map(|dir| dir.join(".cache/iolag")))
}

/// The rustup toolchain for eBPF, and bpf-linker on PATH.
fn toolchain() -> Result<String> {
    let Some(cache) = cache() else {
        return Ok("nightly".into());
    };
    let chosen = cache.join("ebpf-toolchain");
    println!("cargo:rerun-if-env-changed=IOLAG_CACHE");
    println!("cargo:rerun-if-changed={}", chosen.display());
    let path = env::var_os("PATH").unwrap_or_default();
    let path = env::join_paths(
        [cache.join("bin")]
            .into_iter()
            .chain(env::split_paths(&path)),
    )
    .context("failed to extend PATH")?;
    // SAFETY: a build script's only thread.
    unsafe { env::set_var("PATH", path) };
    let Ok(name) = fs::read_to_string(&chosen) else {
        return Ok("nightly".into());
    };
    let name = name.trim().to_owned();
    if !name.starts_with("nightly") {
        // `-Z build-std` is asked of a stable compiler: aya-build adds it when this is set.
        // SAFETY: a build script's only thread.
        unsafe { env::set_var("RUSTC_BOOTSTRAP", "1") };
    }
    Ok(name)
}

/// Has all profiles share what is built on the way to the objects, which is the same for all of them: a minute.
fn share_build() {
    let out = env::var_os("OUT_DIR").map(PathBuf::from);
    // With this file cargo marks the directory that it builds in (bford.info/cachedir).
    let is_target = |dir: &&Path| dir.join("CACHEDIR.TAG").is_file();
    let places = out.as_deref().into_iter().flat_map(Path::ancestors);
    // That of a target triple, if there is one, is in that of all.
    let targets = places
        .skip_while(|dir| !is_target(dir))
        .take_while(is_target);
    if let Some(target) = targets.last() {
        // SAFETY: a build script's only thread.
        unsafe { env::set_var("CARGO_BUILD_BUILD_DIR", target.join("ebpf")) };
    }
}

fn main() -> Result<()> {
    let toolchain = toolchain()?;
    share_build();
    let root = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").context("no CARGO_MANIFEST_DIR")?);
    let root = root
        .parent()
        .context("the package has no parent directory")?;
    let common = root.join("agent-common");
    println!("cargo:rerun-if-changed={}", common.display());
    let ebpf = root.join("agent-ebpf");
    aya_build::build_ebpf(
        [Package {
            name: "agent-ebpf",
            root_dir: ebpf.to_str().context("the path is not UTF-8")?,
            ..Package::default()
        }],
        Toolchain::Custom(&toolchain),
    )
    .context("failed to build the eBPF objects (hint: cargo xtask setup)")
}
