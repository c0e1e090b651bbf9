//! The end of leases: the leader revokes overdue leases, and notes in the log how long others have
//! left.

use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use futures_util::StreamExt;

use super::{Error, Node, Op};
use crate::apply;
use crate::limits;
use crate::metrics;
use crate::pb::{LeaseCheckpoint, LeaseCheckpointRequest, LeaseRevokeRequest};
use crate::planted::{self, Bug};
use crate::raft::Via;

/// The interval at which etcd looks for expired leases.
const EXPIRY_INTERVAL: Duration = Duration::from_millis(500);

/// The time after which a lease is revoked again if it still exists, etcd's.
pub(super) const REVOKE_RETRY: Duration = Duration::from_millis(7500);

impl Node {
    /// Revokes overdue leases twice a second while this member leads, `LEASE_REVOKES_PER_SECOND` at
    /// most.
    pub(super) async fn expire_leases(&self) {
        let inner = &self.0;
        let per_interval = limits::LEASE_REVOKES_PER_SECOND / 2;
        loop {
            inner.clock.sleep(EXPIRY_INTERVAL).await;
            let now = inner.clock.now();
            self.checkpoint_leases().await;
            let (expired, term) = {
                let mut lessor = inner.machine.lessor.lock();
                let expired = lessor.expired(now, now + REVOKE_RETRY, per_interval);
                (expired, inner.leading.lease_term.load(Relaxed))
            };
            let via = match planted::is(Bug::OldLeaderRevokes) {
                true => Via::AnyLeader,
                false => Via::OwnTerm(term),
            };
            // The barrier comes first: a member that was replaced as the leader would not know
            // which leases were renewed. A lease that is not revoked in this round is due again
            // after `REVOKE_RETRY`.
            if expired.is_empty() || !self.still_leads().await {
                continue;
            }
            let revokes = futures_util::stream::iter(expired).map(|id| async move {
                let revoke = Op::LeaseRevoke(LeaseRevokeRequest { id });
                match self.propose_own_via(revoke, via).await {
                    Ok(_) => metrics::lease_expired().inc(),
                    // A client revoked the lease first, or another member leads and will revoke it.
                    Err(Error::Apply(apply::Error::LeaseNotFound) | Error::NotLeader) => {}
                    Err(error) => {
                        let id = format!("{:016x}", crate::types::SignedHex(id));
                        tracing::warn!("lease-id" = id, %error, "failed to revoke lease");
                    }
                }
            });
            let mut revokes = revokes.buffer_unordered(limits::LEASE_REVOKES_PENDING_MAX);
            while revokes.next().await.is_some() {}
        }
    }

    async fn still_leads(&self) -> bool {
        self.barrier().await.is_ok()
            && self.0.machine.lessor.lock().is_leader()
            && (self.0.raft.status().leader == self.0.member_id
                || planted::is(Bug::OldLeaderRevokes))
    }

    /// Notes in the log how long leases have left, so that the next leader does not grant their
    /// full TTL again.
    async fn checkpoint_leases(&self) {
        let leases_max = limits::LEASE_CHECKPOINT_LEASES_MAX;
        loop {
            // Held until these checkpoints are proposed: a renewal's reset (`forget_remainder`)
            // then stands behind them in the log.
            let _notes = self.0.leading.lease_notes.lock().await;
            let (due, term) = {
                let mut lessor = self.0.machine.lessor.lock();
                let due = lessor.due_checkpoints(self.0.clock.now(), leases_max);
                (due, self.0.leading.lease_term.load(Relaxed))
            };
            if due.is_empty() {
                return;
            }
            let is_last = due.len() < leases_max;
            let note = |(id, remaining_ttl)| LeaseCheckpoint { id, remaining_ttl };
            let checkpoints = due.into_iter().map(note).collect();
            let request = LeaseCheckpointRequest { checkpoints };
            let noted =
                self.propose_own_via(Op::LeaseCheckpoint(request), Via::OwnTerm(term)).await;
            if let Err(error) = noted {
                tracing::warn!(%error, "failed to checkpoint leases");
                return;
            }
            if is_last {
                return;
            }
        }
    }
}
