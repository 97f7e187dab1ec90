//! The cache directory: what set-up brings lives there, outside `target/`.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::explain::explained;
use crate::process::{disk_full, find};

/// Holds the recipe that an entry was made by; written last, so that an entry without it is not trusted.
const RECIPE: &str = ".recipe";

/// The cache directory.
#[derive(Clone, Debug)]
pub struct Cache {
    root: PathBuf,
}

impl Cache {
    /// `$IOLAG_CACHE`, else `$XDG_CACHE_HOME/iolag`, else `$HOME/.cache/iolag`.
    pub fn locate() -> Result<Self> {
        let variable = |name| {
            std::env::var_os(name)
                .filter(|value| !value.is_empty())
                .map(PathBuf::from)
        };
        let root = variable("IOLAG_CACHE")
            .or_else(|| Some(variable("XDG_CACHE_HOME")?.join("iolag")))
            .or_else(|| Some(variable("HOME")?.join(".cache/iolag")))
            .ok_or_else(|| {
                explained(
                    "failed to find the cache directory: IOLAG_CACHE, XDG_CACHE_HOME and HOME are not set",
                    "set IOLAG_CACHE",
                )
            })?;
        // Wrapper scripts name their programs by absolute path.
        Ok(Self {
            root: std::path::absolute(root).context("failed to find the cache directory")?,
        })
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    pub fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.root.join(name)
    }

    /// A program that set-up brought, or would bring.
    pub fn program(&self, name: &str) -> PathBuf {
        self.path("bin").join(name)
    }

    /// A program that set-up brought, else the one on PATH.
    pub fn find(&self, name: &str) -> Result<PathBuf> {
        let ours = self.program(name);
        if ours.is_file() {
            return Ok(ours);
        }
        find(name)
            .ok_or_else(|| explained(format!("failed to find {name}"), "run: cargo xtask setup"))
    }

    /// Makes the directory, and keeps a second set-up out for as long as the file is held.
    pub fn lock(&self) -> Result<File> {
        let what = || format!("failed to open the cache {}", self.root.display());
        fs::create_dir_all(&self.root).map_err(|error| written(error, &what()))?;
        let file = File::create(self.path("lock")).map_err(|error| written(error, &what()))?;
        if file.try_lock().is_err() {
            eprintln!(
                "waiting for another set-up that uses {}",
                self.root.display()
            );
            file.lock().with_context(what)?;
        }
        Ok(file)
    }

    /// Whether the entry `name` is whole and was made by `recipe`.
    pub fn holds(&self, name: &str, recipe: &str) -> bool {
        self.path(name).join(RECIPE).is_file() && self.recipe(name) == recipe
    }

    /// What the entry `name` was made by; empty if it is not there.
    pub fn recipe(&self, name: &str) -> String {
        fs::read_to_string(self.path(name).join(RECIPE)).unwrap_or_default()
    }

    /// Makes the directory entry `name`: `fill` works in a temporary directory, which is renamed when it is whole.
    ///
    /// What a stopped run leaves behind has the temporary name, and the next run deletes it.
    pub fn make(
        &self,
        name: &str,
        recipe: &str,
        fill: impl FnOnce(&Path) -> Result<()>,
    ) -> Result<()> {
        let entry = self.path(name);
        let what = || format!("failed to make {}", entry.display());
        self.remove_partial(name);
        // Named by process: a program that outlives a killed set-up for a moment must not write into our directory.
        let partial = self.path(format!("{name}.{}.partial", std::process::id()));
        fs::create_dir_all(&partial).map_err(|error| written(error, &what()))?;
        let made = fill(&partial).and_then(|()| {
            fs::write(partial.join(RECIPE), recipe).map_err(|error| written(error, &what()))?;
            remove(&entry).with_context(what)?;
            fs::rename(&partial, &entry).map_err(|error| written(error, &what()))
        });
        if made.is_err() {
            // A half-filled directory may be what filled the disk. The error at hand says more than one here.
            let _ = remove(&partial);
        }
        made
    }

