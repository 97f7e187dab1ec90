//! Waiting until a ring buffer has something.

use std::os::fd::OwnedFd;

use tokio::io::{Interest, unix::AsyncFd};

use crate::failure::{FAILED, Failure};

pub struct Ready(AsyncFd<OwnedFd>);

impl Ready {
    /// Within a runtime.
    ///
    /// # Errors
    /// The descriptor cannot be polled.
    pub fn new(ring: OwnedFd) -> Result<Self, Failure> {
        // SAFETY: the `AsyncFd` owns the descriptor, which stays open and the same for as long as it lives.
        let ring = unsafe { AsyncFd::register_with_interest(ring, Interest::READABLE) };
        Ok(Self(ring.map_err(|error| failed(&error))?))
    }

    /// Returns when there may be something. Take all there is then: this may not return again for it.
    ///
    /// # Errors
    /// The runtime ends.
    pub async fn wait(&self) -> Result<(), Failure> {
        let ready = self.0.ready(Interest::READABLE).await;
        // Before what is there is taken: what comes meanwhile makes it ready again.
        ready.map_err(|error| failed(&error))?.clear_ready();
        Ok(())
    }
}

fn failed(error: &impl std::fmt::Display) -> Failure {
    Failure::new(FAILED, format!("failed to wait for events: {error}"))
}
