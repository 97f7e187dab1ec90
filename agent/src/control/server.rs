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
    places::{Place, Places},
    protocol::{Command, answer, parse_request},
    turns::Turns,
};
use crate::{
    failure::{FAILED, Failure, HOST, USAGE},
    rules::spec::Filters,
    session::Session,
};

/// A request is far shorter; who sends more is cut off.
const MAX_REQUEST: usize = 64 << 10;
/// Connections on which events are sent; they stay for as long as they like, and so have no place of the others.
const FOLLOWERS: usize = 64;

/// How long `set` waits until it is known who is exempt.
const LEARNING: Duration = Duration::from_secs(2);

/// The connection that asked the agent to stop: it is answered when all is detached.
pub type StopRequest = Option<UnixStream>;

/// The session, which is gone once the agent stops.
pub type Shared = Rc<RefCell<Option<Session>>>;

/// What every connection works on.
#[derive(Clone)]
pub struct Service {
    session: Shared,
    /// Path of the socket, as it is shown.
    socket: Rc<str>,
    /// Where a `stop` goes.
    stops: mpsc::Sender<StopRequest>,
    turns: Turns,
    places: Places,
    followers: Rc<Semaphore>,
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
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let Some(place) = service.places.take().await else {
                    return;
                };
                let service = service.clone();
                tokio::task::spawn_local(async move { service.connection(stream, place).await });
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
    /// Nobody is served yet.
    #[must_use]
    pub fn new(
        session: &Shared,
        socket: &str,
        stops: mpsc::Sender<StopRequest>,
        turns: &Turns,
    ) -> Self {
        Self {
            session: session.clone(),
            socket: socket.into(),
            stops,
            turns: turns.clone(),
            places: Places::default(),
            followers: Rc::new(Semaphore::new(FOLLOWERS)),
        }
    }

    async fn connection(&self, mut stream: UnixStream, place: Place) {
        // Root alone, also of an agent that another user runs: processes of that user lack the agent's capabilities,
        // which its commands would lend them.
        if !stream.peer_cred().is_ok_and(|peer| peer.uid() == 0) {
            let refusal = answer(Err(
                Failure::new(HOST, "only root may command the agent").hint("use sudo")
            ));
            let _gone = self.send(&mut stream, refusal).await;
            return;
        }
        let mut buffer = Vec::new();
        while let Some(Some(line)) = self.places.wait(next_line(&mut stream, &mut buffer)).await {
            let reply = match line.and_then(|line| parse_request(&line)) {
                Ok(Command::Stop) => {
                    let _closing = self.stops.send(Some(stream)).await;
                    return;
                }
                Ok(Command::Events { follow: true }) => return self.follow(stream, place).await,
                Ok(Command::Panic) => panic!("a client asked for a panic"),
                Ok(command) => answer(self.execute(&command).await),
                Err(failure) => answer(Err(failure)),
            };
            if !self.send(&mut stream, reply).await {
                debug!("a client left before its answer");
                return;
            }
        }
    }

    /// `false` if nobody takes it.
    async fn send(&self, stream: &mut UnixStream, reply: String) -> bool {
        let line = reply + "\n";
        let sent = self.places.wait(stream.write_all(line.as_bytes())).await;
        matches!(sent, Some(Ok(())))
    }

    async fn follow(&self, mut stream: UnixStream, place: Place) {
        let Ok(_one_of_them) = self.followers.try_acquire() else {
            let refusal = Failure::new(FAILED, format!("{FOLLOWERS} others follow the events"));
            self.send(&mut stream, answer(Err(refusal.hint("end one of them"))))
                .await;
            return;
        };
        drop(place);
        follow(stream, &self.session).await;
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
            Command::Inject(spec) => match self.turns.learn(&self.session).await {
                Err(failure) if spec.filters == Filters::default() => {
                    debug!("the agent's commands are not exempt: {failure}");
                    Ok(())
                }
                learnt => learnt,
            },
            Command::Set(rule) if rule.delay_ns > 0 => {
                let (turns, session) = (self.turns.clone(), self.session.clone());
                let learning = tokio::task::spawn_local(async move {
                    if let Err(failure) = turns.learn(&session).await {
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

/// The next line without its newline; none at the end, or after a line too long.
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
        match stream.read_buf(buffer).await {
            Ok(count) if count > 0 => {}
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
        // These take their time, and are carried out elsewhere.
        Command::Stop
        | Command::Panic
        | Command::ProbeLoad { .. }
        | Command::ProbeUnload { .. } => Ok(Value::Null),
    }
}

pub(super) fn to_value(result: &impl serde::Serialize) -> Result<Value, Failure> {
    serde_json::to_value(result)
        .map_err(|error| Failure::new(FAILED, format!("failed to write the answer: {error}")))
}
