//! One client's watchers, and the queue through which they reach it.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::{Hub, Spec, State, Watcher};
use crate::limits;
use crate::mvcc::{self, Change, ChangeKind, View, deletion_event, kv::Pair};
use crate::planted::{self, Bug};
use crate::store::Row;
use crate::types::Revision;

/// What the consumer of a stream receives, in order.
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
    /// Changes of whole transactions. `revision` is the header's.
    Events {
        watch_id: i64,
        revision: i64,
        changes: Vec<Change>,
    },
    /// Everything up to `revision` was sent; -1 speaks for all watchers of the stream.
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
    fn bytes(&self) -> usize {
        match self {
            Self::Events { changes, .. } => changes.iter().map(|change| change.kv.len()).sum(),
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
    /// Some watcher of the stream has history to read.
    is_lagging: bool,
}

#[derive(Default)]
pub(super) struct Queue {
    pending: Mutex<Pending>,
    /// For the consumer: there is something to take or to read.
    filled: Notify,
}

impl Queue {
    /// Takes events if there is room for them.
    pub(super) fn offer(&self, item: Item) -> bool {
        let mut pending = self.pending.lock();
        if pending.is_full() {
            return false;
        }
        pending.push(item);
        drop(pending);
        self.filled.notify_one();
        true
    }

    /// Takes an answer to a request of the client. Requests are read only by the consumer, one for
    /// each item that it takes, so answers exceed the bound by a few at most.
    fn push(&self, item: Item) {
        self.pending.lock().push(item);
        self.filled.notify_one();
    }

    pub(super) fn mark_lagging(&self) {
        self.pending.lock().is_lagging = true;
        self.filled.notify_one();
    }
}

impl Pending {
    fn is_full(&self) -> bool {
        self.items.len() >= limits::WATCH_STREAM_RESPONSES_MAX
            || self.bytes >= limits::WATCH_STREAM_BYTES_MAX
    }

    fn push(&mut self, item: Item) {
        self.bytes += item.bytes();
        self.items.push_back(item);
    }
}

/// What the consumer should do next.
#[derive(Debug)]
pub enum Next {
    Item(Item),
    /// Call `catch_up`, which reads the disk.
    CatchUp,
    Wait,
}

pub struct Stream {
    hub: Arc<Hub>,
    queue: Arc<Queue>,
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
        Self { hub, queue: Arc::default(), ids: Mutex::default() }
    }

    /// Newest revision that was handed out: the header's revision of answers made elsewhere.
    pub fn revision(&self) -> i64 {
        self.hub.revision()
    }

    /// Adds a watcher and queues its Created.
    pub fn create(&self, spec: Spec) -> Result<i64, CreateError> {
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
        // Under the registry's lock, so that no event can precede it.
        self.queue.push(Item::Created { watch_id: id, revision });
        if matches!(state, State::Lagging { .. }) {
            self.queue.mark_lagging();
        }
        let queue = Arc::clone(&self.queue);
        let key = registry.add(Watcher { id, spec, queue, state });
        ids.watchers.insert(id, key);
        Ok(id)
    }

    /// Removes a watcher and queues its Canceled; false if there is none of that id.
    pub fn cancel(&self, watch_id: i64) -> bool {
        let Some(key) = self.ids.lock().watchers.remove(&watch_id) else { return false };
        let mut registry = self.hub.registry.lock();
        registry.remove(key);
        let revision = registry.revision;
        self.queue.push(Item::Canceled { watch_id, revision });
        true
    }

    /// Queues a progress item for all watchers behind all events so far, if they are all live and
    /// want nothing from the future; else stays silent, as etcd does.
    pub fn request_progress(&self) {
        let ids = self.ids.lock();
        let registry = self.hub.registry.lock();
        let revision = registry.revision;
        let is_current = |key: &u64| registry.is_current(*key);
        if !ids.watchers.is_empty() && ids.watchers.values().all(is_current) {
            self.queue.push(Item::Progress { watch_id: -1, revision });
        }
    }

    /// Queues a progress item for one watcher, if it is live.
    pub fn notify_progress(&self, watch_id: i64) {
        let Some(key) = self.ids.lock().watchers.get(&watch_id).copied() else { return };
        let registry = self.hub.registry.lock();
        let revision = registry.revision;
        if registry.is_current(key) {
            self.queue.offer(Item::Progress { watch_id, revision });
        }
    }

    pub fn next(&self) -> Next {
        let mut pending = self.queue.pending.lock();
        if let Some(item) = pending.items.pop_front() {
            pending.bytes -= item.bytes();
            return Next::Item(item);
        }
        if pending.is_lagging { Next::CatchUp } else { Next::Wait }
    }

    /// Waits until `next` has something.
    pub async fn wait(&self) {
        self.queue.filled.notified().await;
    }

    /// Reads a bounded piece of history for the watchers that are furthest behind. Only when
    /// `next` asks for it: the queue is empty then, so what is read follows what was sent.
    pub fn catch_up(&self) -> Result<Vec<Item>, mvcc::Error> {
        let Some((lagging, from)) = self.lagging() else {
            self.queue.pending.lock().is_lagging = false;
            // A watcher may have fallen behind between the look and the mark.
            if self.lagging().is_some() {
                self.queue.mark_lagging();
            }
            return Ok(Vec::new());
        };
        let view = self.hub.mvcc.view();
        let compact_revision = view.current().compact_revision;
        if from < compact_revision {
            return Ok(self.kill(&lagging, compact_revision));
        }
        let published = view.current().revision;
        let (changes, to) = history(&view, from, published)?;
        let mut items = Vec::new();
        let mut registry = self.hub.registry.lock();
        for key in lagging {
            let is_caught_up = to >= registry.revision;
            let Some(watcher) = registry.watchers.get_mut(&key) else { continue };
            let State::Lagging { next } = watcher.state else { continue };
            let is_wanted = |change: &&Change| {
                change.revision.main >= next
                    && watcher.spec.range.contains(&change.key)
                    && watcher.spec.admits(change)
            };
            let changes: Vec<Change> = changes.iter().filter(is_wanted).cloned().collect();
            let next = next.max(to + 1);
            watcher.state = match is_caught_up {
                true => State::Live { start: next },
                false => State::Lagging { next },
            };
            if !changes.is_empty() {
                items.push(Item::Events { watch_id: watcher.id, revision: published, changes });
            }
        }
        Ok(items)
    }

    /// The lagging watchers that are served together, and the first revision they need.
    fn lagging(&self) -> Option<(Vec<u64>, i64)> {
        let ids = self.ids.lock();
        let registry = self.hub.registry.lock();
        let next = |key: &u64| match registry.watchers.get(key)?.state {
            State::Lagging { next } => Some((next, *key)),
            _ => None,
        };
        let mut lagging: Vec<(i64, u64)> = ids.watchers.values().filter_map(next).collect();
        lagging.sort_unstable();
        lagging.truncate(limits::CATCH_UP_WATCHERS_MAX);
        let from = lagging.first()?.0;
        Some((lagging.into_iter().map(|(_, key)| key).collect(), from))
    }

    /// Ends the watchers whose next revision is compacted away.
    fn kill(&self, keys: &[u64], compact_revision: i64) -> Vec<Item> {
        let mut registry = self.hub.registry.lock();
        let mut items = Vec::new();
        for key in keys {
            let Some(watcher) = registry.watchers.get_mut(key) else { continue };
            match watcher.state {
                State::Lagging { next } if next < compact_revision => {
                    watcher.state = State::Dead;
                    items.push(Item::Compacted { watch_id: watcher.id, compact_revision });
                }
                _ => {}
            }
        }
        items
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
        let mut registry = self.hub.registry.lock();
        for key in self.ids.lock().watchers.values() {
            registry.remove(*key);
        }
    }
}

