//! Two latency histograms side by side, on rows half a power of two apart.

use super::table::time;

/// Longest bar, in characters.
const WIDTH: u64 = 23;

/// `(edge in ns, count)`, as fio has them.
type Bins = [(u64, u64)];

/// The rows under a heading; each is named by its lower edge.
pub fn render(before: (&str, &Bins), after: (&str, &Bins)) -> String {
    let rows = rows(before.1, after.1);
    let most = |side: fn(&Row) -> u64| rows.iter().map(side).max().unwrap_or(0);
    let (most_before, most_after) = (most(|row| row.before), most(|row| row.after));
    let mut text = line("LATENCY", ("IOS", before.0), ("IOS", after.0));
    for row in &rows {
        text += &line(
            &format!(">={}", time(row.lower_ns)),
            (&row.before.to_string(), &bar(row.before, most_before)),
            (&row.after.to_string(), &bar(row.after, most_after)),
        );
    }
    text
}

fn line(label: &str, before: (&str, &str), after: (&str, &str)) -> String {
    let width = WIDTH as usize;
    let line = format!(
        "{label:<9}  {:>6}  {:<width$}  {:>6}  {}",
        before.0, before.1, after.0, after.1
    );
    format!("{}\n", line.trim_end())
}

/// As long as its share of the longest; at least one character for what is not 0.
fn bar(count: u64, most: u64) -> String {
    let length = (count * WIDTH).checked_div(most).unwrap_or(0);
    "#".repeat(length.max(u64::from(count > 0)) as usize)
}

#[derive(Debug, PartialEq, Eq)]
struct Row {
    lower_ns: u64,
    before: u64,
    after: u64,
}

/// All rows from the first that is not empty to the last.
fn rows(before: &Bins, after: &Bins) -> Vec<Row> {
    let places = || {
        before
            .iter()
            .chain(after)
            .filter(|(_, count)| *count > 0)
            .map(|(edge, _)| place(*edge))
    };
    let (Some(first), Some(last)) = (places().min(), places().max()) else {
        return Vec::new();
    };
    let count = |bins: &Bins, row| {
        bins.iter()
            .filter(|(edge, _)| place(*edge) == row)
            .map(|(_, count)| count)
            .sum()
    };
    (first..=last)
        .map(|row| Row {
            lower_ns: lower(row),
            before: count(before, row),
            after: count(after, row),
        })
        .collect()
}

/// Lower edge of a row in ns: 1 us times a half power of two.
fn lower(row: i32) -> u64 {
    (1_000.0 * (f64::from(row) / 2.0).exp2()).round() as u64
}

/// The row of a latency.
fn place(ns: u64) -> i32 {
    let row = (2.0 * (ns.max(1) as f64 / 1_000.0).log2()).floor() as i32;
    // The edges are rounded to ns.
    if lower(row + 1) <= ns { row + 1 } else { row }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edges_belong_to_the_row_that_they_open() {
        for row in 0..50 {
            assert_eq!(place(lower(row)), row);
            assert_eq!(place(lower(row) - 1), row - 1);
        }
    }

    #[test]
    fn no_request_is_lost_and_gaps_stay() {
        let rows = rows(&[(1_000, 2), (1_100, 1), (4_000, 0)], &[(2_000, 5)]);
        let counts: Vec<_> = rows
            .iter()
            .map(|row| (row.lower_ns, row.before, row.after))
            .collect();
        assert_eq!(counts, [(1_000, 3, 0), (1_414, 0, 0), (2_000, 0, 5)]);
    }

    #[test]
    fn lines_fit_and_the_smallest_count_shows() {
        let text = render(
            ("before", &[(90_000, 99_999)]),
            ("with set-blk 500", &[(600_000, 1), (2_000_000, 99_999)]),
        );
        assert!(text.lines().all(|line| line.chars().count() < 80), "{text}");
        assert!(text.lines().any(|line| line.ends_with("  1  #")), "{text}");
    }
}
