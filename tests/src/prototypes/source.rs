//! The eBPF programs in their source, each with the prototypes that stand above it:
//!
//! ```text
//! /// Hook: `int vfs_open(const struct path *path, struct file *file)`
//! ```
//!
//! A hook that has another one on other kernels has a `Hook:` for each; what follows it is for people. Programs that go
//! anywhere and read no argument have `Hook: any function` or `Hook: any tracepoint`, one of perf `Hook: perf event`.

use anyhow::{Context as _, Result, bail, ensure};
use syn::{
    Attribute, Expr, ExprLit, Item, Lit, Meta, MetaNameValue,
    parse::{Parse, ParseStream},
};

use super::declaration::{Prototype, prototype};

/// Names and texts of the files below `agent-ebpf/src`.
pub const SOURCES: &[(&str, &str)] = include!(concat!(env!("OUT_DIR"), "/sources.rs"));

/// The attributes that make a function a program.
const ATTRIBUTES: [&str; 8] = [
    "fentry",
    "fexit",
    "kprobe",
    "kretprobe",
    "uprobe",
    "btf_tracepoint",
    "raw_tracepoint",
    "perf_event",
];
/// The macro that makes programs for one function.
const TWINS: &str = "function_twins";

/// A program and what it relies on.
#[derive(Debug)]
pub struct Program {
    /// `block` for `block.rs` and what lies below `block/`.
    pub object: String,
    pub name: String,
    /// All that its hook may have; none if it goes anywhere.
    pub prototypes: Vec<Prototype>,
}

impl Program {
    /// The functions or tracepoints that it is for, each once.
    pub fn symbols(&self) -> Vec<&str> {
        let mut names: Vec<&str> = self.prototypes.iter().map(|one| &*one.name).collect();
        names.dedup();
        names
    }
}

/// All programs.
///
/// # Errors
/// One has no `Hook:`, or one that is no prototype.
pub fn programs() -> Result<Vec<Program>> {
    let mut programs = Vec::new();
    for (file, text) in SOURCES {
        programs.extend(of_file(file, text).with_context(|| format!("in {file}"))?);
    }
    Ok(programs)
}

fn of_file(file: &str, text: &str) -> Result<Vec<Program>> {
    let object = file.split(['/', '.']).next().unwrap_or_default();
    let mut programs = Vec::new();
    for item in syn::parse_file(text).context("failed to parse it")?.items {
        let (names, attributes, symbol) = match &item {
            Item::Fn(function) => {
                let Some(kind) = function
                    .attrs
                    .iter()
                    .find(|attribute| is_program(attribute))
                else {
                    continue;
                };
                let name = function.sig.ident.to_string();
                (vec![name], function.attrs.clone(), symbol(kind))
            }
            Item::Macro(item) if item.mac.path.is_ident(TWINS) => {
                let twins: Twins = item.mac.parse_body().context("failed to parse the twins")?;
                (twins.programs, twins.attributes, None)
            }
            _ => continue,
        };
        let documentation = documentation(&attributes);
        for name in names {
            let hooks = prototypes(&documentation).with_context(|| name.clone())?;
            if let Some(symbol) = &symbol {
                ensure!(
                    hooks.iter().all(|hook| hook.name == *symbol),
                    "{name} goes to {symbol}, and its Hook says another"
                );
            }
            programs.push(Program {
                object: object.into(),
                name,
                prototypes: hooks,
            });
        }
    }
    Ok(programs)
}

fn is_program(attribute: &Attribute) -> bool {
    ATTRIBUTES
        .iter()
        .any(|name| attribute.path().is_ident(name))
}

/// The tracepoint or function that an attribute names.
fn symbol(attribute: &Attribute) -> Option<String> {
    let Meta::List(list) = &attribute.meta else {
        return None;
    };
    let named: MetaNameValue = list.parse_args().ok()?;
    string(&named.value)
}

fn string(value: &Expr) -> Option<String> {
    match value {
        Expr::Lit(ExprLit {
            lit: Lit::Str(text),
            ..
        }) => Some(text.value()),
        _ => None,
    }
}

