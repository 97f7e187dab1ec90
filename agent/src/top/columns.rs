//! Tables of text: what `top` shows of a probe or of the delays, as columns that can be left out where the
//! terminal is narrow.

use std::cmp::Reverse;

use super::state::Delays;
use crate::{
    render::hist::{rate, value},
    report::dump::{Dump, Metric, Series},
    units::format_ns,
};

/// Longest label that is shown whole.
const LABEL: usize = 24;

/// Columns that only make sense together: those of a metric.
#[derive(Debug, Default)]
pub struct Group {
    /// Above the columns; empty where their own heads say it all.
    pub title: String,
    pub columns: Vec<Column>,
}

#[derive(Debug)]
pub struct Column {
    pub head: String,
    pub cells: Vec<String>,
    pub right: bool,
}

#[derive(Debug, Default)]
pub struct Table {
    pub groups: Vec<Group>,
    pub rows: usize,
}

impl Column {
    fn new(head: &str, right: bool, cells: impl Iterator<Item = String>) -> Self {
        Self {
            head: head.into(),
            cells: cells.collect(),
            right,
        }
    }

    #[must_use]
    pub fn width(&self) -> usize {
        let cells = self.cells.iter().map(|cell| cell.chars().count());
        // Figures come and go: a little room keeps the columns where they are.
        let least = if self.right { 7 } else { 0 };
        cells
            .max()
            .unwrap_or(0)
            .max(self.head.chars().count())
            .max(least)
    }
}

impl Group {
    /// With the space in front of each column.
    #[must_use]
    pub fn width(&self) -> usize {
        let columns: usize = self.columns.iter().map(|column| column.width() + 1).sum();
        columns.max(self.title.chars().count() + 1)
    }
}

/// A row for each series, the busiest first: how often, and of each metric the median and the 99th percentile.
#[must_use]
pub fn probe(dump: &Dump) -> Table {
    let seconds = (dump.interval_ns as f64 / 1e9).max(1e-9);
    let mut series: Vec<&Series> = dump.series.iter().collect();
    series.sort_by_key(|series| (Reverse(events(series)), &series.labels));
    let mut groups = vec![labels(&series)];
    let mut rates = vec![Column::new(
        "RATE",
        true,
        series.iter().map(|s| rate(events(s) as f64 / seconds)),
    )];
    if series.iter().any(|s| s.labels.contains_key("device")) {
        let in_flight = series.iter().map(|series| in_flight(dump, series));
        rates.push(Column::new("INFLT", true, in_flight));
    }
    groups.push(Group {
        title: String::new(),
        columns: rates,
    });
    let metrics = series.first().map_or(0, |series| series.metrics.len());
    groups.extend((0..metrics).map(|place| {
        let of: Vec<&Metric> = series.iter().filter_map(|s| s.metrics.get(place)).collect();
        metric(&of, seconds)
    }));
    Table {
        groups,
        rows: series.len(),
    }
}

/// Operations of a series: its metrics may have seen more or less of each. What is only counted, like page
/// faults, has a rate of its own.
fn events(series: &Series) -> u64 {
    let timed = series
        .metrics
        .iter()
        .filter(|metric| metric.unit != "count");
    timed.map(|metric| metric.count).max().unwrap_or(0)
}

fn labels(series: &[&Series]) -> Group {
    let keys: Vec<&String> = series
        .first()
        .map_or(Vec::new(), |s| s.labels.keys().collect());
    let mut columns: Vec<Column> = keys
        .iter()
        .map(|key| {
            let cells = series.iter().map(|series| {
                let label = series.labels.get(*key).map_or("", String::as_str);
                short(label)
            });
            Column::new(&key.to_uppercase(), false, cells)
        })
        .collect();
    if columns.is_empty() {
        columns.push(Column::new(
            "SERIES",
            false,
            series.iter().map(|_| "all".into()),
        ));
    }
    Group {
        title: String::new(),
        columns,
    }
}

/// Without control characters, which a command may have, and cut if it is long.
fn short(label: &str) -> String {
    let clean = |c: char| if c.is_control() { '?' } else { c };
    if label.chars().count() <= LABEL {
        return label.chars().map(clean).collect();
    }
    // The end of a path tells more than its start.
    let skip = label.chars().count() - (LABEL - 1);
    let end = label.chars().skip(skip).map(clean);
    std::iter::once('…').chain(end).collect()
}

/// Requests in flight by the kernel's own count, of the series' device and operation.
fn in_flight(dump: &Dump, series: &Series) -> String {
    let device = series.labels.get("device");
    let of = dump.in_flight.iter().find(|d| Some(&d.device) == device);
    let of = of.map_or((0, 0), |d| (d.reads, d.writes));
    match series.labels.get("op").map(String::as_str) {
        Some("read") => of.0.to_string(),
        Some("write") => of.1.to_string(),
        Some(_) => "-".into(),
        None => (of.0 + of.1).to_string(),
    }
}

fn metric(of: &[&Metric], seconds: f64) -> Group {
    let Some(first) = of.first() else {
        return Group::default();
    };
    let column = |head, cell: fn(&Metric) -> String| {
        let cells = of.iter().map(move |metric| match metric.count {
            0 => "-".into(),
            _ => cell(metric),
        });
        Column::new(head, true, cells)
    };
    let columns = if first.unit == "count" {
        let rates = of.iter().map(|m| rate(m.count as f64 / seconds));
        vec![Column::new("RATE", true, rates)]
    } else {
        vec![
            column("P50", |metric| value(&metric.unit, metric.p50)),
            column("P99", |metric| value(&metric.unit, metric.p99)),
        ]
    };
    Group {
        title: first.metric.clone(),
        columns,
    }
}

/// A row for each point that can be delayed.
#[must_use]
pub fn delays(delays: &Delays) -> Table {
    let seconds = delays.seconds.max(1e-9);
    let points = &delays.points;
    let text = |head, cell: fn(&crate::report::Point) -> &str| {
        Column::new(
            head,
            false,
            points.iter().map(|point| cell(point).to_owned()),
        )
    };
    let rates = |head, count: fn(&crate::report::Point) -> u64| {
        let cells = points
            .iter()
            .map(|point| rate(count(point) as f64 / seconds));
        Column::new(head, true, cells)
    };
    // Of one delayed hit.
    let mean = |head, sum: fn(&crate::report::Point) -> u64| {
        let cells = points
            .iter()
            .map(|point| match sum(point).checked_div(point.delayed) {
                Some(mean) => format_ns(mean),
                None => "-".into(),
            });
        Column::new(head, true, cells)
    };
    let cpu = points
        .iter()
        .map(|p| format!("{:.1}%", p.cpu_ns as f64 / seconds / 1e7));
    let group = |columns| Group {
        title: String::new(),
        columns,
    };
    Table {
        groups: vec![
            group(vec![text("POINT", |point| &point.point)]),
            group(vec![
                rates("HITS", |p| p.hits),
                rates("DELAYED", |p| p.delayed),
            ]),
            group(vec![
                mean("ASKED", |point| point.requested_ns),
                mean("ACHIEVED", |point| point.achieved_ns),
            ]),
            group(vec![Column::new("CPU", true, cpu)]),
            group(vec![
                text("BACKEND", |p| &p.backend),
                text("SYMBOL", |p| &p.symbol),
            ]),
        ],
        rows: points.len(),
    }
}
