//! Defragmentation on demand: one at a time, on a thread of niceness 10.

use std::sync::Arc;

use super::{Error, Upkeep};
use crate::go;
use crate::metrics;
use crate::peer::Pace;
use crate::store::{Defragmented, Store};

impl Upkeep {
    /// Gives free space within the store's file back. As in etcd, a caller that comes during a
    /// defragmentation waits and then has another one done, and one whose caller hangs up goes on.
    pub async fn defragment(self: &Arc<Self>) -> Result<Defragmented, Error> {
        self.fence()?;
        let turn = self.passes.defrags.begin().await?;
        let upkeep = Arc::clone(self);
        let work = move || {
            let _turn = turn;
            upkeep.defragment_now()
        };
        self.on_nice_thread("defrag", work).await
    }

    /// Defragments and blocks until that is done.
    fn defragment_now(&self) -> Result<Defragmented, Error> {
        let context = &self.context;
        let before = context.store.sizes();
        tracing::info!(
            path = %context.store.directory().display(),
            "current-db-size-bytes" = before.total,
            "current-db-size-in-use-bytes" = before.in_use,
            "defragmenting"
        );
        metrics::defrag_inflight().set(1);
        let began = context.clock.now();
        let mut pace = Pace::new(context.raft.clone());
        let done = context.store.defragment(&mut |bytes| pace.rest(bytes));
        let took = context.clock.now().saturating_sub(began);
        metrics::defrag_inflight().set(0);
        let done = done.map_err(|error| Error::Internal(error.to_string()))?;
        metrics::backend_defrag_seconds().observe(took.as_secs_f64());
        metrics::defrag_pause_seconds().observe(done.pause.as_secs_f64());
        tracing::info!(
            "current-db-size-bytes-diff" = signed(done.after.total) - signed(before.total),
            "current-db-size-bytes" = done.after.total,
            "current-db-size-in-use-bytes" = done.after.in_use,
            "copied-bytes" = done.copied_bytes,
            "commits-paused" = go::duration(done.pause),
            took = go::duration(took),
            "finished defragmenting directory"
        );
        Ok(done)
    }
}

/// Defragments before the member serves, if at least `threshold_bytes` are free within the file.
/// Returns the store's generation after that.
pub fn defragment_at_start(store: &Store, threshold_bytes: u64) -> u64 {
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
