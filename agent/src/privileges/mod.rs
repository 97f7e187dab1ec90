//! What this program has to be allowed to do. One list: by it the agent refuses to start, keeps what it needs and drops the
//! rest, and `doctor` tells what is missing.

mod keep;

use std::{fs, path::Path};

use caps::Capability;

pub use keep::{Kept, give_up, kept, refused};

/// A capability (capabilities(7)), and what it is for.
#[derive(Debug)]
pub struct Need {
    pub capability: Capability,
    pub role: Role,
    pub purpose: &'static str,
    /// One that allows the same, and more.
    pub instead: Option<Capability>,
    /// How a host does without, if not by itself.
    pub remedy: Option<&'static str>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Nothing goes without it.
    Required,
    /// Its purpose is lost without it.
    Wanted,
    /// Most hosts do without: whether this one does is found out by trying.
    Sometimes,
    /// As the agent starts; then it is dropped.
    Starting,
}

/// All that are used, the most needed first.
pub const NEEDS: [Need; 8] = [
    Need {
        capability: Capability::CAP_BPF,
        role: Role::Required,
        purpose: "loading programs, making and writing maps",
        instead: Some(Capability::CAP_SYS_ADMIN),
        remedy: None,
    },
    Need {
        capability: Capability::CAP_PERFMON,
        role: Role::Required,
        purpose: "attaching programs that read the kernel's memory",
        instead: Some(Capability::CAP_SYS_ADMIN),
        remedy: None,
    },
    Need {
        capability: Capability::CAP_SYSLOG,
        role: Role::Wanted,
        purpose: "kernel addresses (fn:NAME, losses of kretprobes)",
        instead: None,
        remedy: None,
    },
    Need {
        capability: Capability::CAP_DAC_READ_SEARCH,
        role: Role::Wanted,
        purpose: "directories closed to its user (--under)",
        instead: Some(Capability::CAP_DAC_OVERRIDE),
        remedy: None,
    },
    Need {
        capability: Capability::CAP_DAC_OVERRIDE,
        role: Role::Sometimes,
        purpose: "a socket in a directory of another user",
        instead: None,
        remedy: Some("--socket PATH, in a directory of this user"),
    },
    Need {
        capability: Capability::CAP_SYS_PTRACE,
        role: Role::Sometimes,
        purpose: "processes that /proc hides (hidepid)",
        instead: None,
        remedy: None,
    },
    Need {
        capability: Capability::CAP_SYS_ADMIN,
        role: Role::Sometimes,
        purpose: "perf events: kprobes, fn:NAME, major faults",
        instead: None,
        remedy: Some("sysctl kernel.perf_event_paranoid=2, or add this capability"),
    },
    Need {
        capability: Capability::CAP_SYS_RESOURCE,
        role: Role::Starting,
        purpose: "raising RLIMIT_MEMLOCK, before Linux 5.11",
        instead: None,
        remedy: None,
    },
];

/// Who this process is to the kernel.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Privileges {
    /// Effective.
    pub uid: Option<u32>,
    /// Effective, a bit for each.
    pub capabilities: Option<u64>,
    /// As `readlink /proc/self/ns/user` shows it.
    pub user_namespace: Option<String>,
}

impl Privileges {
    /// Reads them from the host whose `/` is `root`.
    #[must_use]
    pub fn read(root: &Path) -> Self {
        let status = fs::read_to_string(root.join("proc/self/status")).unwrap_or_default();
        let field = |name: &str, place: usize| {
            let value = status.lines().find_map(|line| line.strip_prefix(name))?;
            value.split_whitespace().nth(place).map(str::to_owned)
        };
        let namespace = fs::read_link(root.join("proc/self/ns/user"));
        Self {
            // Real, effective, saved, of the file system.
            uid: field("Uid:", 1).and_then(|uid| uid.parse().ok()),
            capabilities: field("CapEff:", 0).and_then(|bits| u64::from_str_radix(&bits, 16).ok()),
            user_namespace: namespace.ok().map(|name| name.display().to_string()),
        }
    }

    /// Whether it is held; none where `/proc` does not tell.
    #[must_use]
    pub fn has(&self, capability: Capability) -> Option<bool> {
        Some(self.capabilities? & capability.bitmask() != 0)
    }

    /// Those without which nothing goes and that are known to be missing.
    #[must_use]
    pub fn missing(&self) -> Vec<Capability> {
        let lacks = |capability| self.has(capability) == Some(false);
        let required = NEEDS.iter().filter(|need| need.role == Role::Required);
        required
            .filter(|need| lacks(need.capability) && need.instead.is_none_or(lacks))
            .map(|need| need.capability)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holding(capabilities: &[Capability]) -> Privileges {
        Privileges {
            capabilities: Some(capabilities.iter().map(Capability::bitmask).sum()),
            ..Privileges::default()
        }
    }

    #[test]
    fn what_is_missing_is_named_whoever_asks() {
        use Capability::{CAP_BPF, CAP_CHOWN, CAP_PERFMON, CAP_SYS_ADMIN};
        assert_eq!(holding(&[CAP_CHOWN]).missing(), [CAP_BPF, CAP_PERFMON]);
        assert_eq!(holding(&[CAP_BPF]).missing(), [CAP_PERFMON]);
        assert_eq!(holding(&[CAP_PERFMON]).missing(), [CAP_BPF]);
        assert_eq!(holding(&[CAP_BPF, CAP_PERFMON]).missing(), []);
        assert_eq!(holding(&[CAP_SYS_ADMIN]).missing(), []);
        // The kernel then says itself what it refuses.
        assert_eq!(Privileges::default().missing(), []);
    }

    /// A line of `status` is to fit into 80 columns: a title, the name, the purpose.
    #[test]
    fn each_has_its_place_in_the_list_and_on_a_line() {
        for (place, need) in NEEDS.iter().enumerate() {
            let before = &NEEDS[..place];
            assert!(before.iter().all(|one| one.capability != need.capability));
            let line = format!("kept   {:<19}  {}", need.capability, need.purpose);
            assert!(line.len() < 80, "{line}");
        }
    }
}
