//! `iolag verify` against rules that did, and did not do, what was asked.

use std::{process::Command, time::Duration};

use iolag_tests::{
    affinity::{cpus, go_to},
    agent::Agent,
    reader::reading_as,
    refusal::assert_refused,
};
use serde_json::Value;

use crate::place::Place;

fn inject(agent: &Agent, name: &str, flags: &[&str]) {
    let rule = [
        "inject",
        "vfs.read",
        "--comm",
        "iolag-verify",
        "--name",
        name,
    ];
    agent.call(&[&rule, flags].concat()).unwrap();
}

/// What `verify` says in JSON of one rule, and its exit code.
fn verified(agent: &Agent, args: &[&str]) -> (Value, Option<i32>) {
    let all = [&["verify", "--format", "json"], args].concat();
    let output = agent.output(&all).unwrap();
    let document: Value = serde_json::from_slice(&output.stdout).unwrap();
    (document["rules"].clone(), output.status.code())
}

#[test]
fn a_rule_that_did_what_was_asked_is_verified() {
    let Some(place) = Place::new() else { return };
    let agent = Agent::start(&place.program, &[]).unwrap();
    let nothing = agent.output(&["verify"]).unwrap();
    assert_refused(&nothing, 1, &["no rule is or was in force"]);
    inject(&agent, "slow", &["--delay", "200us"]);
    let (rules, code) = verified(&agent, &["slow"]);
    assert_eq!(code, Some(1), "nothing is proved without a hit: {rules}");
    reading_as("iolag-verify", |reader| reader.times(500)).unwrap();
    let (rules, code) = verified(&agent, &[]);
    assert_eq!(code, Some(0), "{rules}");
    assert_eq!(
        (&rules[0]["ok"], &rules[0]["hits"]),
        (&true.into(), &500.into())
    );
    let error = rules[0]["error_ns"].as_f64().unwrap();
    println!("verify: 500 hits of 200us, mean off by {error} ns");
    assert!((0.0..10_000.0).contains(&error), "{rules}");
    let text = agent.call(&["verify"]).unwrap();
    assert!(text.contains("slow: verified"), "{text}");
    assert!(text.lines().all(|line| line.len() < 80), "{text}");
    // It can be asked for when it is over, too: by its name, or as the last.
    agent.call(&["remove", "slow"]).unwrap();
    for args in [&["slow"][..], &[]] {
        let (rules, code) = verified(&agent, args);
        assert_eq!((code, &rules[0]["hits"]), (Some(0), &500.into()), "{rules}");
    }
}

#[test]
fn what_fell_short_is_told_by_its_cause() {
    let Some(place) = Place::new() else { return };
    let agent = Agent::start(&place.program, &[]).unwrap();
    inject(
        &agent,
        "bounded",
        &["--delay", "1ms", "--cpu-budget", "30%"],
    );
    reading_as("iolag-verify", |reader| {
        go_to(cpus()[0]).unwrap();
        reader.during(Duration::from_millis(300));
    })
    .unwrap();
    let (rules, code) = verified(&agent, &["bounded"]);
    assert_eq!(code, Some(1), "{rules}");
    assert_eq!(rules[0]["ok"], false);
    assert!(
        rules[0]["shortfall"]["budget"].as_u64().unwrap() > 0,
        "{rules}"
    );
    assert_eq!(rules[0]["shortfall"]["cap"], 0, "{rules}");
    let output = agent.output(&["verify"]).unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let told = String::from_utf8(output.stderr).unwrap();
    println!("{text}{told}");
    assert_eq!(output.status.code(), Some(1));
    for words in [
        "bounded: NOT verified",
        "of the hits due were not delayed",
        "budget ",
    ] {
        assert!(text.contains(words), "no {words:?} in {text}");
    }
    assert!(
        told.contains("1 of 1 rules did not do what was asked: bounded"),
        "{told}"
    );
    agent.call(&["remove", "--all"]).unwrap();
    // Each is asked for 1 ms, and together they get no more than that.
    inject(&agent, "first", &["--delay", "1ms", "--cap", "1ms"]);
    inject(&agent, "second", &["--delay", "1ms"]);
    reading_as("iolag-verify", |reader| reader.times(50)).unwrap();
    let (rules, code) = verified(&agent, &["second"]);
    assert_eq!(code, Some(1), "{rules}");
    assert_eq!(rules[0]["shortfall"]["cap"], 50, "{rules}");
}

#[test]
fn the_rule_of_a_command_is_verified_when_it_is_over() {
    let Some(place) = Place::new() else { return };
    let agent = Agent::start(&place.program, &[]).unwrap();
    let socket = agent.socket();
    let run = |name: &str, script: &str| {
        let output = Command::new(&place.program)
            .arg("--socket")
            .arg(&socket)
            .args(["inject", "vfs.read", "--delay", "300us", "--name", name])
            .args(["--", "sh", "-c", script])
            .output();
        output.unwrap()
    };
    let output = run(
        "dd",
        "dd if=/dev/zero of=/dev/null bs=1 count=300 2>/dev/null; exit 4",
    );
    assert_eq!(output.status.code(), Some(4));
    let (rules, code) = verified(&agent, &["dd"]);
    assert_eq!(code, Some(0), "{rules}");
    // Besides those 300, what shell and dd read to start.
    let hits = rules[0]["hits"].as_u64().unwrap();
    assert!((300..400).contains(&hits), "{rules}");
    assert_eq!(agent.rule("dd").unwrap().ended(), Some("removed"));
}
