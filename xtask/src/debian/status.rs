//! The packages that apt may take for installed.

use std::collections::{HashMap, HashSet};

/// From dpkg's status file, the essential packages and what they depend on: the part that every Debian has.
///
/// What else is installed differs from machine to machine; leaving it out makes the result the same on all, and
/// hides what would conflict.
pub fn base(status: &str) -> String {
    let packages: Vec<Package> = status.split("\n\n").filter_map(Package::parse).collect();
    let mut providers: HashMap<&str, Vec<usize>> = HashMap::new();
    for (index, package) in packages.iter().enumerate() {
        for name in std::iter::once(package.name).chain(names(package.field("Provides"))) {
            providers.entry(name).or_default().push(index);
        }
    }
    let mut kept = HashSet::new();
    let mut open: Vec<usize> = packages
        .iter()
        .enumerate()
        .filter(|(_, package)| package.field("Essential") == "yes")
        .map(|(index, _)| index)
        .collect();
    while let Some(index) = open.pop() {
        if !kept.insert(index) {
            continue;
        }
        for name in ["Depends", "Pre-Depends"]
            .into_iter()
            .flat_map(|field| names(packages[index].field(field)))
        {
            // All alternatives of a dependency that are there: one of them satisfies it.
            open.extend(providers.get(name).into_iter().flatten());
        }
    }
    let kept = packages
        .iter()
        .enumerate()
        .filter(|(index, _)| kept.contains(index));
    kept.map(|(_, package)| format!("{}\n\n", package.text.trim_end()))
        .collect()
}

struct Package<'a> {
    name: &'a str,
    text: &'a str,
}

impl<'a> Package<'a> {
    /// An installed package, from its stanza.
    fn parse(text: &'a str) -> Option<Self> {
        let package = Self {
            name: field(text, "Package"),
            text,
        };
        let installed = field(text, "Status").ends_with(" installed");
        (installed && !package.name.is_empty()).then_some(package)
    }

    fn field(&self, name: &str) -> &'a str {
        field(self.text, name)
    }
}

fn field<'a>(stanza: &'a str, name: &str) -> &'a str {
    let value = stanza
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    value.unwrap_or_default().trim()
}

/// The names in a dependency field such as `a (>= 1) | b:any, c`.
fn names(field: &str) -> impl Iterator<Item = &str> {
    field
        .split([',', '|'])
        .filter_map(|part| part.split_whitespace().next()?.split(':').next())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_essential_packages_and_what_they_need_are_kept() {
        let status = "Package: bash\nEssential: yes\nStatus: install ok installed\nDepends: libc6 (>= 2.36), awk | none\n\n\
                      Package: libc6\nStatus: install ok installed\n\n\
                      Package: mawk\nProvides: awk\nStatus: install ok installed\n\n\
                      Package: qemu-utils\nStatus: install ok installed\nDepends: libc6\n\n\
                      Package: dash\nEssential: yes\nStatus: deinstall ok config-files\n";
        let base = base(status);
        let kept: Vec<&str> = base
            .lines()
            .filter_map(|line| line.strip_prefix("Package: "))
            .collect();
        assert_eq!(kept, ["bash", "libc6", "mawk"]);
    }
}
