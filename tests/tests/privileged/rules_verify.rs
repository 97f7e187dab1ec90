//! `iolag verify` against rules that did, and did not do, what was asked.

use std::{process::Command, time::Duration};

use iolag_tests::{
    affinity::{cpus, go_to},
    agent::Agent,
    reader::reading_as,
    refusal::assert_refused,
    timing::spins,
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

/// A machine that stops a CPU for some ms in the middle of a wait makes it longer, as it does any: then `verify` is right
/// to find the mean off, and for nothing else.
const TRIES: usize = 8;
/// By what part of their length plain spins may be too long where a wait can be verified: half of what that allows.
const QUIET: f64 = 0.025;

/// `run` until the rule that it names is verified, with what `verify` said of that one. Each try has to end by one of the
/// two: verified, or only longer by its mean.
fn verified_in_a_few(
    agent: &Agent,
    length: Duration,
    run: impl Fn(usize) -> String,
) -> Option<(String, Value)> {
    let mut quiet = 0;
    for number in 0..TRIES {
        let over_before = mean_overshoot(length);
        let name = run(number);
        let (rules, code) = verified(agent, &[&name]);
        let rule = rules[0].clone();
        let error = rule["error"].as_f64().unwrap();
        let over = mean_overshoot(length).max(over_before);
        quiet += usize::from(over <= QUIET);
        println!(
            "{name}: the mean off by {:.2} %, of plain spins by up to {:.2} %",
            error * 100.0,
            over * 100.0
        );
        assert!(error >= 0.0, "{rule}");
        if code == Some(0) {
            assert_eq!(rule["ok"], true, "{rule}");
            assert!(error < 0.05, "{rule}");
            return Some((name, rule));
        }
        let reasons = rule["reasons"].as_array().unwrap();
        let mean_only = reasons.iter().all(|reason| {
            let reason = reason.as_str().unwrap();
            reason.starts_with("the mean is off by ")
        });
        assert!(mean_only && error > 0.05 && code == Some(1), "{rule}");
        assert_eq!(rule["ok"], false, "{rule}");
    }
    // The spins come before and after, so that both are quiet proves little once.
    assert!(
        quiet * 2 <= TRIES,
        "never verified in {TRIES} tries, {quiet} of them undisturbed"
    );
    println!("skipped: this machine makes plain spins too long, in most of {TRIES} tries");
    None
}

/// By what part of their length plain spins are too long, by their mean.
fn mean_overshoot(length: Duration) -> f64 {
    const SPINS: usize = 1_000;
    let over: u64 = spins(length, SPINS, Duration::ZERO).iter().sum();
    over as f64 / SPINS as f64 / length.as_nanos() as f64
}

#[test]
fn a_rule_that_did_what_was_asked_is_verified() {
    let Some(place) = Place::new() else { return };
    let agent = Agent::start(&place.program, &[]).unwrap();
    let nothing = agent.output(&["verify"]).unwrap();
    assert_refused(&nothing, 1, &["no rule is or was in force"]);
    let slow = Duration::from_micros(200);
    let Some((name, _)) = verified_in_a_few(&agent, slow, |number| {
        let name = format!("slow-{number}");
        agent.call(&["reset"]).unwrap();
        inject(&agent, &name, &["--delay", "200us"]);
        let (rules, code) = verified(&agent, &[&name]);
        assert_eq!(code, Some(1), "nothing is proved without a hit: {rules}");
        reading_as("iolag-verify", |reader| reader.times(500)).unwrap();
        let (rules, _) = verified(&agent, &[]);
        assert_eq!(rules[0]["hits"], 500, "{rules}");
        name
    }) else {
        return;
    };
    let text = agent.call(&["verify"]).unwrap();
    assert!(text.contains(&format!("{name}: verified")), "{text}");
    assert!(text.lines().all(|line| line.len() < 80), "{text}");
    // It can be asked for when it is over, too: by its name, or as the last.
    agent.call(&["remove", &name]).unwrap();
    for args in [&[name.as_str()][..], &[]] {
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
    let script = "dd if=/dev/zero of=/dev/null bs=1 count=300 2>/dev/null; exit 4";
    let verified = verified_in_a_few(&agent, Duration::from_micros(300), |number| {
        let name = format!("dd-{number}");
        assert_eq!(run(&name, script).status.code(), Some(4));
        let rule = agent.rule(&name).unwrap();
        assert_eq!(rule.ended(), Some("removed"));
        // Besides those 300, what shell and dd read to start.
        let hits = rule.count("hits");
        assert!((300..400).contains(&hits), "{}", rule.0);
        name
    });
    let Some((_, rule)) = verified else { return };
    assert!(rule["hits"].as_u64().unwrap() >= 300, "{rule}");
}
