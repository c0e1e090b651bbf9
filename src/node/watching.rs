//! Watching: the hub behind a door that asks who is there at each watcher.

use std::sync::Arc;

use tokio::sync::OwnedSemaphorePermit;

use super::{Error, Node};
use crate::auth::{Credentials, demand};
use crate::mvcc::{self, Change, Mvcc, View, Wanted};
use crate::watch::{self, Next, Spec};

/// Previous pairs read on the thread that serves the connection; more are read elsewhere.
pub const PREVIOUS_INLINE_MAX: usize = 16;

/// Why there is no watcher.
#[derive(Debug, thiserror::Error)]
pub enum WatchError {
    #[error(transparent)]
    Refused(#[from] Error),
    #[error(transparent)]
    Watch(#[from] watch::CreateError),
}

/// Watchers of one client.
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
    /// Adds a watcher for a caller who may read all that it will see. As in etcd, it outlives its
    /// caller's token and rights.
    pub async fn create(&self, who: &Credentials, spec: Spec) -> Result<i64, WatchError> {
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

    /// Reads a piece of history for watchers that lag. Streams take turns at it.
    pub async fn catch_up(&self) -> Result<(), Error> {
        let turn = self.turn().await?;
        let stream = Arc::clone(&self.stream);
        self.node.read_in_turn(turn, move |_, _| stream.catch_up()).await
    }

    async fn turn(&self) -> Result<OwnedSemaphorePermit, Error> {
        let turns = Arc::clone(&self.node.0.admission.catch_ups);
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

    /// Reads the pairs before changes of a watcher, which may read them as it may read the changes;
    /// none for a creation, or where history is compacted away.
    pub async fn read_previous(&self, mut changes: Vec<Change>) -> Result<Vec<Change>, Error> {
        if changes.len() <= PREVIOUS_INLINE_MAX {
            read_previous(&self.node.0.machine.mvcc.view(), &mut changes)?;
            return Ok(changes);
        }
        if changes.iter().all(is_previous_known) {
            return Ok(changes);
        }
        let turn = self.turn().await?;
        let read = move |mvcc: &Mvcc, wanted: &Wanted| {
            mvcc.read(wanted, |view| read_previous(view, &mut changes))?;
            Ok(changes)
        };
        self.node.read_in_turn(turn, read).await
    }
}

fn is_previous_known(change: &Change) -> bool {
    change.is_create || change.previous.is_some()
}

/// Those that a replacement of the state has cut off are read from the new one.
fn read_previous(view: &View<'_>, changes: &mut [Change]) -> Result<(), mvcc::Error> {
    for change in changes.iter_mut().filter(|change| !is_previous_known(change)) {
        view.go_on()?;
        change.previous = view.previous(change)?;
    }
    Ok(())
}
