//! Watch streams for clients: the hub, with a check of rights at each new watcher.

use std::sync::Arc;

use tokio::sync::OwnedSemaphorePermit;

use super::{Error, Node};
use crate::auth::{Credentials, demand};
use crate::mvcc::{self, Change, Mvcc, ReadCheck, View};
use crate::watch::{self, Next, WatchSpec};

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

/// The watchers of one client's stream.
#[derive(Clone)]
pub struct WatchStream {
    node: Node,
    stream: Arc<watch::Stream>,
}

impl Node {
    pub fn watch_stream(&self) -> WatchStream {
        WatchStream { node: self.clone(), stream: Arc::new(self.0.hub.stream()) }
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
    /// that all streams share.
    pub async fn catch_up(&self) -> Result<(), Error> {
        let turn = self.turn().await?;
        let stream = Arc::clone(&self.stream);
        self.node.read_in_turn(turn, move |_, _| stream.catch_up()).await
    }

    async fn turn(&self) -> Result<OwnedSemaphorePermit, Error> {
        let turns = Arc::clone(&self.node.0.long_work.catch_ups);
        turns.acquire_owned().await.map_err(|_| Error::Stopped)
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
    /// changes. A change that created its key, or whose history is compacted, has none.
    pub async fn read_previous(&self, mut changes: Vec<Change>) -> Result<Vec<Change>, Error> {
        if changes.len() <= PREVIOUS_INLINE_MAX {
            read_previous(&self.node.0.machine.mvcc.view(), &mut changes)?;
            return Ok(changes);
        }
        if changes.iter().all(is_previous_known) {
            return Ok(changes);
        }
        let turn = self.turn().await?;
        let read = move |mvcc: &Mvcc, wanted: &ReadCheck| {
            mvcc.read(wanted, |view| read_previous(view, &mut changes))?;
            Ok(changes)
        };
        self.node.read_in_turn(turn, read).await
    }
}

fn is_previous_known(change: &Change) -> bool {
    change.is_create || change.previous.is_some()
}

/// Reads the previous pairs that are not known yet. `Mvcc::read` calls this again with a view of
/// the new state if a replacement of the state ended it; the pairs read so far are kept.
fn read_previous(view: &View<'_>, changes: &mut [Change]) -> Result<(), mvcc::Error> {
    for change in changes.iter_mut().filter(|change| !is_previous_known(change)) {
        view.go_on()?;
        change.previous = view.previous(change)?;
    }
    Ok(())
}
