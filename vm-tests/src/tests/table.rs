//! Committed tables of what tests saw before: words between tabs, the kernel first, the newest kernel last.

use std::fs;

use anyhow::{Context as _, Result};

/// This kernel in the tables: `6.12`, `6.12-rt`.
pub fn kernel() -> Result<String> {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease")?;
    let series = release.split('.').take(2).collect::<Vec<_>>().join(".");
    let real_time = if release.contains("-rt-") { "-rt" } else { "" };
    Ok(series + real_time)
}

/// Whether a kernel has rows of its own.
pub fn has(table: &str, kernel: &str) -> bool {
    let of = |line: &str| line.split('\t').next() == Some(kernel);
    table.lines().any(of)
}

/// The rows of a kernel, without its name. One that is not there yet is held against the newest that is.
pub fn rows<'a>(table: &'a str, kernel: &str) -> Result<Vec<Vec<&'a str>>> {
    let of = |kernel: &str| -> Vec<Vec<&'a str>> {
        let row = |line: &'a str| line.strip_prefix(kernel)?.strip_prefix('\t');
        let rows = table.lines().filter_map(row);
        rows.map(|row| row.split('\t').collect()).collect()
    };
    let known = of(kernel);
    if !known.is_empty() {
        return Ok(known);
    }
    let mut lines = table.lines().filter(|line| !line.starts_with('#'));
    let newest = lines.next_back().context("the table is empty")?;
    Ok(of(newest.split('\t').next().unwrap_or_default()))
}
