//! What an operator must know without asking: who leads, whether there is a quorum and who is
//! missing, which peers cannot be reached, and how much of the quota is left. Each is said once when
//! it begins and once when it ends.
//!
//! Only a server that was started as rusd says so; etcd has none of these lines but `raft.node: …`,
//! which `node` logs under either name. [`Outlook`] decides from what a look shows, without a clock
//! or a network, and [`watch`] looks once a second and when the leader changes.

mod hints;

use std::collections::HashMap;
use std::time::Duration;

use hints::{why_unreachable, without_leader};
use tokio::sync::watch::Receiver;

use super::config::{Config, StartedAs};
use super::log;
use crate::clock::{Clock as _, SystemClock};
use crate::limits::{
    LEADER_MISSED_AFTER, OUTLOOK_INTERVAL, PEER_MISSED_AFTER, SPACE_MARKS_PERCENT,
};
use crate::node::Node;
use crate::peer::Reach as _;
use crate::{go, pb};

/// A member as a look finds it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Seen {
    id: u64,
    name: String,
    urls: Vec<String>,
    is_voter: bool,
    is_connected: bool,
    /// Why it is not connected.
    failure: String,
}

impl Seen {
    fn called(&self) -> String {
        let name = if self.name.is_empty() { "a member without a name" } else { &self.name };
        format!("{name} ({:x})", self.id)
    }
}

/// A look at the cluster.
#[derive(Clone, Debug, Default)]
struct Look {
    /// By a clock that never goes back, and in nanoseconds since 1970.
    now: Duration,
    wall: u64,
    /// 0 if none is known.
    leader: u64,
    term: u64,
    /// All members, this one included.
    members: Vec<Seen>,
}

/// A line to be logged.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Said {
    LeaderElected {
        leader: Seen,
        term: u64,
        took: Duration,
    },
    LeaderChanged {
        before: Seen,
        leader: Seen,
        term: u64,
        took: Duration,
    },
    LeaderLost {
        leader: Seen,
        term: u64,
    },
    NoLeader {
        is_learner: bool,
        since: Duration,
        unreachable: Vec<String>,
    },
    /// `is_new` if there has been no quorum since the start.
    QuorumLost {
        is_new: bool,
        needed: usize,
        present: usize,
        missing: Vec<String>,
    },
    QuorumRegained {
        is_new: bool,
        took: Duration,
    },
    Unreachable {
        peer: Seen,
    },
    Reached {
        peer: Seen,
        took: Option<Duration>,
    },
}

/// Since when a peer is not connected.
struct Absence {
    since: Duration,
    since_wall: u64,
    /// Whether it has been connected since this member's start.
    was_here: bool,
    is_told: bool,
}

/// What was said last.
struct Outlook {
    own: u64,
    election: Duration,
    leader: Option<Seen>,
    /// Since when no leader is known, if that is not told yet.
    lost_at: Option<Duration>,
    /// When the last leader was lost, or this member was started.
    leaderless_since: Duration,
    has_told_no_leader: bool,
    had_leader: bool,
    /// Since when enough voters for a quorum are here, while there is no leader.
    enough_since: Option<Duration>,
    /// When a missing quorum was told.
    quorum_lost: Option<(Duration, bool)>,
    absent: HashMap<u64, Absence>,
    connected: HashMap<u64, ()>,
}

impl Outlook {
    fn new(own: u64, election: Duration, now: Duration) -> Self {
        Self {
            own,
            election,
            leader: None,
            lost_at: None,
            leaderless_since: now,
            has_told_no_leader: false,
            had_leader: false,
            enough_since: None,
            quorum_lost: None,
            absent: HashMap::new(),
            connected: HashMap::new(),
        }
    }

    /// What is to be said after this look.
    fn look(&mut self, look: &Look) -> Vec<Said> {
        let mut said = Vec::new();
        self.look_at_peers(look, &mut said);
        self.look_at_leader(look, &mut said);
        self.look_at_quorum(look, &mut said);
        said
    }

