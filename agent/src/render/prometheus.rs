//! A dump in Prometheus' text format: https://prometheus.io/docs/instrumenting/exposition_formats/

use std::{fmt::Write as _, ops::RangeInclusive};

use crate::{
    failure::{Failure, USAGE},
    report::dump::{Dump, Labels, Metric, Series},
};

/// Edges of the exported histograms are at these powers of two, whether something was counted there or not:
/// `rate()` and `histogram_quantile()` want every `le` of a series from its first scrape on. From 1 us to
/// 9 minutes (ns). Not up to the end at 2^40: what is beyond is counted in the last bucket too.
const TIMES: RangeInclusive<u32> = 10..=39;
/// From a sector to 4 GiB (bytes): a request's length has 32 bits.
const SIZES: RangeInclusive<u32> = 9..=32;

/// Refuses intervals.
///
/// # Errors
/// There is one.
pub fn refuse_interval(interval: Option<&str>) -> Result<(), Failure> {
    match interval {
        Some(interval) => Err(Failure::new(
            USAGE,
            format!(
                "--format prometheus takes no interval, but was given {interval:?}: counters must not fall"
            ),
        )
        .hint(
            "load the probe into an agent (iolag probe load) and leave the interval away at each scrape; \
             rate() makes intervals",
        )),
        None => Ok(()),
    }
}

/// Histograms in base units (seconds, bytes), and the ledger as counters. For a scrape the dump should be
/// one since the probe was loaded: counters must not fall.
#[must_use]
pub fn dump(dump: &Dump) -> String {
    let mut text = String::new();
    let metrics = dump
        .series
        .first()
        .map_or(&[][..], |series| &series.metrics[..]);
    for (place, metric) in metrics.iter().enumerate() {
        // What is only counted has no buckets that would say anything.
        let (unit, kind, write): (_, _, fn(&mut String, &str, &Series, &Metric)) =
            match metric.unit.as_str() {
                "count" => ("total", "counter", counter),
                "ns" => ("seconds", "histogram", histogram),
                _ => ("bytes", "histogram", histogram),
            };
        let name = format!(
            "iolag_{}_{}_{unit}",
            dump.probe,
            metric.metric.replace(['.', ' ', '-'], "_")
        );
        let _infallible = writeln!(text, "# TYPE {name} {kind}");
        for series in &dump.series {
            if let Some(metric) = series.metrics.get(place) {
                write(&mut text, &name, series, metric);
            }
        }
    }
    let name = format!("iolag_{}_lost_total", dump.probe);
    let _infallible = writeln!(text, "# TYPE {name} counter");
    for (cause, count) in dump.ledger.losses() {
        let _infallible = writeln!(text, "{name}{{cause=\"{cause}\"}} {count}");
    }
    text
}

fn counter(text: &mut String, name: &str, series: &Series, metric: &Metric) {
    let labels = labels(&series.labels, None);
    let _infallible = writeln!(text, "{name}{labels} {}", metric.count);
}

fn histogram(text: &mut String, name: &str, series: &Series, metric: &Metric) {
    let (per_unit, exponents) = match metric.unit.as_str() {
        "ns" => (1e9, TIMES),
        _ => (1.0, SIZES),
    };
    let mut buckets = metric.buckets.iter().peekable();
    let mut sum = 0;
    for exponent in exponents {
        let end = 1u64 << exponent;
        while let Some((_, count)) = buckets.next_if(|(lower, _)| *lower < end) {
            sum += count;
        }
        // Prometheus' edges are inclusive, ours are not.
        let edge = (end - 1) as f64 / per_unit;
        let labels = labels(&series.labels, Some(&format!("{edge}")));
        let _infallible = writeln!(text, "{name}_bucket{labels} {sum}");
    }
    let all = labels(&series.labels, Some("+Inf"));
    let plain = labels(&series.labels, None);
    let count = metric.count;
    let _infallible = writeln!(
        text,
        "{name}_bucket{all} {count}\n{name}_sum{plain} {}\n{name}_count{plain} {count}",
        metric.sum as f64 / per_unit
    );
}

fn labels(labels: &Labels, edge: Option<&str>) -> String {
    let pairs: Vec<String> = labels
        .iter()
        .map(|(key, value)| (key.as_str(), value.as_str()))
        .chain(edge.map(|edge| ("le", edge)))
        .map(|(key, value)| format!("{key}=\"{}\"", escape(value)))
        .collect();
    match pairs.as_slice() {
        [] => String::new(),
        pairs => format!("{{{}}}", pairs.join(",")),
    }
}

