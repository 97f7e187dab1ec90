//! How much of the kernel's verifier the programs take: it gives up after a million instructions, and a change that
//! makes it look at ten times as many is easily made and hard to see.

use std::{collections::BTreeMap, path::Path};

use anyhow::{Context as _, Result, ensure};
use iolag_tests::{
    agent::Agent,
    programs::{info, loaded},
};

use super::{skip, table};

/// What was counted before: kernel, name of the program, instructions.
const BEFORE: &str = include_str!("../../verified.tsv");
/// By so much more a program may take.
const BOUND: f64 = 1.10;

/// Instructions by program. Of programs whose first 15 bytes are the same, the most.
type Counts = BTreeMap<String, u32>;

/// Loads everything there is, over each backend, and holds it against the table.
pub fn instructions_are_few() -> Result<()> {
    let mut counts = Counts::new();
    for backend in ["fentry", "kprobe", "tp"] {
        count(backend, &mut counts).context(backend)?;
        if counts.values().all(|count| *count == 0) {
            return Err(skip("this kernel does not tell what its verifier did"));
        }
    }
    let kernel = table::kernel()?;
    for (name, count) in &counts {
        println!("verified\t{kernel}\t{name}\t{count}");
    }
    let before = before(&kernel)?;
    let mut more = Vec::new();
    for (name, count) in &counts {
        match before.get(name) {
            None => more.push(format!("{name} is not in the table")),
            Some(was) if f64::from(*count) > f64::from(*was) * BOUND => {
                more.push(format!("{name}: {was} -> {count}"));
            }
            Some(_) => {}
        }
    }
    ensure!(
        more.is_empty(),
        "more than a tenth above vm-tests/verified.tsv (if that is meant, put the lines `verified` there): {}",
        more.join(", ")
    );
    Ok(())
}

fn before(kernel: &str) -> Result<Counts> {
    let rows = table::rows(BEFORE, kernel)?;
    rows.iter()
        .map(|row| Ok((row[0].to_owned(), row[1].parse()?)))
        .collect()
}

fn count(backend: &str, counts: &mut Counts) -> Result<()> {
    let before = loaded()?;
    let agent = Agent::start(
        Path::new("/iolag"),
        &["--backend", backend, "--probes", "all"],
    )?;
    // What is attached for rules only, and what tells of submitters and forks.
    let points = match backend {
        "tp" => "vfs.fsync,vfs.opened,block.issue",
        _ => "vfs.fsync,vfs.opened,vfs.lookup,block.issue",
    };
    let mut rule = vec!["inject", points, "--delay", "1us", "--name", "all"];
    rule.extend(["--pid", "1", "--children"]);
    agent.call(&rule)?;
    if backend == "kprobe" {
        agent.call(&["inject", "fn:vfs_statx", "--delay", "1us"])?;
    }
    let ours = loaded()?.into_iter().filter(|id| !before.contains(id));
    for id in ours {
        let info = info(id)?;
        let most = counts.entry(info.name).or_default();
        *most = info.verified.max(*most);
    }
    agent.call(&["stop"])?;
    Ok(())
}
