//! Hashes of a member's history, by which members and clients compare members.

use std::sync::Arc;

use super::turns::Turns;
use super::{Error, Upkeep, UpkeepContext};
use crate::clock::Clock;
use crate::limits::HASH_SWEEP_WAIT;
use crate::metrics::{self, Histogram};
use crate::mvcc::{self, CallerGuard, KeyValueHash, Mvcc, ReadCheck};
use crate::supervise::Gone;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HashKv {
    pub hash: u32,
    pub compact_revision: i64,
    pub hash_revision: i64,
    pub current_revision: i64,
}

impl HashKv {
    pub(super) fn new(hash: KeyValueHash, current_revision: i64) -> Self {
        let KeyValueHash { hash, compact_revision, revision } = hash;
        Self { hash, compact_revision, hash_revision: revision, current_revision }
    }
}

/// Does work and notes how long it took.
fn timed<T>(clock: &dyn Clock, seconds: &Histogram, work: impl FnOnce() -> T) -> T {
    let begun = clock.now();
    let done = work();
    seconds.observe(clock.now().saturating_sub(begun).as_secs_f64());
    done
}

impl Upkeep {
    /// The hash of this member's history at `revision` (0: the current one), for its peers.
    pub async fn history_hash(&self, revision: i64) -> Result<HashKv, Error> {
        self.hash_in_turn(&self.passes.peer_hashes, revision).await
    }

    /// As [`Upkeep::history_hash`], with the turns of clients.
    pub async fn hash_kv(&self, revision: i64) -> Result<HashKv, Error> {
        self.hash_in_turn(&self.passes.hashes, revision).await
    }

    /// The checksum of the whole backend, for clients.
    pub async fn hash_all(&self) -> Result<u32, Error> {
        let clock = Arc::clone(&self.context.clock);
        let hash = move |mvcc: &Mvcc, wanted: &ReadCheck| {
            timed(&*clock, metrics::hash_seconds(), || mvcc.hash_all(wanted))
        };
        self.read_all(&self.passes.hashes, hash).await
    }

    /// A hash that a compaction has computed is kept and returned at once; any other takes a pass
    /// over all of history, and a turn.
    async fn hash_in_turn(&self, turns: &Turns, revision: i64) -> Result<HashKv, Error> {
        self.fence()?;
        self.sweep_ends(revision).await;
        let (hash, current) = match self.context.mvcc.stored_hash(revision) {
            Some(stored) => stored,
            None => {
                let clock = Arc::clone(&self.context.clock);
                let hash = move |mvcc: &Mvcc, wanted: &ReadCheck| {
                    let hash = || mvcc.hash_by_revision(revision, wanted);
                    timed(&*clock, metrics::hash_rev_seconds(), hash)
                };
                self.read_all(turns, hash).await?
            }
        };
        Ok(HashKv::new(hash, current))
    }

    /// Waits up to `HASH_SWEEP_WAIT` for the sweep of the compaction at `revision`, if it is under way.
    /// The sweep finds the hash from before its deletions, which members that are done already answer.
    /// A stepped member does not wait: its sweep goes on only after this call.
    async fn sweep_ends(&self, revision: i64) {
        let UpkeepContext { mvcc, is_stepped, .. } = &self.context;
        let is_under_way = || {
            mvcc.is_sweeping()
                && mvcc.current().compact_revision == revision
                && mvcc.stored_hash(revision).is_none()
        };
        if !is_stepped {
            self.ends_within(HASH_SWEEP_WAIT, is_under_way).await;
        }
    }

    /// Runs a read of the whole store on a thread of niceness 10, after it got a turn.
    async fn read_all<T: Send + 'static>(
        &self,
        turns: &Turns,
        f: impl FnOnce(&Mvcc, &ReadCheck) -> Result<T, mvcc::Error> + Send + 'static,
    ) -> Result<T, Error> {
        self.fence()?;
        let mvcc = Arc::clone(&self.context.mvcc);
        let waiting = CallerGuard::default();
        let wanted = waiting.read_check();
        if self.context.is_stepped {
            let read = self.context.supervisor.inline("read", move || f(&mvcc, &wanted)).await;
            return Ok(read.map_err(|Gone| Error::Stopped)??);
        }
        let turn = turns.begin().await?;
        let work = move || {
            let _turn = turn;
            Ok(f(&mvcc, &wanted)?)
        };
        self.on_nice_thread("read-all", work).await
    }
}
