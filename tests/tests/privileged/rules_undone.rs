//! Changes of the rules that the kernel refuses on the way: by a map of the agent that is frozen under its hands.

use std::{
    thread::sleep,
    time::{Duration, Instant},
};

use iolag_tests::{agent::Agent, maps::freeze, reader::reading_as, refusal::assert_refused};
use serde_json::{Value, json};

use crate::place::Place;

const SLOW: Duration = Duration::from_millis(5);

/// An agent with a rule for the reads of `comm`.
fn with_rule(place: &Place, comm: &str) -> Agent {
    let agent = Agent::start(&place.program, &[]).unwrap();
    inject(&agent, &["--comm", comm, "--name", comm]);
    agent
}

fn inject(agent: &Agent, more: &[&str]) {
    agent.call(&injection(more)).unwrap();
}

fn injection<'a>(more: &[&'a str]) -> Vec<&'a str> {
    [&["inject", "vfs.read", "--delay", "5ms"], more].concat()
}

fn is_slow(comm: &str) -> bool {
    let call = reading_as(comm, |reader| reader.read()).unwrap();
    call.took >= SLOW
}

/// Each rule, without its counts.
fn rules(agent: &Agent) -> Vec<Value> {
    let rules = agent.rules().unwrap();
    let lasting = |rule: &Value| json!([rule["id"], rule["spec"], rule["ended"], rule["hooks"]]);
    rules.iter().map(|rule| lasting(&rule.0)).collect()
}

#[test]
fn a_rule_that_the_kernel_refuses_changes_nothing() {
    let Some(place) = Place::new() else { return };
    for map in ["RULES", "MAYBE", "WANTED", "PIDS"] {
        let agent = with_rule(&place, "iolag-one");
        let before = rules(&agent);
        freeze(agent.pid(), map).unwrap();
        let pid = std::process::id().to_string();
        let who = ["--pid", &pid, "--comm", "iolag-two", "--name", "two"];
        let refused = agent.output(&injection(&who)).unwrap();
        assert_refused(&refused, 1, &["failed to write"]);
        assert_eq!(rules(&agent), before, "{map}");
        assert!(is_slow("iolag-one"), "{map}");
        assert!(!is_slow("iolag-two"), "{map}");
        // Renewed, too.
        sleep(Duration::from_secs(4));
        assert!(is_slow("iolag-one"), "{map}");
    }
}

#[test]
fn a_rule_ends_though_the_kernel_refuses_to_tidy_up() {
    let Some(place) = Place::new() else { return };
    let agent = with_rule(&place, "iolag-one");
    inject(&agent, &["--comm", "iolag-two", "--name", "two"]);
    assert!(is_slow("iolag-one"));
    freeze(agent.pid(), "WANTED").unwrap();
    agent.call(&["remove", "iolag-one"]).unwrap();
    assert!(!is_slow("iolag-one"));
    assert!(is_slow("iolag-two"));
    let outcome = agent.rule("iolag-one").unwrap();
    assert_eq!(outcome.ended(), Some("removed"), "{}", outcome.0);
    assert_eq!(outcome.count("hits"), 1, "{}", outcome.0);
    // What is left over would be the next one's.
    let before = rules(&agent);
    let refused = agent.output(&injection(&["--uid", "4711"])).unwrap();
    assert_refused(&refused, 1, &["failed to take a filter"]);
    assert_eq!(rules(&agent), before);
    assert!(is_slow("iolag-two"));
    agent.call(&["reset"]).unwrap();
    assert!(!is_slow("iolag-two"));
    let ended = agent.rule("two").unwrap();
    assert_eq!(ended.ended(), Some("reset"), "{}", ended.0);
}

#[test]
fn what_cannot_be_undone_ends_all_rules_and_says_so() {
    let Some(place) = Place::new() else { return };
    let agent = with_rule(&place, "iolag-one");
    let before = rules(&agent);
    freeze(agent.pid(), ".data.control").unwrap();
    let frozen = Instant::now();
    for change in [&["remove", "iolag-one"][..], &injection(&["--name", "two"])] {
        let refused = agent.output(change).unwrap();
        assert_refused(&refused, 1, &["failed to write the rules"]);
        // The kernel still has them as they were.
        assert_eq!(rules(&agent), before, "{change:?}");
    }
    let refused = agent.output(&["reset"]).unwrap();
    assert_refused(&refused, 1, &["all rules end within 3.5 s", "iolag stop"]);
    let ended = agent.rule("iolag-one").unwrap();
    assert!(ended.ended().is_some(), "{}", ended.0);
    while is_slow("iolag-one") {
        assert!(frozen.elapsed() < Duration::from_secs(5), "still slow");
        sleep(Duration::from_millis(50));
    }
    // Nor does it come back.
    sleep(Duration::from_secs(2));
    assert!(!is_slow("iolag-one"));
}