    fn look_at_peers(&mut self, look: &Look, said: &mut Vec<Said>) {
        let peers = || look.members.iter().filter(|member| member.id != self.own);
        let known: Vec<u64> = peers().map(|peer| peer.id).collect();
        self.absent.retain(|id, _| known.contains(id));
        self.connected.retain(|id, ()| known.contains(id));
        for peer in look.members.iter().filter(|member| member.id != self.own) {
            if peer.is_connected {
                let was = self.absent.remove(&peer.id);
                let is_first = self.connected.insert(peer.id, ()).is_none();
                match was {
                    Some(absence) if absence.is_told || !absence.was_here => {
                        let took = absence.was_here.then(|| look.now.saturating_sub(absence.since));
                        said.push(Said::Reached { peer: peer.clone(), took });
                    }
                    None if is_first => said.push(Said::Reached { peer: peer.clone(), took: None }),
                    _ => {}
                }
                continue;
            }
            let was_here = self.connected.contains_key(&peer.id);
            let absence = self.absent.entry(peer.id).or_insert(Absence {
                since: look.now,
                since_wall: look.wall,
                was_here,
                is_told: false,
            });
            let is_over = look.now.saturating_sub(absence.since) >= PEER_MISSED_AFTER;
            if is_over && !absence.is_told {
                absence.is_told = true;
                said.push(Said::Unreachable { peer: peer.clone() });
            }
        }
    }

    fn look_at_leader(&mut self, look: &Look, said: &mut Vec<Said>) {
        if look.leader == 0 {
            // A leader that hands over is followed by the next one within moments.
            let lost_at = *self.lost_at.get_or_insert(look.now);
            if look.now.saturating_sub(lost_at) >= LEADER_MISSED_AFTER
                && let Some(leader) = self.leader.take()
            {
                said.push(Said::LeaderLost { leader, term: look.term });
                (self.leaderless_since, self.has_told_no_leader) = (lost_at, false);
            }
            return;
        }
        let lost_at = self.lost_at.take().unwrap_or(look.now);
        if self.leader.as_ref().is_some_and(|leader| leader.id == look.leader) {
            return;
        }
        let found = look.members.iter().find(|member| member.id == look.leader);
        let leader = found.cloned().unwrap_or(Seen { id: look.leader, ..Seen::default() });
        let term = look.term;
        said.push(match self.leader.take() {
            None => {
                let took = look.now.saturating_sub(self.leaderless_since);
                Said::LeaderElected { leader: leader.clone(), term, took }
            }
            Some(before) => {
                let took = look.now.saturating_sub(lost_at);
                Said::LeaderChanged { before, leader: leader.clone(), term, took }
            }
        });
        (self.leader, self.had_leader) = (Some(leader), true);
    }

    fn look_at_quorum(&mut self, look: &Look, said: &mut Vec<Said>) {
        if look.leader != 0 {
            self.enough_since = None;
            if let Some((since, is_new)) = self.quorum_lost.take() {
                let took = look.now.saturating_sub(since);
                said.push(Said::QuorumRegained { is_new, took });
            }
            return;
        }
        if self.leader.is_some() {
            return;
        }
        let voters = look.members.iter().filter(|member| member.is_voter);
        let is_here = |member: &&Seen| member.id == self.own || member.is_connected;
        let (here, missing): (Vec<&Seen>, Vec<&Seen>) = voters.partition(is_here);
        let needed = (here.len() + missing.len()) / 2 + 1;
        let alone_for = look.now.saturating_sub(self.leaderless_since);
        let missing: Vec<String> = missing.iter().map(|member| self.missing(member)).collect();
        if here.len() < needed && !look.members.is_empty() {
            self.enough_since = None;
            // After a start, the others are given time to be reached.
            let is_due = self.had_leader || alone_for >= self.patience();
            if self.quorum_lost.is_none() && is_due {
                let is_new = !self.had_leader;
                self.quorum_lost = Some((self.leaderless_since, is_new));
                let present = here.len();
                said.push(Said::QuorumLost { is_new, needed, present, missing });
            }
            return;
        }
        let since = *self.enough_since.get_or_insert(look.now);
        if look.now.saturating_sub(since) >= self.patience() && !self.has_told_no_leader {
            self.has_told_no_leader = true;
            let is_learner = look.members.iter().any(|it| it.id == self.own && !it.is_voter);
            said.push(Said::NoLeader { is_learner, since: alone_for, unreachable: missing });
        }
    }

