use agent_common::{
    bucket,
    pod::MAX_DELAY_NS,
    quantiles::{between, place, random},
};
use statrs::distribution::{ContinuousCDF as _, LogNormal};

use super::*;

/// As a probe would record it: a lognormal distribution in its buckets.
fn recorded(name: &str, median_ns: f64, deviation: f64) -> Profile {
    let truth = LogNormal::new(median_ns.ln(), deviation).unwrap();
    let seen = |value: u64| (truth.cdf(value as f64) * 30_000.0).round() as u64;
    let buckets = (0..bucket::index(bucket::SHORT))
        .map(|index| (bucket::lower(index), bucket::last(index) + 1))
        .map(|(lower, upper)| (lower, upper, seen(upper) - seen(lower)))
        .filter(|(.., count)| *count > 0);
    Profile::new(name, "a test", buckets.collect()).unwrap()
}

fn shipped(name: &str) -> Profile {
    Profile::load("--to", name).unwrap()
}

/// A table's draws as the kernel side makes them.
fn draw(table: &[u64], seed: u64, ticket: u64) -> u64 {
    let (knot, fraction) = place(random(seed, ticket));
    between(table[knot as usize], table[knot as usize + 1], fraction)
}

/// Requests of `from`, each with a delay drawn for it, against `to`.
fn imitated(from: &Profile, to: &Profile, fit: &Fit) -> Distance {
    let fast = from.curve().table(u64::MAX);
    let mut counts = std::collections::BTreeMap::new();
    for ticket in 0..200_000 {
        let ns = draw(&fast, 1, ticket) + draw(&fit.quantiles, 2, ticket);
        // Finer than a recording, which would add its own buckets' width.
        *counts.entry(ns / 500).or_default() += 1;
    }
    let buckets = counts
        .into_iter()
        .map(|(place, count)| (place * 500, place * 500 + 500, count));
    distance(
        &Profile::new("sum", "a test", buckets.collect()).unwrap(),
        to,
    )
}

#[test]
fn a_fast_disk_answers_like_a_slow_one() {
    let fast = || recorded("fast", 80e3, 0.25);
    for (from, to) in [
        (fast(), shipped("hdd-7200")),
        (fast(), shipped("cloud-volume")),
        (fast(), shipped("nfs-lan")),
        (fast(), recorded("slow", 200e3, 0.4)),
        (fast(), recorded("much slower", 4e6, 0.8)),
        (fast(), recorded("steady", 400e3, 0.1)),
        (recorded("tailed", 60e3, 0.6), shipped("hdd-7200")),
        (recorded("tailed", 60e3, 0.6), shipped("cloud-volume")),
        (shipped("ssd-sata"), shipped("nfs-lan")),
        (shipped("ssd-sata"), shipped("hdd-7200")),
        (recorded("fastest", 10e3, 0.3), shipped("ssd-sata")),
    ] {
        let fit = fit(&from, &to, MAX_DELAY_NS).unwrap();
        assert!(fit.quantiles.is_sorted());
        let seen = imitated(&from, &to, &fit);
        assert!(
            seen.kolmogorov < 0.02,
            "{} as {}: {seen}",
            from.name,
            to.name
        );
        println!(
            "{} as {}: predicted {}; drawn {seen}",
            from.name, to.name, fit.predicted
        );
        for (off, expected) in [
            (seen.p50, fit.predicted.p50),
            (seen.p90, fit.predicted.p90),
            (seen.p99, fit.predicted.p99),
        ] {
            assert!(off.abs() < 0.05, "{} as {}: {seen}", from.name, to.name);
            assert!(
                (off - expected).abs() < 0.02,
                "{} as {}: {seen}",
                from.name,
                to.name
            );
        }
    }
}

#[test]
fn nothing_is_added_to_what_is_the_same() {
    let same = shipped("hdd-7200");
    let fit = fit(&same, &same, MAX_DELAY_NS).unwrap();
    assert!(fit.predicted.kolmogorov < 0.01, "{}", fit.predicted);
    assert!(fit.quantiles[1000] < 100_000, "{}", fit.quantiles[1000]);
}

/// The plain difference of quantiles is what is not good enough.
#[test]
fn a_fit_is_nearer_than_the_difference_of_quantiles() {
    let (from, to) = (shipped("ssd-sata"), shipped("nfs-lan"));
    let (fast, slow) = (from.curve().table(u64::MAX), to.curve().table(u64::MAX));
    let mut least = 0;
    let difference = slow.iter().zip(&fast).map(|(slow, fast)| {
        least = least.max(slow.saturating_sub(*fast));
        least
    });
    let quantiles = difference.collect();
    let plain = Fit {
        quantiles,
        ..fit(&from, &to, MAX_DELAY_NS).unwrap()
    };
    let plain = imitated(&from, &to, &plain);
    let fitted = imitated(&from, &to, &fit(&from, &to, MAX_DELAY_NS).unwrap());
    println!("plain {plain}; fitted {fitted}");
    assert!(fitted.kolmogorov < plain.kolmogorov);
}

