//! How many may do at once what reads the whole store.
//!
//! Each such request is cheap to ask for and dear to answer. So few run, on threads that give way to
//! all others; some wait; whoever comes on top of that is refused before it costs anything.

use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

use super::Error;
use crate::limits::{
    CATCH_UPS_RUNNING_MAX, COUNTS_RUNNING_MAX, COUNTS_WAITING_MAX, DEFRAGS_WAITING_MAX,
    HASHES_RUNNING_MAX, HASHES_WAITING_MAX, MEASURES_RUNNING_MAX, MEASURES_WAITING_MAX,
    PEER_HASHES_WAITING_MAX, SNAPSHOT_FAIR_WAIT, SNAPSHOTS_MAX, USAGES_WAITING_MAX,
};
use crate::mvcc::Processors;

/// Turns at one kind of work.
pub(super) struct Turns {
    running: Arc<Semaphore>,
    /// Running and waiting.
    present: Arc<Semaphore>,
}

/// Somebody's turn; the next one's begins when it is dropped.
pub(super) struct Turn {
    _running: OwnedSemaphorePermit,
    _present: OwnedSemaphorePermit,
}

impl Turns {
    fn new(running: usize, waiting: usize) -> Self {
        let present = Arc::new(Semaphore::new(running + waiting));
        Self { running: Arc::new(Semaphore::new(running)), present }
    }

    #[cfg(test)]
    pub(super) fn free(&self) -> usize {
        self.running.available_permits()
    }

    /// Waits for a turn, if there is room to wait.
    pub(super) async fn begin(&self) -> Result<Turn, Error> {
        let Ok(present) = Arc::clone(&self.present).try_acquire_owned() else {
            return Err(Error::TooManyRequests);
        };
        let running = Arc::clone(&self.running).acquire_owned().await;
        Ok(Turn { _running: running.map_err(|_| Error::Stopped)?, _present: present })
    }
}

pub(super) struct Admission {
    pub defrags: Turns,
    /// Hashes of history for clients, and for peers and this member itself: clients must not keep the
    /// members from comparing theirs.
    pub hashes: Turns,
    pub peer_hashes: Turns,
    pub usages: Turns,
    /// Counts that take long.
    pub counts: Turns,
    /// Writes of which it takes some time to tell how long their answers would be.
    pub measures: Turns,
    /// Watch streams that read history; as many wait as there are streams.
    pub catch_ups: Arc<Semaphore>,
    pub snapshots: Seats,
    /// Of reads that take long, whatever they have a turn for.
    pub processors: Arc<Processors>,
}

impl Default for Admission {
    fn default() -> Self {
        Self {
            defrags: Turns::new(1, DEFRAGS_WAITING_MAX),
            hashes: Turns::new(HASHES_RUNNING_MAX, HASHES_WAITING_MAX),
            peer_hashes: Turns::new(1, PEER_HASHES_WAITING_MAX),
            usages: Turns::new(1, USAGES_WAITING_MAX),
            counts: Turns::new(COUNTS_RUNNING_MAX, COUNTS_WAITING_MAX),
            measures: Turns::new(MEASURES_RUNNING_MAX, MEASURES_WAITING_MAX),
            catch_ups: Arc::new(Semaphore::new(CATCH_UPS_RUNNING_MAX)),
            snapshots: Seats::default(),
            processors: Arc::default(),
        }
    }
}

/// Snapshots on their way to clients. They last as long as their readers take, so nobody waits for a
/// seat: one whose reader has taken nothing for a while is given to who comes when all are taken.
#[derive(Default)]
pub(super) struct Seats(Mutex<Vec<Weak<Seat>>>);

pub(super) struct Seat {
    /// Since when its reader is waited for.
    waits_since: Mutex<Option<Duration>>,
    /// Rings when somebody else gets the seat.
    given_away: Notify,
}

impl Seats {
    #[cfg(test)]
    pub(super) fn taken(&self) -> usize {
        self.0.lock().iter().filter(|seat| seat.strong_count() > 0).count()
    }

    pub(super) fn take(&self, now: Duration) -> Result<Arc<Seat>, Error> {
        let mut seats = self.0.lock();
        seats.retain(|seat| seat.strong_count() > 0);
        if seats.len() >= SNAPSHOTS_MAX {
            let waits = |seat: &Weak<Seat>| *seat.upgrade()?.waits_since.lock();
            let slowest = (0..seats.len()).filter_map(|at| Some((waits(&seats[at])?, at))).min();
            let Some((_, at)) = slowest.filter(|(since, _)| *since + SNAPSHOT_FAIR_WAIT <= now)
            else {
                return Err(Error::TooManyRequests);
            };
            if let Some(seat) = seats.swap_remove(at).upgrade() {
                seat.given_away.notify_one();
            }
        }
        let seat = Arc::new(Seat { waits_since: Mutex::default(), given_away: Notify::new() });
        seats.push(Arc::downgrade(&seat));
        Ok(seat)
    }
}

impl Seat {
    /// Ends when the seat is given away.
    pub(super) async fn given_away(&self) {
        self.given_away.notified().await;
    }

    /// Its reader is waited for from now on, or has taken something.
    pub(super) fn waits_since(&self, since: Option<Duration>) {
        *self.waits_since.lock() = since;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn turns_are_taken_one_by_one_and_those_on_top_are_refused() {
        let turns = Arc::new(Turns::new(1, 1));
        let first = turns.begin().await.ok().unwrap();
        let waiting = Arc::clone(&turns);
        let waiting = tokio::spawn(async move { waiting.begin().await.is_ok() });
        while turns.present.available_permits() > 0 {
            tokio::task::yield_now().await;
        }
        assert_eq!(turns.begin().await.err(), Some(Error::TooManyRequests));
        drop(first);
        assert!(waiting.await.unwrap());
        assert!(turns.begin().await.is_ok());
    }

    #[tokio::test]
    async fn the_seat_of_a_reader_that_stands_still_is_given_away() {
        let (seats, second) = (Seats::default(), Duration::from_secs(1));
        let taken: Vec<_> = (0..SNAPSHOTS_MAX).map(|_| seats.take(second).unwrap()).collect();
        assert_eq!(seats.take(100 * second).err(), Some(Error::TooManyRequests));
        taken[3].waits_since(Some(10 * second));
        taken[5].waits_since(Some(9 * second));
        assert_eq!(seats.take(10 * second).err(), Some(Error::TooManyRequests));
        let _new = seats.take(9 * second + SNAPSHOT_FAIR_WAIT).unwrap();
        taken[5].given_away().await;
        drop(taken);
        assert!(seats.take(second).is_ok());
    }

    /// Running and present at most.
    #[test]
    fn as_many_run_and_wait_as_is_promised() {
        let admission = Admission::default();
        let bound =
            |turns: &Turns| (turns.running.available_permits(), turns.present.available_permits());
        assert_eq!(bound(&admission.defrags), (1, 1 + 16));
        assert_eq!(bound(&admission.hashes), (1, 1 + 64));
        assert_eq!(bound(&admission.peer_hashes), (1, 1 + 16));
        assert_eq!(bound(&admission.counts), (4, 4 + 4096));
        assert_eq!(bound(&admission.measures), (4, 4 + 4096));
        assert_eq!(admission.catch_ups.available_permits(), 2);
        let taken: Vec<_> = (0..8).map(|_| admission.snapshots.take(Duration::ZERO)).collect();
        assert!(taken.iter().all(Result::is_ok));
        assert!(admission.snapshots.take(Duration::ZERO).is_err());
    }
}
