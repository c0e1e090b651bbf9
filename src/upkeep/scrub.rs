//! The scrub: verifies the checksums of the whole store, slowly, over and over; and the fence around
//! a member whose store is damaged.
//!
//! Damage counts wherever it is met, in a client's read as in the scrub. From there on this member
//! refuses what clients want to read or write with "corrupt cluster", is not healthy, shows the
//! alarm CORRUPT for itself, hands leadership to another voter whenever it has it, and lets nobody
//! copy its store: no snapshot, no defragmentation, no hash. It goes on to vote and to keep the log,
//! which has checksums of its own: what the log holds is acknowledged, and a vote less would take
//! the others' tolerance of a further failure.
//!
//! The alarm is not put through the log. There it would stop the whole cluster, as in etcd, where it
//! means that nobody knows whose data is right. A checksum says that this member's is not.

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
    /// Refuses what a member with a damaged store must not answer.
    pub fn fence(&self) -> Result<(), Error> {
        if self.ground.store.damage().is_some() { Err(Error::Corrupt) } else { Ok(()) }
    }

    /// Whether the store of this member is damaged, and so nothing is served.
    pub fn is_fenced(&self) -> bool {
        self.ground.store.damage().is_some()
    }

    pub async fn scrub_store(self: &Arc<Self>, door: &impl Door) {
        self.ground.clock.sleep(SCRUB_DELAY).await;
        while !self.is_fenced() {
            let (upkeep, door) = (Arc::clone(self), door.clone());
            let scrubbed = self.nice("scrub", move || upkeep.scrub_now(&door)).await;
            if let Err(error) = scrubbed {
                tracing::warn!(%error, "the scrub of the store ended early");
            }
            self.ground.clock.sleep(SCRUB_INTERVAL).await;
        }
    }

    /// Blocks until all was read, damage was found or the member stops.
    fn scrub_now(&self, door: &impl Door) -> Result<(), Error> {
        let ground = &self.ground;
        let mut pace = Pace::new(ground.raft.clone());
        let (mut from, mut rows, mut bytes) = (Revision::default(), 0, 0);
        let piece =
            Duration::from_secs_f64(SCRUB_PIECE_BYTES as f64 / SCRUB_BYTES_PER_SECOND as f64);
        loop {
            if door.is_stopping() {
                return Ok(());
            }
            let scrubbed = match ground.store.scrub(from) {
                Ok(scrubbed) => scrubbed,
                // The fence has said it.
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

    /// Keeps a fenced member from leading.
    pub async fn keep_fence(&self, door: &impl Door) {
        loop {
            self.ground.clock.sleep(FENCE_LOOK_INTERVAL).await;
            if self.is_fenced()
                && let Err(error) = door.hand_over().await
            {
                tracing::warn!(%error, "this member's store is damaged, and nobody else can lead");
            }
        }
    }
}

/// Says it when the store is found damaged.
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
