//! Waiters: proposers for the reply to their entry, readers for an applied index.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::Error;
use crate::apply::{self, Reply};
use crate::planted::{self, Bug};
use crate::upkeep::SweepWaiters;

/// The number of locks over which waiters are spread, so that proposers and the apply thread seldom
/// wait for each other.
const SHARDS: usize = 16;
/// Below this many readers, those that have given up are not searched for.
const INDEX_WAITERS_LOOK: usize = 1024;

type Waiter = oneshot::Sender<Result<Reply, Error>>;

struct Wait {
    waiter: Waiter,
    /// Whether the entry is applied and only its sweep is awaited, which has no time limit but the
    /// caller's.
    is_applied: bool,
}

/// Proposers by request id. Bounded by raft's inbox and the proposals under way.
#[derive(Default)]
pub(super) struct Waits {
    shards: [Mutex<HashMap<u64, Wait>>; SHARDS],
}

impl Waits {
    fn shard(&self, id: u64) -> &Mutex<HashMap<u64, Wait>> {
        // Ids count up, so their low bits spread them evenly.
        &self.shards[usize::try_from(id % SHARDS as u64).unwrap_or(0)]
    }

    /// Registers a waiter for the answer to `id`. Dropping `Forget` removes the waiter.
    pub(super) fn register(
        &self,
        id: u64,
    ) -> (oneshot::Receiver<Result<Reply, Error>>, Forget<'_>) {
        let (waiter, reply) = oneshot::channel();
        self.shard(id).lock().insert(id, Wait { waiter, is_applied: false });
        (reply, Forget { waits: self, id })
    }

    /// Takes the waiter of an entry that this member proposed and that is still awaited.
    pub(super) fn take(&self, id: u64) -> Option<Waiter> {
        self.shard(id).lock().remove(&id).map(|wait| wait.waiter)
    }

    /// Notes that the entry is applied and its answer comes later. False if nobody waits for it
    /// here.
    pub(super) fn applied(&self, id: u64) -> bool {
        let mut shard = self.shard(id).lock();
        let wait = shard.get_mut(&id);
        wait.map(|wait| wait.is_applied = true).is_some()
    }

    /// Whether a call on this member still waits for the answer. It may hang up right after.
    pub(super) fn is_awaited(&self, id: u64) -> bool {
        self.shard(id).lock().get(&id).is_some_and(|wait| !wait.waiter.is_closed())
    }

    pub(super) fn is_applied(&self, id: u64) -> bool {
        self.shard(id).lock().get(&id).is_some_and(|wait| wait.is_applied)
    }

    pub(super) fn answer(&self, id: u64, reply: Result<Reply, apply::Error>) {
        if let Some(waiter) = self.take(id) {
            // The proposer may have given up meanwhile.
            let _ = waiter.send(reply.map_err(Error::from));
        }
    }

    /// Tells the proposer that its proposal is in no log, so that it may propose again.
    pub(super) fn dropped(&self, id: u64) {
        if let Some(waiter) = self.take(id) {
            let _ = waiter.send(Err(Error::Dropped));
        }
    }

    /// The number of waiters.
    pub(super) fn count(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().len()).sum()
    }

    /// Drops all waiters because the member stops: each gets `Error::Stopped`.
    pub(super) fn stop(&self) {
        for shard in &self.shards {
            shard.lock().clear();
        }
    }
}

impl SweepWaiters for Waits {
    fn are_waiting(&self, id: u64) -> bool {
        self.is_applied(id)
    }

    fn answer(&self, id: u64, reply: Result<Reply, apply::Error>) {
        Self::answer(self, id, reply);
    }
}

/// Removes a waiter when its caller stops waiting.
pub(super) struct Forget<'a> {
    waits: &'a Waits,
    id: u64,
}

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        if !planted::is(Bug::AbandonedWaits) {
            self.waits.take(self.id);
        }
    }
}

type IndexWaiter = oneshot::Sender<Result<(), Error>>;

/// Readers by the index that must be applied before they may read.
#[derive(Default)]
pub(super) struct AppliedWaits {
    index: AtomicU64,
    waiters: Mutex<IndexWaiters>,
}

