//! Bounds on how much long work runs at once, beside the passes over the whole store (`upkeep`).

use std::sync::Arc;

use tokio::sync::Semaphore;

use super::unclaimed::Unclaimed;
use crate::limits::{
    ANSWER_PIECES_READ_MAX, CATCH_UPS_RUNNING_MAX, COUNTS_RUNNING_MAX, COUNTS_WAITING_MAX,
    MEASURES_RUNNING_MAX, MEASURES_WAITING_MAX,
};
use crate::supervise::ReadTurns;
use crate::upkeep::Turns;

pub(super) struct LongWork {
    /// Turns for counts that may visit many keys.
    pub counts: Turns,
    /// Turns for measuring how long the answers of writes would be.
    pub measures: Turns,
    /// Turns for watch streams that read history. Waiting is not bounded here: at most each stream
    /// waits.
    pub catch_ups: Arc<Semaphore>,
    /// As `catch_ups`, for previous pairs of more than `WATCH_PREVIOUS_BYTES`.
    pub long_previous: Arc<Semaphore>,
    /// What was read in these turns.
    pub caught_up: Arc<Unclaimed>,
    /// Turns for pieces of long answers. Waiting is not bounded here: at most each answer waits, for
    /// work that waits for no client.
    pub pieces: Arc<Semaphore>,
    /// Shared among long ranges, transactions and counts, which compute in slices.
    pub read_turns: Arc<ReadTurns>,
}

impl Default for LongWork {
    fn default() -> Self {
        Self {
            counts: Turns::new(COUNTS_RUNNING_MAX, COUNTS_WAITING_MAX),
            measures: Turns::new(MEASURES_RUNNING_MAX, MEASURES_WAITING_MAX),
            catch_ups: Arc::new(Semaphore::new(CATCH_UPS_RUNNING_MAX)),
            long_previous: Arc::new(Semaphore::new(1)),
            caught_up: Arc::default(),
            pieces: Arc::new(Semaphore::new(ANSWER_PIECES_READ_MAX)),
            read_turns: Arc::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The bounds as (running, running and waiting).
    #[test]
    fn as_many_run_and_wait_as_is_promised() {
        let long_work = LongWork::default();
        assert_eq!(long_work.counts.bound(), (4, 4 + 4096));
        assert_eq!(long_work.measures.bound(), (4, 4 + 4096));
        assert_eq!(long_work.catch_ups.available_permits(), 2);
        assert_eq!(long_work.pieces.available_permits(), 4);
    }
}
