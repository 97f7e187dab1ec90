//! Clients that are many, silent, endless or mad: the agent answers the next one, and holds no more than before.

use std::{
    fmt::Display,
    io::Write as _,
    sync::Barrier,
    thread,
    time::{Duration, Instant},
};

use iolag_tests::{
    crowd::{ask, ask_all, connect, rest},
    faults::{rounds, row},
    fuzz::SAFE_REQUESTS,
    held::Held,
    mutated::mutated,
};
use serde_json::{Value, json};

use crate::place::Place;

const STATUS: &[u8] = br#"{"schema":1,"command":"status"}"#;
/// More than the agent's memory may grow by (KiB). 64 connections with a line of 64 KiB each have 4 MiB of buffers, and
/// twice that while these grow.
const GROWTH: u64 = 12 << 10;
/// As long as a command waits for an answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// An agent, and what it held before.
struct Watched {
    place: Place,
    pid: i32,
    before: Held,
}

impl Watched {
    /// None where these tests cannot run. With the backend `tp`, so that no rule can come to be at `vfs.lookup`.
    fn start() -> Option<Self> {
        let place = Place::new()?;
        place.done(&["run", "--detach", "--backend", "tp"]);
        let pid = place.pid();
        let before = Held::by(pid).unwrap();
        Some(Self { place, pid, before }.looked_at_again())
    }

    /// As [`Self::start`], once the agent has read the kernel's types, which takes some tens of MiB for a moment.
    fn start_with_rules() -> Option<Self> {
        let agent = Self::start()?;
        let rule = [
            "inject",
            "vfs.fsync",
            "--delay",
            "1us",
            "--pid",
            &std::process::id().to_string(),
        ]
        .map(str::to_owned);
        agent.place.done(&rule.each_ref().map(String::as_str));
        agent.place.done(&["reset"]);
        agent.settled();
        Some(agent.looked_at_again())
    }

    fn looked_at_again(mut self) -> Self {
        // What is made at the first use is made.
        for _ in 0..3 {
            self.place.status();
        }
        Held::forget_peak(self.pid).unwrap();
        self.before = self.settled();
        self
    }

    /// The next request is answered in the time that a command waits; nothing is held any more. Prints the row.
    #[track_caller]
    fn finish(self, fault: &str, figures: impl Display) {
        let start = Instant::now();
        let answer = ask(&connect(&self.place.socket()).unwrap(), STATUS).unwrap();
        let took = start.elapsed();
        assert_eq!(answer["result"]["agent"]["pid"], self.pid);
        assert!(took < PATIENCE, "answered after {took:?}");
        let after = self.settled();
        let grown = |after: u64| after.saturating_sub(self.before.memory);
        row(
            fault,
            "tp",
            format_args!(
                "{figures}, next answer after {:.1} ms, RSS +{:.1} MiB, at most +{:.1} MiB of {:.0} MiB",
                took.as_secs_f64() * 1e3,
                grown(after.memory) as f64 / 1024.0,
                grown(after.peak) as f64 / 1024.0,
                self.before.memory as f64 / 1024.0,
            ),
        );
        assert!(
            grown(after.peak) < GROWTH,
            "{:?}, then {after:?}",
            self.before
        );
        assert_eq!(after.descriptors, self.before.descriptors);
        assert!(after.threads <= self.before.threads, "{after:?}");
        self.place.stop();
    }

    /// What the agent holds once it has closed what others have closed, and its threads that wait for work have left.
    fn settled(&self) -> Held {
        let start = Instant::now();
        loop {
            let held = Held::by(self.pid).unwrap();
            let same =
                held.descriptors == self.before.descriptors && held.threads <= self.before.threads;
            if same || start.elapsed() > Duration::from_secs(15) {
                return held;
            }
            thread::sleep(Duration::from_millis(20));
        }
    }
}

#[test]
fn a_thousand_clients_at_once_are_all_answered() {
    let Some(agent) = Watched::start() else {
        return;
    };
    let (socket, together) = (agent.place.socket(), Barrier::new(1000));
    let start = Instant::now();
    let answered = thread::scope(|scope| {
        let clients: Vec<_> = (0..1000)
            .map(|_| {
                let client = || {
                    together.wait();
                    ask(&connect(&socket)?, STATUS)
                };
                thread::Builder::new()
                    .stack_size(128 << 10)
                    .spawn_scoped(scope, client)
                    .unwrap()
            })
            .collect();
        let answers = clients.into_iter().map(|client| client.join().unwrap());
        answers
            .filter(|answer| answer.as_ref().is_ok_and(|answer| answer["ok"] == true))
            .count()
    });
    let took = start.elapsed().as_secs_f64();
    assert_eq!(answered, 1000);
    agent.finish(
        "1,000 clients at once",
        format!("{} lost, all answered in {took:.2} s", 1000 - answered),
    );
}

