//! The kernels of the virtual machines, from Debian's packages.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::Setup;
use crate::cache::{Cache, remove, written};
use crate::debian::Suite;
use crate::process::run;

/// A kernel that the tests run on.
pub struct Kernel {
    pub name: &'static str,
    /// Begin and end of the package's name; the newest between them is taken.
    package: (&'static str, &'static str),
}

/// To add a kernel, add its line; the newest is the last.
pub const KERNELS: &[Kernel] = &[
    Kernel {
        name: "6.1",
        package: ("linux-image-6.1.0-", "-cloud-amd64"),
    },
    Kernel {
        name: "6.12",
        package: ("linux-image-6.12.", "-cloud-amd64"),
    },
];

/// Modules that the virtual machine cannot do without, where they are not built in.
const REQUIRED: &[&str] = &["virtio_pci", "virtio_blk", "ext4"];
/// Modules that tests may load, where the kernel has them.
const OPTIONAL: &[&str] = &[
    "null_blk",
    "brd",
    "scsi_debug",
    "sd_mod",
    "dm_delay",
    "loop",
];

impl Kernel {
    fn dir(&self) -> String {
        format!("kernels/{}", self.name)
    }

    fn recipe(&self) -> String {
        format!("1 {:?} {REQUIRED:?} {OPTIONAL:?}", self.package)
    }

    /// Where its files are: vmlinuz, config and modules; `None` where set-up did not bring them.
    pub fn installed(&self, cache: &Cache) -> Option<PathBuf> {
        cache
            .holds(&self.dir(), &self.recipe())
            .then(|| cache.path(self.dir()))
    }

    pub fn check(&self, setup: &Setup) -> Option<String> {
        fs::read_to_string(self.installed(setup.cache)?.join("package")).ok()
    }

    pub fn install(&self, setup: &Setup) -> Result<()> {
        let (begin, end) = self.package;
        let package = setup.debian.newest(Suite::Bookworm, begin, end)?;
        setup.cache.make(&self.dir(), &self.recipe(), |dir| {
            let unpacked = dir.join("unpacked");
            fs::create_dir_all(&unpacked)?;
            setup
                .debian
                .unpack_alone(Suite::Bookworm, &package, &unpacked)?;
            keep_boot_files(&unpacked, dir)?;
            keep_modules(
                &unpacked.join("lib/modules"),
                &dir.join("modules"),
                &setup.cache.program("xz"),
            )?;
            fs::write(dir.join("package"), &package)
                .map_err(|error| written(error, "failed to write"))?;
            remove(&unpacked).context("failed to delete what is not needed")
        })
    }
}

/// Keeps `boot/vmlinuz-*` and `boot/config-*` under their short names.
fn keep_boot_files(unpacked: &Path, dir: &Path) -> Result<()> {
    let boot = unpacked.join("boot");
    for name in ["vmlinuz", "config"] {
        let entries =
            fs::read_dir(&boot).with_context(|| format!("failed to read {}", boot.display()))?;
        let file = entries.flatten().find(|entry| {
            entry
                .file_name()
                .to_string_lossy()
                .starts_with(&format!("{name}-"))
        });
        let file =
            file.with_context(|| format!("failed to find {name} in the kernel's package"))?;
        fs::rename(file.path(), dir.join(name))
            .with_context(|| format!("failed to keep {name}"))?;
    }
    Ok(())
}

/// Keeps the modules that we name and what they depend on, decompressed, with `modules.dep`: one line
/// `NAME: DEPENDENCY...` for each.
fn keep_modules(unpacked: &Path, into: &Path, xz: &Path) -> Result<()> {
    let mut files = BTreeMap::new();
    find_modules(unpacked, &mut files)
        .with_context(|| format!("failed to read {}", unpacked.display()))?;
    fs::create_dir_all(into)?;
    let mut kept: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut open: Vec<String> = REQUIRED
        .iter()
        .chain(OPTIONAL)
        .map(|name| (*name).to_owned())
        .collect();
    while let Some(name) = open.pop() {
        // What has no file is built in, or this kernel lacks it: the virtual machine says so when it is asked for it.
        let Some(file) = files.get(&name).filter(|_| !kept.contains_key(&name)) else {
            continue;
        };
        let module = into.join(format!("{name}.ko"));
        decompress(file, &module, xz)?;
        let dependencies = dependencies(&fs::read(&module)?)?;
        open.extend(dependencies.clone());
        kept.insert(name, dependencies);
    }
    let lines: String = kept
        .iter()
        .map(|(name, needs)| format!("{name}: {}\n", needs.join(" ")))
        .collect();
    fs::write(into.join("modules.dep"), lines)
        .map_err(|error| written(error, "failed to write modules.dep"))
}

/// Finds all module files below `dir`, by the module's name, in which the kernel has `_` for every `-`.
fn find_modules(dir: &Path, files: &mut BTreeMap<String, PathBuf>) -> std::io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            find_modules(&entry.path(), files)?;
        } else if let Some((name, _)) = entry.file_name().to_string_lossy().split_once(".ko") {
            files.insert(name.replace('-', "_"), entry.path());
        }
    }
    Ok(())
}

fn decompress(file: &Path, to: &Path, xz: &Path) -> Result<()> {
    if file.extension().is_none_or(|extension| extension != "xz") {
        fs::copy(file, to).map_err(|error| written(error, "failed to copy a module"))?;
        return Ok(());
    }
    let mut command = Command::new("sh");
    command
        .args(["-c", r#""$1" -dc "$2" > "$3""#, "sh"])
        .args([xz, file, to]);
    run(&mut command, &format!("decompress {}", file.display()))?;
    Ok(())
}

/// The modules that a module needs, from the `depends=` entry of its .modinfo section. Debian's packages have no
/// modules.dep: depmod writes it when they are installed.
fn dependencies(module: &[u8]) -> Result<Vec<String>> {
    const KEY: &[u8] = b"\0depends=";
    let Some(start) = module.windows(KEY.len()).position(|window| window == KEY) else {
        bail!("failed to read a kernel module: it has no depends= entry");
    };
    let value = module[start + KEY.len()..]
        .split(|byte| *byte == 0)
        .next()
        .unwrap_or_default();
    let value = String::from_utf8_lossy(value);
    Ok(value
        .split(',')
        .filter(|name| !name.is_empty())
        .map(|name| name.replace('-', "_"))
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dependencies_are_read_from_modinfo() {
        let module = b"\x7fELF\0license=GPL\0depends=virtio,virtio-ring\0name=virtio_blk\0";
        assert_eq!(dependencies(module).unwrap(), ["virtio", "virtio_ring"]);
        assert!(dependencies(b"\0depends=\0").unwrap().is_empty());
        assert!(dependencies(b"garbage").is_err());
    }

    #[test]
    fn names_of_kernels_are_unique() {
        let names: std::collections::BTreeSet<_> =
            KERNELS.iter().map(|kernel| kernel.name).collect();
        assert_eq!(names.len(), KERNELS.len());
    }
}
