//! Leadership: what a member knows of the leader, what it does when that changes, and how it hands
//! leadership on.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Notify, watch};

use super::{Error, Node};
use crate::auth::{Credentials, Demand};
use crate::clock;
use crate::limits;
use crate::metrics;
use crate::planted::{self, Bug};
use crate::raft;

/// The leader as far as this member knows, and the term in which this member lets leases expire.
#[derive(Default)]
pub(super) struct Leading {
    /// The leader's id; 0 while there is none.
    pub leader: watch::Sender<u64>,
    /// Wakes the calls that wait for a leader in the order in which they came. The watch channel
    /// wakes its receivers in random order, and a simulated run would not be repeatable.
    pub has_leader: Notify,
    /// When this member last became the leader.
    pub elected: Mutex<Option<Duration>>,
    /// The term in which this member leads and lets leases expire. Changed under the lessor's lock.
    pub lease_term: AtomicU64,
    /// Held from the moment when the lessor hands out remaining times until they are proposed.
    pub lease_notes: tokio::sync::Mutex<()>,
}

/// Says in etcd's words that another member leads, or that none does: scripts look for these.
fn say_change(own: u64, before: u64, leader: u64, term: u64) {
    const LOGGER: &str = "raft";
    match (before, leader) {
        _ if before == leader => {}
        (0, _) => tracing::info!(
            logger = LOGGER,
            "raft.node: {own:x} elected leader {leader:x} at term {term}"
        ),
        (_, 0) => tracing::info!(
            logger = LOGGER,
            "raft.node: {own:x} lost leader {before:x} at term {term}"
        ),
        _ => tracing::info!(
            logger = LOGGER,
            "raft.node: {own:x} changed leader from {before:x} to {leader:x} at term {term}"
        ),
    }
}

impl Node {
    /// The leader's id; 0 while there is none.
    pub fn leader(&self) -> watch::Receiver<u64> {
        self.0.leading.leader.subscribe()
    }

    pub fn is_leader(&self) -> bool {
        *self.0.leading.leader.borrow() == self.0.member_id
    }

    /// Waits until a leader is known and returns its id. Returns also when the member stops, with 0
    /// perhaps: the next call to raft then fails.
    pub(super) async fn some_leader(&self) -> u64 {
        loop {
            let changed = self.0.leading.has_leader.notified();
            let leader = *self.0.leading.leader.borrow();
            if leader != 0 || *self.0.stopping.borrow() {
                return leader;
            }
            changed.await;
        }
    }

    /// Follows raft's leader: lets the lessor expire leases only while this member leads, and wakes
    /// the calls that wait for a leader.
    pub(super) async fn follow_leader(&self) {
        let inner = &self.0;
        let mut leader = inner.raft.subscribe_leader();
        loop {
            let raft::Leader { id, term } = *leader.borrow_and_update();
            let is_leader = id == inner.member_id;
            {
                let mut lessor = inner.machine.lessor.lock();
                // Another member may have led between two terms of this one without this loop
                // seeing it.
                let is_new = !lessor.is_leader() || inner.leading.lease_term.load(Relaxed) != term;
                if is_leader && is_new {
                    // The old leader may have renewed a lease up to an election timeout ago, so
                    // each gets that much more.
                    lessor.promote(inner.clock.now(), inner.config.election_timeout);
                    inner.leading.lease_term.store(term, Relaxed);
                } else if !is_leader && lessor.is_leader() && !planted::is(Bug::OldLeaderRevokes) {
                    lessor.demote();
                }
            }
            let before = inner.leading.leader.send_replace(id);
            say_change(inner.member_id, before, id, term);
            if before != id && id != 0 {
                metrics::leader_changes_seen().inc();
                if is_leader {
                    *inner.leading.elected.lock() = Some(inner.clock.now());
                }
            }
            if id != 0 {
                inner.leading.has_leader.notify_waiters();
            }
            metrics::has_leader().set(i64::from(id != 0));
            metrics::is_leader().set(i64::from(is_leader));
            if leader.changed().await.is_err() {
                return;
            }
        }
    }

    /// Shortens the wait for the first election once two peers are connected, as etcd's
    /// `--initial-election-tick-advance`. Gives up after `PEERS_REACHED_LOOKS_MAX` looks.
    pub(super) async fn hasten_election(&self) {
        let inner = &self.0;
        for _ in 0..limits::PEERS_REACHED_LOOKS_MAX {
            inner.clock.sleep(limits::PEERS_REACHED_INTERVAL).await;
            let members = self.members();
            let others = members.iter().map(|member| member.id).filter(|id| *id != inner.member_id);
            if others.filter(|id| inner.known_peers.reach.connected_for(*id).is_some()).count() > 1
            {
                drop(inner.raft.report_peers_reached());
                return;
            }
        }
    }

    /// Hands leadership to the voter `to` and waits until it leads.
    pub async fn move_leader(&self, who: &Credentials, to: u64) -> Result<(), Error> {
        self.permits(who, &Demand::Root).await?;
        self.transfer_to(to).await
    }

    async fn transfer_to(&self, to: u64) -> Result<(), Error> {
        if !self.is_leader() {
            return Err(Error::NotLeader);
        }
        let inner = &self.0;
        if !inner.machine.members.read().voters().any(|member| member.id == to) {
            return Err(Error::BadLeaderTransferee);
        }
        let (from, shown) = (format!("{:x}", inner.member_id), format!("{to:x}"));
        tracing::info!(
            "current-leader-member-id" = from,
            "transferee-member-id" = shown,
            "leadership transfer starting"
        );
        inner.raft.transfer_leader(to)?;
        let mut leader = inner.leading.leader.subscribe();
        let moved = leader.wait_for(|id| *id == to);
        match clock::timeout(&*inner.clock, self.request_timeout(), moved).await {
            Some(Ok(_)) => {}
            Some(Err(_)) => return Err(Error::Stopped),
            None => return Err(Error::TimeoutLeaderTransfer),
        }
        tracing::info!(
            "old-leader-member-id" = from,
            "new-leader-member-id" = shown,
            "leadership transfer finished"
        );
        Ok(())
    }

    /// Hands leadership to the voter that has been connected longest. Does nothing if this member
    /// does not lead or is the only voter; fails with `Unhealthy` if no other voter is connected.
    pub async fn hand_over(&self) -> Result<(), Error> {
        let inner = &self.0;
        let own = inner.member_id;
        if !self.is_leader() || inner.machine.members.read().voters().count() < 2 {
            return Ok(());
        }
        let voters: Vec<u64> =
            inner.machine.members.read().voters().map(|member| member.id).collect();
        let connected = voters
            .into_iter()
            .filter_map(|id| Some((inner.known_peers.reach.connected_for(id)?, id)));
        let (_, to) = connected.filter(|(_, id)| *id != own).max().ok_or(Error::Unhealthy)?;
        self.transfer_to(to).await
    }
}
