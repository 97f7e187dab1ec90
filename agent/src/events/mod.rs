//! The command `events`: OOM kills, from a running agent or by loading the probe for as long as it takes.

pub mod log;
pub mod pump;
pub mod ready;

use std::{io::Write as _, path::Path};

use agent_common::probes::memory;
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    signal::unix::{SignalKind, signal},
};

use self::ready::Ready;
use crate::{
    control::{
        client::{call, call_if_any, send},
        protocol::{Command, parse_answer},
    },
    failure::{FAILED, Failure, HOST},
    host::Facts,
    kernel::HostTypes,
    measure::{Measurement, Target},
    plan,
    report::{events::Event, probes::Row},
};

/// Whether to go on.
type Print<'a> = &'a mut dyn FnMut(Event) -> Result<bool, Failure>;

/// Hands the events that an agent kept to `print`, and with `follow` those that come, until `print` is tired
/// of it or Ctrl-C.
///
/// # Errors
/// No agent and not `follow`; the agent is gone; this kernel cannot; `print` failed.
pub fn run(
    follow: bool,
    socket: &Path,
    mut print: impl FnMut(Event) -> Result<bool, Failure>,
) -> Result<(), Failure> {
    let served = agent_serves(socket)?;
    if !follow {
        if !served {
            return Err(Failure::new(
                HOST,
                format!("failed to list events: no agent with the probe memory at {}", socket.display()),
            )
            .hint("iolag events --follow loads it for as long as it runs; iolag run --detach --probes memory keeps the last ones"));
        }
        for event in call::<Vec<Event>>(socket, &Command::Events { follow })? {
            if !print(event)? {
                break;
            }
        }
        return Ok(());
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| {
            Failure::new(FAILED, format!("failed to start the event loop: {error}"))
        })?;
    runtime.block_on(async {
        let failed = |error| Failure::new(FAILED, format!("failed to handle signals: {error}"));
        let mut interrupted = signal(SignalKind::interrupt()).map_err(failed)?;
        let mut terminated = signal(SignalKind::terminate()).map_err(failed)?;
        let events = async {
            if served {
                from_agent(socket, &mut print).await
            } else {
                by_ourselves(&mut print).await
            }
        };
        tokio::select! {
            ended = events => ended,
            _ = interrupted.recv() => Ok(()),
            _ = terminated.recv() => Ok(()),
        }
    })
}

/// Whether there is an agent with the probe loaded. No agent is no failure; one that may not be asked is.
fn agent_serves(socket: &Path) -> Result<bool, Failure> {
    let rows: Vec<Row> = call_if_any(socket, &Command::ProbeList)?.unwrap_or_default();
    Ok(rows
        .iter()
        .any(|row| row.name == memory::NAME && row.loaded))
}

async fn from_agent(socket: &Path, print: Print<'_>) -> Result<(), Failure> {
    let failed = |error: std::io::Error| {
        Failure::new(
            FAILED,
            format!(
                "failed to follow the agent at {}: {error}",
                socket.display()
            ),
        )
    };
    let stream = send(socket, &Command::Events { follow: true })?;
    stream.set_nonblocking(true).map_err(failed)?;
    let stream = tokio::net::UnixStream::from_std(stream).map_err(failed)?;
    let mut stream = BufReader::new(stream);
    eprintln!("following the agent's OOM kills; Ctrl-C stops");
    let mut line = Vec::new();
    // The first answer is what was kept, each one after it an event.
    let mut first = true;
    loop {
        line.clear();
        let count = stream.read_until(b'\n', &mut line).await.map_err(failed)?;
        if count == 0 {
            return Err(Failure::new(
                FAILED,
                format!("the agent at {} has ended", socket.display()),
            )
            .hint("start another: iolag run --detach --probes memory"));
        }
        let events = if first {
            parse_answer(&line)?
        } else {
            vec![parse_answer(&line)?]
        };
        first = false;
        for event in events {
            if !print(event)? {
                return Ok(());
            }
        }
    }
}

async fn by_ourselves(print: Print<'_>) -> Result<(), Failure> {
    let facts = Facts::read(Path::new("/"));
    plan::may_load(&facts, "iolag events --follow")?;
    let types = HostTypes::read(&facts)?;
    let mut measurement =
        Measurement::start(&Target::parse(memory::PROBE.name)?, &[], &types, None)?;
    drop(types);
    let ring = measurement.events_descriptor().ok_or_else(|| {
        Failure::new(FAILED, "failed to find the ring buffer of the probe memory")
    })?;
    let ring = Ready::new(ring?)?;
    eprintln!("watching for OOM kills; Ctrl-C stops");
    loop {
        for event in measurement.drain_events()? {
            if !print(event)? {
                return Ok(());
            }
        }
        ring.wait().await?;
    }
}

/// Writes to stdout at once; `false` if nobody reads there any more.
///
/// # Errors
/// It cannot be written for another reason.
pub fn write(text: &str) -> Result<bool, Failure> {
    let mut stdout = std::io::stdout();
    match stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush())
    {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(
            Failure::new(FAILED, format!("failed to write to stdout: {error}"))
                .hint("make room where it goes, or send it elsewhere"),
        ),
    }
}
