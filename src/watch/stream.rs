//! The watchers of one stream, and the queue between the hub and its consumer.
//!
//! A stream holds its queue of live events, and one piece of history with its previous pairs,
//! however many watchers it has. The piece is read once for all watchers that lag together, and the
//! response to each is made from it when the consumer takes that response. A client that does not
//! read therefore costs the queue and one piece.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::history::{History, LaggingWatcher, bytes_of};
use super::{Hub, State, WatchSpec, Watcher};
use crate::limits;
use crate::mvcc::{self, Change, ReadCheck};
use crate::planted::{self, Bug};

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
    /// Next revision and key of each lagging watcher that may read history.
    lagging: BTreeSet<(i64, u64)>,
    /// As `lagging`, of those that wait until the items are taken: some may be theirs, and history
    /// is handed out before them.
    lagging_behind_items: BTreeSet<(i64, u64)>,
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
    /// Whether the consumer is in line to be woken.
    is_in_line: AtomicBool,
    /// Number of the delivery that has woken the consumer at once.
    pub(super) woken_by: AtomicU64,
    buffered: Arc<Buffered>,
}

impl Queue {
    fn new(buffered: Arc<Buffered>) -> Self {
        let (pending, filled, is_in_line, woken_by) = Default::default();
        Self { pending, filled, is_in_line, woken_by, buffered }
    }

    pub(super) fn wake(&self) {
        self.filled.notify_one();
    }

    /// False if the consumer is in line already.
    pub(super) fn get_in_line(&self) -> bool {
        !self.is_in_line.swap(true, Ordering::AcqRel)
    }

    /// Wakes the consumer, which leaves the line.
    pub(super) fn wake_in_line(&self) {
        // It leaves first, so that a delivery from now on puts it in line once more.
        self.is_in_line.store(false, Ordering::Release);
        self.wake();
    }

    /// Takes events if the queue has room; the caller wakes the consumer. Once the streams of the
    /// member hold `WATCH_BYTES_MAX`, an empty queue still takes a small item: the queue of a client
    /// that reads is mostly empty.
    pub(super) fn offer(&self, item: Item) -> bool {
        let mut pending = self.pending.lock();
        let is_tight = self.buffered.bytes.load(Ordering::Relaxed) >= limits::WATCH_BYTES_MAX;
        let is_small = || pending.items.is_empty() && item.bytes() <= limits::WATCH_SMALL_BYTES;
        if pending.is_full() || (is_tight && !is_small()) {
            return false;
        }
        self.add(&mut pending, item);
        true
    }

    /// Takes the answer to a client's request, without a bound. Only the consumer reads requests,
    /// one for each item that it takes, so answers exceed the bound by a few at most.
    fn push(&self, item: Item) {
        self.add(&mut self.pending.lock(), item);
        self.wake();
    }

    fn add(&self, pending: &mut Pending, item: Item) {
        let bytes = item.bytes();
        pending.bytes += bytes;
        self.buffered.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.buffered.events.fetch_add(item.events(), Ordering::Relaxed);
        pending.items.push_back(item);
    }

    /// Notes that a watcher has history to read from `next` on; the caller wakes the consumer.
    pub(super) fn lags(&self, key: u64, next: i64) {
        let mut pending = self.pending.lock();
        match pending.items.is_empty() {
            true => pending.lagging.insert((next, key)),
            false => pending.lagging_behind_items.insert((next, key)),
        };
    }

    /// Takes back a call of [`Self::lags`] with these arguments.
    pub(super) fn remove_lagging(&self, key: u64, next: i64) {
        let mut pending = self.pending.lock();
        if !pending.lagging.remove(&(next, key)) {
            pending.lagging_behind_items.remove(&(next, key));
        }
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
        let Pending { lagging, lagging_behind_items, .. } = &mut *pending;
        match lagging.is_empty() {
            // Very many watchers may have been created; apply needs the lock.
            true => std::mem::swap(lagging, lagging_behind_items),
            false => lagging.extend(std::mem::take(lagging_behind_items)),
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

impl HistoryPiece {
    /// The events for the next watcher. The last one's are moved, so that no client that takes
    /// nothing more keeps them twice.
    fn next(&mut self) -> Option<Item> {
        let watcher = self.watchers.pop_front()?;
        let wants = |change: &Change| watcher.wants(change);
        let changes = match self.watchers.is_empty() {
            true => std::mem::take(&mut self.changes).into_iter().filter(wants).collect(),
            false => self.changes.iter().filter(|change| wants(change)).cloned().collect(),
        };
        Some(Item::Events { watch_id: watcher.id, revision: self.revision, changes })
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
    watchers: BTreeMap<i64, u64>,
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
            self.queue.wake();
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
        let item = piece.as_mut().and_then(HistoryPiece::next);
        if piece.as_ref().is_some_and(|piece| piece.watchers.is_empty()) {
            *piece = None;
        }
        drop(piece);
        item.map_or_else(|| self.queue.next(), Next::Item)
    }

    /// Waits until [`Self::next`] may have something else than [`Next::Wait`].
    pub async fn wait(&self) {
        self.queue.filled.notified().await;
    }

    /// Reads a piece of history, and takes it.
    pub fn catch_up(&self) -> Result<(), mvcc::Error> {
        self.take_piece(self.read_piece(&ReadCheck::default())?)
    }

    /// Reads a bounded piece of history for the watchers that are furthest behind. It may be
    /// dropped, and read again. To be called only after [`Next::CatchUp`]. Blocks while it reads from
    /// disk.
    pub fn read_piece(&self, wanted: &ReadCheck) -> Result<Piece, mvcc::Error> {
        self.hub.mvcc.read(wanted, |view| {
            let mut behind = self.behind();
            let Some(from) = behind.first().map(|watcher| watcher.next) else {
                return Ok(Piece(None));
            };
            let compact_revision = view.current().compact_revision;
            if from < compact_revision {
                self.kill(&behind, compact_revision);
                return Ok(Piece(None));
            }
            let held = self.hub.buffered.bytes.load(Ordering::Relaxed);
            let bytes_max = match held >= limits::WATCH_BYTES_MAX / 2 {
                true => limits::WATCH_SMALL_BYTES,
                false => limits::WATCH_CATCH_UP_BYTES,
            };
            let history = History::read(view, &mut behind, bytes_max)?;
            Ok(Piece(Some((history, behind))))
        })
    }

    /// Takes what was read, which [`Self::next`] then hands out. What waits in the queue is for other
    /// watchers, so the piece may precede it.
    pub fn take_piece(&self, piece: Piece) -> Result<(), mvcc::Error> {
        let Some((mut history, mut behind)) = piece.0 else { return Ok(()) };
        // While the consumer did not come, more was committed, and the watchers would lag again.
        history.read_on(&self.hub.mvcc.view(), &mut behind)?;
        let History { changes, to, revision, bytes } = history;
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
                    self.queue.wake();
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

/// A piece of history that was read for a stream, with the watchers that want it; None if there was
/// nothing to read.
pub struct Piece(Option<(History, Vec<LaggingWatcher>)>);

impl Piece {
    pub fn bytes(&self) -> usize {
        self.0.as_ref().map_or(0, |(history, ..)| history.bytes)
    }
}
