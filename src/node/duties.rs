//! Duties, the work that a member does without a request: follow the leader, publish its name and
//! URLs, agree on the cluster version, let leases expire, compact history, compare it with its
//! peers', raise NOSPACE.
//!
//! Each duty is a task that waits and then asks a pure rule what to do; it ends when the member
//! stops.

use std::future::poll_fn;
use std::sync::Arc;

use futures_util::future::{BoxFuture, FutureExt as _};
use tokio::sync::Notify;

use super::{Error, Node, Op};
use crate::clock::Backoff;
use crate::limits;
use crate::pb::membershippb::{Attributes, ClusterMemberAttrSetRequest};
use crate::planted;

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
        start(
            node,
            "compact-history",
            |node| async move { node.0.upkeep.compact_history(&node).await },
        );
        start(node, "compare-histories", |node| async move {
            node.0.upkeep.compare_histories(&node).await
        });
        start(node, "compare-compactions", |node| async move {
            node.0.upkeep.compare_compactions(&node).await
        });
        start(node, "watch-space", |node| async move {
            node.0.upkeep.watch_space(&node, &no_space).await
        });
        start(node, "observe-growth", |node| async move { node.0.upkeep.observe_growth().await });
        // These need a thread or real time, which a simulated member does not have.
        if !node.0.is_stepped {
            start(
                node,
                "scrub-store",
                |node| async move { node.0.upkeep.scrub_store(&node).await },
            );
            start(node, "watch-log", |node| async move { node.watch_log().await });
            start(node, "keep-fence", |node| async move { node.0.upkeep.keep_fence(&node).await });
        }
        if node.0.config.space_policy_is_auto {
            start(node, "keep-space", |node| async move { node.0.upkeep.keep_space(&node).await });
        }
    }
}

fn start<F: Future<Output = ()> + Send + 'static>(
    node: &Node,
    name: &'static str,
    duty: impl FnOnce(Node) -> F,
) {
    // Boxed, so that all duties are tasks of one type.
    run(node, name, duty(node.clone()).boxed());
}

fn run(node: &Node, name: &'static str, duty: BoxFuture<'static, ()>) {
    let mut stopping = node.0.stopping.subscribe();
    node.0.supervisor.task(name, async move {
        // The duty, which holds the node, is dropped with this block.
        {
            let mut duty = duty;
            let duty = poll_fn(|context| {
                planted::panic_if_planted(name);
                duty.as_mut().poll(context)
            });
            tokio::select! {
                biased;
                () = duty => {}
                _ = stopping.wait_for(|stopping| *stopping) => {}
            }
        }
        // `Node::stop` waits until every duty has dropped this.
        drop(stopping);
    });
}

impl Node {
    /// Publishes this member's name and client URLs through the log, then marks it ready to serve.
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
            // Some refusals come at once. Without a pause this loop would occupy the only thread
            // that serves peers.
            backoff.rest(&*inner.clock).await;
        }
        tracing::info!(
            "local-member-id" = format!("{:x}", inner.member_id),
            "cluster-id" = format!("{:x}", inner.cluster_id),
            "published local member to cluster through raft"
        );
        inner.ready.send_replace(true);
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::node::tests;

    /// Notes, when it is dropped, how many duties `Node::stop` waits for.
    struct Held(Node, Arc<AtomicUsize>);

    impl Drop for Held {
        fn drop(&mut self) {
            self.1.store(self.0.0.stopping.receiver_count(), Ordering::SeqCst);
        }
    }

    #[tokio::test]
    async fn a_stopped_duty_counts_until_it_has_let_go_of_the_member() {
        let dir = tempfile::tempdir().unwrap();
        let node = tests::start(dir.path()).await;
        node.stop().await;
        let waited_for = Arc::new(AtomicUsize::new(usize::MAX));
        let held = Held(node.clone(), Arc::clone(&waited_for));
        start(&node, "test", |_| async move {
            let _held = held;
            pending().await
        });
        node.0.stopping.closed().await;
        tests::until("it ends", || waited_for.load(Ordering::SeqCst) != usize::MAX).await;
        assert_eq!(waited_for.load(Ordering::SeqCst), 1);
    }
}
