//! Changes of the membership, checked by etcd's rules before they are proposed.

use std::borrow::Cow;
use std::time::Duration;

use http::StatusCode;

use super::conf_change::conf_change;
use super::{Error, Node, Reply};
use crate::apply;
use crate::auth::{Credentials, Demand};
use crate::clock::{self, Backoff, Clock};
use crate::limits;
use crate::members::{Change, Member};
use crate::metrics;
use crate::pb;
use crate::raft::{self, Via};
use crate::types;

/// Looks a second time after `pause` if the first look says no: progress and connections are known
/// as of the last heartbeat only.
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

/// The label for a promotion that failed: etcd's text. No client chooses it.
fn promotion_failure(error: &Error) -> Cow<'static, str> {
    match error {
        Error::Apply(apply::Error::MemberNotFound) => "membership: ID not found".into(),
        Error::Apply(apply::Error::MemberNotLearner) => {
            "membership: can only promote a learner member".into()
        }
        Error::Internal(_) => "internal error".into(),
        error => format!("etcdserver: {error}").into(),
    }
}

impl Node {
    /// Adds a voter or a learner. Its id is derived from the URLs and the time in seconds, as in
    /// etcd. Returns the new member and all members.
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
        let members = self.propose_change(&Change::Add(member)).await?;
        let added = pb::Member { id, peer_ur_ls: peer_urls, is_learner, ..Default::default() };
        Ok((added, members))
    }

    /// Removes a member and returns the others. A leader that removes itself hands leadership over
    /// first.
    pub async fn remove_member(
        &self,
        who: &Credentials,
        id: u64,
    ) -> Result<Vec<pb::Member>, Error> {
        self.permits(who, &Demand::Root).await?;
        self.may_remove(id)?;
        if id == self.0.member_id && self.is_leader() {
            // A leader that is removed would lead on, as no member, until it stops.
            if let Err(error) = self.hand_over().await {
                tracing::warn!(%error, "the leader removes itself without handing over");
            }
        }
        self.propose_change(&Change::Remove(id)).await
    }

    /// Sets a member's peer URLs and returns all members.
    pub async fn update_member(
        &self,
        who: &Credentials,
        id: u64,
        peer_urls: Vec<String>,
    ) -> Result<Vec<pb::Member>, Error> {
        self.permits(who, &Demand::Root).await?;
        if !types::are_member_urls(&peer_urls) {
            // An unknown member is reported before bad URLs. etcd has no second error here: it
            // takes any URL.
            self.barrier().await?;
            let is_known = self.0.machine.members.read().get(id).is_some();
            return Err(if is_known {
                Error::MemberBadUrls
            } else {
                apply::Error::MemberNotFound.into()
            });
        }
        self.propose_change(&Change::Update { id, peer_urls }).await
    }

    /// Makes a learner a voter. Asks the leader, because only it knows how far the learner's log
    /// goes.
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

    /// The leader's part of a promotion, also called for peers that ask over the peer port.
    pub async fn promote_member_here(&self, id: u64) -> Result<Vec<pb::Member>, Error> {
        let promoted = self.promote_as_leader(id).await;
        match &promoted {
            Ok(_) => metrics::learner_promote_successes().inc(),
            Err(Error::NotLeader) => {}
            Err(error) => metrics::learner_promotion_failed(&promotion_failure(error)),
        }
        promoted
    }

    async fn promote_as_leader(&self, id: u64) -> Result<Vec<pb::Member>, Error> {
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
        self.propose_change(&Change::Promote(id)).await
    }

    /// Whether a member's log reaches nine tenths of the leader's index, etcd's measure.
    fn is_caught_up(&self, id: u64) -> Result<bool, Error> {
        let (member, leader) = self.progress_of(id)?;
        Ok(member.saturating_mul(10) >= leader.saturating_mul(9))
    }

    /// The last log index that the member is known to have, and the leader's own.
    pub(super) fn progress_of(&self, id: u64) -> Result<(u64, u64), Error> {
        let progress = self.0.raft.progress().ok_or(Error::NotLeader)?;
        let matched = |id: u64| progress.iter().find(|(of, _)| *of == id).map(|(_, at)| *at);
        let member = matched(id).ok_or(apply::Error::MemberNotFound)?;
        Ok((member, matched(self.0.member_id).unwrap_or_default()))
    }

    /// Asks the leader to promote a learner. None if the leader should be asked again.
    async fn ask_to_promote(&self, id: u64) -> Option<Result<Vec<pb::Member>, Error>> {
        let leader = *self.0.leading.leader.borrow();
        let path = format!("/members/promote/{id}");
        let (body, limit) = (Some(bytes::Bytes::new()), limits::ASK_LEADER_TIMEOUT);
        let answered = self.0.known_peers.reach.ask(leader, &path, body, limit).await?;
        let text = String::from_utf8_lossy(&answered.body);
        match answered.status {
            StatusCode::OK => {
                let members: Vec<Member> = serde_json::from_slice(&answered.body).ok()?;
                Some(Ok(members.iter().map(Member::to_pb).collect()))
            }
            StatusCode::NOT_FOUND => Some(Err(apply::Error::MemberNotFound.into())),
            StatusCode::PRECONDITION_FAILED if text.contains("in sync with leader") => {
                Some(Err(Error::LearnerNotReady))
            }
            StatusCode::PRECONDITION_FAILED => Some(Err(apply::Error::MemberNotLearner.into())),
            _ => None,
        }
    }

    /// Proposes a configuration change and returns the members after it.
    async fn propose_change(&self, change: &Change) -> Result<Vec<pb::Member>, Error> {
        let id = self.0.ids.next();
        let proposed = conf_change(id, change);
        let propose = |raft: &raft::Handle| raft.propose_conf_change(id, proposed.clone());
        match self.propose_until_taken(id, propose, Via::AnyLeader).await? {
            Reply::Members(members) => Ok(members),
            _ => Err(Error::Internal("a configuration change had another answer".into())),
        }
    }
}
