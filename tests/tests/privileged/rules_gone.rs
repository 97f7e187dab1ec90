//! What goes with a rule, and what a rule goes with.

use std::{
    thread::sleep,
    time::{Duration, Instant},
};

use iolag_tests::{agent::Agent, outcome::Outcome};

use crate::place::Place;

/// The rule, once it ended.
#[track_caller]
fn ended(agent: &Agent, name: &str) -> Outcome {
    let end = Instant::now() + Duration::from_secs(10);
    loop {
        let outcome = agent.rule(name).unwrap();
        if outcome.ended().is_some() {
            return outcome;
        }
        assert!(Instant::now() < end, "{name} is still in force");
        sleep(Duration::from_millis(20));
    }
}

#[test]
fn the_end_of_a_command_ends_nobody_elses_rule() {
    let Some(place) = Place::new() else { return };
    let agent = Agent::start(&place.program, &[]).unwrap();
    let inject = ["inject", "vfs.read", "--delay", "1us"];
    let socket = agent.socket();
    let mut command = place.command_at(&socket, &[]);
    command.args(inject).args(["--for", "200ms"]);
    command.args(["--", "sh", "-c", "sleep 4"]);
    let mut command = command.spawn().unwrap();
    let start = Instant::now();
    while agent.rules().unwrap().is_empty() {
        assert!(start.elapsed() < Duration::from_secs(3), "no rule came");
        sleep(Duration::from_millis(10));
    }
    let first = ended(&agent, "vfs.read-1");
    let others = [&inject[..], &["--comm", "nobody"]].concat();
    // Neither of the name that the agent makes up for it, nor of one that is chosen to be the same.
    let made_up = agent.call(&others).unwrap();
    assert_eq!(made_up.trim(), "vfs.read-2");
    let same = [&others[..], &["--name", "vfs.read-1"]].concat();
    agent.call(&same).unwrap();
    assert!(command.try_wait().unwrap().is_none(), "too slow to tell");
    assert!(command.wait().unwrap().success());
    for name in ["vfs.read-1", "vfs.read-2"] {
        let rule = agent.rule(name).unwrap();
        assert_eq!(rule.ended(), None, "{}", rule.0);
        assert_ne!(rule.0["id"], first.0["id"]);
    }
}
