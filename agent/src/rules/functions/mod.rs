//! `fn:NAME`: which functions of the running kernel are meant, and which must not be delayed.
//!
//! The kernel refuses some itself, when it is tried. It would take others, on which a wait stops the machine: those
//! that the wait needs, or that others spin for meanwhile.

use std::{collections::BTreeSet, path::Path};

use agent_common::rules::FUNCTIONS;
use glob::Pattern;
pub use hazards::hazard;

use crate::{
    failure::{Failure, USAGE},
    functions::{Blacklist, Function, Functions},
};

mod hazards;

/// More matches than these are too many without a look at each.
const PLENTY: usize = 1024;

/// What the kernel tells of its functions.
pub struct Known {
    functions: Functions,
    blacklist: Blacklist,
}

impl Known {
    #[must_use]
    pub fn read(root: &Path) -> Self {
        Self {
            functions: Functions::read(root),
            blacklist: Blacklist::read(root),
        }
    }

    /// As [`Functions::function`].
    #[must_use]
    pub fn function(&self, name: &str) -> Function {
        self.functions.function(name)
    }
}

/// The functions that `fn:NAME` names; in order of name. Of a glob's matches those that must not be delayed, or that
/// the kernel lets nobody probe, are left out; a name alone is refused for it.
///
/// # Errors
/// No function of that name (the nearest are told), none that may be delayed, or more than 64. Where the kernel
/// does not tell its names, a name passes and a glob is refused.
pub fn find(known: &Known, name: &str) -> Result<Vec<String>, Failure> {
    let Known {
        functions,
        blacklist,
    } = known;
    let why_not = |function: &str| {
        hazard(function).or_else(|| {
            blacklist
                .has(function)
                .then_some("the kernel lets nobody probe it (kprobes/blacklist)")
        })
    };
    let refused = |what: String, hint: &str| Err(Failure::new(USAGE, what).hint(hint));
    if !name.contains(['*', '?', '[']) {
        functions.check(name)?;
        return match why_not(name) {
            Some(reason) => refused(
                format!("fn:{name} is not delayed: {reason}"),
                "delay who calls it, or a point: vfs.read, vfs.write, block.issue",
            ),
            None => Ok(vec![name.into()]),
        };
    }
    let pattern = Pattern::new(name)
        .map_err(|error| Failure::new(USAGE, format!("fn:{name} is no glob: {error}")))?;
    if functions.names().next().is_none() {
        return refused(
            format!("fn:{name} matches nothing: this kernel does not tell its names"),
            "name the function in full; /proc/kallsyms would have them",
        );
    }
    let matching: BTreeSet<String> = functions
        .names()
        .filter(|function| pattern.matches(function))
        .map(Into::into)
        .collect();
    if matching.is_empty() {
        let plain: String = name.chars().filter(|c| !"*?[]!".contains(*c)).collect();
        functions.check(&plain).map_err(|failure| Failure {
            message: format!("fn:{name} matches no function of this kernel"),
            ..failure
        })?;
        return refused(
            format!("fn:{name} matches no function of this kernel"),
            &format!("there is {plain} itself: fn:{plain}"),
        );
    }
    let too_many = |count: usize| {
        refused(
            format!("fn:{name} matches {count} functions, and {FUNCTIONS} are delayed at most"),
            "narrow it down",
        )
    };
    if matching.len() > PLENTY {
        return too_many(matching.len());
    }
    let (left_out, taken): (Vec<String>, Vec<String>) = matching
        .into_iter()
        .partition(|function| why_not(function).is_some());
    if let (Some(first), true) = (left_out.first(), taken.is_empty()) {
        let reason = why_not(first).unwrap_or_default();
        return refused(
            format!("fn:{name} matches only what is not delayed: {first}, as {reason}"),
            "delay who calls it, or a point: vfs.read, vfs.write, block.issue",
        );
    }
    if taken.len() > FUNCTIONS {
        return too_many(taken.len());
    }
    Ok(taken)
}

#[cfg(test)]
mod tests {
    use std::{fs, path::PathBuf};

    use super::*;

    struct Host(PathBuf);

    impl Host {
        fn new(name: &str) -> Self {
            let root = std::env::temp_dir().join(format!("iolag-{name}-{}", std::process::id()));
            fs::create_dir_all(root.join("proc")).unwrap();
            fs::create_dir_all(root.join("sys/kernel/debug/kprobes")).unwrap();
            let mut table: String = (0..65).map(|n| format!("0 t many_{n}\n")).collect();
            for name in [
                "ext4_sync_file",
                "ext4_sync_fs",
                "ext4_sync_fs.cold",
                "ext4_sync_secret",
                "ext4_map_blocks.isra.0",
                "_raw_spin_lock",
                "_raw_spin_lock_irq",
            ] {
                table += &format!("0 T {name}\n");
            }
            fs::write(root.join("proc/kallsyms"), table).unwrap();
            fs::write(
                root.join("sys/kernel/debug/kprobes/blacklist"),
                "0x00-0x10\text4_sync_secret\n",
            )
            .unwrap();
            Self(root)
        }

        fn refused(&self, name: &str, words: &[&str]) {
            let failure = find(&Known::read(&self.0), name).unwrap_err();
            assert_eq!(failure.code, USAGE);
            assert!(failure.hint.is_some(), "{failure}");
            for word in words {
                assert!(failure.to_string().contains(word), "no {word}: {failure}");
            }
        }
    }

    impl Drop for Host {
        fn drop(&mut self) {
            let _gone = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn names_and_globs_are_functions_of_this_kernel() {
        let host = Host::new("rule-functions");
        let found = |name| find(&Known::read(&host.0), name).unwrap();
        assert_eq!(found("ext4_sync_file"), ["ext4_sync_file"]);
        assert_eq!(found("ext4_sync_*"), ["ext4_sync_file", "ext4_sync_fs"]);
        assert_eq!(found("ext4_sync_f?"), ["ext4_sync_fs"]);
        assert_eq!(found("many_6[0-3]").len(), 4);
        host.refused("ext4_sink_file", &["did you mean ext4_sync_file"]);
        host.refused(
            "ext4_sink_f*",
            &["fn:ext4_sink_f* matches no function", "did you mean"],
        );
        host.refused("zzz*", &["matches no function"]);
        host.refused("many_*", &["matches 65 functions", "64"]);
        let silent = Known::read(Path::new("/nonexistent"));
        assert_eq!(find(&silent, "ext4_sync_file").unwrap(), ["ext4_sync_file"]);
        assert!(find(&silent, "ext4_*").is_err());
    }

    #[test]
    fn what_would_stop_the_machine_is_refused() {
        let host = Host::new("rule-hazards");
        host.refused(
            "_raw_spin_lock",
            &["fn:_raw_spin_lock is not delayed", "spin on the lock"],
        );
        host.refused("_raw_spin_*", &["matches only what is not delayed"]);
        host.refused("ext4_sync_secret", &["kprobes/blacklist"]);
    }
}
