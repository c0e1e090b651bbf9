//! How many may do at once what takes long, beside the passes over the whole store.

use std::sync::Arc;

use tokio::sync::Semaphore;

use crate::limits::{
    CATCH_UPS_RUNNING_MAX, COUNTS_RUNNING_MAX, COUNTS_WAITING_MAX, MEASURES_RUNNING_MAX,
    MEASURES_WAITING_MAX,
};
use crate::supervise::Processors;
use crate::upkeep::Turns;

pub(super) struct Admission {
    /// Counts that take long.
    pub counts: Turns,
    /// Writes of which it takes some time to tell how long their answers would be.
    pub measures: Turns,
    /// Watch streams that read history; as many wait as there are streams.
    pub catch_ups: Arc<Semaphore>,
    /// Shared by long ranges, long transactions and long counts.
    pub processors: Arc<Processors>,
}

impl Default for Admission {
    fn default() -> Self {
        Self {
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

    /// Running and present at most.
    #[test]
    fn as_many_run_and_wait_as_is_promised() {
        let admission = Admission::default();
        assert_eq!(admission.counts.bound(), (4, 4 + 4096));
        assert_eq!(admission.measures.bound(), (4, 4 + 4096));
        assert_eq!(admission.catch_ups.available_permits(), 2);
    }
}
