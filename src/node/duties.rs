//! What a member does by itself: follow the leader, say who it is, agree on the cluster version,
//! let leases expire, compact history, compare it with its peers', raise the alarm of a full disk.
//!
//! Each duty is a task that waits and then asks a pure rule what to do; it ends when the member
//! stops.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use futures_util::StreamExt;
use tokio::sync::Notify;

use super::auto_compact::AutoCompact;
use super::{Error, Node, Op};
use crate::clock::Backoff;
use crate::limits;
use crate::metrics;
use crate::pb::membershippb::{Attributes, ClusterMemberAttrSetRequest};
use crate::pb::{
    AlarmType, CompactionRequest, LeaseCheckpoint, LeaseCheckpointRequest, LeaseRevokeRequest,
};
use crate::planted::{self, Bug};
use crate::raft;

/// How often etcd looks for expired leases.
const EXPIRY_INTERVAL: Duration = Duration::from_millis(500);
/// When a lease whose revocation failed is looked at again, as in etcd.
pub(super) const REVOKE_RETRY: Duration = Duration::from_millis(7500);

pub(super) struct Duties;

impl Duties {
    pub(super) fn start(node: &Node, no_space: Arc<Notify>) {
        start(node, "follow-leader", |node| async move { node.follow_leader().await });
        if node.0.config.initial_election_tick_advance {
            start(node, "hasten-election", |node| async move { node.hasten_election().await });
        }
        start(node, "publish", |node| async move { node.publish().await });
        start(node, "agree-on-version", |node| async move { node.agree_on_version().await });
        start(node, "watch-downgrade", |node| async move { node.watch_downgrade().await });
        start(node, "expire-leases", |node| async move { node.expire_leases().await });
        start(node, "compact-history", |node| async move { node.compact_history().await });
        start(node, "compare-histories", |node| async move { node.compare_histories().await });
        start(node, "compare-compactions", |node| async move { node.compare_compactions().await });
        start(node, "watch-space", |node| async move { node.watch_space(&no_space).await });
        start(node, "observe-growth", |node| async move { node.observe_growth().await });
        // It has a thread, which a simulator's member has not.
        if !node.0.is_stepped {
            start(node, "scrub-store", |node| async move { node.scrub_store().await });
            start(node, "watch-log", |node| async move { node.watch_log().await });
            start(node, "keep-fence", |node| async move { node.keep_fence().await });
        }
        if node.0.config.keeps_space {
            start(node, "keep-space", |node| async move { node.keep_space().await });
        }
    }
}

fn start<F: Future<Output = ()> + Send + 'static>(
    node: &Node,
    name: &'static str,
    duty: impl FnOnce(Node) -> F,
) {
    let mut stopping = node.0.stopping.subscribe();
    let duty = duty(node.clone());
    node.0.supervisor.task(name, async move {
        let mut duty = pin!(duty);
        let duty = poll_fn(|context| {
            planted::trip(name);
            duty.as_mut().poll(context)
        });
        tokio::select! {
            biased;
            () = duty => {}
            _ = stopping.wait_for(|stopping| *stopping) => {}
        }
        // Last: it tells a stop that this task's share of the member is gone.
        drop(stopping);
    });
}

impl Node {
    async fn follow_leader(&self) {
        let inner = &self.0;
        let mut leader = inner.raft.subscribe_leader();
        loop {
            let raft::Leader { id, term } = *leader.borrow_and_update();
            let is_leader = id == inner.member_id;
            {
                let mut lessor = inner.machine.lessor.lock();
                // Between two terms of its own another one may have led, unseen.
                let is_new = !lessor.is_leader() || inner.lease_term.load(Relaxed) != term;
                if is_leader && is_new {
                    // A renewal that the last leader acknowledged may be an election old.
                    lessor.promote(inner.clock.now(), inner.config.election_timeout);
                    inner.lease_term.store(term, Relaxed);
                } else if !is_leader && lessor.is_leader() && !planted::is(Bug::OldLeaderRevokes) {
                    lessor.demote();
                }
            }
            if inner.leader.send_replace(id) != id && id != 0 {
                metrics::leader_changes_seen().inc();
                if is_leader {
                    *inner.elected.lock() = Some(inner.clock.now());
                }
            }
            if id != 0 {
                inner.has_leader.notify_waiters();
            }
            metrics::has_leader().set(i64::from(id != 0));
            metrics::is_leader().set(i64::from(is_leader));
            if leader.changed().await.is_err() {
                return;
            }
        }
    }

    /// Once more than one peer has been reached, nobody needs to wait any longer to elect.
    async fn hasten_election(&self) {
        let inner = &self.0;
        for _ in 0..limits::PEERS_REACHED_LOOKS_MAX {
            inner.clock.sleep(limits::PEERS_REACHED_INTERVAL).await;
            let members = self.members();
            let others = members.iter().map(|member| member.id).filter(|id| *id != inner.member_id);
            if others.filter(|id| inner.circle.reach.connected_for(*id).is_some()).count() > 1 {
                drop(inner.raft.reached_peers());
                return;
            }
        }
    }

