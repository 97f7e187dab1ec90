//! The tasks of a dump for people: under 80 columns.

use super::{lines::COLUMNS, table::spaced};
use crate::{report::tasks::Task, units::format_ns};

/// Rows in what `hist` prints.
const ROWS: usize = 8;

/// The tasks that waited longest, behind an empty line; nothing if there are none.
#[must_use]
pub fn section(tasks: &[Task]) -> String {
    match rows(tasks, ROWS) {
        text if text.is_empty() => text,
        text => format!("\n{text}"),
    }
}

/// A head and so many tasks at most, a line each.
pub(crate) fn rows(tasks: &[Task], most: usize) -> String {
    if tasks.is_empty() {
        return String::new();
    }
    let head = ["TASK", "PID", "ON CPU", "WAITS", "WAITED", "MEAN WAIT"];
    let rows: Vec<_> = tasks.iter().take(most).map(row).collect();
    let wide = spaced(&head, rows.clone(), 1, 2);
    if wide.lines().all(|line| line.chars().count() <= COLUMNS) {
        return wide;
    }
    spaced(&head, rows, 1, 1)
}

fn row(task: &Task) -> Vec<String> {
    let clean = |c: char| if c.is_control() { '?' } else { c };
    let mut name: String = task.comm.chars().map(clean).collect();
    if task.ended {
        name += " (ended)";
    }
    vec![
        name,
        task.pid.to_string(),
        format_ns(task.oncpu_ns),
        task.waits.to_string(),
        format_ns(task.wait_ns),
        match task.wait_ns.checked_div(task.waits) {
            Some(mean) => format_ns(mean),
            None => "-".into(),
        },
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_row_is_longer_than_79_and_most_is_kept() {
        let task = Task {
            pid: 4_194_304,
            comm: "kworker/u256:1\n".into(),
            // Years on a hundred CPUs.
            oncpu_ns: 999_999_999_999_999_999,
            waits: 999_999_999_999,
            wait_ns: 999_999_999_999_999_999,
            ended: true,
        };
        let text = section(&vec![task; 100]);
        assert_eq!(text.lines().count(), 2 + ROWS);
        for line in text.lines() {
            assert!(line.chars().count() < 80, "{line}");
        }
        assert!(text.contains("kworker/u256:1? (ended)"), "{text}");
        assert_eq!(section(&[]), "");
    }
}
