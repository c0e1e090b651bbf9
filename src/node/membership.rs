//! Who the members are: what peers are told of it, and what they say of this one.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use http::StatusCode;
use tokio::sync::watch;

use super::waits::Waits;
use super::{Config, Error, Node, Reply, Surroundings, VERSION};
use crate::apply::{self, Fatal};
use crate::auth::{Credentials, Demand};
use crate::clock::{self, Backoff, Clock};
use crate::limits;
use crate::members::{Change, Member, Members};
use crate::metrics;
use crate::pb;
use crate::peer::{PeerEvents, Peers, PeersConfig, Reach};
use crate::raft::{self, ConfChange, Entry};
use crate::types;

/// What a member that joins a running cluster was told by its members.
#[derive(Clone, Debug)]
pub struct Join {
    pub cluster_id: u64,
    pub member_id: u64,
    /// Ids and peer URLs, this member's among them.
    pub members: Vec<(u64, Vec<String>)>,
}

/// What goes between this member and its peers.
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
    };
    Peers::new(config, dial, tokio::runtime::Handle::current(), supervisor)
}

/// Who this member is among its peers, for apply to keep up to date.
#[derive(Clone)]
pub(super) struct Circle {
    pub id: u64,
    pub peers: Arc<Peers>,
    /// How questions reach them: by `peers`, or as a simulator has it.
    pub reach: Arc<dyn Reach>,
    pub removed: watch::Sender<Option<Duration>>,
    pub is_learner: Arc<AtomicBool>,
}

impl Circle {
    pub(super) fn new(id: u64, peers: Arc<Peers>, reach: Option<Arc<dyn Reach>>) -> Self {
        let reach = reach.unwrap_or_else(|| Arc::clone(&peers) as Arc<dyn Reach>);
        let removed = watch::Sender::new(None);
        Self { id, peers, reach, removed, is_learner: Arc::default() }
    }

