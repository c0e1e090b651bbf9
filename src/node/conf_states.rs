//! The configuration at each index: a commit of the store at an older index needs the one of that
//! index.

use parking_lot::Mutex;

use crate::raft::ConfState;

/// Configurations with the index from which each holds, oldest first.
pub(super) struct ConfStates(Mutex<Vec<(u64, ConfState)>>);

impl ConfStates {
    pub(super) fn new(index: u64, state: ConfState) -> Self {
        Self(Mutex::new(vec![(index, state)]))
    }

    /// Adds the configuration that holds from `index` on. Called on the apply thread, in log order.
    pub(super) fn push(&self, index: u64, state: ConfState) {
        self.0.lock().push((index, state));
    }

    /// The configuration at `index`. Forgets older ones, since durable indexes only rise.
    pub(super) fn at(&self, index: u64) -> ConfState {
        let mut states = self.0.lock();
        let newer = states.iter().position(|(from, _)| *from > index).unwrap_or(states.len());
        states.drain(..newer.saturating_sub(1));
        states.first().map(|(_, state)| state.clone()).unwrap_or_default()
    }
}
