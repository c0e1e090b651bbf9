//! The event hub: registered watchers, live delivery, and catch-up from history.
//!
//! ```text
//!   apply ─publish(revision, changes)─► Hub ──match──► queue of each stream ──► consumer
//!                                                        │ full
//!                                                        ▼
//!                                       lagging watchers read history themselves
//! ```
//!
//! A watcher is either live, which means that its stream's queue has received every event up to
//! the hub's revision, or lagging, which means that it still has to read history from its next
//! revision on. A watcher starts lagging if it asks for the past, and falls back to it when its
//! stream's queue is full. Only the consumer of a stream reads history for it, and for a watcher only
//! once the queue holds nothing of it, so order holds, and a consumer that does not read holds up
//! neither apply nor other streams. The step that reaches the hub's revision makes the watcher live
//! under the hub's lock, so no event is lost or sent twice between history and queue.
//!
//! There is no ring of recent events: a lagging watcher reads the store, whose tail holds recent
//! rows in memory anyway.
//!
//! This room knows changes and key ranges, not the wire: `rpc` makes fragments and headers. The
//! previous pairs of live events are read by `node`, which `rpc` asks for them; those of history are
//! read here, with it.

mod history;
mod ranges;
mod stream;
mod wakes;

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use parking_lot::Mutex;

use crate::mvcc::{Change, ChangeKind, Mvcc};
use crate::types::KeyRange;
use ranges::Ranges;
use stream::Queue;
use wakes::{Delivery, Wakes};

pub use stream::{CreateError, Item, Next, Piece, Stream};

/// The request of a watcher.
#[derive(Clone, Debug)]
pub struct WatchSpec {
    pub range: KeyRange,
    /// The first revision that is wanted; 0 stands for the next one.
    pub start_revision: i64,
    /// 0 lets the stream choose.
    pub watch_id: i64,
    pub no_put: bool,
    pub no_delete: bool,
    /// Whether previous pairs are wanted, so that they are read with the history.
    pub prev_kv: bool,
}

impl WatchSpec {
    fn admits(&self, change: &Change) -> bool {
        match change.kind {
            ChangeKind::Put => !self.no_put,
            ChangeKind::Delete => !self.no_delete,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// The queue has got every event up to the hub's revision. Events below `start` are not wanted.
    Live { start: i64 },
    /// History has to be read from `next` on.
    Lagging { next: i64 },
    /// The history that it needs was compacted away. The watcher keeps its id until it is canceled,
    /// as in etcd.
    Dead,
}

struct Watcher {
    id: i64,
    spec: WatchSpec,
    queue: Arc<Queue>,
    state: State,
}

/// Its maps are trees: a hash table that grows moves all of its entries at once, here under the lock
/// that apply takes. With 57,345 watchers that took 44 ms.
#[derive(Default)]
struct Registry {
    /// The newest revision that was delivered to live watchers.
    revision: i64,
    watchers: BTreeMap<u64, Watcher>,
    next_key: u64,
    singles: BTreeMap<Bytes, BTreeSet<u64>>,
    ranges: Ranges,
}

pub struct Hub {
    mvcc: Arc<Mvcc>,
    registry: Mutex<Registry>,
    buffered: Arc<stream::Buffered>,
    wakes: Wakes,
}

/// Numbers of watchers, and of events that wait for them, for metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub watchers: usize,
    pub lagging: usize,
    /// Events that wait in the queues of streams.
    pub pending_events: usize,
}

impl Hub {
    pub fn new(mvcc: Arc<Mvcc>) -> Arc<Self> {
        let registry = Registry { revision: mvcc.current().revision, ..Registry::default() };
        let (buffered, wakes) = Default::default();
        Arc::new(Self { mvcc, registry: Mutex::new(registry), buffered, wakes })
    }

    /// The newest revision that was delivered. It is never ahead of the one that readers see.
    pub fn revision(&self) -> i64 {
        self.registry.lock().revision
    }

    /// Bytes that wait in the streams for their consumers: queued events and history that was read.
    pub fn held_bytes(&self) -> usize {
        self.buffered.bytes.load(Ordering::Relaxed)
    }