#[test]
fn what_is_faster_cannot_be_imitated() {
    let told = fit(&shipped("hdd-7200"), &shipped("ssd-sata"), MAX_DELAY_NS)
        .unwrap_err()
        .to_string();
    assert!(told.starts_with("--to ssd-sata: its p10 of"), "{told}");
    assert!(
        told.contains("--from hdd-7200") && told.contains("the wrong way round"),
        "{told}"
    );
}

fn args(more: &[&str]) -> Args {
    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }
    let fixed = [
        "imitate", "--from", "ssd-sata", "--to", "hdd-7200", "--device", "vda",
    ];
    <Line as clap::Parser>::try_parse_from(fixed.iter().chain(more))
        .unwrap()
        .args
}

#[test]
fn it_is_a_rule_at_the_block_layer_for_that_disk() {
    let args = args(&["--op", "read,write", "--for", "30s", "--", "true"]);
    let (rule, fit) = spec(&args, &read(&args).unwrap()).unwrap();
    assert_eq!(
        (rule.name.as_str(), rule.points.as_slice()),
        ("imitate", &["block.issue".to_owned()][..])
    );
    assert_eq!(rule.filters.devices, ["vda"]);
    assert_eq!(rule.filters.ops, ["read", "write"]);
    assert_eq!(rule.for_ns, Some(30_000_000_000));
    let asked = "ssd-sata like hdd-7200".to_owned();
    assert_eq!(
        rule.delay,
        Delay::Drawn {
            asked,
            quantiles: fit.quantiles
        }
    );
}

#[test]
fn what_cannot_be_asked_is_refused_with_the_flag() {
    let told = |more: &[&str]| read(&args(more)).err().unwrap().to_string();
    assert!(told(&["--op", "reed"]).contains("did you mean read?"));
    assert!(told(&["--for", "30"]).contains("--for 30 has no unit (hint: write 30s or 30m)"));
    assert!(told(&["--for", "soon"]).contains("--for \"soon\" is not a time"));
    assert!(told(&["--for", "25h"]).contains("--for 25h is not between 10ms and 24h"));
}

#[test]
fn what_is_sent_is_the_rule_and_the_command() {
    let mut sent = None;
    let args = args(&["--", "fio", "--help"]);
    run(&args, read(&args).unwrap(), |rule, command| {
        sent = Some((rule.name, command.to_vec()));
        Ok(0)
    })
    .unwrap();
    assert_eq!(
        sent,
        Some(("imitate".into(), vec!["fio".into(), "--help".into()]))
    );
}

#[test]
fn a_profile_may_say_anything() {
    let odd = |name, lower, upper| {
        Profile::new(name, "a test", vec![(0, 1, 999), (lower, upper, 1)]).unwrap()
    };
    let (from, to) = (odd("from", 1, u64::MAX), odd("to", u64::MAX - 1, u64::MAX));
    for (from, to) in [(&from, &to), (&to, &from), (&from, &from)] {
        let fit = fit(from, to, MAX_DELAY_NS).unwrap();
        assert!(fit.quantiles.is_sorted() && fit.quantiles.iter().all(|ns| *ns <= MAX_DELAY_NS));
    }
}

/// Which is common where disks are virtual. Moving quantiles alone spoils p99 here.
#[test]
fn outliers_of_the_fast_disk_do_not_spoil_the_rest() {
    let mut buckets = vec![
        (72_000, 80_000, 14_000),
        (80_000, 88_000, 12_000),
        (88_000, 96_000, 4_000),
    ];
    // Of 30060 requests 60 take longer than any of nfs-lan.
    buckets.push((5_242_880, 5_767_168, 60));
    let from = Profile::new("outliers", "a test", buckets).unwrap();
    for to in ["nfs-lan", "cloud-volume", "hdd-7200"] {
        let to = shipped(to);
        let fit = fit(&from, &to, MAX_DELAY_NS).unwrap();
        let seen = imitated(&from, &to, &fit);
        println!(
            "outliers as {}: predicted {}; drawn {seen}",
            to.name, fit.predicted
        );
        assert!(seen.kolmogorov < 0.02, "outliers as {}: {seen}", to.name);
        for off in [seen.p50, seen.p90, seen.p99] {
            assert!(off.abs() < 0.05, "outliers as {}: {seen}", to.name);
        }
    }
}
