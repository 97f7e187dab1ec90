//! The kernels of the virtual machines, from Debian's packages.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::Setup;
use crate::cache::{Cache, remove, written};
use crate::debian::{Debian, Suite};
use crate::explain::explained;
use crate::process::run;

/// A kernel that the tests run on.
pub struct Kernel {
    pub name: &'static str,
    /// Whether the tests run on it unless all are asked for, and set-up brings it unasked.
    pub usual: bool,
    suite: Suite,
    /// Begin and end of the package's name.
    package: (&'static str, &'static str),
    /// Which of the versions between them.
    which: Which,
}

/// Of one series, `7.3`, the newest patch is always the one.
#[derive(Clone, Copy, Debug)]
enum Which {
    Newest,
    /// The newest of the series before the newest.
    SeriesBefore,
}

/// To add a kernel, add its line; of the usual ones the newest is the last.
pub const KERNELS: &[Kernel] = &[
    Kernel {
        name: "6.1",
        usual: true,
        suite: Suite::Bookworm,
        package: ("linux-image-6.1.0-", "-cloud-amd64"),
        which: Which::Newest,
    },
    Kernel {
        name: "6.12",
        usual: true,
        suite: Suite::Bookworm,
        package: ("linux-image-6.12.", "-cloud-amd64"),
        which: Which::Newest,
    },
    Kernel {
        name: "5.10",
        usual: false,
        suite: Suite::Bullseye,
        package: ("linux-image-5.10.0-", "-cloud-amd64"),
        which: Which::Newest,
    },
    Kernel {
        name: "6.12-rt",
        usual: false,
        suite: Suite::Bookworm,
        package: ("linux-image-6.12.", "-rt-amd64"),
        which: Which::Newest,
    },
    Kernel {
        name: "6.18",
        usual: false,
        suite: Suite::TrixieBackports,
        package: ("linux-image-6.18.", "-cloud-amd64"),
        which: Which::Newest,
    },
    Kernel {
        name: "7-canary",
        usual: false,
        suite: Suite::TrixieBackports,
        package: ("linux-image-7.", "-cloud-amd64"),
        which: Which::SeriesBefore,
    },
    Kernel {
        name: "7",
        usual: false,
        suite: Suite::TrixieBackports,
        package: ("linux-image-7.", "-cloud-amd64"),
        which: Which::Newest,
    },
];

/// Modules that the virtual machine cannot do without, where they are not built in.
const REQUIRED: &[&str] = &["virtio_pci", "virtio_blk", "ext4", "crc32c_generic"];
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
        format!(
            "2 {:?} {:?} {:?} {REQUIRED:?} {OPTIONAL:?}",
            self.suite, self.package, self.which
        )
    }

    /// Where its files are: vmlinuz and modules; `None` where set-up did not bring them.
    pub fn installed(&self, cache: &Cache) -> Option<PathBuf> {
        cache
            .holds(&self.dir(), &self.recipe())
            .then(|| cache.path(self.dir()))
    }

    pub fn check(&self, setup: &Setup) -> Option<String> {
        fs::read_to_string(self.installed(setup.cache)?.join("package")).ok()
    }

    /// The name of its package.
    fn find(&self, debian: &Debian) -> Result<String> {
        let (begin, end) = self.package;
        let names = debian.names(self.suite, begin)?;
        choose(&names, begin, end, self.which).ok_or_else(|| {
            explained(
                format!("failed to find a package {begin}*{end}: this machine's apt mirror has none"),
                "see that /etc/apt names the suites bookworm, bookworm-updates and bookworm-security",
            )
        })
    }

    pub fn install(&self, setup: &Setup) -> Result<()> {
        let package = self.find(&setup.debian)?;
        setup.cache.make(&self.dir(), &self.recipe(), |dir| {
            let unpacked = dir.join("unpacked");
            fs::create_dir_all(&unpacked)?;
            let parts = parts(&package);
            let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
            setup.debian.unpack_alone(self.suite, &parts, &unpacked)?;
            keep_kernel(&unpacked, dir)?;
            keep_modules(&unpacked, &dir.join("modules"), &setup.cache.program("xz"))?;
            fs::write(dir.join("package"), &package)
                .map_err(|error| written(error, "failed to write"))?;
            remove(&unpacked).context("failed to delete what is not needed")
        })
    }
}

/// The numbers of a version, for comparison.
fn numbers(version: &str) -> Vec<u64> {
    version
        .split(|c: char| !c.is_ascii_digit())
        .filter_map(|part| part.parse().ok())
        .collect()
}

