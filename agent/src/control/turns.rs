//! What takes long is done in threads: probes are loaded and unloaded, one at a time, and beside that the kernel's types are
//! read, once for all who ask. That may take seconds, in which leases have to be renewed and others want answers.

use std::{
    sync::{Arc, mpsc},
    thread,
};

use tokio::sync::{Mutex, OwnedMutexGuard, oneshot};

use super::server::{Shared, with};
use crate::{
    failure::{FAILED, Failure},
    kernel::Fields,
    probes::Asked,
    report::probes::Row,
};

/// Whose turn it is; clones share it.
#[derive(Clone, Default)]
pub struct Turns {
    probes: Arc<Mutex<()>>,
    learning: Arc<Mutex<()>>,
}

impl Turns {
    async fn next(&self) -> OwnedMutexGuard<()> {
        self.probes.clone().lock_owned().await
    }

    /// Waits until nothing is being loaded or unloaded.
    pub async fn idle(&self) {
        drop(self.next().await);
    }

    /// Loads a probe when it is its turn.
    ///
    /// # Errors
    /// It is unknown or loaded otherwise; this kernel cannot run it; the agent is stopping.
    pub async fn load(
        &self,
        session: &Shared,
        probe: &str,
        by: &[String],
        backend: &str,
    ) -> Result<Row, Failure> {
        let turn = self.next().await;
        let loading = match with(session, |session| session.probes().ask(probe, by, backend))? {
            Asked::Loaded(row) => return Ok(row),
            Asked::ToLoad(loading) => loading,
        };
        // The turn comes back behind the probe: where nobody takes them any more, it ends when that is unloaded.
        let (measurement, _turn) = in_thread(move || (loading.run(), turn)).await?;
        let measurement = measurement?;
        with(session, |session| session.add_probe(measurement))
    }

    /// Unloads a probe when it is its turn.
    ///
    /// # Errors
    /// It is unknown, or not loaded; the agent is stopping.
    pub async fn unload(&self, session: &Shared, probe: &str) -> Result<(), Failure> {
        let turn = self.next().await;
        // The thread first: where there can be none, the probe stays.
        let (give, taken) = mpsc::channel();
        let unloading = start(move || {
            drop(taken.recv());
            drop(turn);
        })?;
        let measurement = with(session, |session| session.take_probe(probe))?;
        // The thread waits for nothing else.
        let _taken = give.send(measurement);
        drop(give);
        ended(unloading).await
    }

    /// Reads what rules with filters need to know of the kernel, if that was not read yet, and tells the session. One reads
    /// at a time, some tens of MB, and who comes meanwhile waits for that.
    ///
    /// # Errors
    /// This kernel does not tell; the agent is stopping.
    pub async fn learn(&self, session: &Shared) -> Result<(), Failure> {
        let turn = self.learning.clone().lock_owned().await;
        let Some(facts) = with(session, |session| Ok(session.to_learn()))? else {
            return Ok(());
        };
        let (fields, _turn) = in_thread(move || (Fields::read(&facts), turn)).await?;
        let fields = fields?;
        with(session, |session| session.know(fields))
    }
}

/// Does work in a thread, carried out to its end also if nobody waits for it any more.
///
/// # Errors
/// There can be no more threads.
async fn in_thread<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Failure> {
    ended(start(work)?).await
}

/// Not by `spawn_blocking`, which panics where the kernel refuses a thread.
fn start<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<oneshot::Receiver<T>, Failure> {
    let (sender, result) = oneshot::channel();
    let refused = |error| {
        Failure::new(FAILED, format!("failed to start a thread: {error}"))
            .hint("see pids.max of the agent's cgroup, and ulimit -u")
    };
    let work = move || {
        drop(sender.send(work()));
    };
    thread::Builder::new()
        .spawn(work)
        .map(|_| result)
        .map_err(refused)
}

async fn ended<T>(result: oneshot::Receiver<T>) -> Result<T, Failure> {
    let panicked = |_| Failure::new(FAILED, "failed to change the probes: the thread panicked");
    result.await.map_err(panicked)
}
