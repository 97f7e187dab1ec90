//! The prototypes above the eBPF programs against those of this kernel. Held against `vm-tests/prototypes.tsv`, from
//! which `docs/kernels.md` is made.

use std::path::Path;

use anyhow::{Result, ensure};
use iolag_tests::prototypes::{Compared, compare, kernel::BTF};

use super::{matrix, table};

/// What was seen before: kernel, hook, `ok` or `absent`, and the prototype.
const BEFORE: &str = include_str!("../../prototypes.tsv");

pub fn are_the_kernels() -> Result<()> {
    let compared = compare(Path::new(BTF))?;
    let kernel = table::kernel()?;
    for (hook, found) in &compared.hooks {
        println!("prototypes\t{kernel}\t{hook}\t{found}");
    }
    compared.none_differs()?;
    programs_have_a_place(&kernel, &compared)?;
    as_before(&kernel, &compared)
}

/// A program none of whose functions is there cannot work, and `docs/kernels.md` has to say so.
fn programs_have_a_place(kernel: &str, compared: &Compared) -> Result<()> {
    for homeless in &compared.homeless {
        let result = matrix::before(kernel, &homeless.serves, homeless.backend)?;
        ensure!(
            result.is_some_and(|result| result != matrix::WORKS),
            "{} is not there, and by docs/kernels.md {} works over {}",
            homeless.what,
            homeless.serves,
            homeless.backend
        );
    }
    Ok(())
}

/// What was there has to be there still. Of a kernel that is in the table all has to be as it is there.
fn as_before(kernel: &str, compared: &Compared) -> Result<()> {
    let rows = table::rows(BEFORE, kernel)?;
    let known = table::has(BEFORE, kernel);
    let mut changes = Vec::new();
    for (hook, found) in &compared.hooks {
        let now = found.to_string();
        let Some(row) = rows.iter().find(|row| row[0] == hook) else {
            changes.push(format!("{hook} is not in the table"));
            continue;
        };
        let was = row[1..].join("\t");
        if was != now && (known || now.starts_with("absent")) {
            changes.push(format!("{hook}: {was}, and now: {now}"));
        }
    }
    ensure!(
        changes.is_empty(),
        "not as in vm-tests/prototypes.tsv (if that is meant, put the lines `prototypes` there): {}",
        changes.join("; ")
    );
    Ok(())
}
