//! A dump in Prometheus' text format: https://prometheus.io/docs/instrumenting/exposition_formats/

use std::fmt::Write as _;

use agent_common::bucket;

use crate::report::dump::{Dump, Labels, Metric, Series};

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
    let scale = if metric.unit == "ns" { 1e-9 } else { 1.0 };
    let mut sum = 0;
    for (lower, count) in &metric.buckets {
        sum += count;
        // Prometheus' edges are inclusive, as is the last value of a bucket.
        let edge = bucket::last(bucket::index(*lower)) as f64 * scale;
        let labels = labels(&series.labels, Some(&format!("{edge}")));
        let _infallible = writeln!(text, "{name}_bucket{labels} {sum}");
    }
    let all = labels(&series.labels, Some("+Inf"));
    let plain = labels(&series.labels, None);
    let _infallible = writeln!(
        text,
        "{name}_bucket{all} {sum}\n{name}_sum{plain} {}\n{name}_count{plain} {sum}",
        metric.sum as f64 * scale
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
    use agent_common::probes::{PROBES, Unit};

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
}
