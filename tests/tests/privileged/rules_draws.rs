//! What rules draw in the kernel: distributions, seeds, chances and numbers.

use std::time::Duration;

use agent_common::quantiles::{KNOTS, between, place, random};
use iolag_tests::{
    affinity::{cpus, go_to},
    agent::Agent,
    outcome::{Outcome, Waits},
    place::Place as Somebody,
    reader::{go_first, reading_as},
    timing::{late, spins},
};
use serde_json::{Value, json};
use statrs::distribution::{ContinuousCDF, LogNormal, Normal, Pareto};

use crate::place::Place;

const DRAWS: usize = 100_000;
/// Runs of what a busy machine may disturb.
const TRIES: usize = 5;
/// The share of waits that a busy machine may disturb.
const MOST_LATE: f64 = 0.02;
/// Mean (ns): so long that some tens of ns beside it are nothing.
const MEAN: f64 = 50_000.0;
const MEAN_TEXT: &str = "50us";

/// Injects a rule for reads of a thread of its own, has it read so often, and ends it.
fn after_reads(agent: &Agent, comm: &str, flags: &[&str], count: usize) -> Outcome {
    let inject = [&["vfs.read", "--comm", comm], flags].concat();
    let outcome = agent.ruled(&inject, || {
        reading_as(comm, |reader| {
            // Interrupts and other guests still come between; other threads do not.
            go_first().unwrap();
            reader.times(count);
        })
    });
    let outcome = outcome.unwrap();
    assert_eq!(outcome.count("matches"), count as u64, "{}", outcome.0);
    outcome
}

