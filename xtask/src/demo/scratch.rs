//! The file that the demo reads: on the disk of the target directory, gone with its value.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::cache::written;
use crate::workspace;

const MIB: usize = 1 << 20;
/// Of the file, in MiB: the `--size` of [`iolag_tests::fio`].
const SIZE: usize = 64;

/// A file of 64 MiB. Dropping it deletes it.
pub struct Scratch {
    path: PathBuf,
}

impl Scratch {
    /// Written and synced here rather than by fio: its own is still on the way to the disk while it reads.
    pub fn new() -> Result<Self> {
        let path = workspace::target_dir().join(format!("demo-{}.data", std::process::id()));
        let scratch = Self { path };
        let write = || {
            let mut file = File::create(&scratch.path)?;
            let block = vec![0x5a; MIB];
            for _ in 0..SIZE {
                file.write_all(&block)?;
            }
            file.sync_all()
        };
        write().map_err(|error| {
            written(
                error,
                &format!("failed to write {}", scratch.path.display()),
            )
        })?;
        Ok(scratch)
    }

    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let removed = fs::remove_file(&self.path)
            .with_context(|| format!("failed to delete {}", self.path.display()));
        if let Err(error) = removed {
            eprintln!("warning: {error:#}");
        }
    }
}