/// The package whose name is `begin`, digits and marks, `end`.
fn choose(names: &[String], begin: &str, end: &str, which: Which) -> Option<String> {
    let mut versions: Vec<(Vec<u64>, &String)> = names
        .iter()
        .filter_map(|name| Some((name.strip_prefix(begin)?.strip_suffix(end)?, name)))
        .filter(|(version, _)| {
            version
                .chars()
                .all(|c| !c.is_ascii_alphabetic() || version.contains("+deb"))
        })
        .map(|(version, name)| (numbers(version), name))
        .collect();
    versions.sort();
    let (newest, name) = versions.last()?;
    match which {
        Which::Newest => Some((*name).clone()),
        Which::SeriesBefore => {
            let before = versions
                .iter()
                .rfind(|(version, _)| version.first() < newest.first());
            before.map(|(_, name)| (*name).clone())
        }
    }
}

/// The packages that hold the kernel and its modules; since 7.0 the image's own holds neither.
fn parts(package: &str) -> Vec<String> {
    let version = package.trim_start_matches("linux-image-");
    if numbers(version).first().is_none_or(|major| *major < 7) {
        return vec![package.to_owned()];
    }
    ["binary", "modules"]
        .map(|part| format!("linux-{part}-{version}"))
        .to_vec()
}

/// Keeps the kernel, which is `boot/vmlinuz-*` and since 7.0 `usr/lib/modules/*/vmlinuz`.
fn keep_kernel(unpacked: &Path, dir: &Path) -> Result<()> {
    let found = ["boot", "usr/lib/modules"]
        .iter()
        .filter_map(|place| fs::read_dir(unpacked.join(place)).ok())
        .flat_map(|entries| entries.flatten())
        .find_map(|entry| {
            let path = entry.path();
            if path.is_dir() {
                return Some(path.join("vmlinuz")).filter(|file| file.is_file());
            }
            let name = entry.file_name();
            let is_kernel = name.to_string_lossy().starts_with("vmlinuz-");
            is_kernel.then_some(path)
        });
    let file = found.context("failed to find vmlinuz in the kernel's package")?;
    fs::rename(file, dir.join("vmlinuz")).context("failed to keep vmlinuz")
}

/// Keeps the modules that we name and what they depend on, decompressed, with `modules.dep`: one line
/// `NAME: DEPENDENCY...` for each.
fn keep_modules(unpacked: &Path, into: &Path, xz: &Path) -> Result<()> {
    let mut files = BTreeMap::new();
    // Below `lib` or `usr/lib`.
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
    fn the_newest_kernel_is_found_by_number() {
        let names = |text: &str| -> Vec<String> { text.lines().map(str::to_owned).collect() };
        let of = |text: &str, begin, end| choose(&names(text), begin, end, Which::Newest);
        let old = "linux-image-6.1.0-9-cloud-amd64\nlinux-image-6.1.0-50-cloud-amd64\n\
                   linux-image-6.1.0-56-rt-amd64\nlinux-image-6.1.0-51-cloud-amd64-unsigned\n";
        assert_eq!(
            of(old, "linux-image-6.1.0-", "-cloud-amd64").as_deref(),
            Some("linux-image-6.1.0-50-cloud-amd64")
        );
        let new = "linux-image-6.12-cloud-amd64\nlinux-image-6.12.99+deb12-cloud-amd64\n\
                   linux-image-6.12.117+deb12-cloud-amd64\nlinux-image-6.12.118+deb12-rt-amd64\n";
        assert_eq!(
            of(new, "linux-image-6.12.", "-cloud-amd64").as_deref(),
            Some("linux-image-6.12.117+deb12-cloud-amd64")
        );
        assert_eq!(of(new, "linux-image-7.", "-cloud-amd64"), None);
    }

    #[test]
    fn the_canary_is_of_the_series_before_the_newest() {
        let names = ["7.2.9", "7.2.12", "7.3.4", "7.3.1", "7.0.13"]
            .map(|version| format!("linux-image-{version}+deb13-cloud-amd64"));
        let of = |names: &[String], which| choose(names, "linux-image-7.", "-cloud-amd64", which);
        assert_eq!(of(&names, Which::Newest).as_ref(), Some(&names[2]));
        assert_eq!(of(&names, Which::SeriesBefore).as_ref(), Some(&names[1]));
        assert_eq!(of(&names[..2], Which::SeriesBefore), None);
    }

    #[test]
    fn since_7_0_a_kernel_is_two_packages() {
        assert_eq!(
            parts("linux-image-6.19.14+deb13-cloud-amd64"),
            ["linux-image-6.19.14+deb13-cloud-amd64"]
        );
        assert_eq!(
            parts("linux-image-7.3.4+deb13-rt-amd64"),
            [
                "linux-binary-7.3.4+deb13-rt-amd64",
                "linux-modules-7.3.4+deb13-rt-amd64"
            ]
        );
    }

    #[test]
    fn names_of_kernels_are_unique() {
        let names: std::collections::BTreeSet<_> =
            KERNELS.iter().map(|kernel| kernel.name).collect();
        assert_eq!(names.len(), KERNELS.len());
    }
}