    /// Tells the cluster this member's name and client URLs, after which it may serve.
    async fn publish(&self) {
        let inner = &self.0;
        let mut backoff = Backoff::new(limits::PUBLISH_RETRY, limits::PUBLISH_RETRY_MAX);
        loop {
            self.some_leader().await;
            let name = inner.config.name.clone();
            let client_urls = inner.config.client_urls.clone();
            let attributes = ClusterMemberAttrSetRequest {
                member_id: inner.member_id,
                member_attributes: Some(Attributes { name, client_urls }),
            };
            match self.propose_own(Op::ClusterMemberAttrSet(attributes)).await {
                Ok(_) => break,
                Err(Error::Stopped) => return,
                Err(error) => {
                    tracing::warn!(%error, "failed to publish local member to cluster through raft");
                }
            }
            // Some refusals come at once. Without a rest this task would keep the only thread that
            // serves peers.
            backoff.rest(&*inner.clock).await;
        }
        tracing::info!(
            "local-member-id" = format!("{:x}", inner.member_id),
            "cluster-id" = format!("{:x}", inner.cluster_id),
            "published local member to cluster through raft"
        );
        inner.ready.send_replace(true);
    }

    async fn expire_leases(&self) {
        let inner = &self.0;
        let per_interval = limits::LEASE_REVOKES_PER_SECOND / 2;
        loop {
            inner.clock.sleep(EXPIRY_INTERVAL).await;
            let now = inner.clock.now();
            self.checkpoint_leases().await;
            let (expired, term) = {
                let mut lessor = inner.machine.lessor.lock();
                let expired = lessor.expired(now, now + REVOKE_RETRY, per_interval);
                (expired, inner.lease_term.load(Relaxed))
            };
            let term = if planted::is(Bug::OldLeaderRevokes) { 0 } else { term };
            // A leader that others have replaced would not know what they renewed. What it does not
            // revoke comes up again.
            if expired.is_empty() || !self.still_leads().await {
                continue;
            }
            let revokes = futures_util::stream::iter(expired).map(|id| async move {
                let revoke = Op::LeaseRevoke(LeaseRevokeRequest { id });
                match self.propose_as_leader(revoke, term).await {
                    Ok(_) => metrics::lease_expired().inc(),
                    // Someone else revoked it first, or is the one to do it.
                    Err(Error::LeaseNotFound | Error::NotLeader) => {}
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

    /// Notes in the log how long leases have left, so that the next leader does not begin anew.
    async fn checkpoint_leases(&self) {
        let leases_max = limits::LEASE_CHECKPOINT_LEASES_MAX;
        loop {
            // Until these notes are proposed nobody takes one back.
            let _notes = self.0.lease_notes.lock().await;
            let (due, term) = {
                let mut lessor = self.0.machine.lessor.lock();
                let due = lessor.due_checkpoints(self.0.clock.now(), leases_max);
                (due, self.0.lease_term.load(Relaxed))
            };
            if due.is_empty() {
                return;
            }
            let is_last = due.len() < leases_max;
            let note = |(id, remaining_ttl)| LeaseCheckpoint { id, remaining_ttl };
            let checkpoints = due.into_iter().map(note).collect();
            let request = LeaseCheckpointRequest { checkpoints };
            if let Err(error) = self.propose_as_leader(Op::LeaseCheckpoint(request), term).await {
                tracing::warn!(%error, "failed to checkpoint leases");
                return;
            }
            if is_last {
                return;
            }
        }
    }

    async fn compact_history(&self) {
        let Some(retention) = self.0.config.retention else { return };
        let mut rule = AutoCompact::new(retention, self.0.clock.now());
        loop {
            let is_leader = *self.0.leader.borrow() == self.0.member_id;
            let revision = self.0.machine.mvcc.current().revision;
            if let Some(revision) = rule.tick(self.0.clock.now(), revision, is_leader) {
                tracing::info!(revision, "starting auto compaction");
                let compaction = CompactionRequest { revision, physical: false };
                match self.propose_own(Op::Compaction(compaction)).await {
                    Ok(_) | Err(Error::Compacted) => {
                        tracing::info!(revision, "completed auto compaction");
                        rule.done(revision);
                    }
                    Err(error) => tracing::warn!(revision, %error, "failed auto compaction"),
                }
            }
            self.0.clock.sleep(rule.interval()).await;
        }
    }

    /// Raises NOSPACE when apply or the store found no room.
    async fn watch_space(&self, no_space: &Notify) {
        loop {
            no_space.notified().await;
            let is_raised = self.0.machine.members.read().has_alarm(AlarmType::Nospace);
            if !is_raised {
                self.raise_no_space().await;
            }
        }
    }

    /// Brings the gauges up to date that nothing else does.
    pub fn refresh_metrics(&self) {
        let status = self.0.raft.status();
        let gauge = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
        metrics::proposals_committed().set(gauge(status.committed));
        metrics::proposals_applied().set(gauge(self.0.applied.index()));
        metrics::auth_revision().set(gauge(self.0.machine.auth.read().revision()));
        metrics::keys().set(gauge(self.0.machine.mvcc.live_keys()));
        let counts = self.0.hub.counts();
        metrics::watchers().set(gauge(counts.watchers as u64));
        metrics::log_stall_seconds().set(gauge(self.log_stall().as_secs()));
        metrics::slow_watchers().set(gauge(counts.lagging as u64));
    }
}
