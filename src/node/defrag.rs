//! Defragmentation on demand: one at a time, on a thread that gives way to all others.

use super::{Error, Node};
use crate::auth::{Credentials, Demand};
use crate::metrics;
use crate::peer::Pace;
use crate::store::{Defragmented, Store};

impl Node {
    /// Gives back the space that is free within the file. As in etcd, who comes while another one
    /// is under way waits and then has it done again; and it goes on if the caller does not wait.
    pub async fn defragment(&self, who: &Credentials) -> Result<(), Error> {
        self.permits(who, &Demand::Root).await?;
        self.defragment_own().await.map(drop)
    }

    pub(super) async fn defragment_own(&self) -> Result<Defragmented, Error> {
        self.fence()?;
        let turn = self.0.admission.defrags.begin().await?;
        let node = self.clone();
        let work = move || {
            let _turn = turn;
            node.defragment_now()
        };
        self.nice("defrag", work).await
    }

    /// Blocks until it is done.
    fn defragment_now(&self) -> Result<Defragmented, Error> {
        let inner = &self.0;
        let before = inner.machine.store.sizes();
        tracing::info!(
            path = %inner.machine.store.directory().display(),
            "current-db-size-bytes" = before.total,
            "current-db-size-in-use-bytes" = before.in_use,
            "defragmenting"
        );
        metrics::defrag_inflight().set(1);
        let began = inner.clock.now();
        let mut pace = Pace::new(inner.raft.clone());
        let done = inner.machine.store.defragment(&mut |bytes| pace.rest(bytes));
        let took = inner.clock.now().saturating_sub(began);
        metrics::defrag_inflight().set(0);
        let done = done.map_err(|error| Error::Internal(error.to_string()))?;
        metrics::backend_defrag_seconds().observe(took.as_secs_f64());
        metrics::defrag_pause_seconds().observe(done.pause.as_secs_f64());
        tracing::info!(
            "current-db-size-bytes-diff" = signed(done.after.total) - signed(before.total),
            "current-db-size-bytes" = done.after.total,
            "current-db-size-in-use-bytes" = done.after.in_use,
            "copied-bytes" = done.copied_bytes,
            "commits-paused" = ?done.pause,
            took = ?took,
            "finished defragmenting directory"
        );
        Ok(done)
    }
}

/// Before anybody is served, if enough would come free. The store's generation after that.
pub(super) fn at_start(store: &Store, threshold_bytes: u64) -> u64 {
    let before = store.sizes();
    let free_bytes = before.total.saturating_sub(before.in_use);
    if threshold_bytes > 0 && free_bytes >= threshold_bytes {
        match store.defragment(&mut |_| {}) {
            Ok(done) => tracing::info!(
                "current-db-size-bytes-before" = before.total,
                "current-db-size-bytes" = done.after.total,
                "finished defragmenting directory"
            ),
            Err(error) => tracing::warn!(%error, "failed to defragment"),
        }
    } else if threshold_bytes > 0 {
        tracing::info!(
            "current-db-size-bytes" = before.total,
            "current-db-size-in-use-bytes" = before.in_use,
            "bootstrap-defrag-threshold-bytes" = threshold_bytes,
            "Skipping defragmentation"
        );
    }
    store.generation()
}

fn signed(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use crate::clock::SystemClock;
    use crate::node::Config;

    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn sixteen_wait_and_no_more() {
        let dir = tempfile::tempdir().unwrap();
        let urls = vec!["http://localhost:2380".to_owned()];
        let initial_cluster = vec![("default".to_owned(), urls.clone())];
        let config = Config { initial_cluster, peer_urls: urls, ..Config::of(dir.path()) };
        let node = Node::start(config, Arc::new(SystemClock::new())).unwrap();
        node.ready().wait_for(|ready| *ready).await.unwrap();
        let running = node.0.admission.defrags.begin().await.unwrap();
        let mut asked = tokio::task::JoinSet::new();
        for _ in 0..17 {
            let node = node.clone();
            asked.spawn(async move { node.defragment_own().await.map(drop) });
        }
        let refused = asked.join_next().await.unwrap().unwrap();
        assert!(matches!(refused, Err(Error::TooManyRequests)), "{refused:?}");
        drop(running);
        while let Some(done) = asked.join_next().await {
            done.unwrap().unwrap();
        }
        node.stop().await;
    }
}
