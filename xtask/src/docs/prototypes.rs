//! The part of `docs/kernels.md` on prototypes, from what the test `prototypes` saw.

use std::collections::BTreeMap;
use std::fmt::Write as _;

/// Kernel, hook, `ok` or `absent`, prototype.
const SEEN: &str = include_str!("../../../vm-tests/prototypes.tsv");

const HEAD: &str = "
## Prototypes of the hooks

From `vm-tests/prototypes.tsv`, the rows of the test `prototypes`: each program's source has the prototypes that it relies
on above it, and one of them has to be the kernel's own, as its BTF has it. A function that is not there is inlined, of
another kind of machine, or of another kernel; its point or probe then goes to the next function that it knows.

| hook | prototype | kernels |
| --- | --- | --- |
";

pub fn text() -> String {
    let mut kernels: Vec<&str> = Vec::new();
    let mut rows: BTreeMap<(&str, &str), Vec<&str>> = BTreeMap::new();
    for line in SEEN.lines().filter(|line| !line.starts_with('#')) {
        let words: Vec<&str> = line.split('\t').collect();
        let (kernel, hook, prototype) = match words.as_slice() {
            [kernel, hook, "ok", prototype] => (*kernel, *hook, *prototype),
            [kernel, hook, "absent"] => (*kernel, *hook, ""),
            _ => continue,
        };
        if !kernels.contains(&kernel) {
            kernels.push(kernel);
        }
        rows.entry((hook, prototype)).or_default().push(kernel);
    }
    let mut text = HEAD.to_owned();
    for ((hook, prototype), of) in rows {
        let prototype = match prototype {
            "" => "not there".into(),
            prototype => format!("`{prototype}`"),
        };
        let of = if of.len() == kernels.len() {
            "all".into()
        } else {
            of.join(", ")
        };
        let _infallible = writeln!(text, "| `{hook}` | {prototype} | {of} |");
    }
    text
}
