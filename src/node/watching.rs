//! Watching: the hub behind a door that asks who is there at each watcher.

use std::sync::Arc;

use bytes::Bytes;

use super::{Error, Node};
use crate::auth::{Credentials, demand};
use crate::mvcc::{self, Change, Mvcc};
use crate::watch::{self, Item, Next, Spec};

/// Previous pairs read on the thread that serves the connection; more are read elsewhere.
const PREVIOUS_INLINE_MAX: usize = 16;

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

    /// Reads a piece of history for watchers that lag.
    pub async fn catch_up(&self) -> Result<Vec<Item>, Error> {
        let stream = Arc::clone(&self.stream);
        self.node.read(move |_| stream.catch_up()).await
    }

    pub fn cancel(&self, watch_id: i64) {
        self.stream.cancel(watch_id);
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

    /// The pairs before changes of a watcher, which may read them as it may read the changes; none
    /// for a creation, or where history is compacted away.
    pub async fn previous(&self, changes: &[Change]) -> Result<Vec<Option<Bytes>>, Error> {
        if changes.len() <= PREVIOUS_INLINE_MAX {
            return Ok(previous_of(&self.node.0.mvcc, changes)?);
        }
        let changes = changes.to_vec();
        self.node.read(move |mvcc| previous_of(mvcc, &changes)).await
    }
}

fn previous_of(mvcc: &Mvcc, changes: &[Change]) -> Result<Vec<Option<Bytes>>, mvcc::Error> {
    let view = mvcc.view();
    changes.iter().map(|change| view.previous(change)).collect()
}