    /// How long there may be no leader before that is told: an election takes up to two timeouts.
    fn patience(&self) -> Duration {
        (3 * self.election).max(PEER_MISSED_AFTER)
    }

    fn missing(&self, member: &Seen) -> String {
        let called = member.called();
        match self.absent.get(&member.id) {
            Some(absence) if absence.was_here => {
                format!("{called} since {}", to_the_second(absence.since_wall))
            }
            _ => format!("{called} not reached yet"),
        }
    }
}

/// A time in UTC: `2026-11-22T18:20:11Z`.
fn to_the_second(unix_nanos: u64) -> String {
    let time = go::timestamp(unix_nanos);
    format!("{}Z", time.split('.').next().unwrap_or_default())
}

/// To the millisecond, as people read it.
fn shown(took: Duration) -> String {
    go::duration(Duration::from_millis(u64::try_from(took.as_millis()).unwrap_or(u64::MAX)))
}

fn say(said: &Said, own: u64) {
    let whose = |seen: &Seen| {
        let whose = if seen.id == own { ", this member" } else { "" };
        format!("{}{whose}", seen.called())
    };
    match said {
        Said::LeaderElected { leader, term, took } => tracing::info!(
            leader = whose(leader),
            term,
            took = Some(shown(*took)).filter(|_| took.as_millis() > 0),
            "leader elected"
        ),
        Said::LeaderChanged { before, leader, term, took } => tracing::info!(
            leader = whose(leader),
            before = whose(before),
            term,
            took = Some(shown(*took)).filter(|_| took.as_millis() > 0),
            "leader changed"
        ),
        Said::LeaderLost { leader, term } => {
            tracing::warn!(leader = leader.called(), term, "leader lost");
        }
        Said::NoLeader { is_learner, since, unreachable } => tracing::warn!(
            "for" = shown(*since),
            unreachable = ?unreachable,
            hint = without_leader(*is_learner),
            "no leader"
        ),
        Said::QuorumLost { is_new: true, needed, present, missing } => tracing::warn!(
            present,
            needed,
            missing = ?missing,
            hint = "a majority of the members must run and reach each other: start those that are \
                    missing; see the handbook, \"No leader\"",
            "no quorum yet"
        ),
        Said::QuorumLost { is_new: false, needed, present, missing } => tracing::error!(
            present,
            needed,
            missing = ?missing,
            hint = "nothing is written until enough of them are back; see the handbook, \"Lost \
                    quorum\"",
            "quorum lost"
        ),
        Said::QuorumRegained { is_new: true, took } => {
            tracing::info!(took = shown(*took), "quorum reached");
        }
        Said::QuorumRegained { is_new: false, took } => {
            tracing::info!(took = shown(*took), "quorum regained");
        }
        Said::Unreachable { peer } => tracing::warn!(
            peer = peer.called(),
            urls = ?peer.urls,
            error = peer.failure,
            hint = why_unreachable(&peer.failure),
            "member unreachable"
        ),
        Said::Reached { peer, took } => {
            tracing::info!(peer = peer.called(), took = took.map(shown), "member reached")
        }
    }
}

/// The highest of the marks that `bytes` of `quota` reach, in percent.
fn mark(bytes: u64, quota: u64) -> u64 {
    let reached =
        |percent: &&u64| u128::from(bytes) * 100 >= u128::from(quota) * u128::from(**percent);
    SPACE_MARKS_PERCENT.iter().filter(reached).copied().max().unwrap_or(0)
}

