//! Programs from Debian packages, each with a script in `bin/` that runs it.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::Setup;
use crate::cache::remove;
use crate::debian::Suite;
use crate::process::run;

/// Where Debian's packages have shared libraries; librbd, which fio loads, finds those of Ceph by absolute path only.
const LIBRARIES: &[&str] = &[
    "usr/lib/x86_64-linux-gnu",
    "lib/x86_64-linux-gnu",
    "usr/lib/x86_64-linux-gnu/ceph",
];

/// The directories with shared libraries, of packages unpacked below `prefix`.
pub fn libraries(prefix: &Path) -> Vec<PathBuf> {
    LIBRARIES.iter().map(|dir| prefix.join(dir)).collect()
}

/// Programs that come from one set of packages.
pub struct Tools {
    /// The directory in the cache.
    dir: &'static str,
    suite: Suite,
    packages: &'static [&'static str],
    /// Name and path below the directory.
    programs: &'static [(&'static str, &'static str)],
    /// The option that makes each say its version.
    version: &'static str,
    /// Arguments before the user's; `{dir}` stands for the directory.
    arguments: &'static str,
}

pub const FIO: Tools = Tools {
    dir: "fio",
    suite: Suite::Bookworm,
    packages: &["fio"],
    programs: &[("fio", "usr/bin/fio")],
    version: "--version",
    arguments: "",
};

/// Keeps the virtual machines busy in every way that there is.
pub const STRESS: Tools = Tools {
    dir: "stress-ng",
    suite: Suite::Bookworm,
    packages: &["stress-ng"],
    programs: &[("stress-ng", "usr/bin/stress-ng")],
    version: "--version",
    arguments: "",
};

/// Not Debian 12's 7.2: before 8.1, a CPU may go on with translated code that another CPU has patched, and a kernel
/// that switches a tracepoint on or off then dies of a breakpoint that is gone ("Oops: int3", once in some hundred
/// boots).
pub const QEMU: Tools = Tools {
    dir: "qemu",
    suite: Suite::Backports,
    packages: &["qemu-system-x86"],
    programs: &[("qemu-system-x86_64", "usr/bin/qemu-system-x86_64")],
    version: "--version",
    arguments: " -L '{dir}/usr/share/qemu' -L '{dir}/usr/share/seabios' -L '{dir}/usr/lib/ipxe/qemu'",
};

/// What makes the disk of the virtual machine, and what unpacks its kernel modules.
pub const DISK: Tools = Tools {
    dir: "disk-tools",
    suite: Suite::Bookworm,
    packages: &["e2fsprogs", "xz-utils"],
    programs: &[("mke2fs", "sbin/mke2fs"), ("xz", "usr/bin/xz")],
    version: "-V",
    arguments: "",
};

/// Tools that measure what our probes measure; `cargo xtask bench cost` alone needs them.
pub const PEERS: Tools = Tools {
    dir: "libbpf-tools",
    suite: Suite::Bookworm,
    packages: &["libbpf-tools"],
    programs: &[
        ("biolatency", "usr/sbin/biolatency"),
        ("runqlat", "usr/sbin/runqlat"),
        ("softirqs", "usr/sbin/softirqs"),
        ("hardirqs", "usr/sbin/hardirqs"),
    ],
    version: "--version",
    arguments: "",
};

impl Tools {
    pub fn check(&self, setup: &Setup) -> Option<String> {
        let whole = setup.cache.holds(self.dir, &self.recipe());
        let there = self
            .programs
            .iter()
            .all(|(name, _)| setup.cache.program(name).is_file());
        (whole && there).then(|| self.packages.join(", "))
    }

    pub fn install(&self, setup: &Setup) -> Result<()> {
        let recipe = self.recipe();
        setup.cache.make(self.dir, &recipe, |dir| {
            setup.debian.unpack(self.suite, self.packages, dir)
        })?;
        let finished = self.finish(setup);
        if finished.is_err() {
            // Else the next run would take it for good.
            remove(&setup.cache.path(self.dir)).context("failed to delete what does not run")?;
        }
        finished
    }

    /// Writes the scripts, and runs each program once: a library that is missing shows now, and not in a test.
    fn finish(&self, setup: &Setup) -> Result<()> {
        let dir = setup.cache.path(self.dir);
        let arguments = self.arguments.replace("{dir}", &dir.display().to_string());
        for (name, path) in self.programs {
            setup
                .cache
                .write_wrapper(name, &wrapper(&dir, path, &arguments))?;
            let mut program = Command::new(setup.cache.program(name));
            run(program.arg(self.version), &format!("run {name}"))?;
        }
        Ok(())
    }

    fn recipe(&self) -> String {
        format!("3 {:?} {:?} {}", self.suite, self.packages, self.arguments)
    }
}

/// A script that runs `program` below `dir` with the libraries that lie there.
pub fn wrapper(dir: &Path, program: &str, arguments: &str) -> String {
    let libraries: Vec<String> = libraries(dir)
        .iter()
        .map(|dir| dir.display().to_string())
        .collect();
    let (dir, libraries) = (dir.display(), libraries.join(":"));
    format!(
        "#!/bin/sh\n\
         export LD_LIBRARY_PATH='{libraries}'\n\
         export QEMU_MODULE_DIR='{dir}/usr/lib/x86_64-linux-gnu/qemu'\n\
         exec '{dir}/{program}'{arguments} \"$@\"\n"
    )
}
