//! The command `top`: what happens now, on a terminal, until `q`.

mod columns;
mod source;
mod state;
#[cfg(test)]
mod tests;
mod view;

use std::{
    io::IsTerminal as _,
    path::Path,
    time::{Duration, Instant},
};

use ratatui::{
    DefaultTerminal,
    crossterm::event::{self, Event},
};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::mpsc,
};

use self::{
    source::Source,
    state::{Asked, State},
};
use crate::failure::{FAILED, Failure, USAGE};

/// Between two samples, unless asked otherwise.
const INTERVAL: Duration = Duration::from_secs(1);

/// Shows and refreshes until `q`, Ctrl-C or SIGTERM; the terminal is then as it was before.
///
/// # Errors
/// No terminal; no agent and nothing that can be loaded.
pub fn run(interval: Option<Duration>, socket: &Path) -> Result<(), Failure> {
    if !std::io::stdin().is_terminal() || !std::io::stdout().is_terminal() {
        return Err(Failure::new(
            USAGE,
            "failed to start top: stdin and stdout must be a terminal",
        )
        .hint("without one: iolag hist PROBE 1, iolag status"));
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| failed("start the event loop", &error))?;
    // Before the screen is taken, as it may be refused.
    let source = Source::open(socket)?;
    let state = State::new(interval.unwrap_or(INTERVAL));
    runtime.block_on(follow(source, state))
}

fn failed(what: &str, error: &std::io::Error) -> Failure {
    Failure::new(FAILED, format!("failed to {what}: {error}"))
}

/// The terminal in its other mode, for as long as this lives. A panic restores it too, by a hook that `init`
/// installs.
struct Screen(DefaultTerminal);

impl Screen {
    fn take() -> Result<Self, Failure> {
        ratatui::try_init()
            .map(Self)
            .map_err(|error| failed("take the terminal", &error))
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        ratatui::restore();
    }
}

/// Keys and resizes, read by a thread that ends with the process: a read of the terminal cannot be taken back.
fn inputs() -> mpsc::UnboundedReceiver<Event> {
    let (sender, receiver) = mpsc::unbounded_channel();
    std::thread::spawn(move || {
        while let Ok(event) = event::read() {
            if sender.send(event).is_err() {
                return;
            }
        }
    });
    receiver
}

async fn follow(mut source: Source, mut state: State) -> Result<(), Failure> {
    let signals = |kind| signal(kind).map_err(|error| failed("handle signals", &error));
    let mut interrupted = signals(SignalKind::interrupt())?;
    let mut terminated = signals(SignalKind::terminate())?;
    let mut hung_up = signals(SignalKind::hangup())?;
    let mut screen = Screen::take()?;
    let mut inputs = inputs();
    let mut sampled = Instant::now();
    state.take(source.sample());
    loop {
        let drawn = screen
            .0
            .draw(|frame| view::draw(&state, frame.area(), frame.buffer_mut()));
        drawn.map_err(|error| failed("draw", &error))?;
        let next = state.interval().saturating_sub(sampled.elapsed());
        tokio::select! {
            () = tokio::time::sleep(next) => {
                sampled = Instant::now();
                state.take(source.sample());
            }
            input = inputs.recv() => match input {
                Some(Event::Key(key)) if state.key(key) == Asked::End => return Ok(()),
                // A resize, like every key, is drawn at once.
                Some(_) => {}
                None => return Err(Failure::new(FAILED, "the terminal is gone")),
            },
            _ = interrupted.recv() => return Ok(()),
            _ = terminated.recv() => return Ok(()),
            _ = hung_up.recv() => return Ok(()),
        }
    }
}
