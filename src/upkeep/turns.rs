//! Bounds on how many requests read the whole store, or much of it, at a time.
//!
//! Such a request is cheap to make and expensive to answer. A few run, on threads of a low
//! priority; some wait; more than these are refused before they cost anything.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::Error;
use crate::limits::{
    DEFRAGS_WAITING_MAX, HASHES_RUNNING_MAX, HASHES_WAITING_MAX, PEER_HASHES_WAITING_MAX,
    USAGES_WAITING_MAX,
};

/// The turns for one kind of work.
pub struct Turns {
    running: Arc<Semaphore>,
    /// One permit for each request that runs or waits.
    present: Arc<Semaphore>,
}

/// A turn, which ends when it is dropped.
pub struct Turn {
    _running: OwnedSemaphorePermit,
    _present: OwnedSemaphorePermit,
}

impl Turns {
    pub fn new(running: usize, waiting: usize) -> Self {
        let present = Arc::new(Semaphore::new(running + waiting));
        Self { running: Arc::new(Semaphore::new(running)), present }
    }

    #[cfg(test)]
    pub(crate) fn free(&self) -> usize {
        self.running.available_permits()
    }

    /// The bounds as (running, running and waiting).
    #[cfg(test)]
    pub(crate) fn bound(&self) -> (usize, usize) {
        (self.running.available_permits(), self.present.available_permits())
    }

    /// Waits for a turn; fails with `TooManyRequests` at once if too many wait.
    pub async fn begin(&self) -> Result<Turn, Error> {
        let Ok(present) = Arc::clone(&self.present).try_acquire_owned() else {
            return Err(Error::TooManyRequests);
        };
        let running = Arc::clone(&self.running).acquire_owned().await;
        Ok(Turn { _running: running.map_err(|_| Error::Stopped)?, _present: present })
    }
}

/// The turns for passes over the whole store, by kind.
pub(crate) struct PassTurns {
    pub(crate) defrags: Turns,
    /// Hashes of history: for clients here, for peers and this member itself below. Clients must
    /// not be able to keep members from comparing their histories.
    pub(crate) hashes: Turns,
    pub(crate) peer_hashes: Turns,
    pub(crate) usages: Turns,
}

impl Default for PassTurns {
    fn default() -> Self {
        Self {
            defrags: Turns::new(1, DEFRAGS_WAITING_MAX),
            hashes: Turns::new(HASHES_RUNNING_MAX, HASHES_WAITING_MAX),
            peer_hashes: Turns::new(1, PEER_HASHES_WAITING_MAX),
            usages: Turns::new(1, USAGES_WAITING_MAX),
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
        assert!(matches!(turns.begin().await, Err(Error::TooManyRequests)));
        drop(first);
        assert!(waiting.await.unwrap());
        assert!(turns.begin().await.is_ok());
    }

    /// The bounds as (running, running and waiting).
    #[test]
    fn as_many_passes_run_and_wait_as_is_promised() {
        let passes = PassTurns::default();
        assert_eq!(passes.defrags.bound(), (1, 1 + 16));
        assert_eq!(passes.hashes.bound(), (1, 1 + 64));
        assert_eq!(passes.peer_hashes.bound(), (1, 1 + 16));
    }
}
