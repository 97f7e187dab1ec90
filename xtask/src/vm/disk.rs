//! The machines' disk: an ext4 that holds fio, whose libraries are too large for the initramfs.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::cache::Cache;
use crate::process::run;
use crate::setup::{libraries, loaded};

const DIR: &str = "vm-disk";
const SIZE: &str = "512M";

/// The image, made once. Machines write to a snapshot of it, so every run starts with the same disk.
pub fn image(cache: &Cache) -> Result<PathBuf> {
    // Another fio makes another disk.
    let recipe = format!("1 {SIZE} {}", cache.recipe("fio"));
    if !cache.holds(DIR, &recipe) {
        cache.make(DIR, &recipe, |dir| {
            make(cache, dir).context("failed to make the VM's disk")
        })?;
    }
    Ok(cache.path(DIR).join("disk.img"))
}

fn make(cache: &Cache, dir: &Path) -> Result<()> {
    let root = dir.join("root");
    let lib = root.join("fio/lib");
    fs::create_dir_all(&lib)?;
    let (program, libraries) = fio(cache)?;
    fs::copy(&program, root.join("fio/fio")).context("failed to copy fio")?;
    for path in loaded(&program, &libraries)? {
        let name = path.file_name().context("failed to name a library")?;
        let to = if name.to_string_lossy().starts_with("ld-linux") {
            root.join("fio/ld.so")
        } else {
            lib.join(name)
        };
        fs::copy(&path, to).with_context(|| format!("failed to copy {}", path.display()))?;
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

/// fio itself, not the script that runs it, and where its libraries are.
fn fio(cache: &Cache) -> Result<(PathBuf, Vec<PathBuf>)> {
    let prefix = cache.path("fio");
    let program = prefix.join("usr/bin/fio");
    if program.is_file() {
        return Ok((program, libraries(&prefix)));
    }
    Ok((cache.find("fio")?, Vec::new()))
}
