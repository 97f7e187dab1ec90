//! What goes with a rule, and what a rule goes with.

use std::{
    fs,
    os::unix::fs::MetadataExt as _,
    path::Path,
    process::Command,
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

#[test]
fn a_rule_goes_with_its_directory() {
    let Some(place) = Place::new() else { return };
    let agent = Agent::start(&place.program, &[]).unwrap();
    let (one, other) = (place.dir.join("one"), place.dir.join("other"));
    for dir in [&one, &other] {
        fs::create_dir(dir).unwrap();
    }
    let inject = |name, dirs: &[&Path]| {
        let under = dirs
            .iter()
            .flat_map(|dir| ["--under", dir.to_str().unwrap()]);
        let under: Vec<&str> = under.collect();
        let flags = ["inject", "vfs.read", "--delay", "1us", "--comm", "nobody"];
        agent
            .call(&[&flags[..], &["--name", name], &under].concat())
            .unwrap();
    };
    inject("first", &[&one]);
    inject("second", &[&one]);
    inject("both", &[&one, &other]);
    inject("other", &[&other]);
    // Of one that is over nothing is left that the same directory could end.
    agent.call(&["remove", "second"]).unwrap();
    inject("second", &[&other]);
    let inode = fs::metadata(&one).unwrap().ino();
    let start = Instant::now();
    fs::remove_dir(&one).unwrap();
    let why = format!("its directory {} is gone", one.display());
    for name in ["first", "both"] {
        assert_eq!(ended(&agent, name).ended(), Some(why.as_str()));
    }
    println!("ended after {:?}", start.elapsed());
    fs::create_dir(&one).unwrap();
    let same = fs::metadata(&one).unwrap().ino() == inode;
    println!("the next directory has the same number: {same}");
    sleep(Duration::from_millis(1_500));
    for name in ["other", "second"] {
        assert_eq!(agent.rule(name).unwrap().ended(), None, "{name}");
    }
    assert!(agent.call(&["rules"]).unwrap().contains("ENDED: its"));
}

#[test]
fn a_rule_keeps_no_file_system_mounted() {
    let Some(place) = Place::new() else { return };
    let agent = Agent::start(&place.program, &[]).unwrap();
    let dir = place.dir.join("mounted");
    fs::create_dir(&dir).unwrap();
    let dir = dir.to_str().unwrap();
    let run = |command: &[&str]| Command::new(command[0]).args(&command[1..]).output();
    let mounted = run(&["mount", "-t", "tmpfs", "iolag-test", dir]).unwrap();
    if !mounted.status.success() {
        println!("skipped: nothing can be mounted: {mounted:?}");
        return;
    }
    let flags = ["--delay", "1us", "--comm", "nobody", "--name", "there"];
    let injected = agent.output(&[&["inject", "vfs.read", "--under", dir], &flags[..]].concat());
    let unmounted = run(&["umount", dir]).unwrap();
    assert!(injected.unwrap().status.success());
    assert!(unmounted.status.success(), "{unmounted:?}");
    let why = format!("its directory {dir} was unmounted");
    assert_eq!(ended(&agent, "there").ended(), Some(why.as_str()));
}
