//! Rules that an agent refuses: those in force stay as they were.

use iolag_tests::refusal::assert_refused;
use serde_json::{Value, json};

use crate::place::Place;

/// Every rule with its place in time left out.
fn in_force(place: &Place) -> Vec<Value> {
    let rules: Value = serde_json::from_str(&place.done(&["rules", "--format", "json"])).unwrap();
    let rules = rules["rules"].as_array().unwrap();
    rules
        .iter()
        .map(|rule| json!([rule["spec"], rule["ended"], rule["hooks"]]))
        .collect()
}

#[test]
fn a_rule_too_many_is_refused_and_the_others_stay() {
    let Some(place) = Place::new() else { return };
    place.start();
    place.done(&["set", "1us"]);
    for number in 1..64 {
        let (name, comm) = (format!("r{number}"), format!("nobody-{number}"));
        let flags = ["--delay", "1us", "--name", &name, "--comm", &comm];
        place.done(&[&["inject", "vfs.read"], &flags[..]].concat());
    }
    let before = in_force(&place);
    assert_eq!(before.len(), 64);
    let output = place.call(&["inject", "vfs.read", "--delay", "1us", "--name", "r64"]);
    assert_refused(&output, 2, &["64 rules are in force"]);
    assert_eq!(in_force(&place), before);
    // What is there already can be changed and removed all the same.
    place.done(&["set", "2us"]);
    assert_eq!(place.status()["rules"].as_array().unwrap().len(), 64);
    place.done(&["remove", "r7"]);
    place.done(&[
        "inject", "vfs.read", "--delay", "1us", "--name", "r64", "--comm", "x",
    ]);
    place.done(&["reset"]);
    assert_eq!(place.status()["rules"], json!([]));
    place.stop();
}

#[test]
fn what_this_host_cannot_is_refused_and_the_others_stay() {
    let Some(place) = Place::new() else { return };
    place.start();
    place.done(&[
        "inject", "vfs.read", "--delay", "1us", "--name", "one", "--comm", "nobody",
    ]);
    place.done(&["set-blk", "1us"]);
    let before = in_force(&place);
    let inject = |point: &str, more: &[&str]| {
        place.call(&[&["inject", point, "--delay", "1us"], more].concat())
    };
    let no_function = inject("fn:no_such_function_anywhere", &[]);
    assert_refused(&no_function, 2, &["no_such_function_anywhere"]);
    for (more, words) in [
        (&["--device", "no-such-disk"][..], "no-such-disk"),
        (&["--pid", "4194303"], "4194303"),
        (&["--cgroup", "/no/such/cgroup"], "/no/such/cgroup"),
        (&["--abort-if", "sched.wait.p99 > 1ms"], "probe sched"),
        (&["--name", "one"], "one"),
    ] {
        let output = inject("vfs.read", more);
        let code = output.status.code().unwrap();
        assert!(matches!(code, 2 | 3), "{more:?}: exit code {code}");
        assert_refused(&output, code, &[words]);
        assert_eq!(in_force(&place), before, "{more:?}");
    }
    if !std::path::Path::new("/sys/bus/event_source/devices/kprobe").exists() {
        let output = inject("fn:vfs_read,vfs.write", &["--comm", "nobody"]);
        assert_refused(&output, 3, &["kprobe"]);
    }
    assert_eq!(in_force(&place), before);
    place.stop();
}

#[test]
fn nonsense_on_the_socket_leaves_the_rules_as_they_were() {
    let Some(place) = Place::new() else { return };
    place.start();
    place.done(&[
        "inject", "vfs.read", "--delay", "1us", "--name", "one", "--comm", "nobody",
    ]);
    let before = in_force(&place);
    let drawn =
        |quantiles: Vec<u64>| json!({"kind": "drawn", "asked": "x", "quantiles": quantiles});
    let falling = (0..2048).rev().collect();
    let cases = [
        ("delay", drawn(vec![])),
        ("delay", drawn(vec![1; 2047])),
        ("delay", drawn(vec![1; 2049])),
        ("delay", drawn(vec![0; 2048])),
        ("delay", drawn(vec![1_000_000_001; 2048])),
        ("delay", drawn(falling)),
        ("delay", json!({"kind": "fixed", "ns": 0})),
        ("delay", json!({"kind": "fixed", "ns": -1})),
        ("delay", json!({"kind": "often"})),
        ("chance", json!(u64::MAX)),
        ("cpu_budget", json!(0)),
        ("every", json!(0)),
        ("max_hits", json!(0)),
        ("for_ns", json!(u64::MAX)),
        ("ramp_ns", json!(u64::MAX)),
        ("cap_ns", json!(0)),
        ("cap_ns", json!(2_000_000_000u64)),
        ("points", json!([])),
        ("points", json!(["vfs.read", "vfs.read"])),
        ("points", json!(["fn:a b"])),
        ("abort_if", json!(["memory.oom"])),
        ("filters", json!({"pids": [0]})),
        ("filters", json!({"comms": ["a name that is too long"]})),
        ("filters", json!({"cgroups": ["relative"]})),
        ("filters", json!({"uids": [-1]})),
        ("filters", json!({"nobody": true})),
        ("name", json!("a\u{7}b")),
        ("unknown", json!(1)),
    ];
    for (field, value) in cases {
        let mut request = json!({"schema": 1, "command": "inject", "name": "two", "points": ["vfs.read"],
            "cap_ns": 1_000_000_000, "delay": {"kind": "fixed", "ns": 1000}});
        request[field] = value;
        let answer = place.ask(request.to_string().as_bytes());
        assert_eq!(answer["ok"], false, "{field}: {answer}");
        assert_eq!(answer["error"]["code"], 2, "{field}: {answer}");
        assert_eq!(in_force(&place), before, "{field}");
    }
    place.stop();
}
