//! Debian packages, unpacked below the cache: needs no root and changes nothing on the machine.
//!
//! apt resolves and downloads with a state of its own, so that neither the machine's packages nor its package lists
//! are touched, and packages that conflict with installed ones can be had.

mod sources;
mod status;

use std::cell::RefCell;
use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::cache::{self, Cache, remove};
use crate::process::{run, run_filling};

/// What we never unpack though something depends on it: the host has it (a C compiler), or nothing that we run
/// needs it (Python, user accounts, sanitizers).
const NOT_NEEDED: &[&str] = &[
    "adduser",
    "binutils",
    "cpp",
    "dmsetup",
    "g++",
    "gcc",
    "icu-devtools",
    "iso-codes",
    "libasan",
    "libbinutils",
    "libc-dev",
    "libc6",
    "libgcc",
    "liblsan",
    "libpython3",
    "libsemanage",
    "libsepol",
    "libtsan",
    "libubsan",
    "linux-libc-dev",
    "login",
    "media-types",
    "passwd",
    "python3",
    "readline-common",
    "rpcsvc-proto",
];

/// What a package holds and we never use.
const NOT_UNPACKED: &[&str] = &[
    "./usr/share/doc",
    "./usr/share/man",
    "./usr/share/locale",
    "./usr/share/icons",
    "./usr/lib/llvm-*/lib/*.a",
];

/// Where a package comes from. Each has an apt state of its own, so that none changes what another resolves to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Suite {
    /// Debian 12 with its updates.
    Bookworm,
    /// The same, and newer versions from its backports wherever there are any.
    Backports,
    /// Debian 11, of which we take kernels only; so of the next.
    Bullseye,
    /// What is backported to Debian 13.
    TrixieBackports,
}

impl Suite {
    fn name(self) -> &'static str {
        match self {
            Self::Bookworm => "bookworm",
            Self::Backports => "bookworm-backports",
            Self::Bullseye => "bullseye",
            Self::TrixieBackports => "trixie-backports",
        }
    }
}

/// apt with a state of its own below the cache.
pub struct Debian<'a> {
    cache: &'a Cache,
    /// Whose package lists were fetched.
    ready: RefCell<HashSet<Suite>>,
}

impl<'a> Debian<'a> {
    pub fn new(cache: &'a Cache) -> Self {
        Self {
            cache,
            ready: RefCell::default(),
        }
    }

    /// Unpacks `packages`, with all that they depend on, below `dir`.
    pub fn unpack(&self, suite: Suite, packages: &[&str], dir: &Path) -> Result<()> {
        self.refresh(suite)?;
        let list = packages.join(" ");
        let plan = run(
            self.apt(suite, "apt-get")
                .args(["install", "--no-install-recommends", "--print-uris", "-qq"])
                .args(packages),
            &format!("resolve {list}"),
        )?;
        let names = planned(&plan);
        if names.is_empty() {
            bail!("failed to resolve {list}: apt names no package");
        }
        self.fetch(suite, &names, dir)
    }

    /// Unpacks packages, without what they depend on, below `dir`.
    pub fn unpack_alone(&self, suite: Suite, packages: &[&str], dir: &Path) -> Result<()> {
        self.refresh(suite)?;
        self.fetch(suite, packages, dir)
    }

    /// All packages whose names begin so.
    pub fn names(&self, suite: Suite, prefix: &str) -> Result<Vec<String>> {
        self.refresh(suite)?;
        let names = run(
            self.apt(suite, "apt-cache").args(["pkgnames", prefix]),
            "list packages",
        )?;
        Ok(names.lines().map(str::to_owned).collect())
    }

    fn fetch(&self, suite: Suite, names: &[&str], dir: &Path) -> Result<()> {
        let archives = dir.join(".archives");
        fs::create_dir_all(&archives)
            .map_err(|error| cache::written(error, "failed to make a directory"))?;
        run_filling(
            self.apt(suite, "apt-get")
                .current_dir(&archives)
                .args(["download", "-qq"])
                .args(names),
            &format!("download {} packages", names.len()),
            &archives,
        )?;
        let mut debs = fs::read_dir(&archives)?
            .map(|entry| Ok(entry?.path()))
            .collect::<Result<Vec<_>>>()?;
        // Largest first, so that the two threads end together.
        debs.sort_by_key(|deb| {
            std::cmp::Reverse(deb.metadata().map(|meta| meta.len()).unwrap_or(0))
        });
        let next = std::sync::atomic::AtomicUsize::new(0);
        let unpack_some = || -> Result<()> {
            while let Some(deb) = debs.get(next.fetch_add(1, std::sync::atomic::Ordering::Relaxed))
            {
                unpack_archive(deb, dir)?;
                remove(deb)?;
            }
            Ok(())
        };
        std::thread::scope(|scope| {
            let other = scope.spawn(unpack_some);
            unpack_some()?;
            other.join().expect("unpacking does not panic")
        })?;
        remove(&archives)?;
        Ok(())
    }

