//! Changes of the membership, as configuration changes in the log carry them, and etcd's rules for
//! them.

use serde::{Deserialize, Serialize};

use super::{Malformed, Member, Members};

/// The effect of one configuration change on the members.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    Add(Member),
    /// Makes a learner a voter.
    Promote(u64),
    Remove(u64),
    /// Sets the peer URLs of a member.
    Update {
        id: u64,
        peer_urls: Vec<String>,
    },
}

/// Why a change is refused; the same on every member.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    #[error("membership: ID removed")]
    Removed,
    #[error("membership: ID not found")]
    NotFound,
    #[error("membership: ID exists")]
    Exists,
    #[error("membership: peerURL exists")]
    PeerUrlExists,
    #[error("membership: can only promote a learner member")]
    NotLearner,
    #[error("membership: the last voter cannot be removed")]
    LastVoter,
}

/// The context of a configuration change that adds or promotes a member, in etcd's JSON.
#[derive(Serialize, Deserialize)]
struct Context {
    #[serde(flatten)]
    member: Member,
    #[serde(rename = "isPromote", default)]
    is_promote: bool,
}

impl Change {
    /// Reads the context of an addition, which may be a promotion.
    pub fn addition(context: &[u8]) -> Result<Self, Malformed> {
        let Context { member, is_promote } = serde_json::from_slice(context)?;
        Ok(if is_promote { Self::Promote(member.id) } else { Self::Add(member) })
    }

    /// Reads the context of an update.
    pub fn update(context: &[u8]) -> Result<Self, Malformed> {
        let Member { id, peer_urls, .. } = Member::from_json(context)?;
        Ok(Self::Update { id, peer_urls })
    }

    pub fn id(&self) -> u64 {
        match self {
            Self::Add(member) => member.id,
            Self::Promote(id) | Self::Remove(id) | Self::Update { id, .. } => *id,
        }
    }

    /// The context bytes of the configuration change; empty for a removal.
    pub fn context(&self) -> Vec<u8> {
        let json = |member, is_promote| {
            serde_json::to_vec(&Context { member, is_promote }).unwrap_or_default()
        };
        let of = |id: &u64| Member { id: *id, ..Member::default() };
        match self {
            Self::Add(member) => json(member.clone(), false),
            Self::Promote(id) => json(of(id), true),
            Self::Remove(_) => Vec::new(),
            Self::Update { id, peer_urls } => {
                Member { peer_urls: peer_urls.clone(), ..of(id) }.to_json()
            }
        }
    }
}

impl Members {
    /// Whether the rules allow a change now. They are etcd's, and one more: the last voter stays.
    pub fn validate(&self, change: &Change) -> Result<(), Refused> {
        let id = change.id();
        if self.is_removed(id) {
            return Err(Refused::Removed);
        }
        let known = self.members.get(&id);
        let is_taken = |urls: &[String]| {
            let others = self.members.values().filter(|member| member.id != id);
            others.flat_map(|member| &member.peer_urls).any(|url| urls.contains(url))
        };
        match (change, known) {
            (Change::Add(_), Some(_)) => Err(Refused::Exists),
            (Change::Add(Member { peer_urls, .. }) | Change::Update { peer_urls, .. }, _)
                if (known.is_some() || matches!(change, Change::Add(_))) && is_taken(peer_urls) =>
            {
                Err(Refused::PeerUrlExists)
            }
            (Change::Add(_), None) => Ok(()),
            (_, None) => Err(Refused::NotFound),
            (Change::Promote(_), Some(member)) if !member.is_learner => Err(Refused::NotLearner),
            (Change::Remove(_), Some(member))
                if !member.is_learner && self.voters().count() == 1 =>
            {
                Err(Refused::LastVoter)
            }
            (_, Some(_)) => Ok(()),
        }
    }

