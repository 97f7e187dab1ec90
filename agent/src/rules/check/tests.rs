use super::*;

fn spec() -> Spec {
    Spec {
        seed: 7,
        ..Spec::plain("slow", &["vfs.read"], Delay::Fixed { ns: 5_000_000 })
    }
}

/// A change to a rule that makes sense, and what it is refused with.
type Case = (fn(&mut Spec), &'static [&'static str]);

fn assert_refused(cases: &[Case]) {
    assert_eq!(check(&spec()), Ok(()));
    for (change, words) in cases {
        let mut spec = spec();
        change(&mut spec);
        let failure = check(&spec).unwrap_err();
        assert_eq!(failure.code, USAGE, "{failure}");
        assert!(failure.hint.is_some(), "{failure}");
        assert!(failure.message.len() < 300, "{failure}");
        for word in *words {
            assert!(failure.to_string().contains(word), "no {word}: {failure}");
        }
    }
}

fn drawn(change: impl FnOnce(&mut Vec<u64>)) -> Delay {
    let mut quantiles = vec![1_000_000; KNOTS];
    change(&mut quantiles);
    Delay::Drawn {
        asked: "uniform".into(),
        quantiles,
    }
}

#[test]
fn names_and_points() {
    assert_refused(&[
        (
            |s| s.name = "a b".into(),
            &["--name \"a b\"", "other characters"],
        ),
        (|s| s.name = "ü".into(), &["other characters"]),
        (|s| s.name = "x".repeat(33), &["--name", "too long", "32"]),
        (|s| s.name = "x".repeat(40_000), &["too long"]),
        (|s| s.points.clear(), &["needs a point"]),
        (
            |s| s.points = vec!["vfs.raed".into()],
            &["did you mean vfs.read?"],
        ),
        (
            |s| s.points.push("vfs.read".into()),
            &["vfs.read is given twice"],
        ),
        (
            |s| s.points = (0..65).map(|n| format!("fn:f{n}")).collect(),
            &["65 points are too many"],
        ),
        (|s| s.points = vec!["fn:".into()], &["nothing behind fn:"]),
    ]);
    let unnamed = Spec {
        name: String::new(),
        ..spec()
    };
    assert_eq!(check(&unnamed), Ok(()));
    assert!(name("").is_err());
}

#[test]
fn delays() {
    assert_refused(&[
        (
            |s| s.delay = Delay::Fixed { ns: 0 },
            &["--delay 0 delays nothing"],
        ),
        (
            |s| {
                s.delay = Delay::Fixed {
                    ns: MAX_DELAY_NS + 1,
                }
            },
            &["--delay", "above 1 s"],
        ),
        (
            |s| s.cap_ns = 4_999_999,
            &["--delay 5ms is above --cap 5.00ms"],
        ),
        (|s| s.cap_ns = 0, &["--cap 0ns"]),
        (|s| s.cap_ns = MAX_DELAY_NS + 1, &["--cap"]),
        (
            |s| s.delay = drawn(|q| q.truncate(7)),
            &["7 quantiles instead of 2048"],
        ),
        (
            |s| s.delay = drawn(|q| q.push(1_000_000)),
            &["2049 quantiles"],
        ),
        (|s| s.delay = drawn(Vec::clear), &["0 quantiles"]),
        (|s| s.delay = drawn(|q| q[9] = 1), &["do not ascend"]),
        (
            |s| s.delay = drawn(|q| q.fill(0)),
            &["every delay of the table is 0"],
        ),
        (
            |s| s.delay = drawn(|q| q[KNOTS - 1] = u64::MAX),
            &["above 1 s"],
        ),
        (
            |s| (s.delay, s.cap_ns) = (drawn(|_| {}), 1_000),
            &["every delay, from 1ms on, is above --cap 1us"],
        ),
        (
            |s| {
                s.delay = Delay::Drawn {
                    asked: "x".repeat(257),
                    quantiles: vec![1; KNOTS],
                }
            },
            &["too long"],
        ),
    ]);
    let mut even = spec();
    even.delay = drawn(|_| {});
    assert_eq!(check(&even), Ok(()));
}

