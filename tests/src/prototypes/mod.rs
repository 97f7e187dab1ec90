//! The prototypes above the eBPF programs against those of the running kernel.

pub mod catalogue;
mod declaration;
pub mod kernel;
pub mod source;

use std::{collections::BTreeMap, fmt, path::Path};

use anyhow::{Context as _, Result, ensure};

use catalogue::{Use, uses};
use declaration::Prototype;
use kernel::Kernel;
use source::{Program, programs};

/// What became of a hook on a kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// It is as one of the prototypes above each program that may be attached there.
    Same(Prototype),
    /// The kernel's types know none of that name.
    Absent,
    /// The program is for other arguments than there are here, and would not be attached; if no other program is for
    /// these, the prototype differs.
    Other(String),
    /// The first program of another prototype, and what both say.
    Differs(String),
}

impl Found {
    /// Of what several programs say of a hook, the one with the most counts.
    fn weight(&self) -> u32 {
        match self {
            Self::Absent => 0,
            Self::Other(_) => 1,
            Self::Same(_) => 2,
            Self::Differs(_) => 3,
        }
    }
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Same(prototype) => write!(f, "ok\t{prototype}"),
            Self::Absent => write!(f, "absent"),
            Self::Other(what) | Self::Differs(what) => write!(f, "differs\t{what}"),
        }
    }
}

/// Functions and tracepoints by name.
pub type Hooks = BTreeMap<String, Found>;

/// A program none of whose functions is there.
#[derive(Debug)]
pub struct Homeless {
    pub serves: String,
    pub backend: &'static str,
    /// The program and its functions.
    pub what: String,
}

/// What was found of all hooks, and what has no place.
#[derive(Debug)]
pub struct Compared {
    pub hooks: Hooks,
    pub homeless: Vec<Homeless>,
}

impl Compared {
    /// # Errors
    /// A prototype differs.
    pub fn none_differs(&self) -> Result<()> {
        let differences: Vec<&str> = self
            .hooks
            .values()
            .filter_map(|found| match found {
                Found::Other(what) | Found::Differs(what) => Some(&**what),
                _ => None,
            })
            .collect();
        ensure!(differences.is_empty(), "{}", differences.join("; "));
        Ok(())
    }
}

/// Holds all programs against the kernel with these types.
///
/// # Errors
/// The source or the types cannot be read.
pub fn compare(btf: &Path) -> Result<Compared> {
    compare_programs(&Kernel::read(btf)?, &programs()?, &uses())
}

fn compare_programs(kernel: &Kernel, programs: &[Program], uses: &[Use]) -> Result<Compared> {
    let mut hooks = Hooks::new();
    for program in programs {
        for symbol in program.symbols() {
            let found = look(kernel, program, symbol, uses)?;
            let so_far = hooks.entry(symbol.to_owned()).or_insert(found.clone());
            if found.weight() > so_far.weight() {
                *so_far = found;
            }
        }
    }
    let absent = |symbol: &&str| hooks.get(*symbol) == Some(&Found::Absent);
    let homeless = uses
        .iter()
        .filter(|one| !one.symbols.is_empty() && one.symbols.iter().all(absent));
    let homeless = homeless
        .map(|one| Homeless {
            serves: one.serves.clone(),
            backend: one.backend.name(),
            what: format!("{} at {}", one.program, one.symbols.join(", ")),
        })
        .collect();
    Ok(Compared { hooks, homeless })
}

/// What a program says of a hook, held against the kernel.
fn look(kernel: &Kernel, program: &Program, symbol: &str, uses: &[Use]) -> Result<Found> {
    let said = program.prototypes.iter().filter(|one| one.name == symbol);
    let said: Vec<&Prototype> = said.collect();
    let tracepoint = said.first().context("it has no prototype")?.tracepoint;
    let there = kernel.prototypes(tracepoint, symbol)?;
    let Some(first) = there.first() else {
        return Ok(Found::Absent);
    };
    // Of static functions of one name any may be meant: all have to be as we say.
    let Some(other) = there.iter().find(|one| !said.contains(one)) else {
        return Ok(Found::Same(first.clone()));
    };
    let said: Vec<String> = said.iter().map(ToString::to_string).collect();
    let difference = format!(
        "{} of {}.rs has {}, and the kernel {other}",
        program.name,
        program.object,
        said.join(" or ")
    );
    let wanted = uses
        .iter()
        .filter(|one| one.object == program.object && one.program == program.name);
    let counts: Vec<usize> = wanted.filter_map(|one| one.arguments).collect();
    let refused = !counts.is_empty() && !counts.contains(&other.parameters.len());
    Ok(if refused {
        Found::Other(difference)
    } else {
        Found::Differs(difference)
    })
}