/// Changes of whole transactions from `from` on, and the revision up to which they are complete:
/// at most a bounded number of rows and revisions, but always one whole transaction.
fn history(view: &View<'_>, from: i64, published: i64) -> Result<(Vec<Change>, i64), mvcc::Error> {
    let mut changes: Vec<Change> = Vec::new();
    let (mut start, mut transactions, mut last) = (Revision::new(from, 0), 0, 0);
    let mut bytes = 0;
    loop {
        let rows = view.rows(start, published)?;
        let Some(end) = rows.last().map(|row| row.rev) else {
            return Ok((changes, published));
        };
        for row in &rows {
            if row.rev.main != last {
                if transactions == limits::WATCH_CATCH_UP_REVISIONS_MAX {
                    return Ok((changes, last));
                }
                transactions += 1;
                last = row.rev.main;
            }
            bytes += row.kv.len();
            changes.push(change_of(row)?);
        }
        let is_enough =
            changes.len() >= limits::READ_CHUNK_ROWS || bytes >= limits::READ_CHUNK_BYTES;
        if is_enough && transactions > 1 {
            // The last transaction may go on behind these rows; it is read again.
            let complete = last - 1;
            changes.retain(|change| change.revision.main <= complete);
            return Ok((changes, complete));
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
        Change { kind: ChangeKind::Delete, key, kv, revision, is_create: false }
    } else {
        let is_create = pair.create_revision == pair.mod_revision;
        Change { kind: ChangeKind::Put, key, kv: row.kv.clone(), revision, is_create }
    })
}
