//! What the host's own files say, read below a root that tests replace with a fixture. What it means, the checks say.

use std::{
    fs, io,
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
};

use crate::kernel::btf::{self, Vetted};

/// Facts that one line of a file tells; none where there is no such file.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// `6.1.0-9-amd64`
    pub release: Option<String>,
    /// Online, as the kernel writes it: `0-3,8`.
    pub cpus: Option<String>,
    pub clock: Option<String>,
    /// Memory that can be had without swapping (bytes).
    pub available: Option<u64>,
    pub btf: Btf,
    /// Where tracefs is.
    pub tracefs: Option<PathBuf>,
    /// `none [integrity] confidentiality`: the one in brackets is in force.
    pub lockdown: Option<String>,
    pub jit: Option<String>,
    pub jit_harden: Option<String>,
    pub kptr_restrict: Option<String>,
    pub disks: Vec<Disk>,
    /// Type, place and options of each mount of a hierarchy.
    pub cgroups: Vec<(String, PathBuf, String)>,
    /// Lines of `/proc/modules`.
    pub modules: Vec<String>,
}

/// A block device that has requests: dm, md and zram have none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Disk {
    pub name: String,
    /// The kernel counts its requests, and stamps them for that.
    pub iostats: bool,
}

/// The kernel's types.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Btf {
    #[default]
    Missing,
    Unreadable(String),
    /// It is not what it is said to be.
    Implausible(String),
    /// So many bytes.
    Bytes(u64),
}

impl Facts {
    /// Reads the facts of the host whose `/` is `root`.
    #[must_use]
    pub fn read(root: &Path) -> Self {
        let word = |file: &str| Some(fs::read_to_string(root.join(file)).ok()?.trim().to_owned());
        let lines = |file: &str| -> Vec<String> {
            let text = fs::read_to_string(root.join(file)).unwrap_or_default();
            text.lines().map(Into::into).collect()
        };
        let mounts: Vec<Vec<String>> = lines("proc/self/mounts")
            .iter()
            .map(|line| line.split(' ').map(Into::into).collect())
            .filter(|words: &Vec<String>| words.len() > 3)
            .collect();
        let of_kind = |kind: &'static str| mounts.iter().filter(move |words| words[2] == kind);
        Self {
            release: word("proc/sys/kernel/osrelease"),
            cpus: word("sys/devices/system/cpu/online"),
            clock: word("sys/devices/system/clocksource/clocksource0/current_clocksource"),
            available: lines("proc/meminfo").iter().find_map(|line| {
                let kib = line
                    .strip_prefix("MemAvailable:")?
                    .trim()
                    .strip_suffix("kB")?;
                kib.trim().parse::<u64>().ok()?.checked_mul(1024)
            }),
            btf: btf(&root.join("sys/kernel/btf/vmlinux")),
            tracefs: of_kind("tracefs").next().map(|words| (&words[1]).into()),
            lockdown: word("sys/kernel/security/lockdown"),
            jit: word("proc/sys/net/core/bpf_jit_enable"),
            jit_harden: word("proc/sys/net/core/bpf_jit_harden"),
            kptr_restrict: word("proc/sys/kernel/kptr_restrict"),
            disks: disks(root),
            cgroups: ["cgroup2", "cgroup"]
                .into_iter()
                .flat_map(of_kind)
                .map(|words| (words[2].clone(), (&words[1]).into(), words[3].clone()))
                .collect(),
            modules: lines("proc/modules"),
        }
    }
}

fn btf(path: &Path) -> Btf {
    match btf::bytes(path) {
        Ok(bytes) => {
            let length = bytes.len() as u64;
            Vetted::new(bytes).map_or_else(Btf::Implausible, |_| Btf::Bytes(length))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Btf::Missing,
        Err(error) => Btf::Unreadable(error.to_string()),
    }
}

fn disks(root: &Path) -> Vec<Disk> {
    let entries = fs::read_dir(root.join("sys/block"));
    let mut disks: Vec<Disk> = entries
        .into_iter()
        .flatten()
        .flatten()
        // What makes no requests has no hardware queues.
        .filter(|entry| entry.path().join("mq").is_dir())
        .filter_map(|entry| {
            let iostats = fs::read_to_string(entry.path().join("queue/iostats")).ok()?;
            Some(Disk {
                name: entry.file_name().to_string_lossy().into_owned(),
                iostats: iostats.trim() != "0",
            })
        })
        .collect();
    disks.sort_by(|a, b| a.name.cmp(&b.name));
    disks
}

/// The word in brackets, of a list of choices.
#[must_use]
pub fn chosen(list: &str) -> &str {
    let bracketed = |word: &&str| word.starts_with('[') && word.ends_with(']');
    let chosen = list.split_whitespace().find(bracketed);
    chosen.map_or(list.trim(), |word| word.trim_matches(['[', ']']))
}

/// Whether files can be made in the directory of `path` on the host whose `/` is `root`.
///
/// # Errors
/// Why not.
pub fn writeable(root: &Path, path: &Path) -> Result<(), String> {
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let below = root.join(directory.strip_prefix("/").unwrap_or(directory));
    let metadata = fs::metadata(&below).map_err(|error| error.to_string())?;
    if !metadata.is_dir() {
        return Err("it is not a directory".into());
    }
    let name =
        std::ffi::CString::new(below.as_os_str().as_bytes()).map_err(|error| error.to_string())?;
    let wanted = libc::W_OK | libc::X_OK;
    // SAFETY: a C string for the time of the call.
    let may = unsafe { libc::faccessat(libc::AT_FDCWD, name.as_ptr(), wanted, libc::AT_EACCESS) };
    match may {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error().to_string()),
    }
}

#[cfg(test)]
pub mod fixture {
    //! A host's files, made for a test.

    use std::{
        os::unix::fs::symlink,
        sync::atomic::{AtomicU32, Ordering},
    };

    use super::*;

    pub struct Fixture(pub PathBuf);

    impl Fixture {
        pub fn new(files: &[(&str, &str)]) -> Self {
            static COUNT: AtomicU32 = AtomicU32::new(0);
            let count = COUNT.fetch_add(1, Ordering::Relaxed);
            let name = format!("iolag-doctor-{}-{count}", std::process::id());
            let fixture = Self(std::env::temp_dir().join(name));
            fs::create_dir_all(&fixture.0).unwrap();
            for (file, text) in files {
                fixture.write(file, text.as_bytes());
            }
            fixture
        }

        pub fn write(&self, file: &str, bytes: &[u8]) {
            let path = self.0.join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, bytes).unwrap();
        }

        pub fn link(&self, file: &str, target: &str) {
            let path = self.0.join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            symlink(target, path).unwrap();
        }

        pub fn facts(&self) -> Facts {
            Facts::read(&self.0)
        }
    }

    impl Drop for Fixture {
        fn drop(&mut self) {
            let _gone = fs::remove_dir_all(&self.0);
        }
    }

    /// Facts of a host with these files.
    pub fn facts(files: &[(&str, &str)]) -> Facts {
        Fixture::new(files).facts()
    }
}
