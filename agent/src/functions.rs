//! Functions of the running kernel, by name: for the probe `fn`, and for rules at `fn:NAME`.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::{BufRead as _, BufReader},
    path::Path,
};

use crate::failure::{Failure, USAGE};

/// Where debugfs is mounted, below it.
const BLACKLIST: &str = "sys/kernel/debug/kprobes/blacklist";

/// How many names are told where one is unknown.
const NEAREST: usize = 3;

/// Refuses a name that no function of this kernel has. Where the kernel does not tell its names, all pass.
///
/// # Errors
/// There is none; the nearest names are told.
pub fn check(root: &Path, name: &str) -> Result<(), Failure> {
    let Ok(table) = fs::read_to_string(root.join("proc/kallsyms")) else {
        return Ok(());
    };
    let known = functions(&table);
    if known.is_empty() || known.contains(name) {
        return Ok(());
    }
    let unknown = Failure::new(
        USAGE,
        format!("unknown function {name:?}: this kernel has none of that name"),
    );
    // What is left of a function after the compiler changed its arguments is named NAME.isra.0.
    let changed = format!("{name}.");
    if let Some(changed) = known.iter().find(|known| known.starts_with(&changed)) {
        return Err(unknown.hint(format!(
            "the compiler made {changed} of it, whose arguments differ: fn:{changed} may do"
        )));
    }
    let nearest = nearest(&known, name);
    Err(if nearest.is_empty() {
        unknown.hint("see /proc/kallsyms; a function that the compiler inlined is not there")
    } else {
        unknown.hint(format!("did you mean {}?", nearest.join(", ")))
    })
}

/// What else is known of a function that could not be attached to, to be told with the kernel's reasons.
#[must_use]
pub fn untraceable(root: &Path, name: &str) -> Option<String> {
    let lists = |file: &str| fs::read_to_string(root.join(file)).ok();
    let has = |list: &str, place: usize| {
        list.lines()
            .any(|line| line.split_whitespace().nth(place) == Some(name))
    };
    // Without tracefs or debugfs nothing is known.
    let traceable = ["sys/kernel/tracing", "sys/kernel/debug/tracing"]
        .iter()
        .find_map(|dir| lists(&format!("{dir}/available_filter_functions")));
    if traceable.is_some_and(|list| !has(&list, 0)) {
        return Some(format!(
            "the kernel does not let {name} be traced (notrace)"
        ));
    }
    Blacklist::read(root)
        .has(name)
        .then(|| format!("the kernel does not let {name} be probed (kprobes/blacklist)"))
}

/// Names of all functions of this kernel; none where it does not tell them.
#[must_use]
pub fn all(root: &Path) -> Vec<String> {
    let table = fs::read_to_string(root.join("proc/kallsyms")).unwrap_or_default();
    functions(&table).into_iter().map(Into::into).collect()
}

/// What the kernel lets no kprobe near; empty where it does not tell.
#[derive(Debug)]
pub struct Blacklist(BTreeSet<String>);

impl Blacklist {
    #[must_use]
    pub fn read(root: &Path) -> Self {
        let list = fs::read_to_string(root.join(BLACKLIST)).unwrap_or_default();
        // `FROM-TO NAME` a line.
        let names = list
            .lines()
            .filter_map(|line| line.split_whitespace().nth(1));
        Self(names.map(Into::into).collect())
    }

    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.0.contains(name)
    }
}

/// The address of the first of these symbols that the kernel tells one of.
#[must_use]
pub fn address(root: &Path, names: &[&str]) -> Option<u64> {
    let table = File::open(root.join("proc/kallsyms")).ok()?;
    let mut best: Option<(usize, u64)> = None;
    for line in BufReader::new(table).lines() {
        let line = line.ok()?;
        let Some((place, address)) = named(&line, names) else {
            continue;
        };
        if best.is_none_or(|(before, _)| place < before) {
            best = Some((place, address));
        }
        // The kernel writes some 10 MB of names: what follows is not asked for.
        if place == 0 {
            break;
        }
    }
    // All addresses are 0 to who may not know them.
    best.map(|(_, address)| address)
        .filter(|address| *address != 0)
}

/// The place in `names` of a line's symbol, and its address.
fn named(line: &str, names: &[&str]) -> Option<(usize, u64)> {
    let mut words = line.split_ascii_whitespace();
    let address = words.next()?;
    let name = words.nth(1)?;
    let place = names.iter().position(|known| *known == name)?;
    Some((place, u64::from_str_radix(address, 16).ok()?))
}

/// Names of all functions in a table of symbols: `ADDRESS KIND NAME [MODULE]`.
fn functions(table: &str) -> BTreeSet<&str> {
    table
        .lines()
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            let (_, kind, name) = (words.next()?, words.next()?, words.next()?);
            matches!(kind, "t" | "T" | "w" | "W").then_some(name)
        })
        .collect()
}

fn nearest<'a>(known: &BTreeSet<&'a str>, name: &str) -> Vec<&'a str> {
    let mut likely: Vec<(f64, &str)> = known
        .iter()
        .map(|known| (strsim::jaro_winkler(name, known), *known))
        .filter(|(likeness, _)| *likeness > 0.85)
        .collect();
    likely.sort_by(|a, b| b.0.total_cmp(&a.0));
    likely.iter().take(NEAREST).map(|(_, name)| *name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "ffff0000deadbeef T vfs_read\n0 t vfs_readv\n0 D vfs_data\n0 t lookup_one.isra.0\n\
                         0 t nfs_read\t[nfs]\n";

    fn root(name: &str) -> std::path::PathBuf {
        let root = std::env::temp_dir().join(format!("iolag-{name}-{}", std::process::id()));
        fs::create_dir_all(root.join("proc")).unwrap();
        fs::create_dir_all(root.join("sys/kernel/tracing")).unwrap();
        fs::write(root.join("proc/kallsyms"), TABLE).unwrap();
        root
    }

    #[test]
    fn unknown_functions_are_told_with_the_nearest() {
        let root = root("functions");
        assert!(check(&root, "vfs_read").is_ok());
        assert!(
            check(&root, "nfs_read").is_ok(),
            "functions of modules count"
        );
        let told = |name: &str| {
            let failure = check(&root, name).unwrap_err();
            assert_eq!(failure.code, USAGE);
            failure.to_string()
        };
        assert!(
            told("vfs_reed").contains("did you mean vfs_read, "),
            "{}",
            told("vfs_reed")
        );
        assert!(
            told("vfs_data").contains("unknown function"),
            "data are no functions"
        );
        assert!(told("lookup_one").contains("made lookup_one.isra.0 of it"));
        assert!(told("zzz").contains("inlined"));
        assert!(check(Path::new("/nonexistent"), "anything").is_ok());
        let address = |names: &[&str]| address(&root, names);
        assert_eq!(
            address(&["nothing", "vfs_read"]),
            Some(0xffff_0000_dead_beef)
        );
        assert_eq!(
            address(&["vfs_readv"]),
            None,
            "the kernel keeps it to itself"
        );
        fs::remove_dir_all(root).unwrap();
    }

    #[test]
    fn what_may_not_be_traced_is_known_from_the_kernels_own_lists() {
        let root = root("untraceable");
        assert_eq!(untraceable(&root, "vfs_read"), None);
        fs::write(
            root.join("sys/kernel/tracing/available_filter_functions"),
            "vfs_read\nnfs_read [nfs]\n",
        )
        .unwrap();
        assert_eq!(untraceable(&root, "nfs_read"), None);
        assert!(untraceable(&root, "vfs_readv").unwrap().contains("notrace"));
        fs::remove_dir_all(root).unwrap();
    }
}
