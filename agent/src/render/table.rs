//! Plain tables: columns set apart by spaces, no lines.

use comfy_table::{CellAlignment, Table, presets};

/// A table whose columns from `first_right` on are aligned right.
pub fn table(header: &[&str], rows: Vec<Vec<String>>, first_right: usize) -> String {
    spaced(header, rows, first_right, 2)
}

/// As [`table`], with so many spaces between columns.
pub fn spaced(header: &[&str], rows: Vec<Vec<String>>, first_right: usize, gap: u16) -> String {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_header(header);
    table.add_rows(rows);
    for (place, column) in table.column_iter_mut().enumerate() {
        column.set_padding((0, gap));
        if place >= first_right {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
        .lines()
        .map(|line| format!("{}\n", line.trim_end()))
        .collect()
}
