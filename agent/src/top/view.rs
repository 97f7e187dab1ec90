//! Draws the state: a title, the views' names, a table, what was lost, the keys.

use ratatui::{
    buffer::Buffer,
    layout::Rect,
    style::{Modifier, Style},
};

use super::{
    columns::{self, Column, Table},
    state::{DELAYS, State},
};
use crate::{
    render,
    report::{self, Status, dump::Dump},
    units::format_ns,
};

/// Rows of tasks.
const TASKS: usize = 5;

const BOLD: Style = Style::new().add_modifier(Modifier::BOLD);
const DIM: Style = Style::new().add_modifier(Modifier::DIM);
const REVERSED: Style = Style::new().add_modifier(Modifier::REVERSED);
const PLAIN: Style = Style::new();

const KEYS: &str = "q quit  tab/arrows view  up/down scroll  space pause  +/- interval";

/// Lines of text, from the top down; what does not fit is cut.
struct Page<'a> {
    area: Rect,
    buffer: &'a mut Buffer,
    /// The next free line.
    line: u16,
    /// Lines at the bottom that are not for it.
    reserved: u16,
}

impl Page<'_> {
    fn room(&self) -> u16 {
        self.area.height.saturating_sub(self.line + self.reserved)
    }

    /// Writes a line and goes to the next.
    fn line(&mut self, text: &str, style: Style) {
        if self.room() > 0 {
            self.at(self.line, 0, text, style);
            self.line += 1;
        }
    }

    /// Writes within a line; returns the column behind it.
    fn at(&mut self, line: u16, column: u16, text: &str, style: Style) -> u16 {
        if column >= self.area.width || line >= self.area.height {
            return column;
        }
        let width = usize::from(self.area.width - column);
        let (x, y) = (self.area.x + column, self.area.y + line);
        self.buffer.set_stringn(x, y, text, width, style).0 - self.area.x
    }
}

/// Draws into the area.
pub fn draw(state: &State, area: Rect, buffer: &mut Buffer) {
    let mut page = Page {
        area,
        buffer,
        line: 0,
        reserved: 1,
    };
    page.line(&title(state), BOLD);
    tabs(&mut page, state);
    page.line("", PLAIN);
    for note in state.notes().iter().take(3) {
        page.line(note, REVERSED);
    }
    let views = state.views();
    match views.get(state.selected()) {
        Some(&DELAYS) => delays(&mut page, state),
        Some(name) => match state.shown().dumps.iter().find(|dump| dump.probe == *name) {
            Some(dump) => probe(&mut page, state, dump),
            None => page.line("measuring ...", DIM),
        },
        None => {}
    }
    let last = page.area.height.saturating_sub(1);
    page.at(last, 0, KEYS, DIM);
}

fn title(state: &State) -> String {
    let source = state.status().map_or_else(
        || "no agent: probes loaded for this".to_owned(),
        |status| {
            let agent = &status.agent;
            format!("agent {}, up {}", agent.pid, format_ns(agent.uptime_ns))
        },
    );
    let paused = if state.paused() { "  PAUSED" } else { "" };
    let seconds = state.interval().as_secs_f64();
    format!("iolag top  {source}  every {seconds} s{paused}")
}

fn tabs(page: &mut Page<'_>, state: &State) {
    let (line, selected) = (page.line, state.selected());
    let mut column = 0;
    for (place, view) in state.views().iter().enumerate() {
        let style = if place == selected { REVERSED } else { PLAIN };
        column = page.at(line, column, &format!(" {view} "), style);
        column = page.at(line, column, " ", PLAIN);
    }
    page.line += 1;
}

fn probe(page: &mut Page<'_>, state: &State, dump: &Dump) {
    // The ledger's line and those of missing parts stay in sight whatever the table's length.
    let foot = foot(dump);
    let reserved = page.reserved;
    page.reserved += (foot.len() as u16).min(page.room() / 2);
    if dump.series.is_empty() {
        page.line("nothing was seen", DIM);
    } else {
        table(page, state, &columns::probe(dump));
        tasks(page, dump);
    }
    page.reserved = reserved;
    for (text, style) in foot {
        page.line(&text, style);
    }
}

