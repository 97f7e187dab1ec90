//! The agent process: claims its socket, loads, serves, renews the lease, detaches.

mod detach;
mod panics;

use std::{cell::RefCell, path::Path, rc::Rc};

pub use detach::detach;
use log::{info, warn};
use panics::Panics;
use tokio::{
    io::{AsyncWriteExt as _, Interest, unix::AsyncFd},
    signal::unix::{SignalKind, signal},
    sync::mpsc,
    time::{MissedTickBehavior, interval},
};

use crate::{
    control::{
        protocol::answer,
        server::{self, Service, Shared, StopRequest},
        socket::Claim,
        turns::Turns,
    },
    events::pump::pump,
    failure::{FAILED, Failure},
    host::Facts,
    kernel::{KernelLog, PromptEnd},
    plan::Choice,
    privileges,
    probes::Wanted,
    session::{RENEWAL, Session},
};

/// Runs the agent until a signal or `iolag stop`. `ready` is called once it serves.
///
/// # Errors
/// The socket cannot be had, or this host cannot; nothing stays attached.
pub fn run(
    choice: Choice,
    wanted: Wanted,
    socket: &Path,
    ready: impl FnOnce(),
) -> Result<(), Failure> {
    let facts = Facts::read(Path::new("/"));
    // Who may not is told so before anything else goes wrong for it.
    crate::plan::plan(choice, &facts)?;
    // Opened first: the kernel closes the files of a dead process last to first, and neither links nor the
    // socket's lock should wait for this one.
    let prompt_end = PromptEnd::attach();
    let mut claim = Claim::new(socket)?;
    // Threads that load probes take some 70 MB for a moment. Each of them with an arena of its own, the allocator keeps parts
    // of all: an agent that had loaded 200 probes had twice what it had at its start, and with one arena has the same.
    // SAFETY: no preconditions.
    unsafe { libc::mallopt(libc::M_ARENA_MAX, 1) };
    // Where all programs get huge pages, the kernel would in time make 25 MB of what takes 14. A kernel that refuses does so
    // without harm.
    // SAFETY: no memory is given.
    unsafe { libc::prctl(libc::PR_SET_THP_DISABLE, 1, 0, 0, 0) };
    // Before there are threads, which have the privileges of who starts them.
    privileges::give_up(socket);
    // Threads of ours read the kernel's types while others of its mechanisms are waited for.
    let wanted = wanted.prepare(&facts);
    let (mut session, log) = Session::start(choice, &facts)?;
    session.load_probes(wanted)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| {
            Failure::new(FAILED, format!("failed to start the event loop: {error}"))
        })?;
    let session: Shared = Rc::new(RefCell::new(Some(session)));
    let turns = Turns::default();
    let (stop, panics) = runtime.block_on(async {
        let listener = claim.listen()?;
        let tasks = tokio::task::LocalSet::new();
        tasks
            .run_until(serve(listener, socket, &session, &turns, log, ready))
            .await
    })?;
    // Delays off, then detach, then free the path, then say so: detaching waits for CPUs that must not
    // begin another wait meanwhile.
    if let Some(mut session) = session.borrow_mut().take()
        && let Err(failure) = session.reset()
    {
        warn!("failed to switch the delays off before detaching: {failure}");
    }
    runtime.block_on(turns.idle());
    drop(prompt_end);
    drop(claim);
    info!("all is detached");
    runtime.block_on(async {
        if let Some(mut client) = stop {
            let done = format!("{}\n", answer(Ok(serde_json::Value::Null)));
            let _gone = client.write_all(done.as_bytes()).await;
        }
    });
    panics.none()
}

async fn serve(
    listener: tokio::net::UnixListener,
    socket: &Path,
    session: &Shared,
    turns: &Turns,
    log: Option<KernelLog>,
    ready: impl FnOnce(),
) -> Result<(StopRequest, Panics), Failure> {
    let (stops, mut stopped) = mpsc::channel(1);
    let end_lease = session.borrow().as_ref().map(Session::end_of_lease);
    let end_lease = end_lease.transpose()?;
    let panics = Panics::stop(stops.clone(), move || {
        if let Some(end) = &end_lease {
            end();
        }
    });
    for kind in [
        SignalKind::interrupt(),
        SignalKind::terminate(),
        SignalKind::hangup(),
    ] {
        let mut signals = signal(kind)
            .map_err(|error| Failure::new(FAILED, format!("failed to handle signals: {error}")))?;
        let stops = stops.clone();
        tokio::task::spawn_local(async move {
            signals.recv().await;
            let _closing = stops.send(None).await;
        });
    }
    if let Some(log) = log {
        tokio::task::spawn_local(follow(log));
    }
    tokio::task::spawn_local(renew(session.clone()));
    tokio::task::spawn_local(end_with_directories(session.clone()));
    let changed = session.borrow().as_ref().map(|s| s.probes().changed());
    if let Some(changed) = changed {
        tokio::task::spawn_local(pump(session.clone(), changed));
    }
    let service = Service::new(session, &socket.display().to_string(), stops, turns);
    tokio::task::spawn_local(server::serve(listener, service));
    info!("serving at {}", socket.display());
    ready();
    Ok((stopped.recv().await.flatten(), panics))
}

/// Renews the lease for as long as the agent lives and its event loop turns.
async fn renew(session: Shared) {
    let mut ticks = interval(RENEWAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let Some(Err(failure)) = session.borrow_mut().as_mut().map(Session::renew) else {
            continue;
        };
        warn!("failed to renew the lease, delays will end: {failure}");
    }
}

/// Ends rules whose directories go.
async fn end_with_directories(session: Shared) {
    let ready = session.borrow().as_ref().map(Session::directories_ready);
    let ready = match ready {
        Some(Ok(Some(ready))) => ready,
        Some(Err(failure)) => return warn!("{failure}"),
        _ => return,
    };
    while ready.wait().await.is_ok() {
        let ended = session
            .borrow_mut()
            .as_mut()
            .map(Session::end_with_directories);
        if let Some(Err(failure)) = ended {
            warn!("failed to end a rule whose directory has gone: {failure}");
        }
    }
}

/// Passes on what the programs log.
async fn follow(log: KernelLog) {
    // SAFETY: the log owns its descriptor, which stays the same and open for as long as the log lives,
    // and the `AsyncFd` owns the log.
    let log = unsafe { AsyncFd::register_with_interest(log, Interest::READABLE) };
    let mut log = match log {
        Ok(log) => log,
        Err(error) => return warn!("failed to follow the kernel side's log: {error}"),
    };
    while let Ok(mut guard) = log.readable_mut().await {
        guard.get_inner_mut().flush();
        guard.clear_ready();
    }
}