#[test]
fn limits_and_conditions() {
    assert_refused(&[
        (|s| s.chance = ALWAYS + 1, &["--chance"]),
        (|s| s.cpu_budget = 0, &["--cpu-budget"]),
        (|s| s.cpu_budget = WHOLE + 1, &["--cpu-budget"]),
        (|s| s.every = 0, &["--every 0"]),
        (|s| s.max_hits = Some(0), &["--max-hits 0"]),
        (|s| s.for_ns = Some(0), &["--for 0"]),
        (|s| s.for_ns = Some(u64::MAX), &["--for", "a year"]),
        (|s| s.ramp_ns = Some(0), &["--ramp 0"]),
        (|s| s.ramp_ns = Some(RAMP_NS + 1), &["--ramp", "24h"]),
        (
            |s| (s.ramp_ns, s.for_ns) = (Some(2_000_000_000), Some(1_000_000_000)),
            &["--ramp 2s is longer than --for 1s"],
        ),
        (
            |s| s.abort_if = vec!["memory.ooom > 0".into()],
            &["did you mean memory.oom?"],
        ),
        (
            |s| s.abort_if = vec!["memory.oom > 0".into(); 2],
            &["--abort-if", "twice"],
        ),
        (
            |s| s.abort_if = vec!["x".repeat(1000)],
            &["--abort-if", "256 bytes"],
        ),
        (
            |s| s.abort_if = (0..17).map(|n| format!("memory.oom > {n}")).collect(),
            &["17 times --abort-if"],
        ),
    ]);
}

#[test]
fn values_of_filters() {
    assert_refused(&[
        (|s| s.filters.pids = vec![0], &["--pid 0 is no process"]),
        (|s| s.filters.pids = vec![u32::MAX], &["--pid 4294967295"]),
        (|s| s.filters.pids = vec![5, 5], &["--pid 5 is given twice"]),
        (
            |s| s.filters.pids = (1..=65).collect(),
            &["65 values of --pid"],
        ),
        (|s| s.filters.children = true, &["--children needs --pid"]),
        (|s| s.filters.comms = vec![String::new()], &["--comm"]),
        (
            |s| s.filters.comms = vec!["postgres-checkpointer".into()],
            &["15 bytes", "--comm \"postgres-checkp\""],
        ),
        (
            |s| s.filters.comms = vec!["ä".repeat(8)],
            &["--comm \"äääääää\""],
        ),
        (
            |s| s.filters.cgroups = vec!["user.slice".into()],
            &["--cgroup", "not absolute"],
        ),
        (
            |s| s.filters.cgroups = vec!["/a/../b".into()],
            &["--cgroup", ".."],
        ),
        (
            |s| s.filters.under = vec!["srv".into()],
            &["--under", "not absolute"],
        ),
        (
            |s| s.filters.under = vec![format!("/{}", "x".repeat(5000)).into()],
            &["too long"],
        ),
        (|s| s.filters.devices = vec![String::new()], &["--device"]),
        (
            |s| s.filters.ops = vec!["raed".into()],
            &["--op", "did you mean read?"],
        ),
        (
            |s| s.filters.size = Some((2, 1)),
            &["--size 2..1", "no size matches"],
        ),
    ]);
}

#[test]
fn matches_that_are_empty() {
    assert_refused(&[
        (
            |s| s.filters.ops = vec!["write".into()],
            &["--op write is an empty match", "vfs.read"],
        ),
        (
            |s| (s.points, s.filters.ops) = (vec!["fn:f".into()], vec!["read".into()]),
            &["--op read", "fn:f"],
        ),
        (
            |s| (s.points, s.filters.size) = (vec!["vfs.fsync".into()], Some((0, 1))),
            &["--size", "vfs.fsync"],
        ),
        (
            |s| (s.points, s.filters.size) = (vec!["fn:f".into()], Some((0, 1))),
            &["--size", "fn:f"],
        ),
        (
            |s| (s.points, s.filters.under) = (vec!["block.issue".into()], vec!["/srv".into()]),
            &["--under", "block.issue", "--device"],
        ),
        (
            |s| (s.points, s.filters.under) = (vec!["fn:f".into()], vec!["/srv".into()]),
            &["--under", "fn:f"],
        ),
        (
            |s| (s.points, s.filters.under) = (vec!["vfs.open".into()], vec!["/srv".into()]),
            &["--under", "vfs.opened"],
        ),
        (
            |s| (s.points, s.filters.devices) = (vec!["vfs.open".into()], vec!["vda".into()]),
            &["--device", "vfs.opened"],
        ),
        (
            |s| (s.points, s.filters.devices) = (vec!["fn:f".into()], vec!["vda".into()]),
            &["--device", "fn:f"],
        ),
    ]);
    let mut both = spec();
    both.points.push("vfs.write".into());
    both.filters.ops = vec!["read".into()];
    both.filters.size = Some((4096, u64::MAX));
    both.filters.under = vec!["/srv".into()];
    both.filters.devices = vec!["8:0".into()];
    assert_eq!(check(&both), Ok(()));
}
