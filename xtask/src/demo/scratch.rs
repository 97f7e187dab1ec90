//! The file that the demo reads: on the disk of the target directory, gone with its value.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use iolag_tests::demo::write_file;

use crate::cache::written;
use crate::workspace;

/// A file for the workloads. Dropping it deletes it.
pub struct Scratch {
    path: PathBuf,
}

impl Scratch {
    pub fn new() -> Result<Self> {
        let path = workspace::target_dir().join(format!("demo-{}.data", std::process::id()));
        let scratch = Self { path };
        write_file(&scratch.path).map_err(|error| {
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
