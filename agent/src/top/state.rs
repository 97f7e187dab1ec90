//! What `top` shows, and what the keys do to it. Nothing here reads a clock, a socket or a terminal.

use std::time::Duration;

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

use crate::report::{Point, Status, dump::Dump};

/// The view that is no probe's.
pub const DELAYS: &str = "delays";

/// Intervals that the keys step through (ms).
const STEPS: [u64; 7] = [200, 500, 1_000, 2_000, 5_000, 10_000, 30_000];

/// Everything that was recorded until a moment.
#[derive(Clone, Debug, Default)]
pub struct Sample {
    /// None without an agent.
    pub status: Option<Status>,
    pub dumps: Vec<Dump>,
    /// What is not to be had, and why.
    pub notes: Vec<String>,
    /// It could not be taken at all.
    pub failed: bool,
}

/// What the delays did in an interval.
#[derive(Clone, Debug)]
pub struct Delays {
    pub status: Status,
    pub seconds: f64,
    /// By point, as in the status: each count of the interval only.
    pub points: Vec<Point>,
}

/// What was recorded between two samples.
#[derive(Clone, Debug, Default)]
pub struct Shown {
    pub dumps: Vec<Dump>,
    pub delays: Option<Delays>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    Nothing,
    End,
}

#[derive(Debug)]
pub struct State {
    interval: Duration,
    paused: bool,
    /// Name of the view; the first one if there is none of that name.
    selected: String,
    /// Rows that were scrolled away.
    scroll: usize,
    previous: Sample,
    shown: Shown,
    notes: Vec<String>,
}

impl State {
    #[must_use]
    pub fn new(interval: Duration) -> Self {
        Self {
            interval,
            paused: false,
            selected: String::new(),
            scroll: 0,
            previous: Sample::default(),
            shown: Shown::default(),
            notes: Vec::new(),
        }
    }

    #[must_use]
    pub fn interval(&self) -> Duration {
        self.interval
    }

    #[must_use]
    pub fn paused(&self) -> bool {
        self.paused
    }

    #[must_use]
    pub fn shown(&self) -> &Shown {
        &self.shown
    }

    #[must_use]
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// The agent that answers, if there is one.
    #[must_use]
    pub fn status(&self) -> Option<&Status> {
        self.previous.status.as_ref()
    }

    /// Names of the views, in order.
    #[must_use]
    pub fn views(&self) -> Vec<&str> {
        let probes = self.previous.dumps.iter().map(|dump| dump.probe.as_str());
        let delays = self.previous.status.as_ref().map(|_| DELAYS);
        probes.chain(delays).collect()
    }

    /// The place among [`Self::views`] of the one that is shown.
    #[must_use]
    pub fn selected(&self) -> usize {
        let views = self.views();
        let found = views.iter().position(|view| *view == self.selected);
        found.unwrap_or(0)
    }

    /// Takes the next sample; what came since the one before is shown, unless paused.
    pub fn take(&mut self, sample: Sample) {
        self.notes.clone_from(&sample.notes);
        if sample.failed {
            // What was seen last stays on the screen, under the note.
            return;
        }
        if !self.paused {
            self.shown = between(&self.previous, &sample);
        }
        self.previous = sample;
    }

    /// Does what a key stands for.
    pub fn key(&mut self, key: KeyEvent) -> Asked {
        if key.kind == KeyEventKind::Release {
            return Asked::Nothing;
        }
        let control = key.modifiers.contains(KeyModifiers::CONTROL);
        match key.code {
            KeyCode::Char('c') if control => return Asked::End,
            KeyCode::Char('q') | KeyCode::Esc => return Asked::End,
            KeyCode::Char(' ') => self.paused = !self.paused,
            KeyCode::Tab | KeyCode::Right => self.turn(1),
            KeyCode::BackTab | KeyCode::Left => self.turn(-1),
            KeyCode::Down => self.scroll = (self.scroll + 1).min(self.rows()),
            KeyCode::Up => self.scroll = self.scroll.saturating_sub(1),
            KeyCode::Home => self.scroll = 0,
            KeyCode::Char('+') => self.step(true),
            KeyCode::Char('-') => self.step(false),
            _ => {}
        }
        Asked::Nothing
    }

    /// To the next view or the one before, around the ends.
    fn turn(&mut self, by: isize) {
        let views = self.views();
        if views.is_empty() {
            return;
        }
        let next = self
            .selected()
            .wrapping_add_signed(by)
            .wrapping_add(views.len());
        self.selected = views[next % views.len()].to_owned();
        self.scroll = 0;
    }

    /// Rows of the view that is shown, all but the last: there is no use in scrolling that away.
    fn rows(&self) -> usize {
        let views = self.views();
        let name = views.get(self.selected()).copied().unwrap_or_default();
        let dump = self.shown.dumps.iter().find(|dump| dump.probe == name);
        dump.map_or(0, |dump| dump.series.len().saturating_sub(1))
    }

    fn step(&mut self, longer: bool) {
        let now = self.interval.as_millis() as u64;
        let next = if longer {
            STEPS.into_iter().find(|step| *step > now)
        } else {
            STEPS.into_iter().rev().find(|step| *step < now)
        };
        if let Some(ms) = next {
            self.interval = Duration::from_millis(ms);
        }
    }

    /// Keeps the scroll within a table of so many rows, of which so many are to be seen.
    #[must_use]
    pub fn first_row(&self, rows: usize, room: usize) -> usize {
        self.scroll.min(rows.saturating_sub(room))
    }
}

fn between(before: &Sample, now: &Sample) -> Shown {
    let dumps = now.dumps.iter().filter_map(|dump| {
        // One that was loaded anew in between has no interval yet.
        let earlier = before
            .dumps
            .iter()
            .find(|earlier| earlier.probe == dump.probe && dump.continues(earlier))?;
        Some(dump.since(earlier))
    });
    let delays = match (&before.status, &now.status) {
        (Some(before), Some(now)) if before.agent.pid == now.agent.pid => Some(delays(before, now)),
        _ => None,
    };
    Shown {
        dumps: dumps.collect(),
        delays,
    }
}

fn delays(before: &Status, now: &Status) -> Delays {
    let ns = now.agent.uptime_ns.saturating_sub(before.agent.uptime_ns);
    let points = now.points.iter().zip(&before.points).map(|(now, before)| {
        let less = |of: fn(&Point) -> u64| of(now).saturating_sub(of(before));
        Point {
            hits: less(|point| point.hits),
            delayed: less(|point| point.delayed),
            requested_ns: less(|point| point.requested_ns),
            achieved_ns: less(|point| point.achieved_ns),
            cpu_ns: less(|point| point.cpu_ns),
            ..now.clone()
        }
    });
    Delays {
        status: now.clone(),
        seconds: ns as f64 / 1e9,
        points: points.collect(),
    }
}
