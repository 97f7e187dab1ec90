//! Faults that are safe for this host.

use std::{
    io::Write as _,
    process::Stdio,
    thread::sleep,
    time::{Duration, Instant},
};

use iolag_tests::faults::{Place as At, cycles, death, path, rounds, stopped, surroundings};
use iolag_tests::refusal::assert_nothing_left;

use crate::place::Place;

fn at(place: &Place) -> At<'_> {
    At {
        program: &place.program,
        backend: "tp",
    }
}

#[test]
fn an_agent_that_dies_leaves_nothing() {
    let Some(place) = Place::new() else { return };
    death::deaths(&at(&place), rounds(12, 100)).unwrap();
}

#[test]
fn a_panic_ends_the_agent_in_order() {
    let Some(place) = Place::new() else { return };
    let mut agent = place.command(&["run"]);
    let agent = agent.stderr(Stdio::piped()).spawn().unwrap();
    let start = Instant::now();
    while !place.socket().exists() {
        assert!(start.elapsed() < Duration::from_secs(30), "it never served");
        sleep(Duration::from_millis(5));
    }
    let schema = place.status()["schema"].clone();
    let mut stream = place.connect();
    writeln!(stream, r#"{{"schema":{schema},"command":"panic"}}"#).unwrap();
    let output = agent.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    let last = said.lines().last().unwrap_or_default();
    assert!(
        last.starts_with("error: the agent panicked, and everything is detached (hint: "),
        "{said}"
    );
    // Which one that crashes leaves behind.
    assert_nothing_left(&place.socket());
}

#[test]
fn probes_are_loaded_and_unloaded_over_and_over() {
    let Some(place) = Place::new() else { return };
    cycles::cycles(&at(&place), rounds(60, 1000)).unwrap();
}

#[test]
fn a_stopped_agent_delays_nobody_and_goes_on() {
    let Some(place) = Place::new() else { return };
    let seconds = rounds(8, 60) as u64;
    stopped::stopped(&at(&place), Duration::from_secs(seconds)).unwrap();
}

#[test]
fn services_go_on_and_reset_and_stop_are_prompt() {
    let Some(place) = Place::new() else { return };
    path::everybody_is_slow(&at(&place)).unwrap();
}

#[test]
fn what_the_surroundings_lack_is_told_in_one_line() {
    let Some(place) = Place::new() else { return };
    surroundings::surroundings(&at(&place)).unwrap();
}
