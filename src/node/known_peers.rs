//! This member among its peers: the peers that it knows, and what they report about it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::watch;

use super::conf_change::{conf_change, parse_change};
use super::surroundings::Surroundings;
use super::waits::Waits;
use super::{Config, Join, VERSION};
use crate::apply;
use crate::limits;
use crate::members::{Change, Members};
use crate::peer::{PeerEvents, Peers, PeersConfig, Reach};
use crate::raft::{self, ConfChange, Entry};

/// The transport between this member and its peers.
pub(super) fn peers(
    config: &Config,
    raft: &raft::Config,
    surroundings: &Surroundings,
) -> Arc<Peers> {
    let (dial, supervisor) = (Arc::clone(&surroundings.dial), surroundings.supervisor.clone());
    let config = PeersConfig {
        id: raft.id,
        cluster_id: raft.cluster_id,
        urls: config.peer_urls.clone(),
        version: VERSION.to_owned(),
        read_timeout: config.peer_read_timeout,
    };
    Peers::new(config, dial, tokio::runtime::Handle::current(), supervisor)
}

/// This member among its peers, kept up to date by apply.
#[derive(Clone)]
pub(super) struct KnownPeers {
    pub id: u64,
    pub peers: Arc<Peers>,
    /// How questions reach peers: by `peers`, or by the simulator's network.
    pub reach: Arc<dyn Reach>,
    pub removed: watch::Sender<Option<Duration>>,
    pub is_learner: Arc<AtomicBool>,
}

impl KnownPeers {
    /// `reach` replaces the peers' answers to questions; a simulator gives one.
    pub(super) fn new(id: u64, peers: Arc<Peers>, reach: Option<Arc<dyn Reach>>) -> Self {
        let reach = reach.unwrap_or_else(|| Arc::clone(&peers) as Arc<dyn Reach>);
        let removed = watch::Sender::new(None);
        Self { id, peers, reach, removed, is_learner: Arc::default() }
    }

    /// Adds the peers that the store knows, and those that a member that joins was told of.
    pub(super) fn load(&self, members: &Members, join: Option<&Join>) {
        let told = join.iter().flat_map(|join| join.members.iter().cloned());
        let known = members.list().into_iter().map(|member| (member.id, member.peer_ur_ls));
        for (id, urls) in told.chain(known) {
            self.peers.update(id, urls);
        }
        members.removed().for_each(|id| self.peers.remove(id));
        self.set_learner(members.get(self.id).is_some_and(|member| member.is_learner));
        if members.is_removed(self.id) {
            self.removed.send_replace(Some(Duration::ZERO));
        }
    }

    /// The receiver of what peers report about this member.
    pub(super) fn events(&self, waits: &Arc<Waits>) -> Arc<dyn PeerEvents> {
        Arc::new(Events { waits: Arc::clone(waits), removed: self.removed.clone() })
    }

    /// Takes in the membership that a snapshot brought. Called on the apply thread.
    pub(super) fn take_snapshot(&self, members: &Members) {
        for member in members.list() {
            self.peers.update(member.id, member.peer_ur_ls);
        }
        members.removed().for_each(|id| self.peers.remove(id));
        self.set_learner(members.get(self.id).is_some_and(|member| member.is_learner));
    }

    fn set_learner(&self, is_learner: bool) {
        self.is_learner.store(is_learner, Ordering::Relaxed);
    }

    /// Takes in a change of the membership. Called on the apply thread.
    pub(super) fn take_change(&self, change: &Change) {
        let id = change.id();
        match change {
            Change::Add(member) if id == self.id => self.set_learner(member.is_learner),
            Change::Promote(_) if id == self.id => self.set_learner(false),
            _ => {}
        }
        let shown = format!("{id:x}");
        match change {
            Change::Add(member) => {
                tracing::info!(
                    "added-peer-id" = shown,
                    "added-peer-peer-urls" = ?member.peer_urls,
                    "added-peer-is-learner" = member.is_learner,
                    "added member"
                );
                self.peers.update(id, member.peer_urls.clone());
            }
            Change::Update { peer_urls, .. } => {
                tracing::info!(
                    "updated-remote-peer-id" = shown,
                    "updated-remote-peer-urls" = ?peer_urls,
                    "updated member"
                );
                self.peers.update(id, peer_urls.clone());
            }
            Change::Promote(_) => tracing::info!("promoted-member-id" = shown, "promote member"),
            Change::Remove(_) => {
                tracing::info!("removed-remote-peer-id" = shown, "removed member");
                if id == self.id {
                    self.removed.send_replace(Some(limits::REMOVED_GRACE));
                } else {
                    self.peers.remove(id);
                }
            }
        }
    }
}

struct Events {
    waits: Arc<Waits>,
    removed: watch::Sender<Option<Duration>>,
}

impl PeerEvents for Events {
    fn unsent(&self, proposal: &Entry) {
        let data = proposal.data.clone();
        let id = if proposal.entry_type == 0 {
            apply::Entry::decode(data).ok().map(|entry| entry.header.id)
        } else {
            <ConfChange as prost::Message>::decode(data).ok().map(|change| change.id)
        };
        if let Some(id) = id {
            self.waits.dropped(id);
        }
    }

    fn removed(&self) {
        self.removed.send_replace(Some(Duration::ZERO));
    }

    fn admits(&self, proposal: &Entry) -> bool {
        let data = proposal.data.clone();
        if proposal.entry_type == 0 {
            return apply::Entry::decode(data).is_ok();
        }
        let Ok(change) = <ConfChange as prost::Message>::decode(data) else { return false };
        // The entry's type and the member in its context must agree: raft would add a voter by the
        // type, and the members a learner by the context, or the reverse.
        parse_change(&change)
            .is_ok_and(|wanted| conf_change(change.id, &wanted).change_type == change.change_type)
    }
}
