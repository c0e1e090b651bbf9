//! Who the members are: what peers are told of it, and what they say of this one.

use std::sync::Arc;

use tokio::sync::watch;

use super::waits::Waits;
use super::{Config, VERSION};
use crate::apply::{self, Fatal};
use crate::members::{Change, Members};
use crate::raft::peer::{PeerEvents, Peers, PeersConfig, TcpDial};
use crate::raft::{self, ConfChange, Entry};

/// What goes between this member and its peers.
pub(super) fn peers(config: &Config, raft: &raft::Config) -> Arc<Peers> {
    let config = PeersConfig {
        id: raft.id,
        cluster_id: raft.cluster_id,
        urls: config.peer_urls.clone(),
        version: VERSION.to_owned(),
    };
    Peers::new(config, Arc::new(TcpDial), tokio::runtime::Handle::current())
}

/// Who this member is among its peers, for apply to keep up to date.
#[derive(Clone)]
pub(super) struct Circle {
    pub id: u64,
    pub peers: Arc<Peers>,
    pub removed: watch::Sender<bool>,
}

impl Circle {
    /// Lets the members that the store knows talk to raft.
    pub(super) fn start(&self, raft: &raft::Handle, members: &Members, waits: &Arc<Waits>) {
        self.replaced(members);
        let events = Events { waits: Arc::clone(waits), removed: self.removed.clone() };
        self.peers.start(raft.clone(), Arc::new(events));
    }

    /// A snapshot brought another membership.
    pub(super) fn replaced(&self, members: &Members) {
        for member in members.list() {
            self.peers.update(member.id, member.peer_ur_ls);
        }
        members.removed().for_each(|id| self.peers.remove(id));
    }

    /// Apply changed the membership.
    pub(super) fn changed(&self, change: &Change) {
        let id = change.id();
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
                    self.removed.send_replace(true);
                } else {
                    self.peers.remove(id);
                }
            }
        }
    }
}

/// What a configuration change in the log asks for.
pub(super) fn wanted(change: &ConfChange) -> Result<Change, Fatal> {
    let wanted = match change.change_type {
        ADD_NODE | ADD_LEARNER_NODE => Change::addition(&change.context)?,
        REMOVE_NODE => Change::Remove(change.node_id),
        UPDATE_NODE => Change::update(&change.context)?,
        other => return Err(Fatal::ConfChange(format!("its type is {other}"))),
    };
    if wanted.id() == change.node_id {
        Ok(wanted)
    } else {
        Err(Fatal::ConfChange("it names two members".into()))
    }
}

/// The change as the log carries it.
pub(super) fn conf_change(request: u64, change: &Change) -> ConfChange {
    let change_type = match change {
        Change::Add(member) if member.is_learner => ADD_LEARNER_NODE,
        Change::Add(_) | Change::Promote(_) => ADD_NODE,
        Change::Remove(_) => REMOVE_NODE,
        Change::Update { .. } => UPDATE_NODE,
    };
    let (node_id, context) = (change.id(), change.context().into());
    ConfChange { id: request, change_type, node_id, context }
}

/// etcd's numbers; raft's own list lacks the update.
const ADD_NODE: i32 = 0;
const REMOVE_NODE: i32 = 1;
const UPDATE_NODE: i32 = 2;
const ADD_LEARNER_NODE: i32 = 3;

struct Events {
    waits: Arc<Waits>,
    removed: watch::Sender<bool>,
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
        self.removed.send_replace(true);
    }
}
