//! A panic is a bug of ours, in a process on which everybody's I/O depends: it ends the agent, and everything is
//! detached, rather than go on without the task that panicked. The event loop alone would only lose that task, and
//! with it the lease or the events.

use std::{
    panic,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use tokio::sync::mpsc;

use crate::{
    control::server::StopRequest,
    failure::{FAILED, Failure},
};

/// Whether any thread panicked.
#[derive(Clone, Default)]
pub struct Panics(Arc<AtomicBool>);

impl Panics {
    /// From now on a panic ends the lease, as to stop takes its time, and asks the agent to stop, once it was printed as ever.
    #[must_use]
    pub fn stop(
        stops: mpsc::Sender<StopRequest>,
        end_lease: impl Fn() + Send + Sync + 'static,
    ) -> Self {
        let seen = Self::default();
        let (told, before) = (seen.clone(), panic::take_hook());
        panic::set_hook(Box::new(move |what| {
            end_lease();
            before(what);
            told.0.store(true, Ordering::Release);
            // Without room a stop is on its way already.
            let _full = stops.try_send(None);
        }));
        seen
    }

    /// # Errors
    /// There was a panic.
    pub fn none(&self) -> Result<(), Failure> {
        if self.0.load(Ordering::Acquire) {
            let failure = Failure::new(FAILED, "the agent panicked, and everything is detached");
            return Err(failure.hint("this is a bug: please report what it printed"));
        }
        Ok(())
    }
}
