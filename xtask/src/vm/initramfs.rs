//! The first root file system of a machine: PID 1, the agent and the kernel's modules. Small, as the emulated machine
//! unpacks it into its memory.

use std::fs;
use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result};
use cpio::newc::{Builder, ModeFileType, trailer};

use crate::build::Built;
use crate::cache::written;

const DIRECTORIES: &[&str] = &["dev", "proc", "sys", "run", "tmp", "mnt", "modules"];

/// Writes the archive to `path`, with the modules of the directory `modules`, and `more` under these names.
pub fn write(path: &Path, built: &Built, modules: &Path, more: &[(&str, &Path)]) -> Result<()> {
    let mut archive = Archive {
        bytes: Vec::new(),
        inode: 0,
    };
    for directory in DIRECTORIES {
        archive.add(directory, ModeFileType::Directory, 0o755, &[])?;
    }
    // The kernel opens it as the standard streams of PID 1, before devtmpfs is mounted there.
    archive.add_device("dev/console", 5, 1)?;
    archive.add_file("init", &built.vm_tests)?;
    archive.add_file("iolag", &built.iolag)?;
    for (name, program) in more {
        archive.add_file(name, program)?;
    }
    for entry in
        fs::read_dir(modules).with_context(|| format!("failed to read {}", modules.display()))?
    {
        let entry = entry?;
        archive.add_file(
            &format!("modules/{}", entry.file_name().to_string_lossy()),
            &entry.path(),
        )?;
    }
    let bytes = trailer(archive.bytes).context("failed to end the initramfs")?;
    fs::write(path, bytes)
        .map_err(|error| written(error, &format!("failed to write {}", path.display())))
}

struct Archive {
    bytes: Vec<u8>,
    inode: u32,
}

impl Archive {
    fn add_file(&mut self, name: &str, path: &Path) -> Result<()> {
        let content =
            fs::read(path).with_context(|| format!("failed to read {}", path.display()))?;
        self.add(name, ModeFileType::Regular, 0o755, &content)
    }

    fn add(&mut self, name: &str, kind: ModeFileType, mode: u32, content: &[u8]) -> Result<()> {
        let builder = self.entry(name).mode(mode).set_mode_file_type(kind);
        self.write(builder, content)
    }

    fn add_device(&mut self, name: &str, major: u32, minor: u32) -> Result<()> {
        let builder = self
            .entry(name)
            .mode(0o600)
            .set_mode_file_type(ModeFileType::Char);
        self.write(builder.rdev_major(major).rdev_minor(minor), &[])
    }

    fn entry(&mut self, name: &str) -> Builder {
        self.inode += 1;
        Builder::new(name).ino(self.inode).nlink(1)
    }

    fn write(&mut self, builder: Builder, content: &[u8]) -> Result<()> {
        let size = u32::try_from(content.len())
            .context("failed to add a file to the initramfs: over 4 GiB")?;
        let mut writer = builder.write(&mut self.bytes, size);
        writer
            .write_all(content)
            .context("failed to write the initramfs")?;
        writer.finish().context("failed to write the initramfs")?;
        Ok(())
    }
}
