//! Who is served at once. Connections wait for their clients most of the time; where all places are taken, whoever is
//! waited for longest has to make room, so that clients that say nothing keep nobody out.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    future::Future,
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use tokio::{
    sync::{Notify, OwnedSemaphorePermit, Semaphore},
    time::{Instant, sleep_until, timeout},
};

/// Connections served at once; more wait in the listener's queue.
const CONNECTIONS: usize = 64;
/// A client has so long for sending a line, and for taking an answer; then it is cut off.
const IDLE: Duration = Duration::from_secs(10);
/// As `IDLE` where others wait for a place. A command sends its line as soon as it is connected.
const IDLE_IN_A_CROWD: Duration = Duration::from_millis(100);

/// The place of a connection, which dropping it frees.
pub type Place = OwnedSemaphorePermit;

/// All places; clones share them.
#[derive(Clone)]
pub struct Places {
    free: Arc<Semaphore>,
    waiting: Rc<RefCell<BTreeMap<u64, Waiting>>>,
    next: Rc<Cell<u64>>,
}

/// A connection that waits for its client.
struct Waiting {
    since: Instant,
    leave: Rc<Notify>,
}

impl Default for Places {
    fn default() -> Self {
        Self {
            free: Arc::new(Semaphore::new(CONNECTIONS)),
            waiting: Rc::default(),
            next: Rc::default(),
        }
    }
}

impl Places {
    /// A place for a connection that is there. None if there will never be one.
    pub async fn take(&self) -> Option<Place> {
        loop {
            let place = self.free.clone().acquire_owned();
            let Some(oldest) = self.oldest() else {
                // All are served just now, and then either leave or are waited for.
                match timeout(IDLE_IN_A_CROWD, place).await {
                    Ok(place) => return place.ok(),
                    Err(_) => continue,
                }
            };
            tokio::select! {
                biased;
                place = place => return place.ok(),
                () = sleep_until(oldest + IDLE_IN_A_CROWD) => self.end_oldest().await,
            }
        }
    }

    /// Does what a client is waited for with; none if that takes too long.
    pub async fn wait<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        let number = self.next.get();
        self.next.set(number + 1);
        let leave = Rc::new(Notify::new());
        let waiting = Waiting {
            since: Instant::now(),
            leave: leave.clone(),
        };
        self.waiting.borrow_mut().insert(number, waiting);
        let done = tokio::select! {
            biased;
            () = leave.notified() => None,
            done = timeout(IDLE, work) => done.ok(),
        };
        self.waiting.borrow_mut().remove(&number);
        done
    }

    /// Since when the client is waited for that is so longest.
    fn oldest(&self) -> Option<Instant> {
        let waiting = self.waiting.borrow();
        waiting.first_key_value().map(|(_, waiting)| waiting.since)
    }

    /// Ends the wait for that client, if it is still so late, and gives its connection the time to leave.
    async fn end_oldest(&self) {
        let late = self
            .oldest()
            .is_some_and(|since| since.elapsed() >= IDLE_IN_A_CROWD);
        if late && let Some((_, waiting)) = self.waiting.borrow_mut().pop_first() {
            waiting.leave.notify_one();
        }
        tokio::task::yield_now().await;
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use super::*;

    /// With a clock that stands until all wait for it.
    fn run(test: impl Future<Output = ()>) {
        tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap()
            .block_on(tokio::task::LocalSet::new().run_until(test));
    }

    /// A connection whose client says nothing.
    async fn silent(places: &Places) {
        let place = places.take().await.unwrap();
        let places = places.clone();
        tokio::task::spawn_local(async move {
            assert!(places.wait(pending::<()>()).await.is_none());
            drop(place);
        });
        tokio::task::yield_now().await;
    }

    #[test]
    fn the_silent_make_room_for_a_crowd_one_by_one() {
        run(async {
            let places = Places::default();
            for _ in 0..CONNECTIONS {
                silent(&places).await;
            }
            let start = Instant::now();
            let place = places.take().await.unwrap();
            assert!(
                start.elapsed() < IDLE_IN_A_CROWD * 2,
                "{:?}",
                start.elapsed()
            );
            assert_eq!(places.waiting.borrow().len(), CONNECTIONS - 1);
            drop(place);
            // A thousand of them hold nobody up for longer than a command waits.
            for _ in 0..1000 {
                silent(&places).await;
            }
            assert!(places.take().await.is_some());
            assert!(
                start.elapsed() < Duration::from_secs(3),
                "{:?}",
                start.elapsed()
            );
        });
    }

    #[test]
    fn without_a_crowd_silence_is_borne_for_long() {
        run(async {
            let places = Places::default();
            let start = Instant::now();
            assert!(places.wait(pending::<()>()).await.is_none());
            assert!(start.elapsed() >= IDLE);
            assert!(places.waiting.borrow().is_empty());
        });
    }

    #[test]
    fn who_is_being_served_keeps_its_place() {
        run(async {
            let places = Places::default();
            let mut served = Vec::new();
            for _ in 0..CONNECTIONS {
                served.push(places.take().await.unwrap());
            }
            let more = timeout(Duration::from_secs(60), places.take()).await;
            assert!(more.is_err());
            served.pop();
            assert!(places.take().await.is_some());
        });
    }
}
