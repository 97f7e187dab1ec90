//! The agent asks for little, keeps less and says what; what it kept is enough for all that it is asked later.

use std::{
    fs,
    os::unix::fs::chown,
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use iolag_tests::{
    privileges::{Thread, Who, bits, threads},
    refusal::{assert_nothing_left, assert_refused},
    timing::{median, reads},
};

use crate::place::{NOBODY, Place, succeeded};

pub const TWO: &[&str] = &["CAP_BPF", "CAP_PERFMON"];
/// Of an agent that was given all.
const LATER: [&str; 4] = [
    "CAP_BPF",
    "CAP_PERFMON",
    "CAP_SYSLOG",
    "CAP_DAC_READ_SEARCH",
];
const DELAY: &str = "3ms";
const DELAY_NS: u64 = 3_000_000;

pub fn start_as(place: &Place, who: Who<'_>) {
    chown(&place.dir, Some(who.uid), None).unwrap();
    let mut run = place.command(&["run", "--detach", "--backend", "tp"]);
    who.run(&mut run);
    succeeded(&run.output().unwrap());
}

/// Names of what `status` says the agent kept.
pub fn told(place: &Place) -> Vec<String> {
    let status = place.status();
    let kept = status["agent"]["capabilities"].as_array().unwrap();
    let name = |one: &serde_json::Value| one["name"].as_str().unwrap().to_owned();
    for one in kept {
        assert!(!one["purposes"][0].as_str().unwrap().is_empty(), "{one}");
        assert!(!one.to_string().contains("could not be dropped"), "{one}");
    }
    kept.iter().map(name).collect()
}

/// Each thread has what `status` tells and no more, and can get none back. Returns how many there are.
#[track_caller]
pub fn assert_true_of_all_threads(place: &Place) -> usize {
    let kept = bits(told(place).iter().map(String::as_str));
    let threads = threads(place.pid()).unwrap();
    for Thread {
        name,
        inheritable,
        permitted,
        effective,
        ambient,
        no_new_privileges,
        ..
    } in &threads
    {
        assert_eq!((*effective, *permitted), (kept, kept), "{name}");
        assert_eq!((*inheritable, *ambient), (0, 0), "{name}");
        assert!(no_new_privileges, "{name}");
    }
    threads.len()
}

/// Whatever is done at run time.
#[track_caller]
fn assert_serves(place: &Place) {
    place.done(&["set", DELAY]);
    let slow = median(reads(Path::new("/dev/zero"), 5, Duration::ZERO).unwrap());
    assert!(slow >= DELAY_NS, "a read takes {slow} ns");
    place.done(&["reset"]);
    let fast = median(reads(Path::new("/dev/zero"), 5, Duration::ZERO).unwrap());
    assert!(fast < DELAY_NS, "a read takes {fast} ns");
    for probe in ["vfs", "block", "sched"] {
        place.done(&["probe", "load", probe]);
    }
    let pid = std::process::id().to_string();
    let dir = place.dir.to_str().unwrap();
    for filter in [["--pid", &pid], ["--under", dir], ["--uid", "65534"]] {
        let args = ["inject", "vfs.read", "--delay", "1us"];
        place.done(&[&args[..], &filter[..]].concat());
    }
    // While another thread loads a probe.
    let mut load = place.command(&["probe", "load", "irq"]).spawn().unwrap();
    let mut most = 0;
    while load.try_wait().unwrap().is_none() {
        most = most.max(assert_true_of_all_threads(place));
    }
    assert!(load.wait().unwrap().success());
    assert!(most > 1, "no thread was seen that loads");
    // The lease was renewed meanwhile.
    std::thread::sleep(Duration::from_secs(4));
    place.done(&["set", DELAY]);
    let slow = median(reads(Path::new("/dev/zero"), 5, Duration::ZERO).unwrap());
    assert!(slow >= DELAY_NS, "a read takes {slow} ns");
    place.done(&["probe", "unload", "vfs"]);
    place.done(&["reset"]);
}

#[test]
fn two_capabilities_are_enough_for_root() {
    let Some(place) = Place::new() else { return };
    let who = Who {
        uid: 0,
        capabilities: TWO,
    };
    start_as(&place, who);
    assert_eq!(told(&place), TWO);
    assert_true_of_all_threads(&place);
    assert_serves(&place);
    place.stop();
}

#[test]
fn two_capabilities_are_enough_for_another_user_whom_root_commands() {
    let Some(mut place) = Place::new() else {
        return;
    };
    place.open_to_all();
    let who = Who {
        uid: NOBODY,
        capabilities: TWO,
    };
    start_as(&place, who);
    assert_eq!(told(&place), TWO);
    assert_true_of_all_threads(&place);
    // Its own user may not: the kernel does not let that one near the agent's privileges either.
    let mut status = place.command(&["status"]);
    Who {
        uid: NOBODY,
        capabilities: &[],
    }
    .run(&mut status);
    assert_refused(&status.output().unwrap(), 3, &["only root", "use sudo"]);
    assert_serves(&place);
    place.stop();
}

#[test]
fn of_all_privileges_few_are_kept() {
    let Some(place) = Place::new() else { return };
    place.done(&["run", "--detach"]);
    let told = told(&place);
    assert_eq!(told, LATER);
    for thread in threads(place.pid()).unwrap() {
        assert_eq!(thread.bounding, 0, "{}", thread.name);
    }
    assert_true_of_all_threads(&place);
    let log = fs::read_to_string(place.dir.join("iolag.log")).unwrap();
    let text = place.done(&["status"]);
    for name in &told {
        assert!(log.contains(&format!("kept {name}: ")), "{log}");
        assert!(text.contains(&format!("  {name} ")), "{text}");
    }
    for line in text.lines() {
        assert!(line.chars().count() < 80, "{line}");
    }
    assert_serves(&place);
    place.stop();
}

/// It is started by the client, and has what its caller has.
#[test]
fn an_injected_command_loses_nothing() {
    let Some(place) = Place::new() else { return };
    place.start();
    let show = ["grep", "-E", "Cap|NoNew", "/proc/self/status"];
    let inject = [&["inject", "vfs.read", "--delay", "1us", "--"], &show[..]].concat();
    // Without `--socket` behind the command.
    let mut injected = Command::new(&place.program);
    injected.args(inject).env("IOLAG_SOCKET", place.socket());
    let plain = Command::new(show[0]).args(&show[1..]).output().unwrap();
    assert_eq!(
        succeeded(&injected.output().unwrap())
            .lines()
            .collect::<Vec<_>>(),
        succeeded(&plain).lines().collect::<Vec<_>>()
    );
    place.stop();
}

#[test]
fn what_is_missing_is_named_in_one_line() {
    let Some(mut place) = Place::new() else {
        return;
    };
    place.open_to_all();
    for (capabilities, missing) in [
        (&[][..], "CAP_BPF and CAP_PERFMON are missing"),
        (&["CAP_BPF"], "CAP_PERFMON is missing"),
        (&["CAP_PERFMON"], "CAP_BPF is missing"),
        (
            &["CAP_SYSLOG", "CAP_CHOWN"],
            "CAP_BPF and CAP_PERFMON are missing",
        ),
    ] {
        for args in [
            &["run"][..],
            &["run", "--detach"],
            &["hist", "block", "1", "1"],
            &["events", "--follow"],
        ] {
            for uid in [0, NOBODY] {
                let mut run = place.command(args);
                Who { uid, capabilities }.run(&mut run);
                let output = run.stdout(Stdio::piped()).output().unwrap();
                assert_refused(&output, 3, &["failed to load", missing]);
                assert_nothing_left(&place.socket());
            }
        }
    }
}

/// Those that need no agent.
#[test]
fn commands_without_an_agent_do_with_two() {
    let Some(mut place) = Place::new() else {
        return;
    };
    place.open_to_all();
    for uid in [0, NOBODY] {
        let who = Who {
            uid,
            capabilities: TWO,
        };
        let run = |args: &[&str]| {
            let mut command = place.command(args);
            who.run(&mut command);
            succeeded(&command.output().unwrap())
        };
        let hist = run(&["hist", "sched", "1", "1"]);
        assert!(hist.contains("COUNT"), "{hist}");
        let doctor = run(&["doctor"]);
        for name in TWO {
            assert!(doctor.contains(&format!("  ok    {name} ")), "{doctor}");
        }
        assert!(
            doctor.contains("delays and measurements work here"),
            "{doctor}"
        );
    }
}
