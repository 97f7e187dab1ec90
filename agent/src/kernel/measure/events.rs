//! The ring buffer through which a probe sends events.

use std::os::fd::{AsFd as _, OwnedFd};

use agent_common::oom::OomKill;
use anyhow::Context as _;
use aya::maps::{MapData, RingBuf};

/// Dropping it leaves the ring to the programs that write into it.
pub struct EventRing(RingBuf<MapData>);

impl EventRing {
    pub(super) const fn new(ring: RingBuf<MapData>) -> Self {
        Self(ring)
    }

    /// A descriptor of its own, that becomes readable when there are events.
    ///
    /// # Errors
    /// No descriptor is left.
    pub fn descriptor(&self) -> anyhow::Result<OwnedFd> {
        let descriptor = self.0.as_fd().try_clone_to_owned();
        descriptor.context("failed to duplicate the descriptor of EVENTS")
    }

    /// All that has come, oldest first.
    pub fn drain(&mut self) -> Vec<OomKill> {
        let mut all = Vec::new();
        while let Some(item) = self.0.next() {
            if item.len() < size_of::<OomKill>() {
                log::debug!("an event of {} bytes is none of ours", item.len());
                continue;
            }
            // SAFETY: as many bytes as the type has, which is integers only: any bytes are a value.
            all.push(unsafe { item.as_ptr().cast::<OomKill>().read_unaligned() });
        }
        all
    }
}
