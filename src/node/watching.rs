//! Watch streams for clients: the hub, with a check of rights at each new watcher.

use std::convert::Infallible;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use tokio::sync::Semaphore;

use super::long_work::LongWork;
use super::{Error, Node};
use crate::auth::{Credentials, demand};
use crate::limits;
use crate::mvcc::{self, CallerGuard, Change, Mvcc, ReadCheck, View};
use crate::watch::{self, Next, Piece, WatchSpec};

/// The most changes whose previous pairs are read on the thread that serves the connection; for
/// more, a blocking thread reads them.
pub const PREVIOUS_INLINE_MAX: usize = 16;

/// Why a watcher was not created.
#[derive(Debug, thiserror::Error)]
pub enum WatchError {
    #[error(transparent)]
    Refused(#[from] Error),
    #[error(transparent)]
    Watch(#[from] watch::CreateError),
}

/// There was no room for what was to be read for a stream, which has at least so many bytes.
struct Refused {
    bytes: usize,
}

/// The watchers of one client's stream.
#[derive(Clone)]
pub struct WatchStream {
    node: Node,
    stream: Arc<watch::Stream>,
    /// Bytes of the last piece of history that found no room; 0 if the last one did.
    refused_bytes: Arc<AtomicUsize>,
}

impl Node {
    pub fn watch_stream(&self) -> WatchStream {
        let (stream, refused_bytes) = (Arc::new(self.0.hub.stream()), Arc::default());
        WatchStream { node: self.clone(), stream, refused_bytes }
    }

    /// As [`watch::Hub::wake_gradually`].
    pub fn wake_watchers(&self) -> impl Future<Output = Infallible> + Send + use<> {
        let hub = Arc::clone(&self.0.hub);
        async move { hub.wake_gradually().await }
    }
}

impl WatchStream {
    /// Adds a watcher if the caller may read its whole range. Rights are checked here only, as in
    /// etcd: the watcher goes on after the token expires or rights change.
    pub async fn create(&self, who: &Credentials, spec: WatchSpec) -> Result<i64, WatchError> {
        let permit = self.node.authorize(who, &demand::watch(&spec.range)).await?;
        permit.still_holds(&self.node)?;
        Ok(self.stream.create(spec)?)
    }

    pub fn next(&self) -> Next {
        self.stream.next()
    }

    pub async fn wait(&self) {
        self.stream.wait().await;
    }

    /// Reads a piece of history for the stream's lagging watchers, after it got one of the turns
    /// that all streams share. [`Self::next`] asks for it once more if what was read had to give
    /// way.
    pub async fn catch_up(&self) -> Result<(), Error> {
        let (stream, turns) = (Arc::clone(&self.stream), &self.node.0.long_work.catch_ups);
        let read = move |_: &Mvcc, wanted: &ReadCheck| stream.read_piece(wanted);
        let bytes_min = self.refused_bytes.load(Ordering::Relaxed);
        let refused_bytes = match self.in_turn(turns, bytes_min, Piece::bytes, read).await? {
            Ok(piece) => {
                self.stream.take_piece(piece)?;
                0
            }
            Err(Refused { bytes }) => bytes,
        };
        self.refused_bytes.store(refused_bytes, Ordering::Relaxed);
        Ok(())
    }

    /// Reads in one of these turns. The outcome, which has so many `bytes`, is refused if it finds no
    /// room among the unsent answers of the member, or has to give way before the stream comes for
    /// it; when this returns, there is room. What is known to have at least `bytes_min` is read once
    /// there is room, and kept also if others were quicker: else it might be read in vain again and
    /// again.
    ///
    /// A stream is looked at only as long as its client takes what is sent. One whose client stopped
    /// while it was in line would keep its turn from all others, so a task waits for it.
    async fn in_turn<T: Send + 'static>(
        &self,
        turns: &Arc<Semaphore>,
        bytes_min: usize,
        bytes: impl FnOnce(&T) -> usize + Send + 'static,
        read: impl FnOnce(&Mvcc, &ReadCheck) -> Result<T, mvcc::Error> + Send + 'static,
    ) -> Result<Result<T, Refused>, Error> {
        let (node, running) = (self.node.clone(), self.node.0.stopping.subscribe());
        // What is known to need room had it before the read.
        let is_sure = bytes_min > limits::CROWDED_RANGE_BYTES_MAX;
        // Held here, so that the read ends as soon as nobody wants it, before the task hears of it.
        let caller = CallerGuard::default();
        let wanted = caller.read_check();
        let read = move |mvcc: &Mvcc, _: &ReadCheck| read(mvcc, &wanted);
        let turns = Arc::clone(turns);
        let outcome = self.node.0.supervisor.awaited("watch-history", async move {
            // The member's end waits for those that hold it: dropped last.
            let _running = running;
            let node = node;
            let turn = turns.acquire_owned().await.map_err(|_| Error::Stopped)?;
            if !node.0.answers.has_room_for(bytes_min) {
                return Ok(Err(Refused { bytes: bytes_min }));
            }
            let value = node.read_in_turn(turn, read).await?;
            let bytes = bytes(&value);
            if !is_sure && !node.0.answers.has_room_for(bytes) {
                return Ok(Err(Refused { bytes }));
            }
            let caught_up = &node.0.long_work.caught_up;
            Ok(Ok((bytes, caught_up.keep(value, bytes, limits::CATCH_UPS_UNCLAIMED_BYTES_MAX))))
        });
        let read = outcome.await.unwrap_or(Err(Error::Stopped))?;
        let has_room = |bytes: usize| is_sure || self.node.0.answers.has_room_for(bytes);
        let taken = read.and_then(|(bytes, claim)| {
            claim.take().filter(|_| has_room(bytes)).ok_or(Refused { bytes })
        });
        if taken.is_err() {
            self.node.0.answers.some_room().await;
        }
        Ok(taken)
    }

    /// Waits until a response of so many bytes may be made.
    pub async fn room(&self, bytes: usize) {
        while !self.node.0.answers.has_room_for(bytes) {
            self.node.0.answers.some_room().await;
        }
    }

    /// Removes a watcher; false if there is none of that id.
    pub fn cancel(&self, watch_id: i64) -> bool {
        self.stream.cancel(watch_id)
    }

    pub fn request_progress(&self) {
        self.stream.request_progress();
    }

    pub fn notify_progress(&self, watch_id: i64) {
        self.stream.notify_progress(watch_id);
    }

    pub fn revision(&self) -> i64 {
        self.stream.revision()
    }

    /// Adds to changes the pairs before them. A watcher may read these because it may read the
    /// changes. A change that created its key, or whose history is compacted by then, has none, as in
    /// etcd.
    pub async fn read_previous(&self, mut changes: Vec<Change>) -> Result<Vec<Change>, Error> {
        let is_done = match changes.len() <= PREVIOUS_INLINE_MAX {
            true => {
                let bytes_max = limits::WATCH_PREVIOUS_INLINE_BYTES;
                self.read_some_previous(&mut changes, bytes_max)? == changes.len()
            }
            false => changes.iter().all(is_previous_known),
        };
        if is_done {
            return Ok(changes);
        }
        // Thousands of streams may be in line, and nothing counts what they hold meanwhile.
        let known = changes.iter().filter_map(|change| change.previous.as_ref());
        if known.map(Bytes::len).sum::<usize>() > limits::CROWDED_RANGE_BYTES_MAX {
            changes.iter_mut().for_each(|change| change.previous = None);
        }
        let changes = Arc::new(changes);
        let LongWork { catch_ups, long_previous, .. } = &self.node.0.long_work;
        let (mut turns, mut bytes_min) = (catch_ups, 0);
        let mut bytes_max = limits::WATCH_PREVIOUS_BYTES;
        let previous = loop {
            let changes_read = Arc::clone(&changes);
            let read = move |mvcc: &Mvcc, wanted: &ReadCheck| {
                let mut previous = Previous::default();
                mvcc.read(wanted, |view| previous.read(view, &changes_read, bytes_max))?;
                Ok(previous)
            };
            match self.in_turn(turns, bytes_min, |read: &Previous| read.bytes, read).await? {
                Ok(previous) if previous.pairs.len() == changes.len() => break previous,
                Ok(_) => (turns, bytes_min, bytes_max) = (long_previous, bytes_max, usize::MAX),
                Err(Refused { bytes }) => bytes_min = bytes,
            }
        };
        // The reads have given back what they shared.
        let mut changes = Arc::unwrap_or_clone(changes);
        previous.put_into(&mut changes);
        Ok(changes)
    }

    /// As [`Self::read_previous`], on this thread, for the first changes, up to the one that reaches
    /// `bytes_max`. Returns their number.
    pub fn read_some_previous(
        &self,
        changes: &mut [Change],
        bytes_max: usize,
    ) -> Result<usize, Error> {
        let mut previous = Previous::default();
        previous.read(&self.node.0.machine.mvcc.view(), changes, bytes_max)?;
        let count = previous.pairs.len();
        previous.put_into(changes);
        Ok(count)
    }
}

/// The pairs before the first of some changes.
#[derive(Default)]
struct Previous {
    pairs: Vec<Option<Bytes>>,
    bytes: usize,
}

impl Previous {
    /// Reads up to the pair that reaches `bytes_max`. `Mvcc::read` calls this again with a view of
    /// the new state if a replacement of the state ended it; the pairs read so far are kept.
    fn read(
        &mut self,
        view: &View<'_>,
        changes: &[Change],
        bytes_max: usize,
    ) -> Result<(), mvcc::Error> {
        for change in &changes[self.pairs.len()..] {
            if self.bytes >= bytes_max {
                break;
            }
            let pair = match is_previous_known(change) {
                true => change.previous.clone(),
                false => {
                    view.go_on()?;
                    view.previous(change)?
                }
            };
            self.bytes += size_of_val(&pair) + pair.as_ref().map_or(0, Bytes::len);
            self.pairs.push(pair);
        }
        Ok(())
    }

    fn put_into(self, changes: &mut [Change]) {
        for (change, previous) in changes.iter_mut().zip(self.pairs) {
            change.previous = previous;
        }
    }
}

fn is_previous_known(change: &Change) -> bool {
    change.is_create || change.previous.is_some()
}