    /// Fetches the package lists, once in a run of ours: an older list may name files that the mirror dropped.
    fn refresh(&self, suite: Suite) -> Result<()> {
        if self.ready.borrow().contains(&suite) {
            return Ok(());
        }
        let dir = self.state(suite);
        let what = || format!("failed to prepare {}", dir.display());
        for sub in ["lists/partial", "archives/partial", "sources.d", "none"] {
            fs::create_dir_all(dir.join(sub)).map_err(|error| cache::written(error, &what()))?;
        }
        let installed = fs::read_to_string("/var/lib/dpkg/status").with_context(what)?;
        let write = |name: &str, text: &str| {
            self.cache
                .write(&format!("apt/{}/{name}", suite.name()), text)
        };
        write("status", &status::base(&installed))?;
        write(
            "sources.d/iolag.sources",
            &sources::of(suite, Path::new("/etc/apt"))?,
        )?;
        write("apt.conf", &configuration(suite, &dir))?;
        run_filling(
            self.apt(suite, "apt-get").args(["update", "-qq"]),
            &format!("fetch Debian's package lists for {}", suite.name()),
            &dir,
        )?;
        self.ready.borrow_mut().insert(suite);
        Ok(())
    }

    fn state(&self, suite: Suite) -> PathBuf {
        self.cache.path("apt").join(suite.name())
    }

    fn apt(&self, suite: Suite, program: &str) -> Command {
        let mut command = Command::new(program);
        command
            .arg("-c")
            .arg(self.state(suite).join("apt.conf"))
            .env("LC_ALL", "C");
        command
    }
}

/// apt.conf(5) of the private state. Read after the machine's own, whose proxies and keys stay in force.
fn configuration(suite: Suite, dir: &Path) -> String {
    // In its own release apt would prefer a package's first version to its security updates.
    let preferred = match suite {
        Suite::Backports => format!("APT::Default-Release \"{}\";\n", suite.name()),
        _ => String::new(),
    };
    let dir = dir.display();
    format!(
        r#"{preferred}Dir::State::status "{dir}/status";
Dir::State::lists "{dir}/lists";
Dir::Cache::archives "{dir}/archives";
Dir::Cache::pkgcache "";
Dir::Cache::srcpkgcache "";
Dir::Etc::sourcelist "/dev/null";
Dir::Etc::sourceparts "{dir}/sources.d";
Dir::Etc::preferences "/dev/null";
Dir::Etc::preferencesparts "{dir}/none";
Debug::NoLocking "true";
APT::Sandbox::User "root";
APT::Get::Assume-Yes "true";
#clear APT::Architectures;
APT::Architectures {{ "amd64"; }};
APT::Update::Error-Mode "any";
Acquire::Languages "none";
Acquire::Retries "2";
Acquire::http::Timeout "20";
Acquire::https::Timeout "20";
#clear Acquire::IndexTargets::deb::DEP-11;
#clear Acquire::IndexTargets::deb::DEP-11-icons;
#clear Acquire::IndexTargets::deb::DEP-11-icons-small;
#clear APT::Update::Pre-Invoke;
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
#clear DPkg::Post-Invoke;
#clear DPkg::Pre-Install-Pkgs;
"#
    )
}

/// The packages of `apt-get --print-uris` that we unpack. A line is `'URI' NAME_VERSION_ARCH.deb SIZE HASH`.
fn planned(plan: &str) -> Vec<&str> {
    plan.lines()
        .filter_map(|line| line.split_whitespace().nth(1)?.split_once('_'))
        .map(|(name, _)| name)
        .filter(|name| !NOT_NEEDED.iter().any(|prefix| name.starts_with(prefix)))
        .collect()
}

fn unpack_archive(deb: &Path, dir: &Path) -> Result<()> {
    let mut tar = Command::new("sh");
    // `dpkg-deb -x` cannot leave files out, and LLVM's static libraries are more than half a gigabyte.
    tar.args([
        "-c",
        r#"dpkg-deb --fsys-tarfile "$1" | tar -x -C "$2" --no-same-owner -X "$3""#,
        "sh",
    ]);
    let excludes = dir.join(format!(".excludes-{:?}", std::thread::current().id()));
    fs::write(&excludes, NOT_UNPACKED.join("\n"))
        .map_err(|error| cache::written(error, "failed to unpack"))?;
    let name = deb.file_name().unwrap_or_default().to_string_lossy();
    run(
        tar.arg(deb).arg(dir).arg(&excludes),
        &format!("unpack {name}"),
    )?;
    remove(&excludes)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_plan_leaves_out_what_the_host_has() {
        let plan = "'http://mirror/a' fio_3.33-3_amd64.deb 1 SHA256:0\n\
                    'http://mirror/b' python3.11_3.11.2_amd64.deb 1 SHA256:0\n\
                    'http://mirror/c' libaio1_0.3_amd64.deb 1 SHA256:0\n";
        assert_eq!(planned(plan), ["fio", "libaio1"]);
    }
}
