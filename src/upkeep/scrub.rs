//! The scrub, which verifies the checksums of the whole store slowly and repeatedly, and the fence
//! around a member whose store is damaged.
//!
//! Damage counts wherever it is found, in a client's read as in the scrub. From then on this member
//! answers reads and writes of clients with "corrupt cluster", is not healthy, shows the alarm
//! CORRUPT for itself, hands leadership to another voter whenever it has it, and lets its store be
//! neither copied nor hashed: no snapshot, no defragmentation, no hash. It still votes and keeps
//! its log, which has checksums of its own: the log's entries are acknowledged, and without this
//! vote the cluster would tolerate one failure less.
//!
//! The alarm does not go through the log. There it would stop the whole cluster, as in etcd, where
//! CORRUPT means that histories differ and nobody knows which is right. A checksum that fails tells
//! that this member's data is wrong.

use std::sync::Arc;
use std::time::Duration;

use super::door::Door;
use super::{Error, Upkeep};
use crate::limits::{
    FENCE_LOOK_INTERVAL, SCRUB_BYTES_PER_SECOND, SCRUB_DELAY, SCRUB_INTERVAL, SCRUB_PIECE_BYTES,
};
use crate::metrics;
use crate::peer::Pace;
use crate::store;
use crate::types::Revision;

impl Upkeep {
    /// Fails with `Corrupt` if this member's store is damaged.
    pub fn fence(&self) -> Result<(), Error> {
        if self.context.store.damage().is_some() { Err(Error::Corrupt) } else { Ok(()) }
    }

    /// Whether the store of this member is damaged: it then serves no client.
    pub fn is_fenced(&self) -> bool {
        self.context.store.damage().is_some()
    }

    /// Reads the store once a day, until damage is found. The first pass starts after
    /// `SCRUB_DELAY`.
    pub async fn scrub_store(self: &Arc<Self>, door: &impl Door) {
        self.context.clock.sleep(SCRUB_DELAY).await;
        while !self.is_fenced() {
            let (upkeep, door) = (Arc::clone(self), door.clone());
            let scrubbed = self.on_nice_thread("scrub", move || upkeep.scrub_now(&door)).await;
            if let Err(error) = scrubbed {
                tracing::warn!(%error, "the scrub of the store ended early");
            }
            self.context.clock.sleep(SCRUB_INTERVAL).await;
        }
    }

    /// Reads the store once. Blocks until all is read, damage is found or the member stops.
    fn scrub_now(&self, door: &impl Door) -> Result<(), Error> {
        let context = &self.context;
        let mut pace = Pace::new(context.raft.clone());
        let (mut from, mut rows, mut bytes) = (Revision::default(), 0, 0);
        let piece =
            Duration::from_secs_f64(SCRUB_PIECE_BYTES as f64 / SCRUB_BYTES_PER_SECOND as f64);
        loop {
            if door.is_stopping() {
                return Ok(());
            }
            let scrubbed = match context.store.scrub(from) {
                Ok(scrubbed) => scrubbed,
                // The store has reported the damage (`say_damage`), and the member is fenced.
                Err(store::Error::Damage { .. }) => return Ok(()),
                Err(error) => return Err(Error::Internal(error.to_string())),
            };
            rows += scrubbed.rows;
            bytes += scrubbed.bytes;
            metrics::scrub_records().inc_by(scrubbed.rows);
            metrics::scrub_bytes().inc_by(scrubbed.bytes);
            let Some(next) = scrubbed.next else { break };
            from = next;
            pace.rest(scrubbed.bytes);
            let part = scrubbed.bytes as f64 / SCRUB_PIECE_BYTES as f64;
            std::thread::sleep(piece.mul_f64(part.min(1.0)));
        }
        metrics::scrub_passes().inc();
        tracing::info!(records = rows, bytes, "scrubbed the store; all checksums are right");
        Ok(())
    }

    /// Hands leadership on whenever a fenced member has it, until the member stops.
    pub async fn keep_fence(&self, door: &impl Door) {
        loop {
            self.context.clock.sleep(FENCE_LOOK_INTERVAL).await;
            if self.is_fenced()
                && let Err(error) = door.hand_over().await
            {
                tracing::warn!(%error, "this member's store is damaged, and nobody else can lead");
            }
        }
    }
}

/// Logs damage of the store, and sets its gauge, when it is found.
pub fn say_damage(store: &store::Store) {
    metrics::store_damaged().set(0);
    store.on_damage(|damage| {
        metrics::store_damaged().set(1);
        tracing::error!(
            damage,
            "the store is damaged: this member serves nobody any more; stop it and rebuild it from \
             its peers with `rusd rebuild`"
        );
    });
}
