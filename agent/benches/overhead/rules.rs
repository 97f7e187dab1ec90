//! What 64 rules cost of which none matches, per hit, against an empty program at the same hook.

use std::{path::Path, time::Duration};

use agent_common::{
    catalogue::{Backend, slot_of},
    rules::{RULES, UNIFIED},
};
use anyhow::{Context as _, Result, anyhow};
use iolag::{
    failure::Failure,
    host::Facts,
    kernel::{DelayProbe, EmptyProbe, Fields},
    plan,
    rules::{
        force::{Asked, InForce},
        spec::{Delay, Spec},
        table::{Cgroup, Subjects},
    },
};

use crate::{load, points::cost};

/// Longer than a measurement takes: nobody renews.
const LEASE: Duration = Duration::from_secs(600);

/// A filter that nobody satisfies, by the number of its rule.
type Nobody = fn(u32) -> Subjects;

/// The kinds that can be at any point.
const KINDS: [(&str, Nobody); 7] = [
    ("--uid", |rule| Subjects {
        uids: vec![4_000_000 + rule],
        ..Subjects::default()
    }),
    ("--pid", |rule| Subjects {
        // More than the kernel gives away.
        pids: vec![(1 << 22) + 1 + rule],
        ..Subjects::default()
    }),
    ("--comm", |rule| Subjects {
        comms: vec![comm(rule)],
        ..Subjects::default()
    }),
    ("--cgroup", |rule| Subjects {
        cgroups: vec![Cgroup {
            hierarchy: UNIFIED,
            id: u64::MAX - u64::from(rule),
        }],
        ..Subjects::default()
    }),
    ("--device", |rule| Subjects {
        devices: vec![0xfff0_0000 + rule],
        ..Subjects::default()
    }),
    ("--size", |rule| {
        let bytes = 1 << 30 | u64::from(rule);
        Subjects {
            size: Some((bytes, bytes)),
            ..Subjects::default()
        }
    }),
    ("--under", |rule| Subjects {
        under: vec![(u64::MAX - u64::from(rule), 1)],
        ..Subjects::default()
    }),
];

fn comm(rule: u32) -> [u8; 16] {
    let mut comm = [0; 16];
    let name = format!("nobody-{rule}");
    comm[..name.len()].copy_from_slice(name.as_bytes());
    comm
}

/// Prints the rows of a table: all, or those of the points and filters that are named.
pub fn run(only: &[String]) -> Result<()> {
    let is_left_out = |names: &[&str], name: &str| {
        let among = |one: &String| names.contains(&one.as_str());
        only.iter().any(among) && !only.iter().any(|one| one == name)
    };
    let points = ["vfs.read", "block.issue"];
    let filters = KINDS.map(|(filter, _)| filter);
    for (point, load) in [
        ("vfs.read", (|| load::reads(400_000)) as fn() -> Result<()>),
        ("block.issue", || load::requests(4_000)),
    ] {
        for (kind, nobody) in KINDS {
            if point == "block.issue" && kind == "--under"
                || is_left_out(&points, point)
                || is_left_out(&filters, kind)
            {
                continue;
            }
            measure(point, kind, nobody, &load)?;
        }
    }
    Ok(())
}

fn measure(point: &str, kind: &str, nobody: Nobody, run: &dyn Fn() -> Result<()>) -> Result<()> {
    let facts = Facts::read(Path::new("/"));
    let choice = Some(Backend::Tp);
    let slot = slot_of(point).context("no such point")? as u32;
    let load = || -> Result<(DelayProbe, InForce)> {
        let plans = plan::plan(choice, &facts)?;
        let (mut probe, _log) = DelayProbe::load(plans, choice, &facts)?;
        let rules = fill(&mut probe, point, nobody, (choice, &facts)).map_err(told)?;
        Ok((probe, rules))
    };
    let (first, rules) = load()?;
    let (_, attached) = first
        .points()
        .find(|(of, _)| *of == slot)
        .context("the point is not attached")?;
    let empty = || EmptyProbe::load(attached.attempt, facts.btf.as_deref());
    let last = empty()?;
    let one = cost(&first, &last, slot, run)?;
    drop(last);
    // The program that was attached first runs first, and pays for what both find in no cache: each is it once.
    let early = empty()?;
    drop((first, rules));
    let (second, _rules) = load()?;
    let other = cost(&second, &early, slot, run)?;
    let (ours, empty) = ((one.0 + other.0) / 2.0, (one.1 + other.1) / 2.0);
    let net = ours - empty;
    let met = crate::cost::verdict(net <= 60.0);
    println!(
        "| `{point}` | {RULES} with `{kind}` | {ours:.1} | {empty:.1} | {net:.1} | <= 60 | {met} |"
    );
    Ok(())
}

fn fill(
    probe: &mut DelayProbe,
    point: &str,
    nobody: Nobody,
    host: (plan::Choice, &Facts),
) -> Result<InForce, Failure> {
    let mut rules = InForce::new(LEASE);
    rules.know(probe, Fields::read(host.1)?, (0, 0))?;
    for number in 0..RULES as u32 {
        let asked = Asked {
            spec: spec(point, number),
            subjects: nobody(number),
            functions: Vec::new(),
        };
        rules.add(probe, asked, false, host)?;
    }
    Ok(rules)
}

fn spec(point: &str, number: u32) -> Spec {
    let delay = Delay::Fixed { ns: 1_000_000 };
    Spec::plain(&format!("r{number}"), &[point], delay)
}

fn told(failure: Failure) -> anyhow::Error {
    anyhow!("{failure}")
}
