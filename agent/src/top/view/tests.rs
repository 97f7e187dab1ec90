use std::time::Duration;

use agent_common::{
    bucket,
    probes::{PROBES, Unit},
};
use ratatui::{
    Terminal,
    backend::TestBackend,
    crossterm::event::{KeyCode, KeyEvent, KeyModifiers},
};

use super::*;
use crate::{
    kernel::Counts,
    report::{
        Agent, Errors, Point, Rule, SCHEMA,
        dump::{InFlight, Ledger, Metric, Series},
        tasks::Task,
    },
    top::state::{Asked, Sample},
};

fn metric(name: &str, unit: Unit, count: u64, value: u64) -> Metric {
    let counts = Counts {
        sum: count * value,
        max: value,
        buckets: vec![(bucket::index(value), count)],
    };
    Metric::new(name, unit, &counts)
}

/// A dump of the first probe, `factor` seconds after it was loaded.
fn dump(factor: u64) -> Dump {
    let mut dump = Dump::new(PROBES[0], 5, 5 + factor * 1_000_000_000, Ledger::default());
    let series = |device: &str, op: &str, rate: u64| Series {
        id: String::new(),
        labels: [("device", device), ("op", op)]
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .into(),
        metrics: vec![
            metric("queue", Unit::Nanoseconds, rate * factor, 1_500),
            metric("device", Unit::Nanoseconds, rate * factor, 90_000),
            metric("total", Unit::Nanoseconds, rate * factor, 95_000),
            metric("size", Unit::Bytes, rate * factor, 4_096),
            metric("extra", Unit::Count, rate * factor, 1),
        ],
    };
    dump.series = vec![
        series("vda", "read", 10),
        series("vdb", "write", 2_000),
        series("vdc", "flush", 1),
    ];
    dump.in_flight = vec![InFlight {
        device: "vdb".into(),
        reads: 1,
        writes: 7,
    }];
    dump
}

fn status(factor: u64) -> Status {
    Status {
        schema: SCHEMA,
        agent: Agent {
            version: "0".into(),
            pid: 42,
            uptime_ns: factor * 1_000_000_000,
            socket: "/run/iolag.sock".into(),
            backend: "auto".into(),
            lease_ns: 1,
            capabilities: Vec::new(),
        },
        rules: vec![Rule {
            name: "set-blk".into(),
            points: vec!["block.issue".into()],
            delay_ns: 500_000,
        }],
        points: vec![Point {
            point: "block.issue".into(),
            symbol: "block_rq_issue".into(),
            backend: "tp".into(),
            hits: 300 * factor,
            delayed: 100 * factor,
            requested_ns: 100 * factor * 500_000,
            achieved_ns: 100 * factor * 501_000,
            cpu_ns: 100 * factor * 501_000,
            error_ns: Errors::default(),
            exempt: 0,
            lease_expired: 0,
            short: 0,
            missed: 0,
            refused: Vec::new(),
        }],
    }
}

fn sample(factor: u64) -> Sample {
    Sample {
        status: Some(status(factor)),
        dumps: vec![dump(factor)],
        ..Sample::default()
    }
}

fn running() -> State {
    let mut state = State::new(Duration::from_secs(1));
    state.take(sample(1));
    state.take(sample(2));
    state
}

fn screen(state: &State, width: u16, height: u16) -> String {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal
        .draw(|frame| draw(state, frame.area(), frame.buffer_mut()))
        .unwrap();
    let buffer = terminal.backend().buffer();
    let row = |y| {
        (0..width)
            .map(|x| buffer[(x, y)].symbol())
            .collect::<String>()
    };
    (0..height)
        .map(|y| row(y).trim_end().to_owned() + "\n")
        .collect()
}

fn press(state: &mut State, code: KeyCode) -> Asked {
    state.key(KeyEvent::new(code, KeyModifiers::NONE))
}

#[test]
fn a_probe_is_a_table_with_the_busiest_series_first() {
    let text = screen(&running(), 100, 20);
    let rows: Vec<&str> = text.lines().collect();
    let place = |word: &str| rows.iter().position(|row| row.contains(word)).expect(word);
    assert!(place("vdb    write") < place("vda    read"), "{text}");
    // Rate, in flight, and the percentiles of queue, device and total.
    let busiest: Vec<&str> = rows[place("vdb    write")].split_whitespace().collect();
    assert_eq!(
        busiest[..6],
        ["vdb", "write", "2.0k/s", "7", "1.50us", "1.50us"],
        "{text}"
    );
    assert!(text.contains("nothing lost"), "{text}");
    assert!(text.lines().last().unwrap().starts_with("q quit"), "{text}");
}