#[test]
fn two_clients_that_change_rules_do_not_undo_each_other() {
    let Some(agent) = Watched::start_with_rules() else {
        return;
    };
    let pid = std::process::id();
    let one = |name: &str| {
        let socket = agent.place.socket();
        let inject = json!({
            "schema": 1, "command": "inject", "name": name, "points": ["vfs.fsync"], "cap_ns": 1000,
            "delay": {"kind": "fixed", "ns": 1000}, "filters": {"pids": [pid]},
        });
        let remove = json!({"schema": 1, "command": "remove", "name": name});
        for request in [inject.clone(), remove]
            .iter()
            .cycle()
            .take(400)
            .chain([&inject])
        {
            let answer = ask(&connect(&socket).unwrap(), request.to_string().as_bytes()).unwrap();
            assert_eq!(answer["ok"], true, "{request}: {answer}");
        }
    };
    thread::scope(|scope| {
        for name in ["one", "two"] {
            scope.spawn(move || one(name));
        }
    });
    let rules = agent.place.status()["rules"].clone();
    let rules = rules.as_array().unwrap().iter();
    let mut names: Vec<_> = rules.map(|rule| rule["name"].clone()).collect();
    names.sort_unstable_by_key(Value::to_string);
    assert_eq!(names, ["one", "two"]);
    agent.place.done(&["reset"]);
    agent.finish(
        "two clients change rules at the same time",
        "802 changes, 0 lost",
    );
}

#[test]
fn half_a_line_and_then_silence_holds_nobody_up() {
    let Some(agent) = Watched::start() else {
        return;
    };
    let half = [b"{\"schema\":1,".as_slice(), &vec![b' '; 60 << 10]].concat();
    let silent: Vec<_> = (0..500)
        .map(|_| {
            let mut stream = connect(&agent.place.socket()).unwrap();
            stream.set_nonblocking(true).unwrap();
            let _part = stream.write(&half);
            stream
        })
        .collect();
    let start = Instant::now();
    let answer = ask(&connect(&agent.place.socket()).unwrap(), STATUS).unwrap();
    let took = start.elapsed();
    assert_eq!(answer["ok"], true);
    assert!(took < PATIENCE, "answered after {took:?} behind them");
    drop(silent);
    agent.finish(
        "half a line, then silence",
        format!(
            "500 such, a good request behind them answered after {:.2} s",
            took.as_secs_f64()
        ),
    );
}

#[test]
fn a_hundred_megabytes_without_an_end_are_cut_off() {
    let Some(agent) = Watched::start() else {
        return;
    };
    let part = vec![b'x'; 1 << 20];
    let mut stream = connect(&agent.place.socket()).unwrap();
    let taken = (0..100)
        .take_while(|_| stream.write_all(&part).is_ok())
        .count();
    assert!(taken < 100, "all was taken");
    let told = rest(&stream);
    drop(stream);
    // What was in the socket is lost where the agent closes with bytes unread.
    assert!(told.is_empty() || String::from_utf8_lossy(&told).contains("at most 65536 bytes"));
    agent.finish(
        "100 MB without a newline",
        format!("cut off after {taken} MiB at most"),
    );
}

#[test]
fn changed_lines_are_all_answered() {
    let Some(agent) = Watched::start_with_rules() else {
        return;
    };
    let lines = rounds(100_000, 1_000_000) as u64;
    let seeds = SAFE_REQUESTS.map(str::as_bytes);
    let (mut sent, mut refused) = (0, 0);
    let mut number = 0;
    while number < lines {
        let stream = connect(&agent.place.socket()).unwrap();
        for _ in 0..10 {
            let mut batch = Vec::new();
            for _ in 0..100 {
                batch.extend(mutated(&seeds, number));
                batch.push(b'\n');
                number += 1;
            }
            sent += batch.iter().filter(|byte| **byte == b'\n').count();
            refused += ask_all(&stream, &batch).unwrap();
            let answer = ask(&stream, br#"{"schema":1,"command":"probe-list"}"#).unwrap();
            assert_eq!(answer["ok"], true, "after {number} lines");
        }
    }
    let rules = agent.place.status()["rules"].clone();
    assert_eq!(rules, json!([]));
    assert!(
        refused > sent / 2 && refused < sent,
        "{refused} of {sent} refused"
    );
    agent.finish(
        &format!("{number} changed lines"),
        format!("{sent} answered, {refused} refused, 0 lost"),
    );
}