#[cfg(test)]
mod tests {
    use agent_common::catalogue::Backend;

    use super::*;

    #[test]
    fn every_program_has_the_prototypes_of_all_places_where_it_goes() {
        let programs = programs().unwrap();
        assert!(programs.len() > 80, "{} programs", programs.len());
        for one in uses() {
            let program = programs
                .iter()
                .find(|program| program.object == one.object && program.name == one.program)
                .unwrap_or_else(|| panic!("no program {} in {}", one.program, one.object));
            assert_eq!(
                program.symbols(),
                one.symbols,
                "above {} of {}",
                one.program,
                one.object
            );
            let counts = |count| {
                let mut prototypes = program.prototypes.iter();
                prototypes.any(|prototype| prototype.parameters.len() == count)
            };
            assert!(
                one.arguments.is_none_or(counts),
                "{} of {} has no prototype of {:?} arguments",
                one.program,
                one.object,
                one.arguments
            );
        }
    }

    /// What this kernel says of programs with these prototypes above them, all attached where there are `arguments`.
    fn compared(texts: &[&str], arguments: Option<usize>) -> Option<Compared> {
        if !Path::new(kernel::BTF).exists() {
            println!("skipped: this kernel has no BTF");
            return None;
        }
        let name = |place: usize| format!("p{place}");
        let program = |(place, text): (usize, &&str)| Program {
            object: "o".into(),
            name: name(place),
            prototypes: vec![declaration::prototype(text).unwrap()],
        };
        let programs: Vec<Program> = texts.iter().enumerate().map(program).collect();
        let one = |place| Use {
            object: "o",
            program: name(place),
            symbols: vec!["no_such_function"],
            arguments,
            serves: "hist o".into(),
            backend: Backend::Tp,
        };
        let uses: Vec<Use> = (0..texts.len()).map(one).collect();
        let kernel = Kernel::read(Path::new(kernel::BTF)).unwrap();
        Some(compare_programs(&kernel, &programs, &uses).unwrap())
    }

    const READ: &str = "ssize_t vfs_read(struct file *, char __user *, size_t, loff_t *)";

    #[test]
    fn what_differs_from_the_kernel_is_told_with_both() {
        for other in [
            "int vfs_read(struct file *, char __user *, size_t, loff_t *)",
            "ssize_t vfs_read(struct inode *, char __user *, size_t, loff_t *)",
            "ssize_t vfs_read(struct file *, const char __user *, size_t, loff_t *)",
            "ssize_t vfs_read(struct file *, char __user *, size_t)",
            "ssize_t vfs_read(struct file, char __user *, size_t, loff_t *)",
        ] {
            let Some(compared) = compared(&[READ, other], None) else {
                return;
            };
            let error = compared.none_differs().unwrap_err().to_string();
            assert!(error.contains("p1 of o.rs has "), "{error}");
            assert!(
                error.ends_with(
                    "and the kernel ssize_t vfs_read(struct file *, char *, size_t, loff_t *)"
                ),
                "{error}"
            );
        }
        let same = compared(&[READ], None).unwrap();
        same.none_differs().unwrap();
        assert!(same.homeless.is_empty());
    }

    #[test]
    fn a_program_for_other_arguments_is_no_difference_if_there_is_one_for_these() {
        let wakeup = "TRACE_EVENT(sched_wakeup, TP_PROTO(struct task_struct *p))";
        let before = "TRACE_EVENT(sched_wakeup, TP_PROTO(struct task_struct *p, int success))";
        let Some(both) = compared(&[before, wakeup], Some(2)) else {
            return;
        };
        both.none_differs().unwrap();
        let one = compared(&[before], Some(2)).unwrap();
        assert!(one.none_differs().is_err(), "nothing would be attached");
        let attached = compared(&[before, wakeup], Some(1)).unwrap();
        assert!(attached.none_differs().is_err());
    }

    #[test]
    fn what_is_not_there_is_absent_and_its_program_has_no_place() {
        let Some(compared) = compared(&["int no_such_function(void)"], None) else {
            return;
        };
        compared.none_differs().unwrap();
        assert_eq!(compared.hooks["no_such_function"], Found::Absent);
        assert_eq!(compared.homeless[0].what, "p0 at no_such_function");
    }
}