    /// Deletes what stopped runs left of the entry `name`, as far as it can: it takes space and does no other harm.
    fn remove_partial(&self, name: &str) {
        let path = self.path(name);
        let (Some(dir), Some(name)) = (path.parent(), path.file_name()) else {
            return;
        };
        let prefix = format!("{}.", name.to_string_lossy());
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            let name = entry.file_name();
            if name
                .to_string_lossy()
                .strip_prefix(&prefix)
                .is_some_and(|rest| rest.ends_with(".partial"))
            {
                let _ = remove(&entry.path());
            }
        }
    }

    /// Writes a small file as a whole.
    pub fn write(&self, name: &str, text: &str) -> Result<()> {
        self.write_with_mode(name, text, 0o644)
    }

    /// With its mode before its name, too: a script that cannot be run would be taken for good.
    fn write_with_mode(&self, name: &str, text: &str, mode: u32) -> Result<()> {
        let path = self.path(name);
        let partial = self.path(format!("{name}.partial"));
        let what = || format!("failed to write {}", path.display());
        let write = || {
            if let Some(dir) = path.parent() {
                fs::create_dir_all(dir)?;
            }
            fs::write(&partial, text)?;
            fs::set_permissions(&partial, fs::Permissions::from_mode(mode))?;
            fs::rename(&partial, &path)
        };
        write().map_err(|error| written(error, &what()))
    }

    /// Writes `bin/NAME`: a script that runs `program` with the shared libraries that came with it.
    pub fn write_wrapper(&self, name: &str, script: &str) -> Result<()> {
        self.write_with_mode(&format!("bin/{name}"), script, 0o755)
    }
}

/// An I/O error while writing: a full disk and a directory of somebody else get their hints.
pub fn written(error: io::Error, what: &str) -> anyhow::Error {
    match error.kind() {
        io::ErrorKind::StorageFull => disk_full(what.trim_start_matches("failed to ")),
        io::ErrorKind::PermissionDenied => explained(
            format!("{what}: {error}"),
            "it may be root's, from a run with sudo: chown it, or point IOLAG_CACHE at a directory of your own",
        ),
        _ => anyhow::Error::new(error).context(what.to_owned()),
    }
}

/// Deletes a file or a directory tree, if it is there.
pub fn remove(path: &Path) -> io::Result<()> {
    let result = match fs::symlink_metadata(path) {
        Ok(meta) if meta.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match result {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cache(name: &str) -> Cache {
        let root = std::env::temp_dir().join(format!("iolag-cache-{name}-{}", std::process::id()));
        remove(&root).unwrap();
        fs::create_dir_all(&root).unwrap();
        Cache { root }
    }

    #[test]
    fn an_interrupted_entry_is_not_trusted() {
        let cache = cache("interrupted");
        // As left by a run that was killed: the temporary name, and a final name without its recipe.
        fs::create_dir_all(cache.path("fio.1.partial/usr")).unwrap();
        fs::create_dir_all(cache.path("fio/usr")).unwrap();
        assert!(!cache.holds("fio", "1"));
        cache
            .make("fio", "1", |dir| Ok(fs::write(dir.join("new"), "")?))
            .unwrap();
        assert!(cache.holds("fio", "1"));
        assert!(
            !cache.holds("fio", "2"),
            "another recipe asks for another entry"
        );
        assert!(cache.path("fio/new").exists() && !cache.path("fio/usr").exists());
        assert!(!cache.path("fio.1.partial").exists());
        remove(&cache.root).unwrap();
    }

    #[test]
    fn a_failed_entry_leaves_the_old_one() {
        let cache = cache("failed");
        cache.make("fio", "1", |_| Ok(())).unwrap();
        cache.make("fio", "2", |_| anyhow::bail!("no")).unwrap_err();
        assert!(cache.holds("fio", "1"));
        assert_eq!(
            fs::read_dir(&cache.root).unwrap().count(),
            1,
            "only the old entry is there"
        );
        remove(&cache.root).unwrap();
    }

    #[test]
    fn a_disk_that_fills_up_is_named() {
        let error = fs::write("/dev/full", "x").unwrap_err();
        let error = written(error, "failed to write a file");
        assert_eq!(
            error.to_string(),
            "failed to write a file: no space left on device"
        );
    }
}
