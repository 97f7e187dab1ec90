//! A dump for people: under 80 columns.

use std::fmt::Write as _;

use super::{
    bars::histogram,
    lines::{COLUMNS, labels, wrap},
    table::spaced,
    tasks,
};
use crate::{
    report::dump::{Dump, Metric, Series},
    units::{format_bytes, format_ns},
};

/// Columns before what goes on in the next line.
const INDENT: usize = 11;

#[must_use]
pub fn dump(dump: &Dump) -> String {
    let seconds = dump.interval_ns as f64 / 1e9;
    let mut text = format!("{}, {seconds:.1} s\n", dump.probe);
    if dump.series.is_empty() {
        text += "nothing was seen\n";
    }
    for each in &dump.series {
        text.push('\n');
        text += &series(each, seconds);
    }
    text += &tasks::section(&dump.tasks);
    text.push('\n');
    text += &books(dump);
    text
}

fn series(series: &Series, seconds: f64) -> String {
    let mut text = if series.labels.is_empty() {
        "all\n".to_owned()
    } else {
        labels(series.labels.iter()) + "\n"
    };
    let shown: Vec<&Metric> = series.metrics.iter().filter(|m| m.count > 0).collect();
    text += &figures(&shown, seconds);
    for unit in ["ns", "bytes"] {
        let of_unit: Vec<&Metric> = shown.iter().copied().filter(|m| m.unit == unit).collect();
        if !of_unit.is_empty() {
            text += &histogram(&of_unit, unit);
        }
    }
    text
}

/// The columns move together where counts are so long that they would not fit.
fn figures(metrics: &[&Metric], seconds: f64) -> String {
    let head = [
        "", "COUNT", "RATE", "MEAN", "P50", "P90", "P99", "P99.9", "MAX",
    ];
    let rows: Vec<_> = metrics.iter().map(|metric| row(metric, seconds)).collect();
    let wide = spaced(&head, rows.clone(), 1, 2);
    if wide.lines().all(|line| line.chars().count() <= COLUMNS) {
        return wide;
    }
    spaced(&head, rows, 1, 1)
}

/// A value in its unit, short.
pub(crate) fn value(unit: &str, value: u64) -> String {
    match unit {
        "bytes" => format_bytes(value),
        // Each is one: how many there were says it all.
        "count" => "-".into(),
        _ => format_ns(value),
    }
}

fn row(metric: &Metric, seconds: f64) -> Vec<String> {
    let mut row = vec![
        metric.metric.clone(),
        metric.count.to_string(),
        rate(metric.count as f64 / seconds.max(1e-9)),
        value(&metric.unit, metric.mean.round() as u64),
    ];
    row.extend(
        [metric.p50, metric.p90, metric.p99, metric.p999, metric.max]
            .map(|quantile| value(&metric.unit, quantile)),
    );
    row
}

/// A rate per second, short.
pub(crate) fn rate(per_second: f64) -> String {
    match per_second {
        rate if rate >= 1e9 => format!("{:.1}G/s", rate / 1e9),
        rate if rate >= 1e8 => format!("{:.0}M/s", rate / 1e6),
        rate if rate >= 1e6 => format!("{:.1}M/s", rate / 1e6),
        rate if rate >= 1e4 => format!("{:.0}k/s", rate / 1e3),
        rate if rate >= 1e3 => format!("{:.1}k/s", rate / 1e3),
        rate if rate >= 10.0 => format!("{rate:.0}/s"),
        rate => format!("{rate:.1}/s"),
    }
}

