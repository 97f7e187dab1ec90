//! Facts about this host, read under a root path that tests replace with fixtures.

use std::path::{Path, PathBuf};

use crate::privileges::Privileges;

/// The namespace that the kernel boots with: `PROC_PID_INIT_INO` (`include/linux/proc_ns.h`).
const FIRST_PID_NAMESPACE: &str = "pid:[4026531836]";

/// What the plan needs to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// Of this process.
    pub privileges: Privileges,
    /// The process is in a PID namespace other than the first one.
    pub pid_namespace: bool,
    /// Where the kernel's BTF is, if it has any.
    pub btf: Option<PathBuf>,
    /// The kernel was built with kprobes that perf events can open.
    pub kprobe_pmu: bool,
}

impl Facts {
    /// Reads the facts of the host whose `/` is `root`.
    #[must_use]
    pub fn read(root: &Path) -> Self {
        let btf = root.join("sys/kernel/btf/vmlinux");
        Self {
            privileges: Privileges::read(root),
            pid_namespace: std::fs::read_link(root.join("proc/self/ns/pid"))
                .is_ok_and(|namespace| namespace.as_os_str() != FIRST_PID_NAMESPACE),
            btf: btf.exists().then_some(btf),
            kprobe_pmu: root
                .join("sys/bus/event_source/devices/kprobe/type")
                .exists(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn facts_come_from_the_root_that_was_given() {
        let root = std::env::temp_dir().join(format!("iolag-facts-{}", std::process::id()));
        fs::create_dir_all(root.join("sys/kernel/btf")).unwrap();
        let without = Facts::read(&root);
        assert_eq!((without.btf, without.kprobe_pmu), (None, false));
        assert!(!without.pid_namespace);
        fs::create_dir_all(root.join("proc/self/ns")).unwrap();
        std::os::unix::fs::symlink("pid:[4026532000]", root.join("proc/self/ns/pid")).unwrap();
        assert!(Facts::read(&root).pid_namespace);
        fs::write(root.join("sys/kernel/btf/vmlinux"), b"").unwrap();
        assert_eq!(
            Facts::read(&root).btf,
            Some(root.join("sys/kernel/btf/vmlinux"))
        );
        fs::remove_dir_all(&root).unwrap();
    }
}