/// The table of quantiles that a rule with these flags is sent with.
fn table(flags: &[&str]) -> Vec<u64> {
    let somebody = Somebody::new().unwrap();
    let listening = somebody.agent(&[r#"{"schema":1,"ok":true,"result":{"id":1,"name":"r"}}"#]);
    let output = somebody.call(&[&["inject", "vfs.read"], flags].concat());
    assert!(output.status.success(), "{output:?}");
    let asked: Value = serde_json::from_str(&listening.join().unwrap()[0]).unwrap();
    serde_json::from_value(asked["delay"]["quantiles"].clone()).unwrap()
}

/// What is drawn from a table, in order.
fn drawn(table: &[u64], seed: u64) -> Vec<u64> {
    let draw = |ticket| {
        let (knot, fraction) = place(random(seed, ticket * 2 + 1));
        let knot = knot as usize;
        between(table[knot], table[knot + 1], fraction)
    };
    (0..DRAWS as u64).map(draw).collect()
}

/// That draws are `share` (of what is less than so many ns), by Kolmogorov's distance and the 99.9th percentile.
///
/// The kernel's draws are known to the ns: they are numbered, and by their sum they are those of the seed. What it then
/// waited is compared too, but not by its 99.9th percentile, as the machine's timer alone ends one in a thousand of these
/// waits late by some us; and where the machine disturbs more spins of that length, by as much less closely.
fn assert_drawn(agent: &Agent, flags: &[&str], share: &dyn Fn(f64) -> f64, p999: f64) {
    const SEED: u64 = 7;
    let flags = &[flags, &["--seed", "7"]].concat()[..];
    let draws = drawn(&table(flags), SEED);
    let sum: u64 = draws.iter().sum();
    let (distance, off) = distances(draws, share, p999);
    println!(
        "{flags:?}: drawn: Kolmogorov {distance:.4}, p99.9 {:+.2} %",
        off * 100.0
    );
    assert!(distance <= 0.01 && off.abs() <= 0.05, "{flags:?}");
    let close = (0..TRIES).any(|_| {
        let late_before = late_spins();
        let outcome = after_reads(agent, "iolag-draws", flags, DRAWS);
        let disturbed = late_spins().max(late_before);
        assert_eq!(outcome.count("hits"), DRAWS as u64, "{}", outcome.0);
        assert_eq!(outcome.count("asked_ns"), sum, "{}", outcome.0);
        let waits = outcome.achieved().unwrap();
        assert_eq!(waits.total, DRAWS as u64);
        let distance = waits.kolmogorov(share);
        let off = waits.quantile(0.999) / p999 - 1.0;
        let asked = outcome.0["asked"]["p99.9"].as_f64().unwrap() / p999 - 1.0;
        println!(
            "{flags:?}: waited: Kolmogorov {distance:.4}, p99.9 {:+.1} %; as told {:+.2} %; {disturbed:.4} of plain spins are late",
            off * 100.0,
            asked * 100.0
        );
        assert!(asked.abs() < 0.005, "{}", outcome.0["asked"]);
        distance <= 0.01 + disturbed.min(MOST_LATE)
    });
    assert!(close, "{flags:?}: never within the bounds");
}

/// The share of plain spins, as long as the mean of what is drawn, that this machine ends late by more than 1 us: waits
/// are moved by no less, whoever waits. Their distance from a distribution grows by at most that share.
fn late_spins() -> f64 {
    const SPINS: usize = 10_000;
    let spinning = std::thread::spawn(|| {
        go_first().unwrap();
        spins(Duration::from_nanos(MEAN as u64), SPINS, Duration::ZERO)
    });
    late(&spinning.join().unwrap(), Duration::from_micros(1))
}

/// Kolmogorov's distance of values from a distribution, and by what part their 99.9th percentile is off.
fn distances(mut values: Vec<u64>, share: &dyn Fn(f64) -> f64, p999: f64) -> (f64, f64) {
    values.sort_unstable();
    let count = values.len() as f64;
    let distance = values.iter().enumerate().map(|(place, value)| {
        let wanted = share(*value as f64);
        let (below, up_to) = (place as f64 / count, (place + 1) as f64 / count);
        (wanted - below).abs().max((wanted - up_to).abs())
    });
    let high = values[(count * 0.999).ceil() as usize - 1] as f64;
    (distance.fold(0.0, f64::max), high / p999 - 1.0)
}

#[test]
fn draws_have_the_distribution_that_was_asked() {
    let Some(of) = Place::new() else { return };
    let agent = Agent::start(&of.program, &[]).unwrap();
    let check = |shape: &str, jitter: &str, share: &dyn Fn(f64) -> f64, p999| {
        let flags = ["--delay", MEAN_TEXT, "--jitter", jitter, "--dist", shape];
        assert_drawn(&agent, &flags, share, p999);
    };
    // Its end is just below a bucket's edge, at 81920 ns: within a bucket that it ends in, little could be told.
    let uniform = |ns: f64| ((ns - 18_200.0) / 63_600.0).clamp(0.0, 1.0);
    check("uniform", "31800ns", &uniform, 81_736.4);
    let normal = Normal::new(MEAN, 10_000.0).unwrap();
    check(
        "normal",
        "10us",
        &|ns| normal.cdf(ns),
        normal.inverse_cdf(0.999),
    );
    // Mean and deviation of 50 us: the variance of the logarithm is ln 2.
    let variance = 2f64.ln();
    let lognormal = LogNormal::new(MEAN.ln() - variance / 2.0, variance.sqrt()).unwrap();
    let p999 = lognormal.inverse_cdf(0.999);
    check("lognormal", "50us", &|ns| lognormal.cdf(ns), p999);
    // Shape 3 has a deviation of 1 / sqrt(3) of its mean.
    let pareto = Pareto::new(MEAN * 2.0 / 3.0, 3.0).unwrap();
    check(
        "pareto",
        "28868ns",
        &|ns| pareto.cdf(ns),
        pareto.inverse_cdf(0.999),
    );
}

#[test]
fn a_recorded_histogram_is_drawn_from_within_a_bucket() {
    let Some(of) = Place::new() else { return };
    let agent = Agent::start(&of.program, &["--probes", "vfs"]).unwrap();
    let file = of.dir.join("recorded.json");
    let file = file.to_str().unwrap();
    let flags = [
        "--delay",
        MEAN_TEXT,
        "--jitter",
        "40us",
        "--dist",
        "lognormal",
    ];
    let record = ["record", "vfs.read.devtmpfs", "--for", "3s", "-o", file];
    std::thread::scope(|scope| {
        let recorded = scope.spawn(|| agent.call(&record).unwrap());
        std::thread::sleep(Duration::from_millis(500));
        after_reads(&agent, "iolag-recorded", &flags, 30_000);
        recorded.join().unwrap();
    });
    let profile: Value = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
    let buckets = serde_json::from_value(profile["buckets"].clone()).unwrap();
    let wanted = Waits::new(buckets).unwrap();
    assert!(wanted.total >= 20_000, "{} recorded", wanted.total);
    let close = (0..TRIES).any(|_| {
        let outcome = after_reads(&agent, "iolag-like", &["--like", file], DRAWS);
        let had = outcome.achieved().unwrap();
        // A bucket is at most an eighth wide, and each histogram has its own.
        let low = |ns: f64| wanted.share_below(ns / 1.125) - 0.01;
        let high = |ns: f64| wanted.share_below(ns * 1.125) + 0.01;
        let edges = (0..200).map(|step| 1_000.0 * 1.05f64.powi(step));
        let outside = edges.filter(|ns| {
            let share = had.share_below(*ns);
            share < low(*ns) || share > high(*ns)
        });
        let outside: Vec<f64> = outside.collect();
        let distance = had.kolmogorov(|ns| wanted.share_below(ns));
        println!("--like: Kolmogorov {distance:.4}, further than a bucket at {outside:?}");
        outside.is_empty()
    });
    assert!(close, "--like: never within a bucket");
}

#[test]
fn a_chance_is_met_within_three_sigma() {
    let Some(of) = Place::new() else { return };
    let agent = Agent::start(&of.program, &[]).unwrap();
    for (chance, share) in [("0%", 0.0), ("10%", 0.1), ("50%", 0.5), ("100%", 1.0)] {
        let flags = ["--delay", "1us", "--chance", chance, "--seed", "11"];
        let outcome = after_reads(&agent, "iolag-chance", &flags, DRAWS);
        let hits = outcome.count("hits");
        let sigma = (DRAWS as f64 * share * (1.0 - share)).sqrt();
        println!("--chance {chance}: {hits} of {DRAWS} hits");
        let off = (hits as f64 - DRAWS as f64 * share).abs();
        assert!(off <= 3.0 * sigma, "{chance}: {hits} hits");
        assert_eq!(hits + outcome.count("spared"), DRAWS as u64);
    }
    // What was asked for is had: nothing.
    let never = ["--delay", "1us", "--chance", "0%", "--name", "never"];
    after_reads(&agent, "iolag-chance", &never, 10);
    agent.call(&["verify", "never"]).unwrap();
}

#[test]
fn the_same_seed_draws_the_same() {
    let Some(of) = Place::new() else { return };
    let agent = Agent::start(&of.program, &[]).unwrap();
    let asked = |seed: &str| {
        let shape = ["--delay", "5us", "--jitter", "3us", "--dist", "lognormal"];
        let flags = [&shape[..], &["--chance", "50%", "--seed", seed]].concat();
        let outcome = after_reads(&agent, "iolag-seed", &flags, 10_000);
        (outcome.count("hits"), outcome.count("asked_ns"))
    };
    let (first, second, other) = (asked("42"), asked("42"), asked("43"));
    println!("seed 42: {first:?} and {second:?}; 43: {other:?}");
    assert_eq!(first, second);
    assert_ne!(first, other);
}

/// By a table that nobody would ask for, so that each draw is a knot of its own.
#[test]
fn a_table_is_drawn_from_to_the_nanosecond() {
    let Some(of) = Place::new() else { return };
    of.start();
    let quantiles: Vec<u64> = (0..KNOTS as u64).map(|knot| 100 + knot * 7).collect();
    let spec = json!({"name": "table", "points": ["vfs.read"], "cap_ns": 1_000_000, "seed": 99,
        "delay": {"kind": "drawn", "asked": "a table", "quantiles": quantiles},
        "filters": {"comms": ["iolag-table"]}});
    let request = json!({"schema": 1, "command": "inject"});
    let request = merged(request, spec);
    let answer = of.ask(request.to_string().as_bytes());
    assert_eq!(answer["ok"], true, "{answer}");
    const READS: u64 = 20_000;
    reading_as("iolag-table", |reader| reader.times(READS as usize)).unwrap();
    let rules: Value = serde_json::from_str(&of.done(&["rules", "--format", "json"])).unwrap();
    let expected: u64 = (0..READS)
        .map(|ticket| {
            let (knot, fraction) = place(random(99, ticket * 2 + 1));
            let knot = knot as usize;
            between(quantiles[knot], quantiles[knot + 1], fraction)
        })
        .sum();
    assert_eq!(rules["rules"][0]["counts"]["hits"], READS);
    assert_eq!(rules["rules"][0]["counts"]["asked_ns"], expected);
    of.stop();
}

/// The fields of both.
fn merged(mut one: Value, other: Value) -> Value {
    let (Some(fields), Value::Object(more)) = (one.as_object_mut(), other) else {
        panic!("no objects");
    };
    fields.extend(more);
    one
}

#[test]
fn each_nth_hit_and_so_many_hits_are_exact() {
    let Some(of) = Place::new() else { return };
    let agent = Agent::start(&of.program, &[]).unwrap();
    for (every, count) in [("2", 1_000), ("7", 1_000), ("1000", 2_999)] {
        let flags = ["--delay", "1us", "--every", every];
        let outcome = after_reads(&agent, "iolag-every", &flags, count);
        let expected = count as u64 / every.parse::<u64>().unwrap();
        assert_eq!(outcome.count("hits"), expected, "--every {every}");
        assert_eq!(outcome.count("spared"), count as u64 - expected);
    }
    for max in [1u64, 100, 5_000] {
        let outcome = from_all_cpus(&agent, max);
        println!("--max-hits {max}: {}", outcome.0["counts"]);
        assert_eq!(outcome.count("hits"), max, "{}", outcome.0);
        assert_eq!(outcome.achieved().unwrap().total, max);
    }
}

/// Two threads on each CPU, which together have more than enough hits, all at once.
fn from_all_cpus(agent: &Agent, max: u64) -> Outcome {
    let max_text = max.to_string();
    let flags = ["--delay", "2us", "--max-hits", &max_text, "--name", "many"];
    let inject = [&["inject", "vfs.read", "--comm", "iolag-many"], &flags[..]].concat();
    agent.call(&inject).unwrap();
    std::thread::scope(|scope| {
        for cpu in cpus().into_iter().chain(cpus()) {
            scope.spawn(move || {
                reading_as("iolag-many", |reader| {
                    go_to(cpu).unwrap();
                    reader.times(10_000);
                })
                .unwrap();
            });
        }
    });
    // The agent sees by itself that it had them.
    let end = std::time::Instant::now() + Duration::from_secs(3);
    loop {
        let outcome = agent.rule("many").unwrap();
        if outcome.ended().is_some() {
            assert_eq!(outcome.ended(), Some("it had its hits"));
            return outcome;
        }
        assert!(std::time::Instant::now() < end, "still in force");
        std::thread::sleep(Duration::from_millis(50));
    }
}
