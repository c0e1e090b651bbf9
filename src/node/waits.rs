//! Waiters: proposers for the reply to their entry, readers for an applied index.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::Error;
use crate::apply::{self, Reply};
use crate::planted::{self, Bug};
use crate::upkeep::Callers;

/// Locks over which waiters are spread, so that proposers and the apply thread seldom meet.
const SHARDS: usize = 16;
/// Readers below this number are not worth a look for those that have given up.
const INDEX_WAITERS_LOOK: usize = 1024;

type Waiter = oneshot::Sender<Result<Reply, Error>>;

struct Wait {
    waiter: Waiter,
    /// The entry is applied, and what is left takes as long as it takes.
    is_applied: bool,
}

/// Proposers by request id. Bounded by raft's queue and the requests that it has taken.
#[derive(Default)]
pub(super) struct Waits {
    shards: [Mutex<HashMap<u64, Wait>>; SHARDS],
}

impl Waits {
    fn shard(&self, id: u64) -> &Mutex<HashMap<u64, Wait>> {
        // Ids count up, so their low bits spread them evenly.
        &self.shards[usize::try_from(id % SHARDS as u64).unwrap_or(0)]
    }

    /// Waits for the answer under an id, until what comes with it is dropped.
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

    /// The answer follows the apply later; false if nobody waits for it.
    pub(super) fn applied(&self, id: u64) -> bool {
        let mut shard = self.shard(id).lock();
        let wait = shard.get_mut(&id);
        wait.map(|wait| wait.is_applied = true).is_some()
    }

    /// Whether somebody waits for the answer, as far as is known.
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

    /// Tells a proposer that nothing will come of the request, and that it may try again.
    pub(super) fn dropped(&self, id: u64) {
        if let Some(waiter) = self.take(id) {
            let _ = waiter.send(Err(Error::Dropped));
        }
    }

    /// How many wait.
    pub(super) fn count(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().len()).sum()
    }

    /// Lets everyone go: the member stops.
    pub(super) fn stop(&self) {
        for shard in &self.shards {
            shard.lock().clear();
        }
    }
}

impl Callers for Waits {
    fn are_waiting(&self, id: u64) -> bool {
        self.is_applied(id)
    }

    fn answer(&self, id: u64, reply: Result<Reply, apply::Error>) {
        Self::answer(self, id, reply);
    }
}

/// Lets go of a waiter that nobody awaits any more.
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
    /// While apply stands still, callers come and lose patience. Each look costs as much as what came
    /// since the last one.
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

    pub(super) fn wait(&self, index: u64, waiter: IndexWaiter) {
        if self.index() >= index {
            let _ = waiter.send(Ok(()));
            return;
        }
        let mut waiters = self.waiters.lock();
        // Apply may have got there meanwhile; it looks at the waiters after it moved the index.
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

    /// How many wait, or have given up and were not forgotten yet.
    pub(super) fn count(&self) -> usize {
        self.waiters.lock().count
    }

    /// Lets go of those who wait for `index` and have given up.
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

    /// Everything up to `index` is applied and visible.
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