fn escape(value: &str) -> String {
    value
        .replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use agent_common::{
        bucket,
        probes::{PROBES, Unit},
    };

    use super::*;
    use crate::{kernel::Counts, report::dump::Ledger};

    #[test]
    fn buckets_are_cumulative_and_end_at_infinity() {
        let counts = Counts {
            sum: 3_000,
            max: 2_000,
            buckets: vec![(bucket::index(500), 2), (bucket::index(2_000), 1)],
        };
        let mut example = Dump::new(PROBES[0], 0, 1, Ledger::default());
        example.series = vec![Series {
            id: String::new(),
            labels: [("comm".to_owned(), "a\"b\\c".to_owned())].into(),
            metrics: vec![
                Metric::new("total", Unit::Nanoseconds, &counts),
                Metric::new("fault", Unit::Count, &counts),
            ],
        }];
        let text = dump(&example);
        assert!(text.contains("# TYPE iolag_block_total_seconds histogram\n"));
        assert!(text.contains(r#"iolag_block_total_seconds_bucket{comm="a\"b\\c",le="+Inf"} 3"#));
        assert!(text.contains(r#"_count{comm="a\"b\\c"} 3"#), "{text}");
        assert!(text.contains("# TYPE iolag_block_fault_total counter\n"));
        assert!(
            text.contains(r#"iolag_block_fault_total{comm="a\"b\\c"} 3"#),
            "{text}"
        );
        assert!(text.contains("iolag_block_lost_total{cause=\"missed\"} 0\n"));
    }
    /// `(le, count)` of a metric with these values.
    fn exported(unit: Unit, values: &[u64]) -> Vec<(String, u64)> {
        let mut buckets = std::collections::BTreeMap::new();
        for value in values {
            *buckets.entry(bucket::index(*value)).or_default() += 1;
        }
        let counts = Counts {
            sum: 0,
            max: u64::MAX,
            buckets: buckets.into_iter().collect(),
        };
        let mut example = Dump::new(PROBES[0], 0, 1, Ledger::default());
        example.series = vec![Series {
            id: String::new(),
            labels: Labels::new(),
            metrics: vec![Metric::new("total", unit, &counts)],
        }];
        let text = dump(&example);
        let lines = text.lines().filter_map(|line| line.split_once("le=\""));
        lines
            .map(|(_, rest)| rest.split_once("\"} ").unwrap())
            .map(|(edge, count)| (edge.to_owned(), count.parse().unwrap()))
            .collect()
    }

    #[test]
    fn the_edges_are_the_same_whatever_was_counted() {
        let edges = |unit, values: &[u64]| {
            let all = exported(unit, values);
            all.into_iter().map(|(edge, _)| edge).collect::<Vec<_>>()
        };
        let none = edges(Unit::Nanoseconds, &[]);
        assert_eq!(
            none,
            edges(Unit::Nanoseconds, &[0, 5_000, 1 << 39, u64::MAX])
        );
        assert_eq!(none.len(), 31);
        assert_eq!(none[..2], ["0.000001023", "0.000002047"]);
        let sizes = edges(Unit::Bytes, &[4_096]);
        assert_eq!(sizes, edges(Unit::Bytes, &[]));
        assert_eq!(
            (sizes[0].as_str(), sizes.last().unwrap().as_str()),
            ("511", "+Inf")
        );
    }

    #[test]
    fn each_value_is_counted_from_its_edge_on() {
        let values = [0, 1_023, 1_024, 5_000, (1 << 39) - 1, 1 << 39, u64::MAX];
        for (edge, count) in exported(Unit::Nanoseconds, &values) {
            let edge = edge.parse::<f64>().unwrap() * 1e9;
            let below = values.iter().filter(|value| **value as f64 <= edge.round());
            assert_eq!(count, below.count() as u64, "{edge}");
        }
    }

    #[test]
    fn an_interval_is_a_usage_error_that_says_what_to_do() {
        assert!(refuse_interval(None).is_ok());
        let failure = refuse_interval(Some("5")).unwrap_err();
        assert_eq!(failure.code, USAGE);
        assert!(failure.to_string().contains("probe load"), "{failure}");
    }
}