/// What a macro for twins is called with: documentation, and the names of the programs among the rest.
struct Twins {
    attributes: Vec<Attribute>,
    programs: Vec<String>,
}

impl Parse for Twins {
    fn parse(input: ParseStream<'_>) -> syn::Result<Self> {
        let attributes = input.call(Attribute::parse_outer)?;
        let mut programs = Vec::new();
        for token in input.parse::<proc_macro2::TokenStream>()? {
            let word = token.to_string();
            let kind = word.split('_').next().unwrap_or_default();
            if word != kind && ATTRIBUTES.contains(&kind) {
                programs.push(word);
            }
        }
        Ok(Self {
            attributes,
            programs,
        })
    }
}

/// The lines of the documentation as one.
fn documentation(attributes: &[Attribute]) -> String {
    let lines = attributes.iter().filter_map(|attribute| {
        let Meta::NameValue(line) = &attribute.meta else {
            return None;
        };
        line.path.is_ident("doc").then(|| string(&line.value))?
    });
    let lines: Vec<String> = lines.map(|line| line.trim().to_owned()).collect();
    lines.join(" ")
}

fn prototypes(documentation: &str) -> Result<Vec<Prototype>> {
    let mut hooks = documentation.split("Hook: ").skip(1).peekable();
    ensure!(hooks.peek().is_some(), "there is no Hook above it");
    let anywhere = ["any function", "any tracepoint", "perf event"];
    let mut found = Vec::new();
    for hook in hooks {
        if let Some(quoted) = hook.strip_prefix('`') {
            let text = quoted.split('`').next().unwrap_or_default();
            found.push(prototype(text)?);
        } else if !anywhere.iter().any(|words| hook.starts_with(words)) {
            bail!("failed to read the Hook {hook:?}");
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Vec<Program>> {
        of_file("block/starts.rs", text)
    }

    #[test]
    fn programs_are_found_with_their_prototypes() {
        let found = read(
            "/// Hook: `int f(int a,\n/// long b)` until it was\n///\n/// Hook: `long f(int)`\n#[kprobe]\n\
             pub fn kprobe_f() {}\nfn no_program() {}\n\
             /// Hook: any function, without arguments\n#[fentry]\nfn anything() {}\n\
             function_twins!(\n/// Hook: `int g(void)`\nREAD, 0, files::of, fentry_g, kretprobe_g);",
        )
        .unwrap();
        let names: Vec<&str> = found.iter().map(|program| &*program.name).collect();
        assert_eq!(names, ["kprobe_f", "anything", "fentry_g", "kretprobe_g"]);
        assert!(found.iter().all(|program| program.object == "block"));
        let texts: Vec<String> = found[0]
            .prototypes
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(texts, ["int f(int, long)", "long f(int)"]);
        assert_eq!(found[0].symbols(), ["f"]);
        assert!(found[1].prototypes.is_empty());
        assert_eq!(found[3].prototypes[0].to_string(), "int g(void)");
    }

    #[test]
    fn a_program_without_a_prototype_is_refused() {
        for (text, reason) in [
            ("#[kprobe]\nfn f() {}", "no Hook above it"),
            ("/// As `f`.\n#[fexit]\nfn g() {}", "no Hook above it"),
            (
                "function_twins!(READ, 0, fentry_g, fexit_g);",
                "no Hook above it",
            ),
            (
                "/// Hook: some function\n#[kprobe]\nfn f() {}",
                "failed to read the Hook",
            ),
            (
                "/// Hook: `f`\n#[kprobe]\nfn f() {}",
                "failed to read the prototype",
            ),
            (
                "/// Hook: `TRACE_EVENT(a, TP_PROTO(int x))`\n#[raw_tracepoint(tracepoint = \"b\")]\nfn f() {}",
                "goes to b,",
            ),
        ] {
            let error = format!("{:#}", read(text).unwrap_err());
            assert!(error.contains(reason), "{text}: {error}");
        }
    }
}