/// Says once that the store comes near its quota, and again when it has grown to the next mark.
fn look_at_space(node: &Node, told: &mut u64) {
    let status = node.status();
    let (Ok(bytes), Ok(quota @ 1..)) =
        (u64::try_from(status.db_size), u64::try_from(status.db_size_quota))
    else {
        return;
    };
    let reached = mark(bytes, quota);
    if reached > *told {
        tracing::warn!(
            "db-size-bytes" = bytes,
            "db-size-in-use-bytes" = status.db_size_in_use,
            "quota-bytes" = quota,
            hint = "compact and defragment, or raise --quota-backend-bytes; see the handbook, \
                    \"NOSPACE alarm\"",
            "the store takes {reached} % of its quota"
        );
    }
    // What shrinks below a mark may reach it again.
    *told = reached;
}

fn look_at_cluster(node: &Node, clock: &SystemClock) -> Look {
    let status = node.status();
    let peers = node.peers();
    let seen = |member: pb::Member| {
        let is_connected = peers.connected_for(member.id).is_some();
        Seen {
            id: member.id,
            is_voter: !member.is_learner,
            is_connected,
            failure: if is_connected { String::new() } else { peers.last_failure(member.id) },
            name: member.name,
            urls: member.peer_ur_ls,
        }
    };
    Look {
        now: clock.now(),
        wall: clock.unix_nanos(),
        leader: *node.leader().borrow(),
        term: status.raft_term,
        members: node.members().into_iter().map(seen).collect(),
    }
}

