//! Programs from Debian packages, each with a script in `bin/` that runs it.

use std::path::Path;

use anyhow::Result;

use super::Setup;

/// Programs that come from one set of packages.
pub struct Tools {
    /// The directory in the cache.
    dir: &'static str,
    packages: &'static [&'static str],
    /// Name and path below the directory.
    programs: &'static [(&'static str, &'static str)],
    /// Arguments before the user's; `{dir}` stands for the directory.
    arguments: &'static str,
}

pub const FIO: Tools = Tools {
    dir: "fio",
    packages: &["fio"],
    programs: &[("fio", "usr/bin/fio")],
    arguments: "",
};

pub const QEMU: Tools = Tools {
    dir: "qemu",
    packages: &["qemu-system-x86"],
    programs: &[("qemu-system-x86_64", "usr/bin/qemu-system-x86_64")],
    arguments: " -L '{dir}/usr/share/qemu' -L '{dir}/usr/share/seabios' -L '{dir}/usr/lib/ipxe/qemu'",
};

/// What makes the disk of the virtual machine, and what unpacks its kernel modules.
pub const DISK: Tools = Tools {
    dir: "disk-tools",
    packages: &["e2fsprogs", "xz-utils"],
    programs: &[("mke2fs", "sbin/mke2fs"), ("xz", "usr/bin/xz")],
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
            setup.debian.unpack(self.packages, dir)
        })?;
        let dir = setup.cache.path(self.dir);
        for (name, path) in self.programs {
            let arguments = self.arguments.replace("{dir}", &dir.display().to_string());
            setup
                .cache
                .write_wrapper(name, &wrapper(&dir, path, &arguments))?;
        }
        Ok(())
    }

    fn recipe(&self) -> String {
        format!("1 {:?} {}", self.packages, self.arguments)
    }
}

/// A script that runs `program` below `dir` with the libraries that lie there.
pub fn wrapper(dir: &Path, program: &str, arguments: &str) -> String {
    let dir = dir.display();
    format!(
        "#!/bin/sh\n\
         export LD_LIBRARY_PATH='{dir}/usr/lib/x86_64-linux-gnu:{dir}/lib/x86_64-linux-gnu'\n\
         export QEMU_MODULE_DIR='{dir}/usr/lib/x86_64-linux-gnu/qemu'\n\
         exec '{dir}/{program}'{arguments} \"$@\"\n"
    )
}
