//! Probes that are loaded while delays are in force.

use std::{
    fs,
    io::{BufRead as _, BufReader, Write as _},
    os::unix::net::UnixStream,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use iolag_tests::{agent::Agent, held::Held, programs, timing::reads};
use serde_json::Value;

use crate::place::Place;

const STATUS: &str = r#"{"schema":1,"command":"status"}"#;
const LOAD_VFS: &str =
    r#"{"schema":1,"command":"probe-load","probe":"vfs","by":[],"backend":"tp"}"#;

/// A connection that is used for several requests.
struct Connection(BufReader<UnixStream>);

impl Connection {
    fn new(place: &Place) -> Self {
        let connection = Self(BufReader::new(place.connect()));
        let patience = Some(Duration::from_secs(60));
        connection.0.get_ref().set_read_timeout(patience).unwrap();
        connection
    }

    fn send(&mut self, line: &str) {
        self.0
            .get_mut()
            .write_all(format!("{line}\n").as_bytes())
            .unwrap();
    }

    fn answer(&mut self) -> Value {
        let mut answer = String::new();
        self.0.read_line(&mut answer).unwrap();
        serde_json::from_str(&answer).unwrap()
    }

    fn ask(&mut self, line: &str) -> Value {
        self.send(line);
        self.answer()
    }
}

/// Sets how many descriptors a process may have; returns how many it might before.
fn limit_descriptors(pid: i32, limit: u64) -> u64 {
    let mut before = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    let kind = libc::RLIMIT_NOFILE;
    // SAFETY: one limit is read, to a place that is valid for writing.
    let read = unsafe { libc::prlimit(pid, kind, std::ptr::null(), &raw mut before) };
    assert_eq!(read, 0);
    let new = libc::rlimit {
        rlim_cur: limit,
        ..before
    };
    // SAFETY: one limit is written, from a place that is valid for reading.
    let written = unsafe { libc::prlimit(pid, kind, &raw const new, std::ptr::null_mut()) };
    assert_eq!(written, 0);
    before.rlim_cur
}

/// The limit that leaves a process room for so many descriptors more.
fn limit_for(pid: i32, room: usize) -> u64 {
    let names = fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
    let used: Vec<u64> = names
        .map(|entry| {
            entry
                .unwrap()
                .file_name()
                .to_str()
                .unwrap()
                .parse()
                .unwrap()
        })
        .collect();
    let mut free = (0..).filter(|number| !used.contains(number));
    free.nth(room).unwrap()
}

fn reads_are_slow() -> bool {
    let times = reads(Path::new("/dev/zero"), 3, Duration::ZERO).unwrap();
    times.iter().all(|ns| *ns >= 1_000_000)
}

/// The agent runs out of descriptors at each place of a load in turn, until none is left at which it can. One
/// of these is where the delays are attached behind the probe.
#[test]
fn a_load_that_fails_leaves_the_delays_in_force() {
    let Some(place) = Place::new() else { return };
    place.done(&["run", "--detach", "--backend", "tp"]);
    let pid = place.pid();
    place.done(&["set", "1ms"]);
    let before = place.status();
    let mut connection = Connection::new(&place);
    connection.ask(STATUS);
    let mut refusals = Vec::new();
    for room in 0..100 {
        let usual = limit_descriptors(pid, limit_for(pid, room));
        let answer = connection.ask(LOAD_VFS);
        limit_descriptors(pid, usual);
        assert!(reads_are_slow(), "{answer}");
        if answer["ok"] == true {
            break;
        }
        refusals.push(answer["error"]["message"].as_str().unwrap().to_owned());
        let now = place.status();
        assert_eq!(now["rules"], before["rules"]);
        let list = connection.ask(r#"{"schema":1,"command":"probe-list"}"#);
        let loaded = |row: &Value| row["loaded"] == true;
        assert!(
            !list["result"].as_array().unwrap().iter().any(loaded),
            "{list}"
        );
    }
    println!("{refusals:#?}");
    let last = |text: &String| text.contains("failed to attach the delays");
    assert!(refusals.iter().any(last), "no load failed at the delays");
    let list = connection.ask(r#"{"schema":1,"command":"probe-list"}"#);
    assert!(list.to_string().contains(r#""loaded":true"#), "{list}");
    place.stop();
}

/// Others are answered, and hence leases renewed, while a probe is on its way; and what is asked of the probes
/// meanwhile waits its turn.
#[test]
fn an_agent_that_loads_a_probe_answers_others() {
    let Some(place) = Place::new() else { return };
    place.start();
    let (mut first, mut second) = (Connection::new(&place), Connection::new(&place));
    let mut other = Connection::new(&place);
    let start = Instant::now();
    first.send(LOAD_VFS);
    second.send(&LOAD_VFS.replace("tp", "auto"));
    let loading = thread::spawn(move || {
        let answers = (first.answer(), second.answer());
        (answers, Instant::now())
    });
    let mut answered = Vec::new();
    while !loading.is_finished() {
        let asked = Instant::now();
        assert_eq!(other.ask(STATUS)["ok"], true);
        answered.push((asked, Instant::now()));
    }
    let ((one, two), loaded) = loading.join().unwrap();
    assert_eq!(one["ok"], true, "{one}");
    assert_eq!(one, two);
    answered.retain(|(_, at)| *at < loaded);
    let longest = answered.iter().map(|(asked, at)| *at - *asked).max();
    let longest = longest.expect("nobody was answered");
    let took = loaded - start;
    println!(
        "{} answers in {took:?}, the last of them after {longest:?}",
        answered.len()
    );
    assert!(longest < took / 2, "an answer took {longest:?} of {took:?}");
    place.stop();
}

#[test]
fn an_agent_that_is_stopped_while_it_loads_leaves_nothing() {
    let Some(place) = Place::new() else { return };
    let before = programs::loaded().unwrap();
    place.start();
    let mut connection = Connection::new(&place);
    connection.send(LOAD_VFS);
    place.stop();
    programs::wait_gone(programs::loaded, &before, Duration::from_secs(5)).unwrap();
}

/// What it reads of the kernel to load programs, by far the most that it ever has, is given back: at its start, and when a
/// rule wants a point that was not attached.
#[test]
fn an_agent_with_all_probes_is_small_once_they_are_loaded() {
    let Some(place) = Place::new() else { return };
    let agent = Agent::start(&place.program, &["--probes", "all"]).unwrap();
    let small = |what: &str| {
        let end = Instant::now() + Duration::from_secs(10);
        loop {
            let held = Held::by(agent.pid()).unwrap();
            // 20 MB.
            if held.memory < 20_000_000 >> 10 {
                return println!("{what}: {} KiB, at most {}", held.memory, held.peak);
            }
            assert!(Instant::now() < end, "{what}: {held:?}");
            thread::sleep(Duration::from_millis(100));
        }
    };
    small("all probes");
    Held::forget_peak(agent.pid()).unwrap();
    let rule = ["inject", "vfs.opened", "--delay", "1us", "--comm", "nobody"];
    agent.call(&rule).unwrap();
    small("and a point more");
}
