//! Histograms of characters, side by side.

use std::fmt::Write as _;

use agent_common::bucket;

use super::hist::value;
use crate::report::dump::Metric;

/// Most rows of a histogram; where it has more buckets, neighbours share a row.
const ROWS: u32 = 20;
/// Characters for the bars of all metrics in a row.
const BARS: usize = 66;

/// Rows of as many buckets as it takes, and a column of bars for each metric.
pub fn histogram(metrics: &[&Metric], unit: &str) -> String {
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

pub(super) fn in_row(metric: &Metric, row: u32, step: u32) -> u64 {
    metric
        .buckets
        .iter()
        .filter(|(lower, _)| bucket::index(*lower) / step == row)
        .map(|(_, count)| count)
        .sum()
}

/// The count, and a bar as long as its share of the most; at least one character for what is not 0. The bars
/// leave the room that the longest count takes.
fn bar(count: u64, most: u64, width: usize) -> String {
    if count == 0 {
        return String::new();
    }
    let digits = most.to_string().len().max(7);
    let room = width.saturating_sub(digits + 1);
    let share = count as f64 / most as f64;
    let length = ((share * room as f64) as usize).clamp(room.min(1), room);
    format!("{count:>digits$} {}", "#".repeat(length))
}

#[cfg(test)]
mod tests {
    use agent_common::probes::Unit;

    use super::*;
    use crate::kernel::Counts;

    #[test]
    fn rows_hold_every_count_once() {
        let buckets = (bucket::index(10_000)..=bucket::index(999_999_999))
            .map(|index| (index, 99_999))
            .collect();
        let counts = Counts {
            sum: 0,
            max: 999_999_999,
            buckets,
        };
        let metric = Metric::new("device", Unit::Nanoseconds, &counts);
        for step in [1, 2, 4, 8] {
            let sum: u64 = (0..512).map(|row| in_row(&metric, row, step)).sum();
            assert_eq!(sum, metric.count);
        }
    }

    #[test]
    fn bars_are_in_proportion_and_give_way_to_counts() {
        assert_eq!(bar(0, 10, 20), "");
        assert_eq!(bar(10, 10, 20), format!("     10 {}", "#".repeat(12)));
        assert_eq!(bar(1, 1_000, 20), "      1 #");
        assert_eq!(
            bar(u64::MAX, u64::MAX, 30),
            format!("{} #########", u64::MAX)
        );
        assert_eq!(bar(9_999_999_999, 9_999_999_999, 14), "9999999999 ###");
    }
}
