//! The turns of the raft loop and of the log writer in a stepped member, which has no threads.

use std::sync::Arc;

use parking_lot::Mutex;
use raft::eraftpb::ConfState;

use super::Error;
use super::log_writer::LogThread;
use super::raft_loop::RaftThread;

/// Runs the raft loop and the log writer, turn by turn.
pub struct RaftSteps {
    pub(super) raft: Arc<Mutex<RaftThread>>,
    pub(super) log: LogThread,
}

impl RaftSteps {
    /// Runs one turn of the raft loop with all that waits for it.
    pub fn raft(&self) -> Result<(), Error> {
        self.raft.lock().run_once(false).map(|_| ())
    }

    /// Writes and syncs what waits for the log writer. Returns false if nothing waited, or if the
    /// log had no room for it.
    pub fn log(&self) -> Result<bool, Error> {
        let waited = self.log.without_room.lock().len();
        let came = self.log.jobs.take(false).unwrap_or_default();
        let work = waited + came.len();
        self.log.carry_out(came)?;
        Ok(self.log.without_room.lock().len() < work)
    }

    pub fn raft_has_work(&self) -> bool {
        let raft = self.raft.lock();
        let wants_apply_reports = raft.core.wants_apply_reports();
        raft.surroundings.clock.now() >= raft.next_tick
            || raft.shared.inbox.has_work(wants_apply_reports)
    }

    /// How much waits for the loop, a leader, the log writer and apply, by kind.
    pub fn waiting(&self) -> Vec<(&'static str, usize)> {
        let jobs = self.log.without_room.lock().len() + self.log.jobs.len();
        let raft = self.raft.lock();
        let own = [("reads of the leader", raft.reads_waiting), ("jobs of the log", jobs)];
        raft.shared.inbox.waiting().into_iter().chain(own).chain(raft.core.waiting()).collect()
    }

    /// Raft's configuration, and the index of the last snapshot that raft has taken in, or 0: until
    /// apply has reached that index, the configuration is ahead of it.
    pub fn conf_state(&self) -> (ConfState, u64) {
        let raft = self.raft.lock();
        (raft.core.conf_state(), raft.core.restored())
    }

    pub fn log_has_work(&self) -> bool {
        self.log.jobs.has_work() || !self.log.without_room.lock().is_empty()
    }
}
