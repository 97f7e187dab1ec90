use agent_common::{bucket, probes::Unit, quantiles::KNOTS};
use iolag_tests::mutated::mutated;

use super::*;
use crate::{
    kernel::Counts,
    rules::{curve::kolmogorov, distribution::tests::draws},
};

fn told(document: &str) -> String {
    let failure = Profile::read("--like", "disk.json", document.as_bytes()).unwrap_err();
    assert_eq!(failure.code, USAGE);
    assert!(
        failure.message.starts_with("--like disk.json: "),
        "{failure}"
    );
    assert!(failure.hint.is_some());
    failure.message
}

/// With these fields in place of the right ones.
fn document(count: &str, buckets: &str) -> String {
    format!(
        r#"{{"schema":1,"kind":"iolag-profile","name":"a","source":"b","unit":"ns","count":{count},"buckets":{buckets}}}"#
    )
}

#[test]
fn what_is_no_profile_is_refused_whole_with_the_flag_and_the_reason() {
    let good = document("3", "[[0,8,1],[80,88,2]]");
    assert_eq!(
        Profile::read("--like", "", good.as_bytes())
            .unwrap()
            .document(),
        format!("{good}\n")
    );
    for (document, reason) in [
        (String::new(), "it is empty"),
        (" \n".into(), "it is empty"),
        ("p50 5ms".into(), "it is not JSON"),
        ("[1, 2]".into(), "it is no profile"),
        ("{}".into(), "\"kind\" must be"),
        (good[..good.len() / 2].into(), "it is truncated"),
        (good.replace("iolag-profile", "iolag"), "\"kind\" must be"),
        (
            good.replace("\"schema\":1", "\"schema\":2"),
            "\"schema\" must be 1",
        ),
        (good.replace("\"ns\"", "\"us\""), "must be \"ns\""),
        (good.replace("\"a\"", "\"\""), "\"name\""),
        (
            good.replace("\"a\"", "\"\\u001b[31m\""),
            "control character",
        ),
        (
            good.replace("\"unit\"", "\"more\":1,\"unit\""),
            "unknown field `more`",
        ),
        (document("0", "[]"), "it is empty"),
        (document("0", "[[0,8,0]]"), "it is empty"),
        (
            document("4", "[[0,8,1],[80,88,2]]"),
            "it is truncated: \"count\" is 4",
        ),
        (
            document("3", "[[80,88,2],[0,8,1]]"),
            "it is not sorted: bucket 1",
        ),
        (
            document("3", "[[0,81,1],[80,88,2]]"),
            "it is not sorted: bucket 1",
        ),
        (document("1", "[[8,8,1]]"), "bucket 0 ends at 8"),
        (document("1", "[[0,8,-1]]"), "it is no profile"),
        (document("1", "[[0,8,1.5]]"), "it is no profile"),
        (document("1", "[[0,8]]"), "it is no profile"),
        (
            document("1", "[[0,8,18446744073709551615],[8,9,1]]"),
            "more than 2^64",
        ),
        (" ".repeat(5 << 20), "it is larger than 4MiB"),
    ] {
        let message = told(&document);
        assert!(message.contains(reason), "{reason}: {message}");
    }
}

#[test]
fn a_file_that_is_none_is_refused_and_names_are_told() {
    let told = |given: &str| Profile::load("--from", given).unwrap_err().to_string();
    assert!(told("/nowhere/disk.json").starts_with("--from /nowhere/disk.json: failed to read it"));
    assert!(told("/").contains("no regular file"));
    assert!(told("/dev/zero").contains("no regular file"));
    let unknown = told("hdd-720");
    assert!(
        unknown.starts_with("--from hdd-720: unknown profile"),
        "{unknown}"
    );
    assert!(unknown.contains("did you mean hdd-7200?"), "{unknown}");
    assert!(told("profile:floppy").contains("ssd-sata"));
    let named = Profile::load("--from", "profile:nfs-lan").unwrap();
    assert_eq!(Profile::load("--from", "nfs-lan"), Ok(named));
}

fn metric(values: impl Iterator<Item = u64>, unit: Unit) -> Metric {
    let (mut counts, mut max, mut sum) = (vec![0_u64; bucket::BUCKETS], 0, 0);
    for value in values {
        counts[bucket::index(value) as usize] += 1;
        (max, sum) = (value.max(max), sum + value);
    }
    let buckets = (0..).zip(counts).filter(|(_, count)| *count > 0).collect();
    Metric::new("total", unit, &Counts { sum, max, buckets })
}

