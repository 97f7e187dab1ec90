//! Checks of what else delays or traces on this machine.

use std::{collections::BTreeMap, path::Path};

use super::{facts::Facts, owners::Owner};
use crate::{
    failure::Failure,
    kernel::TracingProgram,
    report::{
        Status as Agent,
        doctor::{
            Check, Group,
            Status::{self, Skip, Warn},
        },
    },
};

/// Commands, by the first bytes of their names, that are agents of ours.
const OURS: &str = "iolag";
/// So many programs or processes are told by name.
const TOLD: usize = 5;

/// The kernel's programs that trace, and who holds them.
#[derive(Debug)]
pub struct Programs {
    pub loaded: Result<Vec<TracingProgram>, String>,
    pub owners: Vec<Owner>,
}

/// All of them; `agent` is what the one at the socket says, if there is any.
#[must_use]
pub fn checks(
    facts: &Facts,
    socket: &Path,
    agent: Result<Option<&Agent>, &Failure>,
    programs: &Programs,
) -> Vec<Check> {
    let serving = agent.ok().flatten().map(|agent| agent.agent.pid);
    vec![
        at_socket(socket, agent),
        other_agents(&programs.owners, serving),
        other_programs(programs, serving),
        io_delayer(facts),
        dm_delay(facts),
    ]
}

fn check(name: &str, status: Status, value: impl Into<String>) -> Check {
    Check::new(Group::Tools, name, status, value)
}

fn at_socket(socket: &Path, agent: Result<Option<&Agent>, &Failure>) -> Check {
    let socket = socket.display();
    match agent {
        Err(failure) => {
            let check = check("agent", Warn, "not known").because(&failure.message);
            let hint = failure.hint.as_deref();
            check.remedy(hint.unwrap_or("name another socket: --socket PATH"))
        }
        Ok(None) => check("agent", Status::Ok, format!("none at {socket}")),
        Ok(Some(agent)) => {
            let value = format!("pid {} at {socket}", agent.agent.pid);
            match agent.rules.len() {
                0 => check("agent", Status::Ok, value),
                rules => check("agent", Warn, format!("{value}, rules in force: {rules}"))
                    .because("its delays slow others down, and show in what is measured beside it")
                    .remedy("iolag reset, if they are not meant"),
            }
        }
    }
}

fn other_agents(owners: &[Owner], serving: Option<u32>) -> Check {
    let others = owners.iter().filter(|owner| owner.comm.starts_with(OURS));
    let others = others.filter(|owner| Some(owner.pid) != serving);
    let pids: Vec<String> = others.map(|owner| format!("pid {}", owner.pid)).collect();
    if pids.is_empty() {
        return check("other_iolag", Status::Ok, "none");
    }
    check("other_iolag", Warn, some(pids))
        .because(
            "it has programs loaded: if it is an agent, its delays and those of another add up",
        )
        .remedy("iolag status --socket PATH, with theirs, shows what they do")
}

/// Those at the same places run one after the other.
fn other_programs(programs: &Programs, serving: Option<u32>) -> Check {
    let loaded = match &programs.loaded {
        Ok(loaded) => loaded,
        Err(why) => return check("bpf_programs", Skip, "not known").because(why),
    };
    let of_ours = |id: u32| {
        let ours = |owner: &&Owner| owner.comm.starts_with(OURS) || Some(owner.pid) == serving;
        let mut ours = programs.owners.iter().filter(ours);
        ours.any(|owner| owner.programs.contains(&id))
    };
    let foreign: Vec<&TracingProgram> = loaded.iter().filter(|one| !of_ours(one.id)).collect();
    if foreign.is_empty() {
        return check("bpf_programs", Status::Ok, "no others that trace");
    }
    let mut by_owner: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for program in &foreign {
        let owner = programs
            .owners
            .iter()
            .find(|owner| owner.programs.contains(&program.id));
        let owner = owner.map_or(
            "no process (pinned, or attached for good)".into(),
            |owner| format!("{} (pid {})", owner.comm, owner.pid),
        );
        let name = if program.name.is_empty() {
            "unnamed"
        } else {
            &program.name
        };
        by_owner.entry(owner).or_default().push(name);
    }
    let told = by_owner.into_iter().map(|(owner, mut names)| {
        names.sort_unstable();
        names.dedup();
        format!(
            "{} of {owner}",
            some(names.into_iter().map(Into::into).collect())
        )
    });
    check(
        "bpf_programs",
        Warn,
        format!("{} others that trace", foreign.len()),
    )
    .because(format!(
        "what they do at the places of a probe or delay adds to its times: {}",
        some(told.collect())
    ))
    .remedy("end them where figures have to be exact")
}

/// The first few, and how many more there are.
fn some(names: Vec<String>) -> String {
    let more = names.len().saturating_sub(TOLD);
    let mut text = names.into_iter().take(TOLD).collect::<Vec<_>>().join(", ");
    if more > 0 {
        text += &format!(" and {more} more");
    }
    text
}

/// How often a module is in use (the third field); none if it is not loaded.
fn used(facts: &Facts, name: &str) -> Option<u32> {
    let mut modules = facts.modules.iter().map(|line| line.split_whitespace());
    modules.find_map(|mut words| {
        (words.next()? == name).then_some(())?;
        Some(
            words
                .nth(1)
                .and_then(|count| count.parse().ok())
                .unwrap_or(0),
        )
    })
}

fn io_delayer(facts: &Facts) -> Check {
    match used(facts, "io_delayer") {
        None => check("io_delayer", Status::Ok, "not loaded"),
        Some(_) => check("io_delayer", Warn, "loaded")
            .because("the kernel module delays the same calls: its delays and ours add up")
            .remedy("rmmod io_delayer"),
    }
}

fn dm_delay(facts: &Facts) -> Check {
    match used(facts, "dm_delay") {
        None => check("dm_delay", Status::Ok, "not loaded"),
        Some(0) => check("dm_delay", Status::Ok, "loaded, not used"),
        Some(count) => check("dm_delay", Warn, format!("used by {count}"))
            .because("requests to its targets wait there too, before they reach block.issue")
            .remedy("dmsetup table --target delay shows them"),
    }
}

#[cfg(test)]
mod tests;
