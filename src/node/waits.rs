//! Who waits for what: proposers for the reply to their entry, readers for an applied index.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::Error;
use crate::apply::{self, Reply};

/// Locks over which waiters are spread, so that proposers and the apply thread seldom meet.
const SHARDS: usize = 16;

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

    /// Lets everyone go: the member stops.
    pub(super) fn stop(&self) {
        for shard in &self.shards {
            shard.lock().clear();
        }
    }
}

/// Lets go of a waiter that nobody awaits any more.
pub(super) struct Forget<'a> {
    waits: &'a Waits,
    id: u64,
}

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        self.waits.take(self.id);
    }
}

type IndexWaiter = oneshot::Sender<Result<(), Error>>;

/// Readers by the index that must be applied before they may read.
#[derive(Default)]
pub(super) struct AppliedWaits {
    index: AtomicU64,
    waiters: Mutex<BTreeMap<u64, Vec<IndexWaiter>>>,
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
        waiters.entry(index).or_default().push(waiter);
    }

    /// Lets go of those who wait for `index` and have given up.
    pub(super) fn prune(&self, index: u64) {
        let mut waiters = self.waiters.lock();
        if let Some(waiting) = waiters.get_mut(&index) {
            waiting.retain(|waiter| !waiter.is_closed());
            if waiting.is_empty() {
                waiters.remove(&index);
            }
        }
    }

    /// Everything up to `index` is applied and visible.
    pub(super) fn advance(&self, index: u64) {
        self.index.store(index, Ordering::Release);
        let ready = {
            let mut waiters = self.waiters.lock();
            if waiters.first_key_value().is_none_or(|(first, _)| *first > index) {
                return;
            }
            let later = waiters.split_off(&(index + 1));
            std::mem::replace(&mut *waiters, later)
        };
        for waiter in ready.into_values().flatten() {
            let _ = waiter.send(Ok(()));
        }
    }

    pub(super) fn stop(&self) {
        self.waiters.lock().clear();
    }
}