/// Looks and tells until `stop`. Under the name etcd there is nothing to tell.
pub(super) async fn watch(node: Node, config: Config, mut stop: Receiver<bool>) {
    if config.started_as == StartedAs::Etcd {
        return;
    }
    let clock = SystemClock::new();
    let own = node.member_id();
    let mut outlook = Outlook::new(own, config.election, clock.now());
    let mut leader = node.leader();
    let mut told_space = 0;
    loop {
        let look = look_at_cluster(&node, &clock);
        outlook.look(&look).iter().for_each(|said| say(said, own));
        look_at_space(&node, &mut told_space);
        log::tell_repeats(false);
        tokio::select! {
            changed = leader.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(OUTLOOK_INTERVAL) => {}
            // An error means that the server has ended.
            _ = stop.wait_for(|stop| *stop) => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ELECTION: Duration = Duration::from_secs(1);

    fn member(id: u64, is_connected: bool) -> Seen {
        let name = format!("m{id}");
        Seen { id, name, is_voter: true, is_connected, ..Seen::default() }
    }

    /// A look at three members at a second, of which those named are connected.
    fn at(second: u64, leader: u64, connected: &[u64]) -> Look {
        Look {
            now: Duration::from_secs(second),
            wall: second * 1_000_000_000,
            leader,
            term: 2,
            members: (1..=3).map(|id| member(id, connected.contains(&id))).collect(),
        }
    }

    fn kinds(said: &[Said]) -> Vec<&'static str> {
        said.iter()
            .map(|said| match said {
                Said::LeaderElected { .. } => "elected",
                Said::LeaderChanged { .. } => "changed",
                Said::LeaderLost { .. } => "lost",
                Said::NoLeader { .. } => "none",
                Said::QuorumLost { .. } => "quorum lost",
                Said::QuorumRegained { .. } => "quorum regained",
                Said::Unreachable { .. } => "unreachable",
                Said::Reached { .. } => "reached",
            })
            .collect()
    }

    #[test]
    fn a_quorum_is_lost_and_regained_once_each() {
        let mut outlook = Outlook::new(1, ELECTION, Duration::ZERO);
        let mut kinds_at = |look: Look| {
            let said = outlook.look(&look);
            let missing = said.iter().find_map(|said| match said {
                Said::QuorumLost { missing, .. } => Some(missing.join(",")),
                _ => None,
            });
            (kinds(&said).join(" "), missing.unwrap_or_default())
        };
        assert_eq!(kinds_at(at(1, 0, &[])).0, "");
        assert_eq!(kinds_at(at(2, 2, &[2, 3])).0, "reached reached elected");
        assert_eq!(kinds_at(at(3, 2, &[2, 3])).0, "");
        // One is killed, and nothing is said of a quorum.
        assert_eq!(kinds_at(at(10, 2, &[2])).0, "");
        assert_eq!(kinds_at(at(20, 2, &[2])).0, "unreachable");
        // And the leader.
        assert_eq!(kinds_at(at(30, 0, &[])).0, "");
        let lost = kinds_at(at(31, 0, &[]));
        assert_eq!(lost.0, "lost quorum lost");
        assert_eq!(lost.1, "m2 (2) since 1970-01-01T00:00:30Z,m3 (3) since 1970-01-01T00:00:10Z");
        assert_eq!(kinds_at(at(32, 0, &[])).0, "");
        assert_eq!(kinds_at(at(40, 0, &[])).0, "unreachable");
        assert_eq!(kinds_at(at(90, 0, &[])).0, "");
        assert_eq!(kinds_at(at(100, 1, &[2])).0, "reached elected quorum regained");
        assert_eq!(kinds_at(at(101, 1, &[2, 3])).0, "reached");
    }

    #[test]
    fn a_start_without_the_others_says_who_is_waited_for() {
        let mut outlook = Outlook::new(1, ELECTION, Duration::ZERO);
        assert_eq!(outlook.look(&at(1, 0, &[])), []);
        let said = outlook.look(&at(8, 0, &[]));
        let missing =
            vec!["m2 (2) not reached yet".to_owned(), "m3 (3) not reached yet".to_owned()];
        let lost = Said::QuorumLost { is_new: true, needed: 2, present: 1, missing };
        assert!(said.contains(&lost), "{said:?}");
        let said = outlook.look(&at(9, 2, &[2]));
        let took = Duration::from_secs(9);
        assert!(said.contains(&Said::QuorumRegained { is_new: true, took }), "{said:?}");
    }

    #[test]
    fn voters_that_do_not_agree_are_no_lost_quorum() {
        let mut outlook = Outlook::new(1, ELECTION, Duration::ZERO);
        outlook.look(&at(1, 2, &[2, 3]));
        assert_eq!(outlook.look(&at(2, 0, &[2])), []);
        assert_eq!(kinds(&outlook.look(&at(3, 0, &[2]))), ["lost"]);
        let said = outlook.look(&at(9, 0, &[2]));
        assert!(kinds(&said).contains(&"none"), "{said:?}");
        assert_eq!(kinds(&outlook.look(&at(20, 0, &[2]))), Vec::<&str>::new());
        assert_eq!(kinds(&outlook.look(&at(21, 3, &[2, 3]))), ["reached", "elected"]);
    }

    #[test]
    fn a_leader_that_hands_over_is_not_lost() {
        let mut outlook = Outlook::new(1, ELECTION, Duration::ZERO);
        outlook.look(&at(1, 2, &[2, 3]));
        assert_eq!(outlook.look(&at(2, 0, &[2, 3])), []);
        assert_eq!(kinds(&outlook.look(&at(2, 3, &[2, 3]))), ["changed"]);
        assert_eq!(kinds(&outlook.look(&at(9, 1, &[2, 3]))), ["changed"]);
    }

    #[test]
    fn a_learner_without_a_leader_is_no_voter_that_disagrees() {
        let mut outlook = Outlook::new(1, ELECTION, Duration::ZERO);
        let mut look = at(1, 0, &[2, 3]);
        look.members[0].is_voter = false;
        outlook.look(&look);
        look.now = Duration::from_secs(20);
        let said = outlook.look(&look);
        let is_it = |said: &Said| matches!(said, Said::NoLeader { is_learner: true, .. });
        assert!(said.iter().any(is_it), "{said:?}");
    }

    #[test]
    fn marks_of_the_quota() {
        assert_eq!([0, 79, 80, 94, 95, 200].map(|bytes| mark(bytes, 100)), [0, 0, 80, 80, 95, 95]);
    }
}