/// The tasks that waited longest, if there is room for a few.
fn tasks(page: &mut Page<'_>, dump: &Dump) {
    let room = usize::from(page.room()).saturating_sub(2);
    if room < 3 {
        return;
    }
    let waited = render::tasks::rows(&report::tasks::first(dump.tasks.clone()), TASKS.min(room));
    for (place, line) in waited.lines().enumerate() {
        if place == 0 {
            page.line("", PLAIN);
        }
        page.line(line, if place == 0 { BOLD } else { PLAIN });
    }
}

fn foot(dump: &Dump) -> Vec<(String, Style)> {
    let mut lines = Vec::new();
    for missing in &dump.not_measured {
        let text = format!("not measured: {}: {}", missing.what, missing.reason);
        lines.push((text, DIM));
    }
    let losses = dump.ledger.losses();
    let losses: Vec<String> = losses
        .iter()
        .filter(|(_, count)| *count > 0)
        .map(|(name, count)| format!("{name} {count}"))
        .collect();
    if losses.is_empty() {
        lines.push(("nothing lost".into(), DIM));
    } else {
        lines.push((format!("INCOMPLETE: {}", losses.join(", ")), REVERSED));
    }
    lines
}

fn delays(page: &mut Page<'_>, state: &State) {
    let Some(delays) = &state.shown().delays else {
        return page.line("measuring ...", DIM);
    };
    rules(page, &delays.status);
    page.line("", PLAIN);
    table(page, state, &columns::delays(delays));
}

fn rules(page: &mut Page<'_>, status: &Status) {
    if status.rules.is_empty() {
        page.line("no rules: nothing is delayed", DIM);
    }
    for rule in &status.rules {
        let delay = format_ns(rule.delay_ns);
        let points = rule.points.join(", ");
        page.line(&format!("{:<10} {delay:>7} at {points}", rule.name), PLAIN);
    }
}

/// Heads and rows; groups of columns that do not fit are left out, and said to be.
fn table(page: &mut Page<'_>, state: &State, table: &Table) {
    let mut left = usize::from(page.area.width) + 1;
    let mut shown = 0;
    for group in &table.groups {
        if group.width() > left && shown > 0 {
            break;
        }
        left = left.saturating_sub(group.width());
        shown += 1;
    }
    let titles = table.groups[..shown].iter().any(|g| !g.title.is_empty());
    let heads = u16::from(titles) + 1;
    let hidden = &table.groups[shown..];
    let mut reserved = u16::from(!hidden.is_empty());
    let room = |reserved: u16| usize::from(page.room().saturating_sub(heads + reserved));
    let all_fit = table.rows <= room(reserved);
    let told = !all_fit && room(reserved) > 1;
    reserved += u16::from(told);
    let room = room(reserved);
    let first = state.first_row(table.rows, room);
    let rows = first..table.rows.min(first + room);

    let top = page.line;
    let mut column = 0;
    for group in &table.groups[..shown] {
        let start = column;
        if titles {
            page.at(
                top,
                start,
                &format!("{:>1$}", group.title, group.width() - 1),
                BOLD,
            );
        }
        for (place, each) in group.columns.iter().enumerate() {
            // A title that is wider than its columns pushes the first one to the right.
            let slack = if place == 0 {
                group.width() - group.columns.iter().map(|c| c.width() + 1).sum::<usize>()
            } else {
                0
            };
            column += slack as u16;
            cells(page, each, column, top + u16::from(titles), rows.clone());
            column += each.width() as u16 + 1;
        }
    }
    page.line = top + heads + rows.len() as u16;
    if told {
        let text = format!("rows {} to {} of {}", rows.start + 1, rows.end, table.rows);
        page.line(&text, DIM);
    }
    if !hidden.is_empty() {
        let names: Vec<&str> = hidden.iter().map(name).collect();
        page.line(&format!("too narrow for: {}", names.join(", ")), DIM);
    }
}

fn name(group: &columns::Group) -> &str {
    match group.columns.first() {
        Some(column) if group.title.is_empty() => &column.head,
        _ => &group.title,
    }
}

/// A column's head and rows, from the line `top` on.
fn cells(page: &mut Page<'_>, column: &Column, at: u16, top: u16, rows: std::ops::Range<usize>) {
    let width = column.width();
    let pad = |text: &str| {
        if column.right {
            format!("{text:>width$}")
        } else {
            format!("{text:<width$}")
        }
    };
    page.at(top, at, &pad(&column.head), BOLD);
    for (line, cell) in (top + 1..).zip(&column.cells[rows]) {
        page.at(line, at, &pad(cell), PLAIN);
    }
}

#[cfg(test)]
mod tests;