    /// Takes in whom the store knows; one that joins has been told of some.
    pub(super) fn fill(&self, members: &Members, join: Option<&Join>) {
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

    /// What peers tell of the whole member.
    pub(super) fn events(&self, waits: &Arc<Waits>) -> Arc<dyn PeerEvents> {
        Arc::new(Events { waits: Arc::clone(waits), removed: self.removed.clone() })
    }

    /// A snapshot brought another membership.
    pub(super) fn replaced(&self, members: &Members) {
        for member in members.list() {
            self.peers.update(member.id, member.peer_ur_ls);
        }
        members.removed().for_each(|id| self.peers.remove(id));
        self.set_learner(members.get(self.id).is_some_and(|member| member.is_learner));
    }

    fn set_learner(&self, is_learner: bool) {
        self.is_learner.store(is_learner, Ordering::Relaxed);
    }

    /// Apply changed the membership.
    pub(super) fn changed(&self, change: &Change) {
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

/// Does a configuration change of the log to a list of members, if the rules allow it: as apply
/// would, which is not there yet.
pub(super) fn takes(members: &mut Members, change: &ConfChange) -> Result<bool, String> {
    let wanted = wanted(change).map_err(|error| error.to_string())?;
    let is_valid = members.validate(&wanted).is_ok();
    if is_valid {
        members.change(&wanted);
    }
    Ok(is_valid)
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
        // A voter by the one and a learner by the other would have raft and the members disagree.
        wanted(&change)
            .is_ok_and(|wanted| conf_change(change.id, &wanted).change_type == change.change_type)
    }
}

/// Looks twice: what is known of the others is as old as the last heartbeat.
pub(super) async fn holds_now_or_after(
    pause: Duration,
    clock: &dyn Clock,
    look: impl Fn() -> Result<bool, Error>,
) -> Result<bool, Error> {
    if look()? {
        return Ok(true);
    }
    clock.sleep(pause).await;
    look()
}

/// Changes of the membership, with etcd's checks before they are proposed.
impl Node {
    pub async fn add_member(
        &self,
        who: &Credentials,
        peer_urls: Vec<String>,
        is_learner: bool,
    ) -> Result<(pb::Member, Vec<pb::Member>), Error> {
        self.permits(who, &Demand::Root).await?;
        let mut peer_urls = peer_urls;
        peer_urls.sort();
        let seconds = (self.0.clock.unix_nanos() / 1_000_000_000).cast_signed();
        let id = types::member_id(&peer_urls, "", Some(seconds));
        let member = Member { id, peer_urls: peer_urls.clone(), is_learner, ..Member::default() };
        self.may_add(&member)?;
        let members = self.configure(&Change::Add(member)).await?;
        let added = pb::Member { id, peer_ur_ls: peer_urls, is_learner, ..Default::default() };
        Ok((added, members))
    }

    pub async fn remove_member(
        &self,
        who: &Credentials,
        id: u64,
    ) -> Result<Vec<pb::Member>, Error> {
        self.permits(who, &Demand::Root).await?;
        self.may_remove(id)?;
        if id == self.0.member_id && self.is_leader() {
            // A leader that is no member any more would lead on until it is stopped.
            if let Err(error) = self.hand_over().await {
                tracing::warn!(%error, "the leader removes itself without handing over");
            }
        }
        self.configure(&Change::Remove(id)).await
    }

    pub async fn update_member(
        &self,
        who: &Credentials,
        id: u64,
        peer_urls: Vec<String>,
    ) -> Result<Vec<pb::Member>, Error> {
        self.permits(who, &Demand::Root).await?;
        if !types::are_member_urls(&peer_urls) {
            // Whether there is such a member comes first, as in etcd, which takes any URL.
            self.barrier().await?;
            let is_known = self.0.machine.members.read().get(id).is_some();
            return Err(if is_known { Error::MemberBadUrls } else { Error::MemberNotFound });
        }
        self.configure(&Change::Update { id, peer_urls }).await
    }

    /// Makes a learner a voter. Only the leader knows whether it has caught up.
    pub async fn promote_member(
        &self,
        who: &Credentials,
        id: u64,
    ) -> Result<Vec<pb::Member>, Error> {
        self.permits(who, &Demand::Root).await?;
        let asked = async {
            let mut backoff = Backoff::new(limits::ASK_LEADER_PAUSE, limits::ASK_LEADER_PAUSE_MAX);
            loop {
                match self.promote_member_here(id).await {
                    Err(Error::NotLeader) => {}
                    outcome => return outcome,
                }
                if let Some(outcome) = self.ask_to_promote(id).await {
                    return outcome;
                }
                backoff.rest(&*self.0.clock).await;
            }
        };
        let limit = self.request_timeout();
        clock::timeout(&*self.0.clock, limit, asked).await.unwrap_or(Err(Error::Timeout))
    }

    /// The leader's part of a promotion.
    pub async fn promote_member_here(&self, id: u64) -> Result<Vec<pb::Member>, Error> {
        if !self.is_leader() {
            return Err(Error::NotLeader);
        }
        self.barrier().await?;
        let pause = 2 * self.0.config.heartbeat_interval;
        if !holds_now_or_after(pause, &*self.0.clock, || self.is_caught_up(id)).await? {
            self.say_not_ready(id);
            return Err(Error::LearnerNotReady);
        }
        self.may_promote(id)?;
        let members = self.configure(&Change::Promote(id)).await?;
        metrics::learner_promote_successes().inc();
        Ok(members)
    }

    /// Whether a member's log goes far enough by etcd's measure: nine tenths of the leader's.
    fn is_caught_up(&self, id: u64) -> Result<bool, Error> {
        let (member, leader) = self.progress_of(id)?;
        Ok(member.saturating_mul(10) >= leader.saturating_mul(9))
    }

    /// How far a member's log goes, and the leader's.
    pub(super) fn progress_of(&self, id: u64) -> Result<(u64, u64), Error> {
        let progress = self.0.raft.progress().ok_or(Error::NotLeader)?;
        let matched = |id: u64| progress.iter().find(|(of, _)| *of == id).map(|(_, at)| *at);
        let member = matched(id).ok_or(Error::MemberNotFound)?;
        Ok((member, matched(self.0.member_id).unwrap_or_default()))
    }

    /// Nothing if the leader should be asked again.
    async fn ask_to_promote(&self, id: u64) -> Option<Result<Vec<pb::Member>, Error>> {
        let leader = *self.0.leader.borrow();
        let path = format!("/members/promote/{id}");
        let (body, limit) = (Some(bytes::Bytes::new()), limits::ASK_LEADER_TIMEOUT);
        let answered = self.0.circle.reach.ask(leader, &path, body, limit).await?;
        let text = String::from_utf8_lossy(&answered.body);
        match answered.status {
            StatusCode::OK => {
                let members: Vec<Member> = serde_json::from_slice(&answered.body).ok()?;
                Some(Ok(members.iter().map(Member::to_pb).collect()))
            }
            StatusCode::NOT_FOUND => Some(Err(Error::MemberNotFound)),
            StatusCode::PRECONDITION_FAILED if text.contains("in sync with leader") => {
                Some(Err(Error::LearnerNotReady))
            }
            StatusCode::PRECONDITION_FAILED => Some(Err(Error::MemberNotLearner)),
            _ => None,
        }
    }

    /// Has a change applied. As in etcd, only the client's deadline ends the wait.
    async fn configure(&self, change: &Change) -> Result<Vec<pb::Member>, Error> {
        let id = self.0.ids.next();
        let proposed = conf_change(id, change);
        let propose = |raft: &raft::Handle| raft.propose_conf_change(id, proposed.clone());
        match self.propose_until_taken(id, propose, 0).await? {
            Reply::Members(members) => Ok(members),
            _ => Err(Error::Internal("a configuration change had another answer".into())),
        }
    }

    /// Hands leadership to a voter and waits until it leads.
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
        let mut leader = inner.leader.subscribe();
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

    /// Hands leadership to the voter that has been connected longest, if this member has it and
    /// there is another.
    pub async fn hand_over(&self) -> Result<(), Error> {
        let inner = &self.0;
        let own = inner.member_id;
        if !self.is_leader() || inner.machine.members.read().voters().count() < 2 {
            return Ok(());
        }
        let voters: Vec<u64> =
            inner.machine.members.read().voters().map(|member| member.id).collect();
        let connected =
            voters.into_iter().filter_map(|id| Some((inner.circle.reach.connected_for(id)?, id)));
        let (_, to) = connected.filter(|(_, id)| *id != own).max().ok_or(Error::Unhealthy)?;
        self.transfer_to(to).await
    }
}
