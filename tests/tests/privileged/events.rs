//! `iolag events`: with an agent, without one, and when the probe goes.

use std::{
    io::{BufRead as _, BufReader, Read as _},
    process::{Child, Stdio},
    time::{Duration, Instant},
};

use iolag_tests::{memcg::MemoryCgroup, refusal::assert_refused};
use serde_json::Value;

use crate::place::Place;

const MIB: usize = 1 << 20;

/// A process that is killed for want of memory: its PID.
fn kill_one() -> i32 {
    let cgroup = MemoryCgroup::new("iolag-events", 8 * MIB as u64).unwrap();
    let hog = cgroup.hog("iolag-hog", 16 * MIB, 0).unwrap();
    assert!(!hog.has_its_memory());
    hog.pid()
}

/// `iolag events --follow`, once it says that it does.
fn follow(place: &Place) -> Child {
    let mut child = place
        .command(&["events", "--follow", "--format", "json"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = String::new();
    BufReader::new(child.stderr.as_mut().unwrap())
        .read_line(&mut said)
        .unwrap();
    assert!(said.contains("Ctrl-C"), "{said}");
    child
}

fn next_event(child: &mut Child) -> Value {
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().unwrap())
        .read_line(&mut line)
        .unwrap();
    serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line:?}"))
}

#[test]
fn without_an_agent_there_is_nothing_to_list_but_something_to_follow() {
    let Some(place) = Place::new() else { return };
    let words = ["no agent", "--follow", "--probes memory"];
    assert_refused(&place.call(&["events"]), 3, &words);
    let mut follower = follow(&place);
    let pid = kill_one();
    // Others on this machine may be out of memory as well.
    while next_event(&mut follower)["victim"]["pid"] != pid {}
    // SAFETY: our own child.
    unsafe { libc::kill(follower.id().cast_signed(), libc::SIGTERM) };
    assert!(follower.wait().unwrap().success());
}

#[test]
fn an_agent_keeps_events_and_streams_them_until_the_probe_is_unloaded() {
    let Some(place) = Place::new() else { return };
    place.start();
    assert_refused(&place.call(&["events"]), 3, &["the probe memory"]);
    place.done(&["probe", "load", "memory"]);
    let earlier = kill_one();
    let mut follower = follow(&place);
    // What was kept comes first.
    while next_event(&mut follower)["victim"]["pid"] != earlier {}
    let begun = Instant::now();
    let pid = kill_one();
    while next_event(&mut follower)["victim"]["pid"] != pid {}
    assert!(begun.elapsed() < Duration::from_secs(5));
    let listed = place.call(&["events"]);
    let listed = String::from_utf8(listed.stdout).unwrap();
    assert!(
        listed.contains(&format!("killed {pid} (iolag-hog)")),
        "{listed}"
    );
    // Another probe that is unloaded concerns nobody.
    place.done(&["probe", "load", "block"]);
    place.done(&["probe", "unload", "block"]);
    place.done(&["probe", "unload", "memory"]);
    let mut said = String::new();
    let mut stderr = follower.stderr.take().unwrap();
    stderr.read_to_string(&mut said).unwrap();
    assert!(said.contains("the probe memory was unloaded"), "{said}");
    assert_eq!(follower.wait().unwrap().code(), Some(1));
    place.stop();
}

#[test]
fn a_follower_is_told_that_the_agent_has_ended() {
    let Some(place) = Place::new() else { return };
    place.start();
    place.done(&["probe", "load", "memory"]);
    let mut follower = follow(&place);
    place.stop();
    let mut said = String::new();
    let mut stderr = follower.stderr.take().unwrap();
    stderr.read_to_string(&mut said).unwrap();
    assert!(said.contains("has ended"), "{said}");
    assert_eq!(follower.wait().unwrap().code(), Some(1));
}

#[test]
fn a_full_ring_is_counted_and_told_and_no_kill_goes_uncounted() {
    // More than the ring holds.
    const KILLS: u64 = 240;
    let Some(place) = Place::new() else { return };
    let pid = place.start();
    place.done(&["probe", "load", "memory"]);
    let cgroup = MemoryCgroup::new("iolag-full", MIB as u64).unwrap();
    // SAFETY: the agent that this test started; it goes on below, and is ended by `place` at the latest.
    unsafe { libc::kill(pid, libc::SIGSTOP) };
    for _ in 0..KILLS {
        let hog = cgroup.hog("iolag-hog", 2 * MIB, 0).unwrap();
        assert!(!hog.has_its_memory());
    }
    // SAFETY: as above.
    unsafe { libc::kill(pid, libc::SIGCONT) };
    let dump = place.done(&["hist", "memory", "--format", "json"]);
    let dump: Value = serde_json::from_str(&dump).unwrap();
    let kills = dump["series"][0]["metrics"][0]["count"].as_u64().unwrap();
    let lost = dump["ledger"]["events"].as_u64().unwrap();
    let listed = place.done(&["events", "--format", "json"]);
    let listed: Vec<Value> = listed
        .lines()
        .map(|l| serde_json::from_str(l).unwrap())
        .collect();
    println!("{kills} kills, {lost} events lost, {} lines", listed.len());
    assert!(kills >= KILLS && lost > 0, "{kills} kills, {lost} lost");
    assert_eq!(dump["complete"], false);
    assert_eq!(cgroup.oom_kills().unwrap(), KILLS);
    let told = listed.iter().filter(|line| line["event"] == "lost");
    let told: u64 = told.map(|line| line["count"].as_u64().unwrap()).sum();
    let seen = listed
        .iter()
        .filter(|line| line["event"] == "oom-kill")
        .count() as u64;
    assert_eq!((told, seen + told), (lost, kills));
    place.stop();
}
