//! `status` for people: under 80 columns.

use std::fmt::Write as _;

use super::table::table;
use crate::{
    report::{Point, Status, probes::Row},
    units::format_ns,
};

#[must_use]
pub fn status(status: &Status) -> String {
    let agent = &status.agent;
    let mut text = format!(
        "agent  pid {}, up {}, iolag {}, {}\n",
        agent.pid,
        format_ns(agent.uptime_ns),
        agent.version,
        agent.socket
    );
    let mut title = "kept";
    for one in &agent.capabilities {
        let mut name = one.name.as_str();
        for purpose in &one.purposes {
            let _infallible = writeln!(text, "{title:<5}  {name:<19}  {purpose}");
            (title, name) = ("", "");
        }
    }
    if status.rules.is_empty() {
        text += "rules  none: nothing is delayed\n";
    }
    for (place, rule) in status.rules.iter().enumerate() {
        let title = if place == 0 { "rules" } else { "" };
        let _infallible = writeln!(
            text,
            "{title:<5}  {:<8} {:>7} at {}",
            rule.name,
            format_ns(rule.delay_ns),
            rule.points.join(", ")
        );
    }
    let row = |point: &Point| {
        vec![
            point.point.clone(),
            point.backend.clone(),
            point.symbol.clone(),
            point.hits.to_string(),
            point.delayed.to_string(),
        ]
    };
    text.push('\n');
    text += &table(
        &["POINT", "BACKEND", "SYMBOL", "HITS", "DELAYED"],
        status.points.iter().map(row).collect(),
        3,
    );
    text.push('\n');
    text += &table(
        &[
            "POINT",
            "ASKED",
            "ACHIEVED",
            "CPU BURNT",
            "ERROR P50",
            "P99",
            "MAX",
        ],
        status.points.iter().map(precision).collect(),
        1,
    );
    for point in &status.points {
        losses(&mut text, point);
    }
    text
}

fn precision(point: &Point) -> Vec<String> {
    let error = |ns| {
        if point.delayed == 0 {
            "-".to_owned()
        } else {
            format_ns(ns)
        }
    };
    vec![
        point.point.clone(),
        format_ns(point.requested_ns),
        format_ns(point.achieved_ns),
        format_ns(point.cpu_ns),
        error(point.error_ns.p50),
        error(point.error_ns.p99),
        error(point.error_ns.max),
    ]
}

/// What was not delayed although it should have been, and why.
fn losses(text: &mut String, point: &Point) {
    for (count, what) in [
        (point.lease_expired, "not delayed: the lease had run out"),
        (point.missed, "not seen: the kernel skipped the program"),
        (point.short, "cut short: the wait reached its bound"),
    ] {
        if count > 0 {
            let _infallible = writeln!(text, "\n{}: {count} {what}", point.point);
        }
    }
}

/// The probes of the catalogue, and how those that are loaded are attached.
#[must_use]
pub fn probes(rows: &[Row]) -> String {
    let mut text = table(
        &["PROBE", "LOADED", "BY", "MEASURES"],
        rows.iter()
            .map(|row| {
                vec![
                    row.name.clone(),
                    if row.loaded { "yes" } else { "no" }.into(),
                    row.by.join(","),
                    row.help.clone(),
                ]
            })
            .collect(),
        4,
    );
    for row in rows {
        for backend in &row.backends {
            let _infallible = writeln!(text, "{}: {backend}", row.name);
        }
    }
    text
}
