//! No rule leaks: each filter by each backend, see `iolag_tests::scope`.

use std::path::Path;

use anyhow::Result;
use iolag_tests::scope::{SCOPES, Stage, run};

use crate::guest;

/// A device without a file system, of a module.
const OTHER_DEVICE: &str = "/dev/nullb0";

pub fn fentry() -> Result<()> {
    all("fentry")
}

pub fn kprobe() -> Result<()> {
    all("kprobe")
}

pub fn tp() -> Result<()> {
    all("tp")
}

fn all(backend: &str) -> Result<()> {
    guest::load_module("null_blk", "nr_devices=1")?;
    let tried = try_all(backend);
    // Whoever wants other parameters loads it anew.
    guest::unload_module("null_blk")?;
    tried
}

fn try_all(backend: &str) -> Result<()> {
    let dirs = (Path::new(guest::MOUNT), Path::new("/tmp"));
    let mut stage = Stage::new(Path::new("/iolag"), Some(backend), dirs)?;
    stage.other_device = Some(OTHER_DEVICE.into());
    stage.fio = Some(guest::fio);
    // All that fail are told, not only the first.
    let mut failed = Vec::new();
    for (name, _) in SCOPES {
        let start = std::time::Instant::now();
        let result = run(&stage, name);
        println!("{backend}: {name}: {:.1} s", start.elapsed().as_secs_f64());
        failed.extend(result.err().map(|error| format!("{error:#}")));
    }
    anyhow::ensure!(failed.is_empty(), "{}", failed.join("; "));
    Ok(())
}
