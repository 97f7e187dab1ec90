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
    turns::{Turns, learn},
};
use crate::{
    failure::{FAILED, Failure, USAGE},
    rules::spec::Filters,
    session::Session,
};

/// A request is far shorter; who sends more is cut off.
const MAX_REQUEST: usize = 64 << 10;
/// Connections served at once; more wait in the listener's queue.
const CONNECTIONS: usize = 64;
/// A client that neither sends nor takes for so long is cut off.
const IDLE: Duration = Duration::from_secs(10);

/// How long `set` waits until it is known who is exempt.
const LEARNING: Duration = Duration::from_secs(2);

/// The connection that asked the agent to stop: it is answered when all is detached.
pub type StopRequest = Option<UnixStream>;

/// The session, which is gone once the agent stops.
pub type Shared = Rc<RefCell<Option<Session>>>;

/// What every connection works on.
#[derive(Clone)]
pub struct Service {
    pub session: Shared,
    /// Path of the socket, as it is shown.
    pub socket: Rc<str>,
    /// Where a `stop` goes.
    pub stops: mpsc::Sender<StopRequest>,
    pub turns: Turns,
}

/// Calls `work` with the session.
///
/// # Errors
/// As `work`; or the agent is stopping.
pub(super) fn with<T>(
    session: &Shared,
    work: impl FnOnce(&mut Session) -> Result<T, Failure>,
) -> Result<T, Failure> {
    let mut session = session.borrow_mut();
    let session = session
        .as_mut()
        .ok_or_else(|| Failure::new(FAILED, "the agent is stopping"))?;
    work(session)
}

/// Accepts and serves for as long as it is polled.
pub async fn serve(listener: UnixListener, service: Service) {
    let places = std::sync::Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(place) = places.clone().acquire_owned().await else {
            return;
        };
        match listener.accept().await {
            Ok((stream, _)) => {
                let service = service.clone();
                tokio::task::spawn_local(async move {
                    service.connection(stream).await;
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

impl Service {
    async fn connection(&self, mut stream: UnixStream) {
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
                    let _closing = self.stops.send(Some(stream)).await;
                    return;
                }
                Ok(Command::Events { follow: true }) => return follow(stream, &self.session).await,
                Ok(command) => answer(self.execute(&command).await),
                Err(failure) => answer(Err(failure)),
            };
            let sent = timeout(IDLE, stream.write_all(format!("{reply}\n").as_bytes())).await;
            if !matches!(sent, Ok(Ok(()))) {
                debug!("a client left before its answer");
                return;
            }
        }
    }

    async fn execute(&self, command: &Command) -> Result<Value, Failure> {
        match command {
            Command::ProbeLoad { probe, by, backend } => {
                let loading = self.turns.load(&self.session, probe, by, backend);
                let row = loading.await?;
                info!("probe {probe} is loaded");
                to_value(&row)
            }
            Command::ProbeUnload { probe } => {
                self.turns.unload(&self.session, probe).await?;
                info!("probe {probe} is unloaded");
                Ok(Value::Null)
            }
            command => {
                self.learn_for(command).await?;
                with(&self.session, |session| {
                    execute(session, command, &self.socket)
                })
            }
        }
    }

    /// Sees to it that what a command needs to know of the kernel is known. A rule without filters does not need it, nor
    /// wait for long: at worst it is known later that the agent's own program is exempt from it.
    async fn learn_for(&self, command: &Command) -> Result<(), Failure> {
        match command {
            Command::Inject(spec) => match learn(&self.session).await {
                Err(failure) if spec.filters == Filters::default() => {
                    debug!("the agent's commands are not exempt: {failure}");
                    Ok(())
                }
                learnt => learnt,
            },
            Command::Set(rule) if rule.delay_ns > 0 => {
                let session = self.session.clone();
                let learning = tokio::task::spawn_local(async move {
                    if let Err(failure) = learn(&session).await {
                        debug!("the agent's commands are not exempt: {failure}");
                    }
                });
                // With everybody slow it would take long, and it goes on if the time is over.
                let _known = timeout(LEARNING, learning).await;
                Ok(())
            }
            _ => Ok(()),
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

/// Executes what takes no time.
fn execute(session: &mut Session, command: &Command, socket: &str) -> Result<Value, Failure> {
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
        Command::Dump { probe, by_cpu } => to_value(&session.probes_mut().dump(probe, *by_cpu)?),
        Command::Events { .. } => to_value(&session.probes_mut().kept_events()?),
        Command::Inject(spec) => {
            let came = session.inject((**spec).clone())?;
            info!("{}: at {}", came.name, spec.points.join(", "));
            to_value(&came)
        }
        Command::Rules => to_value(&session.outcomes()?),
        Command::Remove { name } => {
            session.remove(name.as_deref())?;
            info!("{} removed", name.as_deref().unwrap_or("all rules"));
            Ok(Value::Null)
        }
        Command::End { id } => {
            let name = session.remove_id(*id)?;
            info!("{name} removed");
            Ok(Value::Null)
        }
        Command::Reset => {
            session.reset()?;
            info!("all delays are off");
            Ok(Value::Null)
        }
        Command::Status => to_value(&session.status(socket)?),
        Command::Stop | Command::ProbeLoad { .. } | Command::ProbeUnload { .. } => Ok(Value::Null),
    }
}

pub(super) fn to_value(result: &impl serde::Serialize) -> Result<Value, Failure> {
    serde_json::to_value(result)
        .map_err(|error| Failure::new(FAILED, format!("failed to write the answer: {error}")))
}
