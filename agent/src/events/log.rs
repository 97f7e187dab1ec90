//! Events of a running agent: the last ones, and who follows.

use std::collections::VecDeque;

use tokio::sync::broadcast;

use crate::report::events::Event;

/// Events that are kept, and events by which a follower may be behind.
const KEPT: usize = 256;

/// Dropping it ends the connection to every follower.
pub struct EventLog {
    kept: VecDeque<Event>,
    followers: broadcast::Sender<Event>,
}

impl Default for EventLog {
    fn default() -> Self {
        Self {
            kept: VecDeque::new(),
            followers: broadcast::Sender::new(KEPT),
        }
    }
}

impl EventLog {
    pub fn push(&mut self, event: Event) {
        if self.kept.len() == KEPT {
            self.kept.pop_front();
        }
        self.kept.push_back(event.clone());
        // Nobody follows: that is fine.
        let _nobody = self.followers.send(event);
    }

    /// Oldest first.
    #[must_use]
    pub fn kept(&self) -> Vec<Event> {
        self.kept.iter().cloned().collect()
    }

    /// All that will come. How many may follow, the server says.
    #[must_use]
    pub fn follow(&self) -> broadcast::Receiver<Event> {
        self.followers.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn event(count: u64) -> Event {
        Event::Lost { count }
    }

    #[test]
    fn the_last_ones_are_kept_and_followers_get_each() {
        let mut log = EventLog::default();
        log.push(event(0));
        let mut follower = log.follow();
        for count in 1..=KEPT as u64 {
            log.push(event(count));
        }
        assert_eq!(log.kept().len(), KEPT);
        assert_eq!(log.kept()[0], event(1));
        for count in 1..=KEPT as u64 {
            assert_eq!(follower.try_recv(), Ok(event(count)));
        }
        assert!(follower.try_recv().is_err());
    }

    #[test]
    fn a_slow_follower_is_told_how_many_it_missed() {
        let mut log = EventLog::default();
        let mut slow = log.follow();
        for count in 0..KEPT as u64 + 3 {
            log.push(event(count));
        }
        assert_eq!(
            slow.try_recv(),
            Err(broadcast::error::TryRecvError::Lagged(3))
        );
    }
}
