//! The watchers of one stream, and the queue between the hub and its consumer.
//!
//! A stream holds its queue of live events, and one piece of history with its previous pairs,
//! however many watchers it has. The piece is read once for all watchers that lag together, and the
//! response to each is made from it when the consumer takes that response. A client that does not
//! read therefore costs the queue and one piece.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::{Hub, State, WatchSpec, Watcher};
use crate::limits;
use crate::mvcc::{self, Change, ChangeKind, View, deletion_event, kv::Pair};
use crate::planted::{self, Bug};
use crate::store::Row;
use crate::types::Revision;

/// One item for the consumer of a stream, which gets them in order.
#[derive(Clone, Debug)]
pub enum Item {
    Created {
        watch_id: i64,
        revision: i64,
    },
    Canceled {
        watch_id: i64,
        revision: i64,
    },
    /// Changes of whole transactions. `revision` is that of the response's header.
    Events {
        watch_id: i64,
        revision: i64,
        changes: Vec<Change>,
    },
    /// All events up to `revision` were sent. A `watch_id` of -1 stands for all watchers of the
    /// stream.
    Progress {
        watch_id: i64,
        revision: i64,
    },
    /// The watcher's next revision is compacted away.
    Compacted {
        watch_id: i64,
        compact_revision: i64,
    },
}

impl Item {
    /// Bytes that the item keeps in memory. Watchers of one change share its pair, but each item
    /// counts all of it.
    fn bytes(&self) -> usize {
        match self {
            Self::Events { changes, .. } => changes.iter().map(bytes_of).sum(),
            _ => 0,
        }
    }

    fn events(&self) -> usize {
        match self {
            Self::Events { changes, .. } => changes.len(),
            _ => 0,
        }
    }
}

