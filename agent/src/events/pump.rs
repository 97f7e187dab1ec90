//! The agent's task that takes events from the kernel as they come.

use std::rc::Rc;

use log::warn;
use tokio::sync::Notify;

use super::ready::Ready;
use crate::{control::server::Shared, failure::Failure};

/// Runs for as long as it is polled; `changed` says that a probe was loaded or unloaded.
pub async fn pump(session: Shared, changed: Rc<Notify>) {
    let mut ring = None;
    loop {
        let waited = tokio::select! {
            () = changed.notified() => {
                ring = current(&session);
                Ok(())
            }
            waited = readable(ring.as_ref()) => waited,
        };
        let drained = waited.and_then(|()| match session.borrow_mut().as_mut() {
            Some(session) => session.probes_mut().drain_events(),
            None => Ok(()),
        });
        if let Err(failure) = drained {
            warn!("no events from now on: {failure}");
            ring = None;
        }
    }
}

/// The ring of the probe that is loaded now, if any.
fn current(session: &Shared) -> Option<Ready> {
    let session = session.borrow();
    let ring = session.as_ref()?.probes().events_descriptor()?;
    ring.and_then(Ready::new)
        .inspect_err(|failure: &Failure| warn!("{failure}"))
        .ok()
}

/// Without a ring for ever.
async fn readable(ring: Option<&Ready>) -> Result<(), Failure> {
    match ring {
        Some(ring) => ring.wait().await,
        None => std::future::pending().await,
    }
}
