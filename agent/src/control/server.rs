//! The agent's side of the socket.

use std::{cell::RefCell, rc::Rc, time::Duration};

use log::{debug, info, warn};
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{UnixListener, UnixStream},
    sync::{Semaphore, mpsc},
    time::timeout,
};

use super::{
    follow::follow,
    protocol::{Command, answer, parse_request},
};
use crate::{
    failure::{FAILED, Failure, USAGE},
    session::Session,
};

/// A request is far shorter; who sends more is cut off.
const MAX_REQUEST: usize = 64 << 10;
/// Connections served at once; more wait in the listener's queue.
const CONNECTIONS: usize = 64;
/// A client that neither sends nor takes for so long is cut off.
const IDLE: Duration = Duration::from_secs(10);

/// The connection that asked the agent to stop: it is answered when all is detached.
pub type StopRequest = Option<UnixStream>;

/// The session, which is gone once the agent stops.
pub type Shared = Rc<RefCell<Option<Session>>>;

/// Accepts and serves for as long as it is polled; a `stop` goes to `stops`.
pub async fn serve(
    listener: UnixListener,
    session: Shared,
    socket: String,
    stops: mpsc::Sender<StopRequest>,
) {
    let places = std::sync::Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(place) = places.clone().acquire_owned().await else {
            return;
        };
        match listener.accept().await {
            Ok((stream, _)) => {
                let (session, socket, stops) = (session.clone(), socket.clone(), stops.clone());
                tokio::task::spawn_local(async move {
                    connection(stream, &session, &socket, &stops).await;
                    drop(place);
                });
            }
            Err(error) => {
                // Out of descriptors, most likely: let some connections end.
                warn!("failed to accept a connection: {error}");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn connection(
    mut stream: UnixStream,
    session: &Shared,
    socket: &str,
    stops: &mpsc::Sender<StopRequest>,
) {
    if !stream.peer_cred().is_ok_and(|peer| peer.uid() == 0) {
        let refusal = answer(Err(
            Failure::new(FAILED, "only root may command the agent").hint("use sudo")
        ));
        let _gone = stream.write_all(format!("{refusal}\n").as_bytes()).await;
        return;
    }
    let mut buffer = Vec::new();
    while let Some(line) = next_line(&mut stream, &mut buffer).await {
        let reply = match line.and_then(|line| parse_request(&line)) {
            Ok(Command::Stop) => {
                let _closing = stops.send(Some(stream)).await;
                return;
            }
            Ok(Command::Events { follow: true }) => return follow(stream, session).await,
            Ok(command) => answer(execute(session, &command, socket)),
            Err(failure) => answer(Err(failure)),
        };
        let sent = timeout(IDLE, stream.write_all(format!("{reply}\n").as_bytes())).await;
        if !matches!(sent, Ok(Ok(()))) {
            debug!("a client left before its answer");
            return;
        }
    }
}

/// The next line without its newline; none at the end, after silence, or after a line too long.
async fn next_line(
    stream: &mut UnixStream,
    buffer: &mut Vec<u8>,
) -> Option<Result<Vec<u8>, Failure>> {
    loop {
        if let Some(end) = buffer.iter().position(|byte| *byte == b'\n') {
            let mut line: Vec<u8> = buffer.drain(..=end).collect();
            line.pop();
            return Some(Ok(line));
        }
        if buffer.len() > MAX_REQUEST {
            buffer.clear();
            let refusal = Failure::new(
                USAGE,
                format!("a request is at most {MAX_REQUEST} bytes long"),
            );
            let _gone = stream
                .write_all(format!("{}\n", answer(Err(refusal))).as_bytes())
                .await;
            return None;
        }
        match timeout(IDLE, stream.read_buf(buffer)).await {
            Ok(Ok(count)) if count > 0 => {}
            _ => return None,
        }
    }
}

fn execute(session: &Shared, command: &Command, socket: &str) -> Result<Value, Failure> {
    let mut session = session.borrow_mut();
    let session = session
        .as_mut()
        .ok_or_else(|| Failure::new(FAILED, "the agent is stopping"))?;
    match command {
        Command::Set(rule) => {
            session.set(rule.clone())?;
            info!(
                "{}: {} ns at {}",
                rule.name,
                rule.delay_ns,
                rule.points.join(", ")
            );
            Ok(Value::Null)
        }
        Command::ProbeList => to_value(&session.probes().rows()),
        Command::ProbeLoad { probe, by, backend } => {
            let row = session.load_probe(probe, by, backend)?;
            info!("probe {probe} is loaded");
            to_value(&row)
        }
        Command::ProbeUnload { probe } => {
            session.unload_probe(probe)?;
            info!("probe {probe} is unloaded");
            Ok(Value::Null)
        }
        Command::Dump { probe, by_cpu } => to_value(&session.probes_mut().dump(probe, *by_cpu)?),
        Command::Events { .. } => to_value(&session.probes_mut().kept_events()?),
        Command::Reset => {
            session.reset()?;
            info!("all delays are off");
            Ok(Value::Null)
        }
        Command::Status => to_value(&session.status(socket)?),
        Command::Stop => Ok(Value::Null),
    }
}

pub(super) fn to_value(result: &impl serde::Serialize) -> Result<Value, Failure> {
    serde_json::to_value(result)
        .map_err(|error| Failure::new(FAILED, format!("failed to write the answer: {error}")))
}
