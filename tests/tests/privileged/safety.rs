//! On this host: the machine comes back when the agent is killed.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use iolag_tests::{agent::Agent, faults, programs, timing::reads};

use crate::place::Place;

/// Long enough to be told from noise, short enough for a machine that others use.
const DELAY: &str = "10ms";
const DELAYED_NS: u64 = 10_000_000;

#[test]
fn a_killed_agent_leaves_full_speed_within_100_ms() {
    let Some(place) = Place::new() else {
        return;
    };
    let (programs, links) = (programs::loaded().unwrap(), programs::links().unwrap());
    let agent = slowed(&place.program);
    assert!(
        programs::links().unwrap().len() > links.len(),
        "nothing is attached"
    );
    agent.signal(libc::SIGKILL);
    let start = Instant::now();
    let fast = faults::fast_again(Duration::from_secs(2)).unwrap();
    programs::wait_gone(programs::links, &links, Duration::from_secs(2)).unwrap();
    let detached = start.elapsed();
    programs::wait_gone(programs::loaded, &programs, Duration::from_secs(5)).unwrap();
    let freed = start.elapsed();
    println!(
        "after kill -9: fast {fast:?}, nothing attached {detached:?}, programs freed {freed:?}"
    );
    for (what, after) in [("fast", fast), ("detached", detached), ("freed", freed)] {
        assert!(
            after <= Duration::from_millis(100),
            "{what} only {after:?} after kill -9"
        );
    }
    agent.wait_gone(Duration::from_secs(2)).unwrap();
}

fn slowed(program: &Path) -> Agent {
    let agent = Agent::start(program, &[]).unwrap();
    agent.call(&["set", DELAY]).unwrap();
    let slow = reads(Path::new("/dev/zero"), 3, Duration::ZERO).unwrap();
    assert!(slow.iter().all(|ns| *ns >= DELAYED_NS), "{slow:?}");
    agent
}
