//! Declarations as the kernel's source has them, in C.

use std::fmt;

use anyhow::{Context as _, Result, bail, ensure};

/// A function or a tracepoint: what is compared, so the types without the names of the parameters.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Prototype {
    pub tracepoint: bool,
    pub name: String,
    /// As [`Type`] writes them.
    pub result: String,
    pub parameters: Vec<String>,
}

impl fmt::Display for Prototype {
    /// As it stands in the kernel's source, but for the names of the parameters.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, .. } = self;
        let parameters = match self.parameters.as_slice() {
            [] => "void".into(),
            parameters => parameters.join(", "),
        };
        if self.tracepoint {
            return write!(f, "TRACE_EVENT({name}, TP_PROTO({parameters}))");
        }
        let space = if self.result.ends_with('*') { "" } else { " " };
        write!(f, "{}{space}{name}({parameters})", self.result)
    }
}

/// How the parts of a type are put together, one way for the kernel's source and for its BTF.
#[derive(Clone, Debug)]
pub struct Type(String);

impl Type {
    /// `long unsigned int`, which BTF says, is `unsigned long`.
    pub fn named(words: &str) -> Self {
        let has = |word: &str| words.split(' ').any(|other| other == word);
        if !words.split(' ').all(|word| INTEGER.contains(&word)) {
            return Self(words.to_owned());
        }
        let size = match words.split(' ').filter(|word| *word == "long").count() {
            0 if has("char") => "char",
            0 if has("short") => "short",
            0 => "int",
            1 => "long",
            _ => "long long",
        };
        Self(match (has("unsigned"), has("signed") && has("char")) {
            (true, _) => format!("unsigned {size}"),
            (_, true) => format!("signed {size}"),
            _ => size.to_owned(),
        })
    }

    pub fn pointer(self) -> Self {
        let space = if self.0.ends_with('*') { "" } else { " " };
        Self(self.0 + space + "*")
    }

    /// `const` or `volatile`.
    pub fn qualified(self, qualifier: &str) -> Self {
        Self(if self.0.ends_with('*') {
            self.0 + qualifier
        } else {
            format!("{qualifier} {}", self.0)
        })
    }

    pub fn text(self) -> String {
        self.0
    }
}

/// Words of which the names of integers are made.
const INTEGER: [&str; 6] = ["unsigned", "signed", "long", "short", "int", "char"];
/// Words that say nothing of the type.
const IGNORED: [&str; 8] = [
    "static",
    "inline",
    "extern",
    "noinline",
    "asmlinkage",
    "__user",
    "__rcu",
    "__force",
];

/// Reads `ssize_t vfs_read(struct file *file, ...)` or `TRACE_EVENT(block_rq_issue, TP_PROTO(struct request *rq))`.
///
/// # Errors
/// It is neither.
pub fn prototype(text: &str) -> Result<Prototype> {
    let parsed = match text.strip_prefix("TRACE_EVENT(") {
        Some(event) => tracepoint(event),
        None => function(text),
    };
    parsed.with_context(|| format!("failed to read the prototype {text:?}"))
}

fn tracepoint(event: &str) -> Result<Prototype> {
    let (name, rest) = event.split_once(',').context("there is no TP_PROTO")?;
    let list = rest.trim_start().strip_prefix("TP_PROTO(");
    let list = list.and_then(|rest| rest.strip_suffix("))"));
    Ok(Prototype {
        tracepoint: true,
        name: name.trim().into(),
        result: "void".into(),
        parameters: parameters(list.context("there is no TP_PROTO")?)?,
    })
}

fn function(text: &str) -> Result<Prototype> {
    let (before, list) = text.split_once('(').context("it has no parameters")?;
    let (result, name) = declared(before)?;
    Ok(Prototype {
        tracepoint: false,
        name: name.context("it has no name")?,
        result,
        parameters: parameters(list.strip_suffix(')').context("it has no end")?)?,
    })
}

fn parameters(list: &str) -> Result<Vec<String>> {
    if matches!(list.trim(), "" | "void") {
        return Ok(Vec::new());
    }
    let types = list.split(',').map(|one| Ok(declared(one)?.0));
    types.collect()
}

/// The type, and the name if there is one, of `const struct path *path`.
fn declared(text: &str) -> Result<(String, Option<String>)> {
    let spaced = text.replace('*', " * ");
    let words = spaced
        .split_whitespace()
        .filter(|word| !IGNORED.contains(word));
    let mut words = words.peekable();
    let mut qualifiers = Vec::new();
    let mut base = Vec::new();
    while let Some(word) = words.peek().copied() {
        if word == "const" || word == "volatile" {
            qualifiers.push(word);
        } else if base.is_empty() || of_base(&base, word) {
            base.push(word);
        } else {
            break;
        }
        words.next();
    }
    ensure!(!base.is_empty(), "{text:?} has no type");
    let mut kind = Type::named(&base.join(" "));
    for qualifier in qualifiers {
        kind = kind.qualified(qualifier);
    }
    let mut name = None;
    for word in words {
        match word {
            "*" => kind = kind.pointer(),
            "const" | "volatile" => kind = kind.qualified(word),
            _ if name.is_none() => name = Some(word.to_owned()),
            _ => bail!("{text:?} has {word:?} behind its name"),
        }
    }
    Ok((kind.text(), name))
}

/// Whether `word` goes on with the name of a type.
fn of_base(base: &[&str], word: &str) -> bool {
    match base {
        ["struct" | "union" | "enum"] => word != "*",
        [.., last] => INTEGER.contains(last) && INTEGER.contains(&word),
        [] => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_parameters_and_marks_of_the_kernel_are_no_part_of_a_prototype() {
        for (text, canonical) in [
            (
                "ssize_t vfs_read(struct file *file, char __user *buf, size_t count, loff_t *pos)",
                "ssize_t vfs_read(struct file *, char *, size_t, loff_t *)",
            ),
            (
                "static struct dentry *f(struct qstr const *name, unsigned flags, long unsigned int, bool x)",
                "struct dentry *f(const struct qstr *, unsigned int, unsigned long, bool)",
            ),
            (
                "void *f(const char *const *list, enum kind kind)",
                "void *f(const char *const *, enum kind)",
            ),
            ("int f(void)", "int f(void)"),
            (
                "TRACE_EVENT(block_rq_issue, TP_PROTO(struct request *rq))",
                "TRACE_EVENT(block_rq_issue, TP_PROTO(struct request *))",
            ),
        ] {
            let read = prototype(text).unwrap();
            assert_eq!(read.to_string(), canonical);
            assert_eq!(prototype(canonical).unwrap(), read, "{canonical}");
        }
    }

    #[test]
    fn what_is_no_prototype_is_refused() {
        for text in [
            "vfs_read",
            "TRACE_EVENT(x)",
            "int f(int a b)",
            "int f(int",
            "f()",
        ] {
            assert!(prototype(text).is_err(), "{text}");
        }
    }

    #[test]
    fn types_differ_that_are_not_the_same() {
        let one = |parameters: &str| prototype(&format!("int f({parameters})")).unwrap();
        for (a, b) in [
            ("int", "unsigned int"),
            ("int *", "int"),
            ("int *", "int **"),
            ("const char *", "char *"),
            ("char *const", "const char *"),
            ("struct a *", "struct b *"),
            ("long", "long long"),
            ("u64", "u32"),
            ("int, int", "int"),
        ] {
            assert_ne!(one(a), one(b));
        }
    }
}
