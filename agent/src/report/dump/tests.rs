use agent_common::{bucket, probes::Unit};

use super::*;
use crate::kernel::Counts;

fn metric(values: &[u64]) -> Metric {
    let mut buckets = BTreeMap::new();
    for value in values {
        *buckets.entry(bucket::index(*value)).or_default() += 1;
    }
    let counts = Counts {
        sum: values.iter().sum(),
        max: values.iter().copied().max().unwrap_or(0),
        buckets: buckets.into_iter().collect(),
    };
    Metric::new("total", Unit::Nanoseconds, &counts)
}

type Example<'a> = (&'a [(&'a str, &'a str)], &'a [u64]);

fn dump(series: &[Example<'_>]) -> Dump {
    let probe = agent_common::probes::PROBES[0];
    let mut dump = Dump::new(probe, 0, 10, Ledger::default());
    dump.series = series
        .iter()
        .map(|(labels, values)| Series {
            id: String::new(),
            labels: labels
                .iter()
                .map(|(key, value)| ((*key).into(), (*value).into()))
                .collect(),
            metrics: vec![metric(values)],
        })
        .collect();
    dump
}

#[test]
fn an_interval_holds_what_came_after_its_start_and_no_more() {
    let before = dump(&[(&[("op", "read")], &[10, 1_000_000])]);
    let now = dump(&[
        (&[("op", "read")], &[10, 10, 30, 1_000_000]),
        (&[("op", "write")], &[7]),
    ]);
    let interval = now.since(&before);
    assert_eq!(interval.series.len(), 2);
    let reads = &interval.series[0].metrics[0];
    assert_eq!((reads.count, reads.sum), (2, 40));
    assert_eq!(reads.max, bucket::last(bucket::index(30)));
    assert_eq!(interval.series[1].metrics[0].count, 1);
    assert!(now.since(&now).series.is_empty());
}

#[test]
fn a_probe_that_was_loaded_anew_has_no_past() {
    let before = dump(&[(&[("op", "read")], &[10, 20, 30])]);
    let mut now = dump(&[(&[("op", "read")], &[10, 20])]);
    (now.from_ns, now.interval_ns) = (u64::MAX - 1, 5);
    now.ledger.starts = 2;
    assert_eq!(now.since(&before), now);
    assert_eq!(now.since(&now).interval_ns, 0);
}

/// With an id, which the kernel side would tell.
fn of(id: &str, labels: &[(&str, &str)], values: &[u64]) -> Series {
    let mut series = dump(&[(labels, values)]).series.remove(0);
    series.id = id.into();
    series
}

#[test]
fn a_series_that_lost_its_name_still_has_its_past() {
    let (mut before, mut now) = (dump(&[]), dump(&[]));
    before.series = vec![of("7", &[("cgroup", "/a")], &[10, 20])];
    now.series = vec![of("7", &[("cgroup", "id:7")], &[10, 20, 30])];
    let interval = now.since(&before);
    assert_eq!(interval.series.len(), 1);
    assert_eq!(interval.series[0].labels["cgroup"], "id:7");
    assert_eq!(interval.series[0].metrics[0].count, 1);
}

#[test]
fn a_name_that_went_to_another_does_not_take_the_past_along() {
    let (mut before, mut now) = (dump(&[]), dump(&[]));
    before.series = vec![of("8.0", &[("device", "sda")], &[10, 20, 30])];
    now.series = vec![
        of("8.0", &[("device", "sdb")], &[10, 20, 30, 40]),
        of("8.10", &[("device", "sda")], &[10, 20]),
    ];
    let counts: Vec<(String, u64)> = now
        .since(&before)
        .series
        .iter()
        .map(|series| (series.labels["device"].clone(), series.metrics[0].count))
        .collect();
    assert_eq!(counts, [("sda".to_owned(), 2), ("sdb".to_owned(), 1)]);
}

#[test]
fn an_agent_that_tells_no_identity_is_matched_by_labels() {
    let series = of("", &[("op", "read")], &[10]);
    let text = serde_json::to_string(&series).unwrap();
    assert!(!text.contains("id"), "{text}");
    assert_eq!(serde_json::from_str::<Series>(&text).unwrap(), series);
}

#[test]
fn series_of_the_same_name_are_summed_up_after_each_was_subtracted() {
    let (mut before, mut now) = (dump(&[]), dump(&[]));
    let fs = [("fs", "ext4")];
    before.series = vec![of("1", &fs, &[10]), of("2", &fs, &[10, 10])];
    now.series = vec![of("2", &fs, &[10, 10, 10]), of("1", &fs, &[10, 10, 10])];
    let interval = now.since(&before);
    assert_eq!(interval.series.len(), 1);
    assert_eq!(interval.series[0].metrics[0].count, 3);
    assert!(interval.series[0].id.is_empty());
}

#[test]
fn selecting_filters_and_sums_what_is_no_longer_told_apart() {
    let mut all = dump(&[
        (&[("device", "vda"), ("op", "read")], &[1, 2]),
        (&[("device", "vdb"), ("op", "read")], &[300]),
        (&[("device", "vdb"), ("op", "write")], &[5]),
    ]);
    all.select(&[("op".into(), "read".into())], &["op"]);
    assert_eq!(all.series.len(), 1);
    let sum = &all.series[0].metrics[0];
    assert_eq!((sum.count, sum.sum, sum.max), (3, 303, 300));
}

#[test]
fn any_loss_and_any_missing_part_make_it_incomplete() {
    let probe = agent_common::probes::PROBES[0];
    let whole = Dump::new(probe, 0, 1, Ledger::default());
    assert!(whole.complete);
    let lossy = Ledger {
        missed: 1,
        ..Ledger::default()
    };
    assert!(!Dump::new(probe, 0, 1, lossy).complete);
    let mut lacking = whole;
    lacking.lacks("sizes", "no");
    assert!(!lacking.complete && !lacking.since(&lacking).complete);
}
