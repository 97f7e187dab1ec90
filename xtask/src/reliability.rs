//! `cargo xtask reliability`: each fault as often as `docs/reliability.md` says, and that document.

use std::fs;

use anyhow::{Context, Result, bail};
use clap::ValueEnum;

use crate::build;
use crate::cache::Cache;
use crate::fuzz;
use crate::process::run;
use crate::results::Results;
use crate::setup::{self, Kernels};
use crate::test;
use crate::vm;
use crate::workspace;

const TABLE: &str = "vm-tests/reliability.tsv";
const HEAD: &str = "# What faults came to: part, fault, machine, backend, figures. `cargo xtask reliability` replaces them.\n";

#[derive(clap::Args)]
pub struct Args {
    /// What to try; all without it
    #[arg(value_enum)]
    parts: Vec<Part>,
}

/// In the order of the document.
#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum Part {
    /// What is safe for this host: 10 minutes
    Host,
    /// The rest, on the newest kernel in a virtual machine: an hour
    Vm,
    /// A million changed inputs for each reader: a minute
    Input,
}

/// Passed and failed, and rows: fault, machine, backend, figures.
type Seen = (Results, Vec<String>);

impl Part {
    fn name(self) -> &'static str {
        match self {
            Self::Host => "host",
            Self::Vm => "vm",
            Self::Input => "input",
        }
    }

    fn run(self, cache: &Cache) -> Result<Seen> {
        let (results, rows, machine) = match self {
            Self::Host => {
                let (results, rows) = test::faults(cache, &build::build()?)?;
                (results, rows, host_name()?)
            }
            Self::Vm => {
                let (results, rows) = vm::faults(cache, &build::build()?)?;
                let machine = format!("VM, Debian's {}", vm::newest().name);
                (results, rows, machine)
            }
            Self::Input => {
                let (results, rows) = fuzz::faults()?;
                (results, rows, "any".into())
            }
        };
        let placed = rows.iter().map(|row| {
            let (fault, rest) = row.split_once('\t').context("a row has no figures")?;
            Ok(format!("{fault}\t{machine}\t{rest}"))
        });
        Ok((results, placed.collect::<Result<_>>()?))
    }
}

/// The command. Writes what was seen also where something failed, and then fails.
pub fn command(args: &Args) -> Result<()> {
    let cache = Cache::locate()?;
    setup::ensure(&cache, Kernels::Usual)?;
    let mut results = Results::default();
    for part in Part::value_variants() {
        if args.parts.is_empty() || args.parts.contains(part) {
            let (seen, rows) = part.run(&cache)?;
            results += seen;
            replace(*part, &rows)?;
        }
    }
    // Built anew: the table is part of the program that writes the document.
    let mut docs = workspace::cargo();
    run(docs.args(["xtask", "docs"]), "write the documents")?;
    results.show();
    let counts = results.counts;
    if counts.failed > 0 {
        bail!(
            "failed to hold against all faults: {} failed",
            counts.failed
        );
    }
    Ok(())
}

/// Writes the table with these rows in place of those of that part.
fn replace(this: Part, rows: &[String]) -> Result<()> {
    let path = workspace::root().join(TABLE);
    let before = fs::read_to_string(&path).with_context(|| format!("failed to read {TABLE}"))?;
    let mut text = HEAD.to_owned();
    for part in Part::value_variants() {
        let begin = format!("{}\t", part.name());
        let rows: Vec<String> = match *part == this {
            true => rows.iter().map(|row| begin.clone() + row).collect(),
            false => before
                .lines()
                .filter(|line| line.starts_with(&begin))
                .map(str::to_owned)
                .collect(),
        };
        text.extend(rows.iter().map(|row| format!("{row}\n")));
    }
    fs::write(&path, text).with_context(|| format!("failed to write {TABLE}"))
}

/// What this host is called in the table.
fn host_name() -> Result<String> {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease")?;
    let series: Vec<&str> = release.split('.').take(2).collect();
    Ok(format!("a host, Linux {}", series.join(".")))
}
