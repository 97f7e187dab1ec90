//! A dump for people: under 80 columns.

use std::fmt::Write as _;

use agent_common::bucket;

use super::{table::table, tasks};
use crate::{
    report::dump::{Dump, Metric, Series},
    units::{format_bytes, format_ns},
};

/// Most rows of a histogram; where it has more buckets, neighbours share a row.
const ROWS: u32 = 20;
/// Characters for the bars of all metrics in a row.
const BARS: usize = 66;

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
    let labels: Vec<String> = series
        .labels
        .iter()
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    let mut text = match labels.as_slice() {
        [] => "all\n".to_owned(),
        labels => format!("{}\n", labels.join(" ")),
    };
    let shown: Vec<&Metric> = series.metrics.iter().filter(|m| m.count > 0).collect();
    let rows = shown.iter().map(|metric| row(metric, seconds)).collect();
    text += &table(
        &[
            "", "COUNT", "RATE", "MEAN", "P50", "P90", "P99", "P99.9", "MAX",
        ],
        rows,
        1,
    );
    for unit in ["ns", "bytes"] {
        let of_unit: Vec<&Metric> = shown.iter().copied().filter(|m| m.unit == unit).collect();
        if !of_unit.is_empty() {
            text += &histogram(&of_unit, unit);
        }
    }
    text
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
        rate if rate >= 1e6 => format!("{:.1}M/s", rate / 1e6),
        rate if rate >= 1e4 => format!("{:.0}k/s", rate / 1e3),
        rate if rate >= 1e3 => format!("{:.1}k/s", rate / 1e3),
        rate if rate >= 10.0 => format!("{rate:.0}/s"),
        rate => format!("{rate:.1}/s"),
    }
}

/// Rows of as many buckets as it takes, and a column of bars for each metric.
fn histogram(metrics: &[&Metric], unit: &str) -> String {
    let places = || {
        metrics
            .iter()
            .flat_map(|metric| &metric.buckets)
            .map(|(lower, _)| bucket::index(*lower))
    };
    let (Some(first), Some(last)) = (places().min(), places().max()) else {
        return String::new();
    };
    // 1, 2, 4 or 8 buckets a row: whole powers of two stay together.
    let mut step = 1;
    while step < bucket::SUB_BUCKETS && (last - first) / step >= ROWS {
        step *= 2;
    }
    let width = BARS / metrics.len() - 2;
    let mut text = format!("{:>9} ", "");
    for metric in metrics {
        let _infallible = write!(text, " {:<width$} ", metric.metric);
    }
    let heading = format!("{}\n", text.trim_end());
    let mut lines = Vec::new();
    for row in first / step..=last / step {
        let edge = value(unit, bucket::lower(row * step));
        let mut line = format!("{:>9} ", format!(">={edge}"));
        for metric in metrics {
            let count = |row| in_row(metric, row, step);
            let most = (first / step..=last / step).map(count).max().unwrap_or(0);
            let _infallible = write!(line, " {:<width$} ", bar(count(row), most, width));
        }
        lines.push(line.trim_end().to_owned());
    }
    heading + &without_gaps(&lines)
}

/// Three or more rows without a count become one.
fn without_gaps(lines: &[String]) -> String {
    let empty = |line: &String| line.trim_start().split(' ').nth(1).is_none();
    let mut text = String::new();
    for group in lines.chunk_by(|a, b| empty(a) && empty(b)) {
        if group.len() > 2 {
            text += "      ...\n";
            continue;
        }
        for line in group {
            text += line;
            text.push('\n');
        }
    }
    text
}

fn in_row(metric: &Metric, row: u32, step: u32) -> u64 {
    metric
        .buckets
        .iter()
        .filter(|(lower, _)| bucket::index(*lower) / step == row)
        .map(|(_, count)| count)
        .sum()
}

/// The count, and a bar as long as its share of the most; at least one character for what is not 0.
fn bar(count: u64, most: u64, width: usize) -> String {
    if count == 0 {
        return String::new();
    }
    let room = width.saturating_sub(8) as u64;
    let length = (count * room).checked_div(most).unwrap_or(0).max(1);
    format!("{count:>7} {}", "#".repeat(length as usize))
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
        let _infallible = writeln!(text, "not measured: {}: {}", missing.what, missing.reason);
    }
    let losses: Vec<String> = ledger
        .losses()
        .iter()
        .filter(|(_, count)| *count > 0)
        .map(|(name, count)| format!("{name} {count}"))
        .collect();
    if losses.is_empty() {
        text += "ledger     nothing lost\n";
    } else {
        let _infallible = writeln!(text, "ledger     INCOMPLETE: {}", losses.join(", "));
    }
    text
}

#[cfg(test)]
mod tests {
    use agent_common::probes::{PROBES, Unit};

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

    #[test]
    fn no_line_is_longer_than_79_and_all_counts_are_there() {
        let text = dump(&example());
        for line in text.lines() {
            assert!(line.chars().count() < 80, "{line}");
        }
        assert!(text.contains("nothing lost"), "{text}");
    }

    #[test]
    fn rows_hold_every_count_once() {
        let example = example();
        let metric = &example.series[0].metrics[1];
        for step in [1, 2, 4, 8] {
            let sum: u64 = (0..512).map(|row| in_row(metric, row, step)).sum();
            assert_eq!(sum, metric.count);
        }
    }
}