#[derive(Default)]
struct IndexWaiters {
    by_index: BTreeMap<u64, Vec<IndexWaiter>>,
    count: usize,
    /// The count of waiters at which those that have given up are searched for and removed.
    looks_at: usize,
}

impl IndexWaiters {
    /// Removes readers that have given up: while apply stands still, callers come and time out. The
    /// next search is due at twice the readers that are left, so a search costs a constant time for
    /// each reader that came since the last one.
    fn forget_closed(&mut self) {
        self.by_index.retain(|_, waiters| {
            waiters.retain(|waiter| !waiter.is_closed());
            !waiters.is_empty()
        });
        self.count = self.by_index.values().map(Vec::len).sum();
        self.looks_at = (2 * self.count).max(INDEX_WAITERS_LOOK);
    }
}

impl AppliedWaits {
    pub(super) fn new(index: u64) -> Self {
        Self { index: AtomicU64::new(index), waiters: Mutex::default() }
    }

    pub(super) fn index(&self) -> u64 {
        self.index.load(Ordering::Acquire)
    }

    /// Answers `waiter` once `index` is applied and published; at once if it is.
    pub(super) fn wait(&self, index: u64, waiter: IndexWaiter) {
        if self.index() >= index {
            let _ = waiter.send(Ok(()));
            return;
        }
        let mut waiters = self.waiters.lock();
        // Apply may have reached the index before the lock was taken. It moves the index first and
        // then looks at the waiters, so a reader that is added under the lock is not missed.
        if self.index() >= index {
            drop(waiters);
            let _ = waiter.send(Ok(()));
            return;
        }
        waiters.by_index.entry(index).or_default().push(waiter);
        waiters.count += 1;
        if waiters.count >= waiters.looks_at.max(INDEX_WAITERS_LOOK) {
            waiters.forget_closed();
        }
    }

    /// The number of readers, those included that have given up and were not removed yet.
    pub(super) fn count(&self) -> usize {
        self.waiters.lock().count
    }

    /// Removes the readers for `index` that have given up.
    pub(super) fn prune(&self, index: u64) {
        let mut waiters = self.waiters.lock();
        let Some(waiting) = waiters.by_index.get_mut(&index) else { return };
        let before = waiting.len();
        waiting.retain(|waiter| !waiter.is_closed());
        let left = waiting.len();
        if left == 0 {
            waiters.by_index.remove(&index);
        }
        waiters.count -= before - left;
    }

    /// Answers the readers up to `index`. Called on the apply thread after everything up to `index`
    /// is published.
    pub(super) fn advance(&self, index: u64) {
        self.index.store(index, Ordering::Release);
        let ready = {
            let mut waiters = self.waiters.lock();
            if waiters.by_index.first_key_value().is_none_or(|(first, _)| *first > index) {
                return;
            }
            let later = waiters.by_index.split_off(&(index + 1));
            let ready = std::mem::replace(&mut waiters.by_index, later);
            waiters.count -= ready.values().map(Vec::len).sum::<usize>();
            ready
        };
        for waiter in ready.into_values().flatten() {
            let _ = waiter.send(Ok(()));
        }
    }

    pub(super) fn stop(&self) {
        *self.waiters.lock() = IndexWaiters::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readers_that_give_up_while_apply_stands_still_are_forgotten() {
        let waits = AppliedWaits::default();
        let mut patient = Vec::new();
        for number in 0..20 * INDEX_WAITERS_LOOK as u64 {
            let (done, waiting) = oneshot::channel();
            waits.wait(1 + number % 3, done);
            if number % 1000 == 0 {
                patient.push(waiting);
            }
        }
        assert!(waits.waiters.lock().count <= 2 * INDEX_WAITERS_LOOK);
        waits.advance(3);
        for mut waiting in patient {
            assert_eq!(waiting.try_recv().unwrap(), Ok(()));
        }
        let waiters = waits.waiters.lock();
        assert!(waiters.by_index.is_empty() && waiters.count == 0);
    }
}
