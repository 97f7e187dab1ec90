//! Rules that make no sense, and what is told of those that are in force: what of them takes no root.

use std::{fs, process::Output};

use iolag_tests::{
    place::Place,
    refusal::{assert_nothing_left, assert_refused},
};

const NAMED: &str = r#"{"schema":1,"ok":true,"result":{"id":7,"name":"slow-1"}}"#;

#[test]
fn flags_that_make_no_sense_are_refused_before_anything_is_asked() {
    let Some(place) = Place::new() else { return };
    let cases: [(&[&str], &[&str]); 38] = [
        (&["--delay", "5ms"], &["--delay"]),
        (&["--cap", "1ms"], &["--delay 5ms", "--cap 1ms"]),
        (&["--cap", "2s"], &["--cap 2s", "above 1 s"]),
        (&["--cap", "100"], &["--cap 100 has no unit", "100ms"]),
        (&["--like", "profile.json"], &["--delay", "--like"]),
        (&["--dist", "normal"], &["--dist", "--jitter"]),
        (&["--chance", "101%"], &["--chance 101%", "above 100%"]),
        (&["--chance", "10"], &["--chance 10 has no unit", "10%"]),
        (
            &["--chance", "0.00000001%"],
            &["--chance", "nothing at all"],
        ),
        (&["--chance", "-5%"], &["--chance -5%", "below 0"]),
        (&["--cpu-budget", "200%"], &["--cpu-budget 200%"]),
        (&["--every", "0"], &["--every 0"]),
        (&["--every", "x"], &["--every"]),
        (&["--max-hits", "0"], &["--max-hits 0"]),
        (&["--pid", "0"], &["--pid 0"]),
        (&["--pid", "me"], &["--pid"]),
        (&["--pid", "5", "--pid", "5"], &["--pid 5", "twice"]),
        (&["--children"], &["--children needs --pid"]),
        (&["--pid", "1", "--", "true"], &["--pid", "COMMAND"]),
        (&["--children", "--", "true"], &["--children"]),
        (&["--comm", "a-very-long-name"], &["--comm", "15 bytes"]),
        (&["--uid", "no such user"], &["--uid", "no such user"]),
        (&["--uid", "-1"], &["--uid"]),
        (&["--op", "fly"], &["--op", "\"fly\"", "flush"]),
        (&["--op", "write"], &["--op write", "empty match"]),
        (&["--size", "64k..4k"], &["--size 64k..4k"]),
        (&["--size", "big"], &["--size", "4k..64k"]),
        (
            &["--under", "/no/such/directory"],
            &["--under", "no such directory"],
        ),
        (&["--device", ""], &["--device"]),
        (&["--for", "30"], &["--for 30 has no unit", "30s or 30m"]),
        (&["--for", "0s"], &["--for 0"]),
        (&["--for", "1s", "--ramp", "2s"], &["--ramp", "--for"]),
        (&["--seed", "many"], &["--seed"]),
        (&["--name", "a b"], &["--name", "letters"]),
        (
            &["--name", "123456789012345678901234567890123"],
            &["--name", "too long"],
        ),
        (
            &["--abort-if", "memory.oom"],
            &["--abort-if", "compares nothing"],
        ),
        (
            &["--abort-if", "memory.oops > 0"],
            &["--abort-if", "memory.oom"],
        ),
        (
            &["--abort-if", "softirq > 130%"],
            &["--abort-if", "above 100%"],
        ),
    ];
    for (more, words) in cases {
        assert_refused(&place.inject(more), 2, words);
    }
    assert_nothing_left(&place.socket());
}

#[test]
fn points_that_are_none_or_cannot_tell_are_refused() {
    let Some(place) = Place::new() else { return };
    let cases: [(&str, &[&str], &[&str]); 9] = [
        ("vfs.raed", &[], &["vfs.raed", "did you mean vfs.read"]),
        ("", &[], &["unknown point"]),
        ("vfs.read,vfs.read", &[], &["vfs.read", "twice"]),
        ("fn:", &[], &["fn:"]),
        ("fn:a b", &[], &["fn:a b"]),
        ("vfs.fsync", &["--size", "4k.."], &["--size", "vfs.fsync"]),
        (
            "block.issue",
            &["--under", "/"],
            &["--under", "block.issue"],
        ),
        (
            "fn:vfs_read",
            &["--device", "vda"],
            &["--device", "fn:vfs_read"],
        ),
        (
            "fn:vfs_read",
            &["--op", "read"],
            &["--op read", "fn:vfs_read"],
        ),
    ];
    for (point, more, words) in cases {
        let output = place.call(&[&["inject", point, "--delay", "5ms"], more].concat());
        assert_refused(&output, 2, words);
    }
    assert_refused(&place.call(&["inject", "vfs.read"]), 2, &["--delay"]);
    assert_refused(&place.call(&["inject"]), 2, &["POINT"]);
}

#[test]
fn delays_of_rules_have_units() {
    let Some(place) = Place::new() else { return };
    for (delay, words) in [
        ("5", ["--delay 5 has no unit", "5ms"]),
        ("0ms", ["--delay 0", "nothing"]),
        ("2s", ["--delay 2s", "above 1 s"]),
        ("5m", ["\"5m\" is not a time", "5ms"]),
        ("", ["--delay", ""]),
        ("soon", ["\"soon\" is not a time", "5ms"]),
        ("-5ms", ["--delay -5ms is below 0", "5ms"]),
    ] {
        let output = place.call(&["inject", "vfs.read", "--delay", delay]);
        assert_refused(&output, 2, &words);
    }
}