    /// Makes a change that `validate` allows. Returns the member after it; None if it was removed.
    pub fn change(&mut self, change: &Change) -> Option<&Member> {
        let id = change.id();
        match change {
            Change::Add(member) => self.insert(member.clone()),
            Change::Remove(_) => {
                self.remove(id);
            }
            Change::Promote(_) => {
                if let Some(member) = self.members.get_mut(&id) {
                    member.is_learner = false;
                }
            }
            Change::Update { peer_urls, .. } => {
                if let Some(member) = self.members.get_mut(&id) {
                    member.peer_urls.clone_from(peer_urls);
                }
            }
        }
        self.members.get(&id)
    }

    /// Whether a member has one of these peer URLs.
    pub fn is_any_taken(&self, urls: &[String]) -> bool {
        self.members.values().flat_map(|member| &member.peer_urls).any(|url| urls.contains(url))
    }

    pub fn voters(&self) -> impl Iterator<Item = &Member> {
        self.members.values().filter(|member| !member.is_learner)
    }

    pub fn learners(&self) -> impl Iterator<Item = &Member> {
        self.members.values().filter(|member| member.is_learner)
    }

    /// The number of voters, and of those that have started, not counting the member `without`.
    pub fn started_voters(&self, without: u64) -> (usize, usize) {
        let voters = self.voters().filter(|member| member.id != without);
        voters.fold((0, 0), |(all, started), member| {
            (all + 1, started + usize::from(!member.name.is_empty()))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(id: u64) -> Member {
        Member { id, peer_urls: vec![format!("http://localhost:{id}")], ..Member::default() }
    }

    fn learner(id: u64) -> Member {
        Member { is_learner: true, ..member(id) }
    }

    #[test]
    fn contexts_are_etcds_json_and_come_back() {
        let text = |change: &Change| String::from_utf8(change.context()).unwrap();
        let add = Change::Add(learner(7));
        assert_eq!(
            text(&add),
            r#"{"id":7,"peerURLs":["http://localhost:7"],"isLearner":true,"isPromote":false}"#
        );
        assert_eq!(Change::addition(&add.context()).unwrap(), add);
        let promote = Change::Promote(7);
        assert_eq!(text(&promote), r#"{"id":7,"peerURLs":null,"isPromote":true}"#);
        assert_eq!(Change::addition(&promote.context()).unwrap(), promote);
        let update = Change::Update { id: 7, peer_urls: vec!["http://a:1".into()] };
        assert_eq!(text(&update), r#"{"id":7,"peerURLs":["http://a:1"]}"#);
        assert_eq!(Change::update(&update.context()).unwrap(), update);
    }

    #[test]
    fn invalid_changes_are_refused_as_by_etcd() {
        let mut members = Members::default();
        for member in [member(1), member(2), learner(3)] {
            assert_eq!(members.validate(&Change::Add(member.clone())), Ok(()));
            members.change(&Change::Add(member));
        }
        let update = |id, url: u64| Change::Update { id, peer_urls: member(url).peer_urls };
        for (change, expected) in [
            (Change::Add(member(1)), Err(Refused::Exists)),
            (Change::Add(Member { id: 9, ..member(2) }), Err(Refused::PeerUrlExists)),
            (Change::Promote(1), Err(Refused::NotLearner)),
            (Change::Promote(9), Err(Refused::NotFound)),
            (Change::Remove(9), Err(Refused::NotFound)),
            (update(9, 1), Err(Refused::NotFound)),
            (update(1, 2), Err(Refused::PeerUrlExists)),
            (update(1, 1), Ok(())),
            (Change::Promote(3), Ok(())),
            (Change::Remove(2), Ok(())),
        ] {
            assert_eq!(members.validate(&change), expected, "{change:?}");
        }
        members.change(&Change::Remove(2));
        assert_eq!(members.validate(&Change::Add(member(2))), Err(Refused::Removed));
        assert_eq!(members.validate(&Change::Remove(1)), Err(Refused::LastVoter));
        // An update of its URLs leaves a learner a learner.
        members.change(&update(3, 4));
        assert!(members.get(3).is_some_and(|member| member.is_learner));
        members.change(&Change::Promote(3));
        assert_eq!(members.validate(&Change::Remove(1)), Ok(()));
    }
}
