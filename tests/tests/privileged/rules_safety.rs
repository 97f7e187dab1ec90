//! Delays on everybody, for moments: the machine stays controllable, and they end with the agent.

use std::{
    path::Path,
    thread,
    time::{Duration, Instant},
};

use iolag_tests::{agent::Agent, memcg::MemoryCgroup, reader::reading_as, timing::reads};

use crate::place::Place;

/// On each read and write of everybody.
const DELAY: &str = "100ms";
const HALF_NS: u64 = 50_000_000;

fn is_slow() -> bool {
    let took = reads(Path::new("/dev/zero"), 1, Duration::ZERO).unwrap();
    took[0] >= HALF_NS
}

#[test]
fn reset_is_quick_while_everybody_is_slow() {
    let Some(place) = Place::new() else { return };
    let agent = Agent::start(&place.program, &[]).unwrap();
    let put_in_force: [&[&str]; 2] = [
        &["inject", "vfs.read,vfs.write", "--delay", DELAY],
        &["set", DELAY],
    ];
    for command in put_in_force {
        agent.call(command).unwrap();
        // What makes a rule of `set` spare the agent's commands is learnt meanwhile.
        thread::sleep(Duration::from_millis(500));
        assert!(is_slow(), "{command:?}");
        let start = Instant::now();
        let reset = agent.output(&["reset"]).unwrap();
        let took = start.elapsed();
        assert!(reset.status.success());
        assert!(!is_slow(), "{command:?}");
        println!("{}: reset took {took:?}", command[0]);
        assert!(took <= Duration::from_secs(1), "{command:?}: {took:?}");
    }
    let command = [
        &["inject", "vfs.read,vfs.write"][..],
        &["--delay", DELAY, "--cpu-budget", "30%"],
    ];
    agent.call(&command.concat()).unwrap();
    let start = Instant::now();
    agent.call(&["status"]).unwrap();
    agent.call(&["rules"]).unwrap();
    agent.call(&["stop"]).unwrap();
    let took = start.elapsed();
    println!("status, rules and stop took {took:?}");
    assert!(took <= Duration::from_secs(2), "{took:?}");
    assert!(!is_slow());
}

/// The agent has a rule for one thread's reads; whatever happens to it, that one is fast again in time.
fn fast_within(place: &Place, harm: impl FnOnce(&Agent)) -> Duration {
    let agent = Agent::start(&place.program, &[]).unwrap();
    let flags = ["--delay", "20ms", "--comm", "iolag-lease"];
    agent
        .call(&[&["inject", "vfs.read"], &flags[..]].concat())
        .unwrap();
    let slow = reading_as("iolag-lease", |reader| reader.read()).unwrap();
    assert!(slow.took >= Duration::from_millis(20), "{slow:?}");
    harm(&agent);
    reading_as("iolag-lease", |reader| {
        let start = Instant::now();
        while reader.read().took >= Duration::from_millis(20) {
            assert!(start.elapsed() < Duration::from_secs(10), "still slow");
        }
        start.elapsed()
    })
    .unwrap()
}

#[test]
fn a_rule_ends_with_its_agent() {
    let Some(place) = Place::new() else { return };
    let stopped = fast_within(&place, |agent| agent.signal(libc::SIGSTOP));
    let killed = fast_within(&place, |agent| agent.signal(libc::SIGKILL));
    println!("fast {stopped:?} after SIGSTOP, {killed:?} after SIGKILL");
    assert!(stopped <= Duration::from_millis(3_600), "{stopped:?}");
    assert!(killed <= Duration::from_millis(200), "{killed:?}");
}