    pub fn counts(&self) -> Counts {
        let registry = self.registry.lock();
        let is_lagging = |w: &&Watcher| matches!(w.state, State::Lagging { .. });
        let lagging = registry.watchers.values().filter(is_lagging).count();
        let pending_events = self.buffered.events.load(Ordering::Relaxed);
        Counts { watchers: registry.watchers.len(), lagging, pending_events }
    }

    /// Delivers changes, which readers already see, in revision order up to `revision`. Called on
    /// the apply thread; never waits for a consumer.
    pub fn publish(&self, revision: i64, changes: &[Change]) {
        let mut delivery = self.wakes.delivery();
        let mut registry = self.registry.lock();
        if registry.watchers.is_empty() {
            registry.revision = revision;
            return;
        }
        for transaction in changes.chunk_by(|a, b| a.revision.main == b.revision.main) {
            registry.deliver(transaction, &mut delivery);
        }
        registry.revision = revision;
    }

    /// Called when a snapshot has replaced the state by one at `revision`, which readers already
    /// see. The changes in between are in its history or compacted away, so all live watchers lag.
    pub fn replace(&self, revision: i64) {
        let mut delivery = self.wakes.delivery();
        let mut registry = self.registry.lock();
        let after = registry.revision + 1;
        for (key, watcher) in &mut registry.watchers {
            if let State::Live { start } = watcher.state {
                let next = start.max(after);
                watcher.state = State::Lagging { next };
                watcher.queue.lags(*key, next);
                delivery.wake(&watcher.queue);
            }
        }
        registry.revision = registry.revision.max(revision);
    }

    /// Wakes those consumers that a delivery to very many streams has left, as long as it is polled.
    pub async fn wake_gradually(&self) -> Infallible {
        self.wakes.work().await
    }

    /// Makes a stream of watchers with one consumer.
    pub fn stream(self: &Arc<Self>) -> Stream {
        Stream::new(Arc::clone(self))
    }
}

impl Registry {
    fn add(&mut self, watcher: Watcher) -> u64 {
        let key = self.next_key;
        self.next_key += 1;
        let range = &watcher.spec.range;
        if range.is_single() {
            self.singles.entry(range.key.clone()).or_default().insert(key);
        } else {
            self.ranges.insert(range.clone(), key);
        }
        self.watchers.insert(key, watcher);
        key
    }

    fn remove(&mut self, key: u64) {
        let Some(watcher) = self.watchers.remove(&key) else { return };
        if let State::Lagging { next } = watcher.state {
            watcher.queue.remove_lagging(key, next);
        }
        let range = &watcher.spec.range;
        if !range.is_single() {
            self.ranges.remove(range, key);
        } else if let Some(keys) = self.singles.get_mut(&range.key) {
            keys.remove(&key);
            if keys.is_empty() {
                self.singles.remove(&range.key);
            }
        }
    }

    /// Delivers the changes of one transaction to the live watchers that want them. A watcher whose
    /// queue is full becomes lagging.
    fn deliver(&mut self, transaction: &[Change], delivery: &mut Delivery<'_>) {
        let Some(main) = transaction.first().map(|change| change.revision.main) else { return };
        let mut matches: Vec<(u64, usize)> = Vec::new();
        for (position, change) in transaction.iter().enumerate() {
            if let Some(keys) = self.singles.get(&change.key) {
                matches.extend(keys.iter().map(|key| (*key, position)));
            }
            self.ranges.visit(&change.key, |key| matches.push((key, position)));
        }
        matches.sort_unstable();
        for of_watcher in matches.chunk_by(|a, b| a.0 == b.0) {
            let Some(watcher) = self.watchers.get_mut(&of_watcher[0].0) else { continue };
            match watcher.state {
                State::Live { start } if main >= start => {}
                _ => continue,
            }
            let changes = of_watcher.iter().map(|(_, position)| &transaction[*position]);
            let changes = changes.filter(|change| watcher.spec.admits(change));
            let changes: Vec<Change> = changes.cloned().collect();
            if changes.is_empty() {
                continue;
            }
            let item = Item::Events { watch_id: watcher.id, revision: main, changes };
            if !watcher.queue.offer(item) {
                watcher.state = State::Lagging { next: main };
                watcher.queue.lags(of_watcher[0].0, main);
            }
            delivery.wake(&watcher.queue);
        }
    }
}

#[cfg(test)]
mod tests;
