//! `cargo xtask docs`: the generated documents. A test holds each file against what it is made from.

mod kernels;
mod probes;
mod prototypes;
mod reliability;

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::workspace;

/// Files below `docs/`, and what is in them.
fn documents() -> [(&'static str, String); 3] {
    [
        ("probes.md", probes::text()),
        ("kernels.md", kernels::text() + &prototypes::text()),
        ("reliability.md", reliability::text()),
    ]
}

fn path(name: &str) -> PathBuf {
    workspace::root().join("docs").join(name)
}

/// Writes the files.
pub fn command() -> Result<()> {
    for (name, text) in documents() {
        let path = path(name);
        fs::write(&path, text).with_context(|| format!("failed to write {}", path.display()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_files_are_what_they_are_made_from() {
        for (name, text) in super::documents() {
            let written = std::fs::read_to_string(super::path(name)).unwrap();
            assert!(written == text, "cargo xtask docs writes docs/{name} anew");
        }
    }
}
