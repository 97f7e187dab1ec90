//! How rules begin, grow, end and are bounded: by time, by each other, by a budget, by conditions.

use std::{
    path::Path,
    process::{Child, Command, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use iolag_tests::{
    affinity::{cpus, go_to},
    agent::Agent,
    memcg::MemoryCgroup,
    outcome::Outcome,
    reader::{Call, go_first, reading_as},
    timing::median,
};

use crate::place::Place;

/// Runs of what a busy machine may disturb.
const TRIES: usize = 5;

fn ms(number: u64) -> Duration {
    Duration::from_millis(number)
}

#[test]
fn a_rule_ends_by_its_time_without_the_agent() {
    let Some(place) = Place::new() else { return };
    let agent = Agent::start(&place.program, &[]).unwrap();
    let flags = [
        "--comm",
        "iolag-for",
        "--delay",
        "2ms",
        "--for",
        "1s",
        "--name",
        "brief",
    ];
    let asked = Instant::now();
    agent
        .call(&[&["inject", "vfs.read"], &flags[..]].concat())
        .unwrap();
    let answered = Instant::now();
    agent.signal(libc::SIGSTOP);
    let calls = undisturbed("iolag-for", ms(1_800));
    agent.signal(libc::SIGCONT);
    // Nearly exactly as long as the rule has it: something else may be slow as well.
    let slow = |call: &&Call| call.took >= ms(2) && call.took < Duration::from_micros(2_100);
    let last = calls.iter().rfind(slow).expect("nothing was slow").start;
    println!(
        "the last slow read began {:?} after the rule was asked for",
        last - asked
    );
    assert!(last < answered + ms(1_000), "it goes on");
    assert!(last > asked + ms(900), "it ended early");
    let outcome = ended(&agent, "brief");
    assert_eq!(outcome.ended(), Some("its time is over"));
    assert!(outcome.count("ended") > 0, "{}", outcome.0);
    assert_eq!(outcome.count("lease"), 0, "{}", outcome.0);
}

/// Reads for so long before all others on the CPU, which would else be told from a delay by nothing.
fn undisturbed(comm: &str, length: Duration) -> Vec<Call> {
    let reads = reading_as(comm, |reader| {
        go_first().unwrap();
        reader.during(length)
    });
    reads.unwrap()
}

/// The rule, once the agent has seen that it is over.
#[track_caller]
fn ended(agent: &Agent, name: &str) -> Outcome {
    let end = Instant::now() + Duration::from_secs(15);
    loop {
        let outcome = agent.rule(name).unwrap();
        if outcome.ended().is_some() {
            return outcome;
        }
        assert!(Instant::now() < end, "{name} is still in force");
        sleep(ms(50));
    }
}

#[test]
fn a_ramp_grows_evenly_to_the_full_delay() {
    let Some(place) = Place::new() else { return };
    let agent = Agent::start(&place.program, &[]).unwrap();
    const FULL_NS: f64 = 2_000_000.0;
    let grown = (0..TRIES).any(|_| {
        let flags = [
            "--comm",
            "iolag-ramp",
            "--delay",
            "2ms",
            "--ramp",
            "3s",
            "--name",
            "ramp",
        ];
        agent
            .call(&[&["inject", "vfs.read"], &flags[..]].concat())
            .unwrap();
        let age_ns = agent.rule("ramp").unwrap().0["age_ns"].as_u64().unwrap();
        let began = Instant::now() - Duration::from_nanos(age_ns);
        let calls = undisturbed("iolag-ramp", ms(3_700));
        agent.call(&["remove", "ramp"]).unwrap();
        let mut worst: f64 = 0.0;
        for part in 1..=7 {
            // Half a second each, told apart by the time at which the reads began.
            let of_part = |call: &&Call| (call.start - began).as_millis() / 500 == part;
            let off = |call: &Call| {
                let age = (call.start - began).as_secs_f64();
                let due = FULL_NS * (age / 3.0).min(1.0);
                // Above 0: how far from what is due, of 2^20.
                let off = call.took.as_nanos() as f64 / due;
                (off * f64::from(1 << 20)) as u64
            };
            let offs: Vec<u64> = calls.iter().filter(of_part).map(off).collect();
            let off = median(offs) as f64 / f64::from(1 << 20) - 1.0;
            worst = if off.abs() > worst.abs() { off } else { worst };
        }
        println!("--ramp: furthest from its line by {:+.2} %", worst * 100.0);
        worst.abs() <= 0.05
    });
    assert!(grown, "the ramp is not even");
}

#[test]
fn rules_add_up_to_the_smallest_cap() {
    let Some(place) = Place::new() else { return };
    let agent = Agent::start(&place.program, &[]).unwrap();
    let add = |name: &str, more: &[&str]| {
        let flags = ["--comm", "iolag-cap", "--delay", "300us", "--name", name];
        agent
            .call(&[&["inject", "vfs.read"], &flags[..], more].concat())
            .unwrap();
    };
    let middle = || {
        let calls = reading_as("iolag-cap", |reader| reader.times(400)).unwrap();
        median(
            calls
                .iter()
                .map(|call| call.took.as_nanos() as u64)
                .collect(),
        )
    };
    add("one", &[]);
    let one = middle();
    add("two", &[]);
    let two = middle();
    agent.call(&["remove", "two"]).unwrap();
    add("capped", &["--cap", "500us"]);
    let capped = middle();
    println!("300us: {one} ns; twice: {two} ns; with --cap 500us: {capped} ns");
    for (ns, asked) in [(one, 300_000), (two, 600_000), (capped, 500_000)] {
        assert!(
            ns >= asked && ns <= asked + asked / 20,
            "{ns} ns of {asked}"
        );
    }
    let (one, capped) = (agent.rule("one").unwrap(), agent.rule("capped").unwrap());
    assert_eq!(capped.count("hits"), 400);
    assert_eq!(one.count("capped") + capped.count("capped"), 400);
    // Their shares add up to what was waited, the error aside.
    let waited = capped.count("achieved_ns");
    let of_both = waited + one.count("achieved_ns");
    assert!(of_both >= 400 * (300_000 + 300_000 + 500_000), "{of_both}");
}

/// A thread that does nothing but read, before all others on its CPU.
fn spun(agent: &Agent, length: Duration) -> (Outcome, f64) {
    let flags = [
        "--comm",
        "iolag-budget",
        "--delay",
        "1ms",
        "--cpu-budget",
        "30%",
    ];
    let inject = [&["vfs.read"], &flags[..]].concat();
    let mut share = 0.0;
    let outcome = agent.ruled(&inject, || {
        let cpu = *cpus().last().expect("a CPU");
        let calls = reading_as("iolag-budget", |reader| {
            go_to(cpu).unwrap();
            go_first().unwrap();
            let start = Instant::now();
            let slow: Duration =
                std::iter::from_fn(|| (start.elapsed() < length).then(|| reader.read()))
                    .map(|call| call.took)
                    .filter(|took| *took >= ms(1))
                    .sum();
            (slow, start.elapsed())
        })?;
        share = calls.0.as_secs_f64() / calls.1.as_secs_f64();
        Ok(())
    });
    (outcome.unwrap(), share)
}

#[test]
fn a_budget_of_cpu_time_is_held() {
    let Some(place) = Place::new() else { return };
    let agent = Agent::start(&place.program, &[]).unwrap();
    let held = (0..TRIES).any(|_| {
        let (outcome, share) = spun(&agent, Duration::from_secs(3));
        println!(
            "--cpu-budget 30%: slowed for {:.1} %; {}",
            share * 100.0,
            outcome.0["counts"]
        );
        let (hits, withheld) = (outcome.count("hits"), outcome.count("budget"));
        assert_eq!(hits + withheld, outcome.count("matches"), "{}", outcome.0);
        assert!(withheld > hits, "{}", outcome.0);
        assert!(share <= 0.35, "more than the budget");
        share >= 0.25
    });
    assert!(held, "never near the budget");
}

/// Ends with the test.
struct Busy(Child);

impl Drop for Busy {
    fn drop(&mut self) {
        let _gone = self.0.kill();
        let _gone = self.0.wait();
    }
}

/// Rules that only fast reads of nobody would have to fear, of which one has this condition: all of them end.
fn aborted_by(agent: &Agent, condition: &str, cause: impl FnOnce()) -> String {
    for (name, more) in [
        ("bystander", &[][..]),
        ("watcher", &["--abort-if", condition]),
    ] {
        let flags = ["--comm", "iolag-nobody", "--delay", "1ms", "--name", name];
        agent
            .call(&[&["inject", "vfs.read"], &flags[..], more].concat())
            .unwrap();
    }
    cause();
    let why = ended(agent, "watcher").ended().unwrap().to_owned();
    assert_eq!(agent.rule("bystander").unwrap().ended(), Some(why.as_str()));
    println!("{why}");
    assert!(
        why.starts_with(&format!("--abort-if {condition}: ")),
        "{why}"
    );
    assert!(why.ends_with("of the rule watcher"), "{why}");
    why
}

#[test]
fn conditions_end_all_rules() {
    let Some(place) = Place::new() else { return };
    let agent = Agent::start(&place.program, &[]).unwrap();
    let why = aborted_by(&agent, "memory.oom > 0", || {
        // As much as others do in that time ends no rule.
        let cgroup = MemoryCgroup::new("iolag-abort", 16 << 20).unwrap();
        let hog = cgroup.hog("iolag-hog", 64 << 20, 1000).unwrap();
        assert!(!hog.has_its_memory());
        hog.wait_killed();
    });
    assert!(why.contains("OOM kills since the rule came"), "{why}");
    if !Path::new("/proc/pressure/cpu").exists() {
        println!("skipped: this kernel keeps no pressure");
        return;
    }
    // Two that want the same CPU: one of them waits.
    let cpu = cpus()[0].to_string();
    let spin = || {
        let mut command = Command::new("taskset");
        command.args(["-c", &cpu, "sh", "-c", "while :; do :; done"]);
        Busy(command.stdin(Stdio::null()).spawn().unwrap())
    };
    let mut busy = Vec::new();
    let why = aborted_by(&agent, "psi.cpu.some > 1%", || {
        busy.extend([spin(), spin()]);
    });
    assert!(why.contains("tasks were stalled on cpu"), "{why}");
    drop(busy);
    let loaded = ["probe", "load", "sched"];
    agent.call(&loaded).unwrap();
    let mut busy = Vec::new();
    let why = aborted_by(&agent, "sched.wait.p99 > 1us", || {
        busy.extend([spin(), spin()]);
    });
    assert!(why.contains("99th percentile"), "{why}");
}