#[test]
fn draws_of_a_recording_are_distributed_as_recorded() {
    // Two humps with a gap: a cache and a disk.
    let values = (0..30_000).map(|i| {
        if i % 3 == 0 {
            90_000 + i
        } else {
            4_000_000 + i * 100
        }
    });
    let recorded = Profile::of_metric(
        "block.vda.read",
        "a test",
        &metric(values, Unit::Nanoseconds),
    )
    .unwrap();
    assert_eq!(recorded.count, 30_000);
    let table = recorded.quantiles("--like", MAX_DELAY_NS).unwrap();
    assert_eq!(table.len(), KNOTS);
    let (draws, curve) = (draws(&table, 7), recorded.curve());
    let distance = kolmogorov(&draws, |ns| curve.share(ns));
    println!("recorded: Kolmogorov {distance:.5}");
    assert!(distance <= 0.01, "{distance}");
    for p in [0.1, 0.3, 0.5, 0.9, 0.99, 0.999] {
        let drawn = draws[(draws.len() as f64 * p) as usize] as f64;
        let off = drawn / curve.quantile(p) - 1.0;
        assert!(off.abs() < 0.125, "{p}: {off}");
    }
    assert!(
        draws.iter().all(|ns| *ns < 7_000_000),
        "nothing is above what was recorded"
    );
}

#[test]
fn built_in_profiles_are_drawn_as_they_are() {
    for name in builtin::names() {
        let profile = Profile::load("--like", name).unwrap();
        let table = profile.quantiles("--like", MAX_DELAY_NS).unwrap();
        let (draws, curve) = (draws(&table, 7), profile.curve());
        let distance = kolmogorov(&draws, |ns| curve.share(ns));
        let tail = draws[draws.len() * 999 / 1000] as f64 / curve.quantile(0.999) - 1.0;
        println!("{name}: Kolmogorov {distance:.5}, p99.9 {tail:+.4}");
        assert!(
            distance <= 0.01 && tail.abs() < 0.05,
            "{name}: {distance}, {tail}"
        );
    }
}

#[test]
fn what_is_no_time_or_nothing_makes_no_profile() {
    let sizes = metric([4096].into_iter(), Unit::Bytes);
    let failure = Profile::of_metric("a", "b", &sizes).unwrap_err();
    assert!(
        failure.message.contains("of bytes, not of times"),
        "{failure}"
    );
    let nothing = metric([].into_iter(), Unit::Nanoseconds);
    assert!(Profile::of_metric("a", "b", &nothing).is_err());
}

#[test]
fn what_took_longer_than_a_delay_may_is_cut_or_refused() {
    let profile = |slow| {
        Profile::new(
            "a",
            "b",
            vec![
                (1_000, 2_000, 1_000 - slow),
                (2_000_000_000, 3_000_000_000, slow),
            ],
        )
        .unwrap()
    };
    let few = profile(5).quantiles("--like", MAX_DELAY_NS).unwrap();
    assert_eq!(few[KNOTS - 1], MAX_DELAY_NS);
    let told = profile(50).quantiles("--like", MAX_DELAY_NS).unwrap_err();
    assert!(
        told.message
            .starts_with("--like: 5.0 % of a took longer than 1 s"),
        "{told}"
    );
}

#[test]
fn a_changed_profile_is_refused_or_gives_delays() {
    let small = document("3", "[[0,8,1],[80,88,2]]");
    let large = document("9", "[[0,1,1],[1000,2000,3],[900000000,1000000000,5]]");
    let seeds = [small.as_bytes(), large.as_bytes()];
    let (mut read, mut tables) = (0, 0);
    for number in 0..300_000 {
        let Ok(profile) = Profile::read("--like", "x", &mutated(&seeds, number)) else {
            continue;
        };
        read += 1;
        // Some of these are too slow to be delays.
        if let Ok(table) = profile.quantiles("--like", MAX_DELAY_NS) {
            assert_eq!(table.len(), KNOTS);
            assert!(
                table.is_sorted() && table[KNOTS - 1] <= MAX_DELAY_NS,
                "number {number}"
            );
            tables += 1;
        }
    }
    // Each way was gone.
    assert!(
        tables > 1_000 && tables < read && read < 150_000,
        "{read} read, {tables} tables"
    );
}
