//! The machines' disk: an ext4 that holds programs whose libraries are too large for the initramfs.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::cache::Cache;
use crate::process::run;
use crate::setup::{libraries, loaded};

const DIR: &str = "vm-disk";
const SIZE: &str = "512M";
/// Each in a directory of its name, with its libraries and the loader that runs it.
const PROGRAMS: [&str; 2] = ["fio", "stress-ng"];

/// The image, made once. Machines write to a snapshot of it, so every run starts with the same disk.
pub fn image(cache: &Cache) -> Result<PathBuf> {
    // Other programs make another disk.
    let recipes = PROGRAMS.map(|name| cache.recipe(name));
    let recipe = format!("2 {SIZE} {}", recipes.join(" "));
    if !cache.holds(DIR, &recipe) {
        cache.make(DIR, &recipe, |dir| {
            make(cache, dir).context("failed to make the VM's disk")
        })?;
    }
    Ok(cache.path(DIR).join("disk.img"))
}

fn make(cache: &Cache, dir: &Path) -> Result<()> {
    let root = dir.join("root");
    for name in PROGRAMS {
        add(cache, name, &root.join(name)).with_context(|| format!("failed to add {name}"))?;
    }
    let mut mke2fs = Command::new(cache.find("mke2fs")?);
    mke2fs
        .args(["-q", "-t", "ext4", "-F", "-E", "root_owner=0:0", "-d"])
        .arg(&root)
        .arg(dir.join("disk.img"))
        .arg(SIZE);
    run(&mut mke2fs, "run mke2fs")?;
    crate::cache::remove(&root)?;
    Ok(())
}

/// Copies a program to `dir`, and what it loads.
fn add(cache: &Cache, name: &str, dir: &Path) -> Result<()> {
    let lib = dir.join("lib");
    fs::create_dir_all(&lib)?;
    let (program, libraries) = find(cache, name)?;
    fs::copy(&program, dir.join(name)).with_context(|| format!("failed to copy {name}"))?;
    for path in loaded(&program, &libraries)? {
        let file = path.file_name().context("failed to name a library")?;
        let to = if file.to_string_lossy().starts_with("ld-linux") {
            dir.join("ld.so")
        } else {
            lib.join(file)
        };
        fs::copy(&path, to).with_context(|| format!("failed to copy {}", path.display()))?;
    }
    Ok(())
}

/// The program itself, not the script that runs it, and where its libraries are.
fn find(cache: &Cache, name: &str) -> Result<(PathBuf, Vec<PathBuf>)> {
    let prefix = cache.path(name);
    let program = prefix.join("usr/bin").join(name);
    if program.is_file() {
        return Ok((program, libraries(&prefix)));
    }
    Ok((cache.find(name)?, Vec::new()))
}
