//! Functions of the running kernel, by name: for the probe `fn`, and for rules at `fn:NAME`.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    io::{BufRead as _, BufReader},
    path::Path,
};

use crate::failure::{Failure, USAGE};

/// Where debugfs is mounted, below it.
const BLACKLIST: &str = "sys/kernel/debug/kprobes/blacklist";

/// How many names are told where one is unknown.
const NEAREST: usize = 3;

/// A function of the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Function {
    pub name: String,
    /// None where the kernel keeps it to itself.
    pub address: Option<u64>,
}

/// The functions of this kernel, with their addresses; none where it does not tell their names. The kernel writes some
/// 10 MB of names each time: so they are read once for all that is asked.
#[derive(Debug)]
pub struct Functions(BTreeMap<String, u64>);

impl Functions {
    #[must_use]
    pub fn read(root: &Path) -> Self {
        let table = fs::read_to_string(root.join("proc/kallsyms")).unwrap_or_default();
        let mut functions = BTreeMap::new();
        // `ADDRESS KIND NAME [MODULE]` a line.
        for line in table.lines() {
            let mut words = line.split_ascii_whitespace();
            let (Some(address), Some(kind), Some(name)) =
                (words.next(), words.next(), words.next())
            else {
                continue;
            };
            if matches!(kind, "t" | "T" | "w" | "W") && !functions.contains_key(name) {
                let address = u64::from_str_radix(address, 16).unwrap_or(0);
                functions.insert(name.into(), address);
            }
        }
        Self(functions)
    }

    /// Their names.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// With what the kernel tells of it.
    #[must_use]
    pub fn function(&self, name: &str) -> Function {
        // All addresses are 0 to who may not know them.
        let address = self.0.get(name).copied().filter(|address| *address != 0);
        Function {
            name: name.into(),
            address,
        }
    }

    /// Refuses a name that no function has. Where the kernel does not tell its names, all pass.
    ///
    /// # Errors
    /// There is none; the nearest names are told.
    pub fn check(&self, name: &str) -> Result<(), Failure> {
        if self.0.is_empty() || self.0.contains_key(name) {
            return Ok(());
        }
        let unknown = Failure::new(
            USAGE,
            format!("unknown function {name:?}: this kernel has none of that name"),
        );
        // What is left of a function after the compiler changed its arguments is named NAME.isra.0.
        let changed = format!("{name}.");
        if let Some(changed) = self.names().find(|known| known.starts_with(&changed)) {
            return Err(unknown.hint(format!(
                "the compiler made {changed} of it, whose arguments differ: fn:{changed} may do"
            )));
        }
        let nearest = self.nearest(name);
        Err(if nearest.is_empty() {
            unknown.hint("see /proc/kallsyms; a function that the compiler inlined is not there")
        } else {
            unknown.hint(format!("did you mean {}?", nearest.join(", ")))
        })
    }

    fn nearest(&self, name: &str) -> Vec<&str> {
        let mut likely: Vec<(f64, &str)> = self
            .names()
            .map(|known| (strsim::jaro_winkler(name, known), known))
            .filter(|(likeness, _)| *likeness > 0.85)
            .collect();
        likely.sort_by(|a, b| b.0.total_cmp(&a.0));
        likely.iter().take(NEAREST).map(|(_, name)| *name).collect()
    }
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
        let functions = Functions::read(&root);
        assert!(functions.check("vfs_read").is_ok());
        assert!(
            functions.check("nfs_read").is_ok(),
            "functions of modules count"
        );
        let told = |name: &str| {
            let failure = functions.check(name).unwrap_err();
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
        let of = |name| functions.function(name).address;
        assert_eq!(of("vfs_read"), Some(0xffff_0000_dead_beef));
        assert_eq!(of("nfs_read"), None, "the kernel keeps it to itself");
        let silent = Functions::read(Path::new("/nonexistent"));
        assert!(silent.check("anything").is_ok());
        let first = |names: &[&str]| address(&root, names);
        assert_eq!(first(&["nothing", "vfs_read"]), Some(0xffff_0000_dead_beef));
        assert_eq!(first(&["vfs_readv"]), None, "the kernel keeps it to itself");
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
