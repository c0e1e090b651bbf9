//! etcd's rules of `--strict-reconfig-check` for changes of the membership, in etcd's order, with
//! etcd's log lines for refused changes.

use super::{Error, Node};
use crate::apply;
use crate::limits;
use crate::members::{Member, Members};

/// The size of a quorum of `voters`.
fn quorum(voters: usize) -> usize {
    voters / 2 + 1
}

/// The text of a refusal in etcd's log.
fn logged(error: &Error) -> String {
    format!("etcdserver: {error}")
}

/// A member in the format of Go's `%+v`, as etcd logs it.
fn printed(member: &Member) -> String {
    format!(
        "{{ID:{:x} RaftAttributes:{{PeerURLs:[{}] IsLearner:{}}} Attributes:{{Name:{} \
         ClientURLs:[{}]}}}}",
        member.id,
        member.peer_urls.join(" "),
        member.is_learner,
        member.name,
        member.client_urls.join(" ")
    )
}

/// Logs that fewer voters than a quorum would have started.
macro_rules! too_few {
    ($node:expr, $started:expr, $quorum:expr, $text:literal) => {
        tracing::warn!(
            "number-of-started-member" = $started,
            quorum = $quorum,
            "cluster-id" = format!("{:x}", $node.cluster_id()),
            "local-member-id" = $node.shown_id(),
            $text
        )
    };
}

impl Node {
    fn shown_id(&self) -> String {
        format!("{:x}", self.0.member_id)
    }

    /// Checks in etcd's order: the quorum, the URLs, the number of learners. The number of learners
    /// is a flag's, so it must not be checked where the change is applied; the check here must not
    /// hide that the URLs are taken, which apply would report first.
    pub(super) fn may_add(&self, member: &Member) -> Result<(), Error> {
        let members = self.0.machine.members.read();
        if self.0.config.strict_reconfig_check {
            self.can_bear_another(&members, member)?;
        }
        let has_room = members.learners().count() < self.0.config.max_learners;
        match member.is_learner && !has_room {
            true if members.is_any_taken(&member.peer_urls) => {
                Err(apply::Error::PeerUrlExist.into())
            }
            true => Err(Error::TooManyLearners),
            false => Ok(()),
        }
    }

    fn can_bear_another(&self, members: &Members, member: &Member) -> Result<(), Error> {
        let (voters, started) = members.started_voters(0);
        let is_first = voters == 1 && started == 1;
        let needed = quorum(voters + 1);
        if !member.is_learner && !is_first && started < needed {
            let error = apply::Error::MemberNotEnoughStarted.into();
            too_few!(
                self,
                started,
                needed,
                "rejecting member add; started member will be less than quorum"
            );
            tracing::warn!(
                "local-member-id" = self.shown_id(),
                "requested-member-add" = printed(member),
                error = logged(&error),
                "rejecting member add request; not enough healthy members"
            );
            return Err(error);
        }
        if voters > 1 && self.healthy_voters(members) < needed {
            tracing::warn!(
                "local-member-id" = self.shown_id(),
                "requested-member-add" = printed(member),
                error = logged(&Error::Unhealthy),
                "rejecting member add request; local member has not been connected to majority \
                 peers, reconfigure breaks active quorum"
            );
            return Err(Error::Unhealthy);
        }
        Ok(())
    }

    /// Refuses a removal that would leave fewer started or connected voters than a quorum.
    pub(super) fn may_remove(&self, id: u64) -> Result<(), Error> {
        let members = self.0.machine.members.read();
        let is_learner = members.get(id).is_some_and(|member| member.is_learner);
        if is_learner || !self.0.config.strict_reconfig_check {
            return Ok(());
        }
        let (voters, started) = members.started_voters(id);
        let needed = quorum(voters);
        let requested = format!("{id:x}");
        if started < needed {
            let error = apply::Error::MemberNotEnoughStarted.into();
            too_few!(
                self,
                started,
                needed,
                "rejecting member remove; started member will be less than quorum"
            );
            tracing::warn!(
                "local-member-id" = self.shown_id(),
                "requested-member-remove-id" = requested,
                error = logged(&error),
                "rejecting member remove request; not enough healthy members"
            );
            return Err(error);
        }
        // A member that is down is in no quorum, so its removal cannot break one.
        if id != self.0.member_id && self.0.known_peers.reach.connected_for(id).is_none() {
            return Ok(());
        }
        let all = members.voters().count();
        let healthy = self.healthy_voters(&members);
        if healthy < 2 + all.saturating_sub(1) / 2 {
            tracing::warn!(
                "local-member-id" = self.shown_id(),
                "requested-member-remove" = requested,
                "active-peers" = healthy,
                error = logged(&Error::Unhealthy),
                "rejecting member remove request; local member has not been connected to all peers, \
                 reconfigure breaks active quorum"
            );
            return Err(Error::Unhealthy);
        }
        Ok(())
    }

    /// Refuses a promotion after which fewer voters than a quorum would have started.
    pub(super) fn may_promote(&self, id: u64) -> Result<(), Error> {
        if !self.0.config.strict_reconfig_check {
            return Ok(());
        }
        let (voters, started) = self.0.machine.members.read().started_voters(id);
        // After the promotion the learner counts as a voter that has started.
        let (started, needed) = (started + 1, quorum(voters + 1));
        if started >= needed {
            return Ok(());
        }
        let error = apply::Error::MemberNotEnoughStarted.into();
        too_few!(
            self,
            started,
            needed,
            "rejecting member promote; started member will be less than quorum"
        );
        tracing::warn!(
            "local-member-id" = self.shown_id(),
            // etcd uses the key of a removal here, too.
            "requested-member-remove-id" = format!("{id:x}"),
            error = logged(&error),
            "rejecting member promote request; not enough healthy members"
        );
        Err(error)
    }

    /// Logs how far the log of a learner goes whose promotion is refused.
    pub(super) fn say_not_ready(&self, id: u64) {
        let Ok((member, leader)) = self.progress_of(id) else { return };
        #[expect(clippy::cast_precision_loss, reason = "a share that is only shown")]
        let share = member as f64 / leader.max(1) as f64;
        tracing::error!(
            "learner-ready-percent" = share,
            "ready-percent-threshold" = 0.9,
            "rejecting promote learner: learner is not ready"
        );
    }

    /// The number of voters that this member has been connected to for `PEER_HEALTHY_AFTER`, itself
    /// included.
    fn healthy_voters(&self, members: &Members) -> usize {
        let is_healthy = |id: u64| {
            let connected = self.0.known_peers.reach.connected_for(id);
            id == self.0.member_id || connected > Some(limits::PEER_HEALTHY_AFTER)
        };
        members.voters().filter(|member| is_healthy(member.id)).count()
    }
}
