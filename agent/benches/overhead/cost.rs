//! What the measuring probes cost, against their peers; and the agent by itself.
//!
//! Arguments: probes (without any: all, and the agent), and `--against=COMMAND` for another peer: an older
//! `iolag hist block`, say.

use anyhow::Result;

use crate::{
    agent,
    contest::{CONTESTS, Contest},
    side::Table,
};

/// A cell that says whether a goal was met.
pub fn verdict(met: bool) -> &'static str {
    if met { "met" } else { "**missed**" }
}

/// Prints the tables.
pub fn run(arguments: &[String]) -> Result<()> {
    let against = arguments
        .iter()
        .find_map(|argument| argument.strip_prefix("--against="));
    let probes: Vec<&String> = arguments
        .iter()
        .filter(|argument| !argument.starts_with("--"))
        .collect();
    let mut results = Vec::new();
    for contest in CONTESTS {
        let asked = probes.is_empty() || probes.iter().any(|name| *name == contest.probe);
        if !asked || contest.probe().is_none() {
            continue;
        }
        let peer = against.unwrap_or(contest.peer);
        results.push((contest, peer, contest.hold(peer)?));
    }
    print_ratios(&results);
    print_programs(&results);
    if probes.is_empty() {
        agent::run()?;
    }
    Ok(())
}

fn print_ratios(results: &[(&Contest, &str, Table)]) {
    println!("| per | iolag (ns) | of it the clock | peer | peer (ns) | iolag / peer | goal | |");
    println!("| --- | --- | --- | --- | --- | --- | --- | --- |");
    for (contest, peer, table) in results {
        for more in [false, true] {
            if more && contest.more.is_empty() {
                continue;
            }
            let [ours, theirs, clock] = contest.net(table, more);
            let mut unit = contest.unit.to_owned();
            if more {
                unit.push_str(&format!(", with `{}`", contest.more.join("`, `")));
            }
            println!(
                "| {unit} | {ours:.0} (`{}`) | {clock:.0} | `{peer}` | {theirs:.0} | {:.2} | <= {} | {} |",
                contest.probe,
                ours / theirs,
                contest.goal,
                verdict(ours / theirs <= contest.goal)
            );
        }
    }
}

fn print_programs(results: &[(&Contest, &str, Table)]) {
    println!("\nEach program (ns per run, and what is left of it without the empty program's):\n");
    println!("| tracepoint | empty | iolag | net | peer | | net |");
    println!("| --- | --- | --- | --- | --- | --- | --- |");
    for (contest, peer, table) in results {
        for (hook, costs) in table {
            // The probe has programs for other peers too.
            if !contest
                .hooks
                .iter()
                .chain(contest.more)
                .any(|it| it == hook)
            {
                continue;
            }
            let cells = |cost: Option<f64>| match cost {
                Some(cost) => format!("{cost:.0} | {:.0}", cost - costs.empty),
                None => "- | -".into(),
            };
            println!(
                "| `{hook}` | {:.0} | {} | `{peer}` | {} |",
                costs.empty,
                cells(costs.ours),
                cells(costs.peer)
            );
        }
    }
}