/// Neither idle connections nor a stream of requests keeps the lease from being renewed, or a reset from its effect.
#[test]
fn a_flooded_socket_changes_nothing() {
    let Some(place) = Place::new() else { return };
    place.start();
    let flags = ["--delay", "20ms", "--comm", "iolag-flood"];
    place.done(&[&["inject", "vfs.read"], &flags[..]].concat());
    let end = Instant::now() + Duration::from_secs(5);
    let served = thread::scope(|scope| {
        let askers: Vec<_> = (0..8)
            .map(|_| {
                scope.spawn(|| {
                    let mut served = 0;
                    while Instant::now() < end {
                        let answer = place.ask(br#"{"schema":1,"command":"rules"}"#);
                        assert_eq!(answer["ok"], true, "{answer}");
                        served += 1;
                    }
                    served
                })
            })
            .collect();
        reading_as("iolag-flood", |reader| {
            while Instant::now() < end {
                assert!(
                    reader.read().took >= Duration::from_millis(20),
                    "the lease ran out"
                );
            }
        })
        .unwrap();
        askers
            .into_iter()
            .map(|asker| asker.join().unwrap())
            .sum::<u32>()
    });
    let idle: Vec<_> = (0..30).map(|_| place.connect()).collect();
    let start = Instant::now();
    place.done(&["reset"]);
    println!(
        "{served} requests served; reset beside {} idle ones took {:?}",
        idle.len(),
        start.elapsed()
    );
    assert!(start.elapsed() <= Duration::from_secs(1));
    drop(idle);
    place.stop();
}

/// Out of memory in a cgroup of its own, as a container's agent would be.
#[test]
fn an_agent_that_runs_out_of_memory_takes_its_rules_along() {
    let Some(place) = Place::new() else { return };
    let fast = fast_within(&place, |agent| {
        let cgroup = MemoryCgroup::new("iolag-agent", 1 << 20).unwrap();
        cgroup.take_in(agent.pid()).unwrap();
        // For a probe it has to read all of the kernel's types, and has no room for them.
        let loaded = agent.output(&["probe", "load", "vfs"]).unwrap();
        assert!(!loaded.status.success());
        assert_eq!(cgroup.oom_kills().unwrap(), 1, "nobody was killed");
    });
    println!("fast {fast:?} after the OOM kill");
    assert!(fast <= Duration::from_millis(3_600), "{fast:?}");
}

/// Where there are no kprobes the rule is refused, behind the look for its functions.
#[test]
fn many_functions_do_not_let_the_lease_run_out() {
    let Some(place) = Place::new() else { return };
    let agent = Agent::start(&place.program, &[]).unwrap();
    let flags = ["--delay", "20ms", "--comm", "iolag-lease", "--name", "slow"];
    let inject = ["inject", "vfs.read"];
    agent.call(&[&inject, &flags[..]].concat()).unwrap();
    let table = std::fs::read_to_string("/proc/kallsyms").unwrap();
    let names = table.lines().filter_map(|line| {
        let mut words = line.split_ascii_whitespace().skip(1);
        let (kind, name) = (words.next()?, words.next()?);
        let plain = !name.contains('.');
        (matches!(kind, "t" | "T") && plain && name.starts_with("ext4_"))
            .then(|| format!("fn:{name}"))
    });
    let mut names: Vec<String> = names.collect();
    names.sort();
    names.dedup();
    names.truncate(64);
    if names.len() < 64 {
        println!("skipped: this kernel has {} such functions", names.len());
        return;
    }
    let took = thread::scope(|scope| {
        let asked = scope.spawn(|| {
            let many = ["inject", &names.join(","), "--delay", "1us"];
            let start = Instant::now();
            let output = agent.output(&[&many[..], &["--comm", "nobody"]].concat());
            println!("{}", String::from_utf8_lossy(&output.unwrap().stderr));
            start.elapsed()
        });
        reading_as("iolag-lease", |reader| {
            while !asked.is_finished() {
                let call = reader.read();
                assert!(call.took >= Duration::from_millis(20), "{call:?}");
            }
        })
        .unwrap();
        asked.join().unwrap()
    });
    println!("it took {took:?}");
    let outcome = agent.rule("slow").unwrap();
    assert_eq!(outcome.count("lease"), 0, "{}", outcome.0);
}
