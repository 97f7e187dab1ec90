//! `iolag top` on a terminal of its own, which it leaves as it found it.

use std::{
    fs::File,
    io::{Read as _, Write as _},
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
    process::{Child, Stdio},
    time::{Duration, Instant},
};

use crate::place::Place;

/// What terminals are told to leave the other screen.
const LEAVE: &str = "\u{1b}[?1049l";

/// Both ends of a new terminal of 100 by 30.
struct Terminal {
    ours: File,
    theirs: OwnedFd,
    /// All that was written to it.
    seen: String,
}

/// What a terminal shows that was sent this: text, and moves to a row and column. Other codes change no text
/// here, as every cell is written.
fn screen(sent: &str) -> String {
    let mut rows = vec![vec![' '; 100]; 30];
    let (mut row, mut column) = (0, 0);
    let mut rest = sent.chars();
    while let Some(c) = rest.next() {
        if c == '\u{1b}' {
            // CSI, parameters, and the letter that says what to do.
            let code: Vec<char> = rest.by_ref().take(1).collect();
            if code != ['['] {
                continue;
            }
            let mut parameters = String::new();
            let command = rest.by_ref().find(|c| {
                let letter = c.is_ascii_alphabetic();
                if !letter {
                    parameters.push(*c);
                }
                letter
            });
            if command == Some('H') {
                let mut numbers = parameters.split(';').map(|n| n.parse().unwrap_or(1_usize));
                (row, column) = (
                    numbers.next().unwrap_or(1) - 1,
                    numbers.next().unwrap_or(1) - 1,
                );
            }
        } else if let Some(cell) = rows.get_mut(row).and_then(|row| row.get_mut(column)) {
            *cell = c;
            column += 1;
        }
    }
    let rows = rows.iter().map(|row| row.iter().collect::<String>());
    rows.map(|row| row.trim_end().to_owned() + "\n").collect()
}

impl Terminal {
    fn new() -> Self {
        let (mut ours, mut theirs) = (0, 0);
        let size = libc::winsize {
            ws_row: 30,
            ws_col: 100,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        // SAFETY: room for both descriptors, the size is valid, and null stands for the rest.
        let result = unsafe {
            let null = std::ptr::null_mut();
            libc::openpty(&mut ours, &mut theirs, null, null.cast(), &raw const size)
        };
        assert_eq!(result, 0, "no terminal");
        // SAFETY: descriptors that nobody else has; the first is read without waiting.
        unsafe {
            libc::fcntl(ours, libc::F_SETFL, libc::O_NONBLOCK);
            Self {
                ours: File::from_raw_fd(ours),
                theirs: OwnedFd::from_raw_fd(theirs),
                seen: String::new(),
            }
        }
    }

    /// Whether it echoes and edits lines, as for a shell.
    fn cooked(&self) -> bool {
        // SAFETY: room for the answer; zeros are a value.
        let modes = unsafe {
            let mut modes: libc::termios = std::mem::zeroed();
            assert_eq!(libc::tcgetattr(self.theirs.as_raw_fd(), &mut modes), 0);
            modes.c_lflag
        };
        modes & (libc::ECHO | libc::ICANON) == libc::ECHO | libc::ICANON
    }

    fn start(&self, place: &Place) -> Child {
        let end = || Stdio::from(self.theirs.try_clone().unwrap());
        let mut command = place.command(&["top", "200ms"]);
        command.stdin(end()).stdout(end()).stderr(end());
        command.spawn().unwrap()
    }

    /// Reads until `text` is on the screen.
    #[track_caller]
    fn wait_for(&mut self, text: &str) {
        self.read_until(text, |seen| screen(seen).contains(text));
    }

    #[track_caller]
    fn read_until(&mut self, what: &str, done: impl Fn(&str) -> bool) {
        let end = Instant::now() + Duration::from_secs(20);
        while !done(&self.seen) {
            assert!(Instant::now() < end, "no {what:?}: {}", screen(&self.seen));
            let mut part = [0; 4096];
            match self.ours.read(&mut part) {
                Ok(count) => self.seen += &String::from_utf8_lossy(&part[..count]),
                Err(_) => std::thread::sleep(Duration::from_millis(5)),
            }
        }
    }

    /// Reads until the program has ended.
    #[track_caller]
    fn ends(&mut self, mut child: Child) {
        self.read_until(LEAVE, |seen| seen.contains(LEAVE));
        assert!(child.wait().unwrap().success());
        assert!(self.cooked(), "the terminal is left raw");
    }
}

#[test]
fn q_ends_it_and_the_views_are_those_of_the_agent() {
    let Some(place) = Place::new() else { return };
    place.start();
    place.done(&["probe", "load", "block"]);
    place.done(&["set-blk", "7us"]);
    let mut terminal = Terminal::new();
    assert!(terminal.cooked());
    let child = terminal.start(&place);
    terminal.wait_for("q quit");
    assert!(!terminal.cooked());
    terminal.ours.write_all(b"\t").unwrap();
    terminal.wait_for("block.issue");
    terminal.wait_for("set-blk");
    terminal.ours.write_all(b"q").unwrap();
    terminal.ends(child);
    place.stop();
}

#[test]
fn without_an_agent_it_loads_what_it_can_and_sigterm_restores_the_terminal() {
    let Some(place) = Place::new() else { return };
    let mut terminal = Terminal::new();
    let child = terminal.start(&place);
    terminal.wait_for("no agent");
    terminal.wait_for("block");
    // SAFETY: our own child.
    unsafe { libc::kill(child.id().cast_signed(), libc::SIGTERM) };
    terminal.ends(child);
}

#[test]
fn an_agent_that_ends_meanwhile_is_noted() {
    let Some(place) = Place::new() else { return };
    place.start();
    let mut terminal = Terminal::new();
    let child = terminal.start(&place);
    terminal.wait_for("delays");
    place.done(&["stop"]);
    terminal.wait_for("no agent is running");
    // Control-C is a key here.
    terminal.ours.write_all(b"\x03").unwrap();
    terminal.ends(child);
}
