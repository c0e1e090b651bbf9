//! How many may do at once what reads the whole store.
//!
//! Each such request is cheap to ask for and dear to answer. So few run, on threads that give way to
//! all others; some wait; whoever comes on top of that is refused before it costs anything.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::Error;
use crate::limits::{
    CATCH_UPS_RUNNING_MAX, COUNTS_RUNNING_MAX, COUNTS_WAITING_MAX, DEFRAGS_WAITING_MAX,
    HASHES_RUNNING_MAX, HASHES_WAITING_MAX, MEASURES_RUNNING_MAX, MEASURES_WAITING_MAX,
    PEER_HASHES_WAITING_MAX, USAGES_WAITING_MAX,
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
            processors: Arc::default(),
        }
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
    }
}
