//! What the demo prints: the table of both sides, and fio's histograms.

use comfy_table::{CellAlignment, Table, presets};
use iolag_tests::demo::{Results, Row};

use super::histogram;

const HEADER: [&str; 8] = [
    "POINT", "WORKLOAD", "ASKED", "SEEN", "ACHIEVED", "ERR P50", "HITS", "CPU",
];

/// Columns of text, aligned left.
const TEXT_COLUMNS: usize = 2;

const NOTES: &str = "\
SEEN: median with the delay minus median without, by the application's clock.
The rest is the kernel's record while the delay was on: all of this machine's
hits, ACHIEVED their mean wait, CPU what the waits burnt. The agent was
attached in the baselines too.
";

/// Everything for stdout.
pub fn render(results: &Results) -> String {
    let (before, after) = (&results.fio_before, &results.fio_after);
    format!(
        "{}\n{NOTES}\nfio's own numbers: completion latency, its median {} before, {} after\n\n{}",
        table(&results.rows),
        time(before.p50_ns),
        time(after.p50_ns),
        histogram::render(("BEFORE", &before.bins), ("WITH set-blk 500", &after.bins)),
    )
}

fn table(rows: &[Row]) -> String {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_header(HEADER);
    table.add_rows(rows.iter().map(cells));
    for (place, column) in table.column_iter_mut().enumerate() {
        column.set_padding((0, 2));
        if place >= TEXT_COLUMNS {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
        .lines()
        .map(|line| format!("{}\n", line.trim_end()))
        .collect()
}

fn cells(row: &Row) -> [String; 8] {
    let kernel = &row.kernel;
    [
        row.point.clone(),
        row.workload.clone(),
        time(row.asked_ns),
        // Never negative but on a machine too busy to tell.
        match row.seen_ns {
            seen if seen < 0 => format!("-{}", time(seen.unsigned_abs())),
            seen => time(seen.unsigned_abs()),
        },
        time(kernel.mean_achieved_ns()),
        time(kernel.error_p50_ns),
        kernel.hits.to_string(),
        time(kernel.cpu_ns),
    ]
}

/// A time for people: the largest unit that leaves at least 1, and up to four digits.
pub fn time(ns: u64) -> String {
    let (unit, unit_ns) = match ns {
        0..1_000 => return format!("{ns}ns"),
        1_000..1_000_000 => ("us", 1e3),
        1_000_000..1_000_000_000 => ("ms", 1e6),
        _ => ("s", 1e9),
    };
    let value = ns as f64 / unit_ns;
    let decimals = match value {
        value if value < 10.0 => 2,
        value if value < 1_000.0 => 1,
        _ => 0,
    };
    let text = format!("{value:.decimals$}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    format!("{text}{unit}")
}

#[cfg(test)]
mod tests {
    use iolag_tests::demo::Delta;

    use super::*;

    #[test]
    fn times_read_well() {
        for (ns, text) in [
            (0, "0ns"),
            (64, "64ns"),
            (100_000, "100us"),
            (500_062, "500.1us"),
            (90_510, "90.5us"),
            (1_024_000, "1.02ms"),
            (1_500_000_000, "1.5s"),
        ] {
            assert_eq!(time(ns), text);
        }
    }

    #[test]
    fn the_widest_table_fits() {
        let row = Row {
            point: "block.issue".into(),
            workload: "fio psync read".into(),
            asked_ns: 500_000,
            seen_ns: -500_160,
            kernel: Delta {
                hits: 12_345,
                delayed: 12_345,
                achieved_ns: 12_345 * 500_160,
                cpu_ns: 1_234_000_000,
                error_p50_ns: 103,
            },
        };
        let text = table(&[row]);
        assert!(text.lines().all(|line| line.chars().count() < 80), "{text}");
        assert!(NOTES.lines().all(|line| line.len() < 80));
        assert!(text.contains("-500.2us"), "{text}");
    }
}