#[test]
fn what_is_too_wide_is_left_out_and_named() {
    let wide = screen(&running(), 120, 20);
    assert!(
        wide.contains("extra") && !wide.contains("too narrow"),
        "{wide}"
    );
    let narrow = screen(&running(), 80, 24);
    assert!(narrow.contains("total"), "{narrow}");
    assert!(narrow.contains("too narrow for:"), "{narrow}");
}

#[test]
fn no_size_is_too_small() {
    let state = running();
    for (width, height) in [(1, 1), (5, 2), (10, 4), (20, 6), (79, 7), (200, 3)] {
        screen(&state, width, height);
    }
}

#[test]
fn rows_that_do_not_fit_are_scrolled_to() {
    let mut state = running();
    let text = screen(&state, 100, 9);
    assert!(
        text.contains("rows 1 to 1 of 3") && text.contains("vdb"),
        "{text}"
    );
    press(&mut state, KeyCode::Down);
    press(&mut state, KeyCode::Down);
    let text = screen(&state, 100, 9);
    assert!(
        text.contains("rows 3 to 3 of 3") && text.contains("vdc"),
        "{text}"
    );
}

#[test]
fn delays_are_a_view_with_rules_and_what_was_achieved() {
    let mut state = running();
    assert_eq!(state.views(), ["block", "delays"]);
    press(&mut state, KeyCode::Tab);
    let text = screen(&state, 80, 24);
    for part in ["set-blk", "500us at block.issue", "300/s", "100/s", "501us"] {
        assert!(text.contains(part), "no {part} in\n{text}");
    }
    press(&mut state, KeyCode::Right);
    assert_eq!(state.selected(), 0);
    press(&mut state, KeyCode::Left);
    assert_eq!(state.selected(), 1);
}

#[test]
fn a_pause_keeps_the_figures_and_the_keys_end_and_step() {
    let mut state = running();
    press(&mut state, KeyCode::Char(' '));
    let before = screen(&state, 100, 20);
    assert!(before.contains("PAUSED"), "{before}");
    let mut other = sample(3);
    other.dumps[0].series.clear();
    state.take(other);
    assert_eq!(
        screen(&state, 100, 20).lines().skip(1).collect::<Vec<_>>(),
        before.lines().skip(1).collect::<Vec<_>>()
    );
    press(&mut state, KeyCode::Char('+'));
    assert_eq!(state.interval(), Duration::from_secs(2));
    for _ in 0..9 {
        press(&mut state, KeyCode::Char('-'));
    }
    assert_eq!(state.interval(), Duration::from_millis(200));
    assert_eq!(press(&mut state, KeyCode::Char('x')), Asked::Nothing);
    assert_eq!(press(&mut state, KeyCode::Char('q')), Asked::End);
    let control_c = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
    assert_eq!(state.key(control_c), Asked::End);
}

#[test]
fn an_agent_that_went_is_noted_and_the_last_figures_stay() {
    let mut state = running();
    state.take(Sample {
        notes: vec!["no agent is running".into()],
        failed: true,
        ..Sample::default()
    });
    let text = screen(&state, 100, 20);
    assert!(
        text.contains("no agent is running") && text.contains("vdb"),
        "{text}"
    );
}

#[test]
fn a_probe_that_was_loaded_anew_has_no_interval_yet() {
    let mut state = running();
    let mut anew = sample(1);
    anew.dumps[0].from_ns += 1;
    state.take(anew);
    assert!(screen(&state, 100, 20).contains("measuring ..."));
}

#[test]
fn the_tasks_that_waited_longest_are_shown_where_there_is_room() {
    let with_tasks = |factor: u64| {
        let mut sample = sample(factor);
        sample.dumps[0].tasks = (1..=9)
            .map(|pid| Task {
                pid,
                comm: format!("task-{pid}"),
                oncpu_ns: factor * 1_000,
                waits: factor,
                wait_ns: factor * 1_000_000 * u64::from(pid),
                ended: false,
            })
            .collect();
        sample
    };
    let mut state = State::new(Duration::from_secs(1));
    state.take(with_tasks(1));
    state.take(with_tasks(2));
    let text = screen(&state, 80, 24);
    for part in ["MEAN WAIT", "task-9", "task-5", "9ms", "nothing lost"] {
        assert!(text.contains(part), "no {part} in\n{text}");
    }
    assert!(!text.contains("task-4"), "{text}");
    assert!(!screen(&state, 80, 11).contains("MEAN WAIT"));
}