#[test]
fn what_removes_or_verifies_nothing_is_refused() {
    let Some(place) = Place::new() else { return };
    let cases: [(&[&str], &str); 6] = [
        (&["remove"], "--all"),
        (&["remove", "slow", "--all"], "--all contradicts"),
        (&["remove", "a b"], "letters"),
        (&["verify", "--bound", "5"], "--bound 5 has no unit"),
        (&["verify", "--bound", "500%"], "--bound 500%"),
        (&["verify", "a/b"], "letters"),
    ];
    for (args, word) in cases {
        assert_refused(&place.call(args), 2, &[word]);
    }
}

#[test]
fn without_an_agent_nothing_is_started() {
    let Some(place) = Place::new() else { return };
    let mark = place.dir.join("mark");
    let mark = mark.to_str().unwrap();
    for args in [
        &["inject", "vfs.read", "--delay", "5ms"][..],
        &["inject", "vfs.read", "--delay", "5ms", "--", "touch", mark],
        &["rules"],
        &["remove", "--all"],
        &["verify"],
    ] {
        assert_refused(
            &place.call(args),
            3,
            &["no agent is running", "iolag run --detach"],
        );
    }
    assert!(!fs::exists(mark).unwrap());
    assert_nothing_left(&place.socket());
}

#[test]
fn the_name_of_the_rule_is_the_result() {
    let Some(place) = Place::new() else { return };
    let agent = place.agent(&[NAMED]);
    let output = place.inject(&["--chance", "50%", "--seed", "7"]);
    assert_eq!(String::from_utf8_lossy(&output.stdout), "slow-1\n");
    assert_eq!(output.status.code(), Some(0));
    let asked = agent.join().unwrap();
    for part in [
        r#""command":"inject""#,
        r#""points":["vfs.read"]"#,
        r#""ns":5000000"#,
        r#""chance":2147483648"#,
        r#""seed":7"#,
    ] {
        assert!(asked[0].contains(part), "no {part} in {}", asked[0]);
    }
}

const RULES: &str = r#"{"schema":1,"ok":true,"result":[{"spec":{"name":"slow","points":["vfs.read"],"delay":{"kind":"fixed","ns":5000000},"cap_ns":1000000000},"age_ns":1000000000,"left_ns":null,"hooks":["vfs.read: vfs_read (fentry)"],"counts":{"matches":10,"hits":8,"spared":0,"ended":0,"lease":0,"budget":2,"row":0,"exempt":0,"capped":0,"short":0,"missed":0,"asked_ns":40000000,"achieved_ns":40080000},"asked":{"mean":5000000,"p50":5000000,"p99":5000000,"p99.9":5000000},"achieved":{"mean":5010000,"p50":5010000,"p99":5010000,"p99.9":5010000}}]}"#;
const NO_RULES: &str = r#"{"schema":1,"ok":true,"result":[]}"#;

/// The answer to a command at an agent that has this rule.
fn with_rule(args: &[&str], answer: &'static [&'static str]) -> Option<Output> {
    let place = Place::new()?;
    let agent = place.agent(answer);
    let output = place.call(args);
    agent.join().unwrap();
    Some(output)
}

#[test]
fn rules_are_shown_with_what_came_of_them() {
    let Some(text) = with_rule(&["rules"], &[RULES]) else {
        return;
    };
    let text = String::from_utf8(text.stdout).unwrap();
    for words in [
        "rule      slow at vfs.read",
        "8 delayed of 10 matches",
        "P99.9",
        "5.01ms",
    ] {
        assert!(text.contains(words), "no {words} in {text}");
    }
    assert!(text.lines().all(|line| line.len() < 80), "{text}");
    let json = with_rule(&["rules", "--format", "json"], &[RULES]).unwrap();
    let json: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!(json["schema"], 1);
    assert_eq!(json["rules"][0]["counts"]["hits"], 8);
    assert_eq!(json["rules"][0]["achieved"]["p99.9"], 5_010_000);
}

#[test]
fn a_rule_that_fell_short_is_not_verified() {
    let verify = |args: &[&str], answer| with_rule(&[&["verify"], args].concat(), answer);
    let Some(output) = verify(&[], &[RULES]) else {
        return;
    };
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8(output.stdout).unwrap();
    for words in [
        "NOT verified",
        "20% of the hits due",
        "budget 2",
        "error 0.2%",
    ] {
        assert!(text.contains(words), "no {words} in {text}");
    }
    let enough = verify(&["slow", "--bound", "25%"], &[RULES]).unwrap();
    assert_eq!(enough.status.code(), Some(0));
    assert!(String::from_utf8_lossy(&enough.stdout).contains("slow: verified"));
    let json = verify(&["--format", "json"], &[RULES]).unwrap();
    assert_eq!(json.status.code(), Some(1));
    let json: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!(json["rules"][0]["ok"], false);
    assert_eq!(json["rules"][0]["shortfall"]["budget"], 2);
    assert_refused(
        &verify(&[], &[NO_RULES]).unwrap(),
        1,
        &["no rule is or was in force"],
    );
    assert_refused(
        &verify(&["slov"], &[RULES]).unwrap(),
        1,
        &["slov", "did you mean slow"],
    );
}