fn bytes_of(change: &Change) -> usize {
    let previous = change.previous.as_ref().map_or(0, Bytes::len);
    size_of::<Change>() + change.kv.len() + previous
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CreateError {
    #[error("mvcc: watcher range is empty")]
    EmptyRange,
    #[error("mvcc: duplicate watch ID provided on the WatchStream")]
    DuplicateId,
    #[error("too many watchers on one stream")]
    TooMany,
}

#[derive(Default)]
struct Pending {
    items: VecDeque<Item>,
    bytes: usize,
    /// Next revision and key of each lagging watcher.
    lagging: BTreeSet<(i64, u64)>,
}

/// What the streams of a member hold.
#[derive(Default)]
pub(super) struct Buffered {
    /// In queues and in pieces of history.
    pub(super) bytes: AtomicUsize,
    /// In queues.
    pub(super) events: AtomicUsize,
}

pub(super) struct Queue {
    pending: Mutex<Pending>,
    /// Tells the consumer that there is an item to take or history to read.
    filled: Notify,
    buffered: Arc<Buffered>,
}

impl Queue {
    fn new(buffered: Arc<Buffered>) -> Self {
        Self { pending: Mutex::default(), filled: Notify::new(), buffered }
    }

    /// Takes events if the queue has room. Once the streams of the member hold `WATCH_BYTES_MAX`,
    /// an empty queue still takes a small item: the queue of a client that reads is mostly empty.
    pub(super) fn offer(&self, item: Item) -> bool {
        let mut pending = self.pending.lock();
        let is_tight = self.buffered.bytes.load(Ordering::Relaxed) >= limits::WATCH_BYTES_MAX;
        let is_small = || pending.items.is_empty() && item.bytes() <= limits::WATCH_SMALL_BYTES;
        if pending.is_full() || (is_tight && !is_small()) {
            return false;
        }
        self.add(&mut pending, item);
        drop(pending);
        self.filled.notify_one();
        true
    }

    /// Takes the answer to a client's request, without a bound. Only the consumer reads requests,
    /// one for each item that it takes, so answers exceed the bound by a few at most.
    fn push(&self, item: Item) {
        self.add(&mut self.pending.lock(), item);
        self.filled.notify_one();
    }

    fn add(&self, pending: &mut Pending, item: Item) {
        let bytes = item.bytes();
        pending.bytes += bytes;
        self.buffered.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.buffered.events.fetch_add(item.events(), Ordering::Relaxed);
        pending.items.push_back(item);
    }

    /// Notes that a watcher has history to read from `next` on.
    pub(super) fn lags(&self, key: u64, next: i64) {
        self.pending.lock().lagging.insert((next, key));
        self.filled.notify_one();
    }

    /// Takes back a call of [`Self::lags`] with these arguments.
    pub(super) fn remove_lagging(&self, key: u64, next: i64) {
        self.pending.lock().lagging.remove(&(next, key));
    }

    fn next(&self) -> Next {
        let mut pending = self.pending.lock();
        if let Some(item) = pending.items.pop_front() {
            let bytes = item.bytes();
            pending.bytes -= bytes;
            self.buffered.bytes.fetch_sub(bytes, Ordering::Relaxed);
            self.buffered.events.fetch_sub(item.events(), Ordering::Relaxed);
            return Next::Item(item);
        }
        if pending.lagging.is_empty() { Next::Wait } else { Next::CatchUp }
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        let pending = self.pending.get_mut();
        let events = pending.items.iter().map(Item::events).sum();
        self.buffered.bytes.fetch_sub(pending.bytes, Ordering::Relaxed);
        self.buffered.events.fetch_sub(events, Ordering::Relaxed);
    }
}

impl Pending {
    fn is_full(&self) -> bool {
        self.items.len() >= limits::WATCH_STREAM_RESPONSES_MAX
            || self.bytes >= limits::WATCH_STREAM_BYTES_MAX
    }
}

/// A piece of history, and the watchers that have not got it yet.
struct HistoryPiece {
    changes: Vec<Change>,
    /// The revision of the responses' headers.
    revision: i64,
    watchers: VecDeque<LaggingWatcher>,
    bytes: usize,
    buffered: Arc<Buffered>,
}

/// A watcher that lags.
struct LaggingWatcher {
    key: u64,
    id: i64,
    next: i64,
    spec: WatchSpec,
    /// Whether the piece has changes that the watcher wants.
    is_served: bool,
}

impl LaggingWatcher {
    fn wants(&self, change: &Change) -> bool {
        change.revision.main >= self.next
            && self.spec.range.contains(&change.key)
            && self.spec.admits(change)
    }
}

impl HistoryPiece {
    /// The events for the next watcher.
    fn next(&mut self) -> Option<Item> {
        let watcher = self.watchers.pop_front()?;
        let changes = self.changes.iter().filter(|change| watcher.wants(change)).cloned();
        Some(Item::Events {
            watch_id: watcher.id,
            revision: self.revision,
            changes: changes.collect(),
        })
    }
}

impl Drop for HistoryPiece {
    fn drop(&mut self) {
        self.buffered.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// What the consumer has to do next.
#[derive(Debug)]
pub enum Next {
    Item(Item),
    /// Call [`Stream::catch_up`] on a thread that may block, as it reads from disk.
    CatchUp,
    Wait,
}

pub struct Stream {
    hub: Arc<Hub>,
    queue: Arc<Queue>,
    /// History that the consumer takes before the queue.
    piece: Mutex<Option<HistoryPiece>>,
    ids: Mutex<Ids>,
}

#[derive(Default)]
struct Ids {
    /// Watch id -> key in the hub's registry.
    watchers: HashMap<i64, u64>,
    next: i64,
}

impl Ids {
    fn choose(&mut self, asked: i64) -> Result<i64, CreateError> {
        if self.watchers.len() >= limits::WATCHERS_PER_STREAM_MAX {
            return Err(CreateError::TooMany);
        }
        if asked != 0 {
            let is_free = !self.watchers.contains_key(&asked);
            return if is_free { Ok(asked) } else { Err(CreateError::DuplicateId) };
        }
        while self.watchers.contains_key(&self.next) {
            self.next += 1;
        }
        self.next += 1;
        Ok(self.next - 1)
    }
}

impl Stream {
    pub(super) fn new(hub: Arc<Hub>) -> Self {
        let queue = Arc::new(Queue::new(Arc::clone(&hub.buffered)));
        Self { hub, queue, piece: Mutex::default(), ids: Mutex::default() }
    }

    /// The hub's revision, for the headers of responses that are made elsewhere.
    pub fn revision(&self) -> i64 {
        self.hub.revision()
    }

    /// Adds a watcher, queues its [`Item::Created`], and returns its id.
    pub fn create(&self, spec: WatchSpec) -> Result<i64, CreateError> {
        let range = &spec.range;
        if !range.is_single() && !range.is_open() && range.key >= range.end {
            return Err(CreateError::EmptyRange);
        }
        let mut ids = self.ids.lock();
        let id = ids.choose(spec.watch_id)?;
        let mut registry = self.hub.registry.lock();
        let revision = registry.revision;
        let start = spec.start_revision;
        let state = match start {
            start if start == 0 || start > revision => State::Live { start },
            start if planted::is(Bug::WatchGap) && start == revision => State::Live { start },
            next => State::Lagging { next },
        };
        // Queued under the registry's lock, so that no event of the watcher can precede it.
        self.queue.push(Item::Created { watch_id: id, revision });
        let queue = Arc::clone(&self.queue);
        let key = registry.add(Watcher { id, spec, queue, state });
        if let State::Lagging { next } = state {
            self.queue.lags(key, next);
        }
        ids.watchers.insert(id, key);
        Ok(id)
    }

    /// Removes a watcher and queues its [`Item::Canceled`]; false if there is none of that id.
    pub fn cancel(&self, watch_id: i64) -> bool {
        let Some(key) = self.ids.lock().watchers.remove(&watch_id) else { return false };
        let mut registry = self.hub.registry.lock();
        registry.remove(key);
        let revision = registry.revision;
        self.queue.push(Item::Canceled { watch_id, revision });
        true
    }

    /// Queues, behind all events so far, a progress item for all watchers. If one of them lags, is
    /// dead or begins at a future revision, nothing is sent, as in etcd.
    pub fn request_progress(&self) {
        let ids = self.ids.lock();
        let registry = self.hub.registry.lock();
        let revision = registry.revision;
        let is_current = |key: &u64| registry.is_current(*key);
        if !ids.watchers.is_empty() && ids.watchers.values().all(is_current) {
            self.queue.push(Item::Progress { watch_id: -1, revision });
        }
    }

    /// Queues a progress item for one watcher, if it is live and has begun, and if there is room.
    pub fn notify_progress(&self, watch_id: i64) {
        let Some(key) = self.ids.lock().watchers.get(&watch_id).copied() else { return };
        let registry = self.hub.registry.lock();
        let revision = registry.revision;
        if registry.is_current(key) {
            self.queue.offer(Item::Progress { watch_id, revision });
        }
    }

    pub fn next(&self) -> Next {
        let mut piece = self.piece.lock();
        if let Some(item) = piece.as_mut().and_then(HistoryPiece::next) {
            return Next::Item(item);
        }
        *piece = None;
        drop(piece);
        self.queue.next()
    }

    /// Waits until [`Self::next`] may have something else than [`Next::Wait`].
    pub async fn wait(&self) {
        self.queue.filled.notified().await;
    }

    /// Reads a bounded piece of history for the watchers that are furthest behind, which
    /// [`Self::next`] then hands out. To be called only after [`Next::CatchUp`]: the queue is empty
    /// then, so the piece follows everything that was sent. Blocks while it reads from disk.
    pub fn catch_up(&self) -> Result<(), mvcc::Error> {
        let mut behind = self.behind();
        let Some(from) = behind.first().map(|watcher| watcher.next) else { return Ok(()) };
        let view = self.hub.mvcc.view();
        let compact_revision = view.current().compact_revision;
        if from < compact_revision {
            self.kill(&behind, compact_revision);
            return Ok(());
        }
        let revision = view.current().revision;
        let is_tight =
            self.hub.buffered.bytes.load(Ordering::Relaxed) >= limits::WATCH_BYTES_MAX / 2;
        let bytes_max =
            if is_tight { limits::WATCH_SMALL_BYTES } else { limits::WATCH_CATCH_UP_BYTES };
        let History { changes, to, bytes } = history(&view, &mut behind, revision, bytes_max)?;
        drop(view);
        let mut registry = self.hub.registry.lock();
        let is_caught_up = to >= registry.revision;
        let mut is_there = |watcher: &mut LaggingWatcher| {
            let key = watcher.key;
            let Some(found) = registry.watchers.get_mut(&key) else { return false };
            if found.state != (State::Lagging { next: watcher.next }) {
                return false;
            }
            let next = watcher.next.max(to + 1);
            self.queue.remove_lagging(key, watcher.next);
            found.state = match is_caught_up {
                true => State::Live { start: next },
                false => {
                    self.queue.lags(key, next);
                    State::Lagging { next }
                }
            };
            watcher.is_served
        };
        behind.retain_mut(|watcher| is_there(watcher));
        drop(registry);
        if !behind.is_empty() {
            let buffered = Arc::clone(&self.hub.buffered);
            buffered.bytes.fetch_add(bytes, Ordering::Relaxed);
            let watchers = behind.into();
            *self.piece.lock() =
                Some(HistoryPiece { changes, revision, watchers, bytes, buffered });
        }
        Ok(())
    }

    /// The lagging watchers that are served together, furthest behind first.
    fn behind(&self) -> Vec<LaggingWatcher> {
        let lagging: Vec<(i64, u64)> = {
            let pending = self.queue.pending.lock();
            pending.lagging.iter().take(limits::CATCH_UP_WATCHERS_MAX).copied().collect()
        };
        let registry = self.hub.registry.lock();
        let behind = lagging.into_iter().filter_map(|(next, key)| {
            let Watcher { id, spec, .. } = registry.watchers.get(&key)?;
            Some(LaggingWatcher { key, id: *id, next, spec: spec.clone(), is_served: false })
        });
        behind.collect()
    }

    /// Marks the watchers dead whose next revision is compacted away, and queues their
    /// [`Item::Compacted`].
    fn kill(&self, behind: &[LaggingWatcher], compact_revision: i64) {
        let mut registry = self.hub.registry.lock();
        for LaggingWatcher { key, next, .. } in behind {
            let Some(watcher) = registry.watchers.get_mut(key) else { continue };
            if watcher.state == (State::Lagging { next: *next }) && *next < compact_revision {
                watcher.state = State::Dead;
                self.queue.remove_lagging(*key, *next);
                self.queue.push(Item::Compacted { watch_id: watcher.id, compact_revision });
            }
        }
    }
}

impl super::Registry {
    fn is_current(&self, key: u64) -> bool {
        self.watchers.get(&key).is_some_and(|watcher| {
            let is_live = matches!(watcher.state, State::Live { .. });
            is_live && watcher.spec.start_revision <= self.revision
        })
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        let keys: Vec<u64> = self.ids.lock().watchers.values().copied().collect();
        for keys in keys.chunks(limits::WATCHERS_REMOVED_AT_ONCE) {
            let mut registry = self.hub.registry.lock();
            keys.iter().for_each(|key| registry.remove(*key));
        }
    }
}

/// Changes of whole transactions, and the revision up to which they are complete.
struct History {
    changes: Vec<Change>,
    to: i64,
    bytes: usize,
}

/// The changes that the watchers want of history, which ends after a bounded number of bytes and
/// revisions, but not within a transaction. Previous pairs are read with the changes, up to
/// `WATCH_PREVIOUS_BYTES`: those of a larger transaction are read when its response is made.
fn history(
    view: &View<'_>,
    behind: &mut [LaggingWatcher],
    published: i64,
    bytes_max: usize,
) -> Result<History, mvcc::Error> {
    let mut changes: Vec<Change> = Vec::new();
    let mut start = Revision::new(behind.first().map_or(0, |watcher| watcher.next), 0);
    let (mut transactions, mut last, mut scanned, mut bytes) = (0, 0, 0, 0);
    loop {
        let is_enough = transactions == limits::WATCH_CATCH_UP_REVISIONS_MAX
            || bytes >= bytes_max
            || scanned >= limits::READ_CHUNK_BYTES;
        // The last transaction may have further rows, which belong to this piece, too.
        let until = if is_enough { last } else { published };
        let rows = view.rows_within(start, until, limits::WATCH_CATCH_UP_BYTES)?;
        let Some(end) = rows.last().map(|row| row.rev) else {
            return Ok(History { changes, to: until, bytes });
        };
        for row in &rows {
            if row.rev.main != last {
                let is_full =
                    transactions == limits::WATCH_CATCH_UP_REVISIONS_MAX || bytes >= bytes_max;
                if transactions > 0 && is_full {
                    return Ok(History { changes, to: last, bytes });
                }
                transactions += 1;
                last = row.rev.main;
            }
            scanned += row.kv.len();
            let mut change = change_of(row)?;
            let (mut is_wanted, mut wants_previous) = (false, false);
            for watcher in &mut *behind {
                if watcher.wants(&change) {
                    (is_wanted, watcher.is_served) = (true, true);
                    wants_previous |= watcher.spec.prev_kv;
                }
            }
            if wants_previous && bytes < limits::WATCH_PREVIOUS_BYTES {
                change.previous = view.previous(&change)?;
            }
            if is_wanted {
                bytes += bytes_of(&change);
                changes.push(change);
            }
        }
        start = Revision::new(end.main, end.sub + 1);
    }
}

fn change_of(row: &Row) -> Result<Change, mvcc::Error> {
    let pair = Pair::parse(&row.kv)?;
    let key = row.kv.slice_ref(pair.key);
    let revision = row.rev;
    Ok(if row.tombstone {
        let kv: Bytes = deletion_event(pair.key, revision.main);
        Change { kind: ChangeKind::Delete, key, kv, revision, is_create: false, previous: None }
    } else {
        let is_create = pair.create_revision == pair.mod_revision;
        let kv = row.kv.clone();
        Change { kind: ChangeKind::Put, key, kv, revision, is_create, previous: None }
    })
}