/// The ledger: what the figures above lack.
fn books(dump: &Dump) -> String {
    let ledger = &dump.ledger;
    let mut text = String::new();
    for device in &dump.in_flight {
        let _infallible = writeln!(
            text,
            "in flight  {}: {} reads, {} writes",
            device.device, device.reads, device.writes
        );
    }
    if ledger.errors > 0 {
        let _infallible = writeln!(
            text,
            "failed     {}, recorded like the others",
            ledger.errors
        );
    }
    for missing in &dump.not_measured {
        let line = format!("not measured: {}: {}", missing.what, missing.reason);
        text += &wrap(&line, INDENT);
    }
    let losses: Vec<String> = ledger
        .losses()
        .iter()
        .filter(|(_, count)| *count > 0)
        .map(|(name, count)| format!("{name} {count}"))
        .collect();
    if losses.is_empty() && dump.not_measured.is_empty() {
        text += "ledger     nothing lost\n";
    } else if losses.is_empty() {
        text += "ledger     INCOMPLETE: nothing lost of what is measured\n";
    } else {
        let line = format!("ledger     INCOMPLETE: {}", losses.join(", "));
        text += &wrap(&line, INDENT);
    }
    text
}

#[cfg(test)]
mod tests {
    use agent_common::{
        bucket,
        probes::{PROBES, Unit},
    };

    use super::*;
    use crate::{kernel::Counts, report::dump::Ledger};

    fn example() -> Dump {
        let counts = |from: u64, to: u64| Counts {
            sum: 99_999 * to,
            max: to,
            buckets: (bucket::index(from)..=bucket::index(to))
                .map(|index| (index, 99_999))
                .collect(),
        };
        let mut dump = Dump::new(PROBES[0], 0, 5_000_000_000, Ledger::default());
        dump.series = vec![Series {
            id: String::new(),
            labels: [
                ("device", "nvme10n1"),
                ("op", "discard"),
                ("comm", "kworker/u256:1+"),
            ]
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .into(),
            metrics: vec![
                Metric::new("queue", Unit::Nanoseconds, &counts(100, 1_000_000)),
                Metric::new("device", Unit::Nanoseconds, &counts(10_000, 999_999_999)),
                Metric::new("total", Unit::Nanoseconds, &counts(10_000, 999_999_999)),
                Metric::new("size", Unit::Bytes, &counts(512, 1 << 20)),
            ],
        }];
        dump
    }

    /// What makes lines long: counts of ten digits, the path of a cgroup, what the kernel says.
    fn long_example() -> Dump {
        let mut dump = example();
        let counts = Counts {
            sum: u64::MAX / 2,
            max: 999_999_999,
            buckets: (bucket::index(1_024)..=bucket::index(999_999_999))
                .map(|index| (index, 999_999_999 - u64::from(index)))
                .collect(),
        };
        let names = ["direct_reclaim", "oncpu", "offcpu", "idle"];
        let series = &mut dump.series[0];
        series.metrics = names
            .map(|name| Metric::new(name, Unit::Nanoseconds, &counts))
            .into();
        let size = Metric::new("size", Unit::Bytes, &counts);
        series.metrics.push(size);
        let path = format!("/kubepods.slice/{}/app", "pod0123456789.slice/".repeat(9));
        series.labels.insert("cgroup".into(), path);
        dump.lacks(
            "latency of lookups",
            "fentry: BPF_PROG_LOAD: the verifier says: func 'lookup_slow' doesn't have 5-th argument; \
             kprobe: perf_event_open: no such function: __lookup_slow",
        );
        (dump.ledger.lost, dump.ledger.missed) = (u64::MAX, u64::MAX);
        (dump.ledger.negative, dump.ledger.other) = (u64::MAX, u64::MAX);
        dump
    }

    #[test]
    fn a_part_that_is_not_measured_makes_it_incomplete() {
        let mut dump_of_a_part = example();
        dump_of_a_part.not_measured = long_example().not_measured;
        let text = dump(&dump_of_a_part);
        assert!(text.contains("INCOMPLETE: nothing lost of what"), "{text}");
    }

    #[test]
    fn no_line_is_longer_than_79_and_all_counts_are_there() {
        let (usual, long) = (dump(&example()), dump(&long_example()));
        for line in usual.lines().chain(long.lines()) {
            assert!(line.chars().count() < 80, "{line}");
        }
        assert!(usual.contains("ledger     nothing lost\n"), "{usual}");
        for part in [
            " comm=kworker/u256:1+",
            "/app ",
            "function: __lookup_slow",
            " 7999999",
        ] {
            assert!(long.contains(part), "{part}: {long}");
        }
    }
}
