//! Members compare their histories, as etcd's corruption checks do.
//!
//! ```text
//!   at the start     this member's history and each peer's at the same revision; it does not
//!                    serve if one differs
//!   now and then     the leader does the same, and raises CORRUPT for the member that differs
//!   by compaction    the leader compares what all members found when they compacted, newest
//!                    first, until one was compared on all of them; the minority is corrupt, or
//!                    the whole cluster (member 0) if there is no majority
//! ```
//!
//! Hashes are comparable at one revision above one compact revision. A member that does not answer,
//! or that is behind, is passed over: silence is no sign of damage.

use std::collections::BTreeMap;
use std::time::Duration;

use http::StatusCode;
use serde_json::Value;

use super::admission::Turns;
use super::status::HashKv;
use super::{Error, Node, Op};
use crate::mvcc::{Mvcc, Wanted};
use crate::pb::alarm_request::AlarmAction;
use crate::pb::{AlarmRequest, AlarmType};
use crate::peer::{CLUSTER_ID, HASH_KV_PATH};

/// Why a member does not begin to serve.
#[derive(Debug, thiserror::Error)]
pub enum CorruptionError {
    #[error("{0} failed to fetch hash ({1})")]
    Hash(String, Error),
    #[error("{0} found data inconsistency with peers")]
    Inconsistent(String),
}

/// What a peer said of its history.
type Told = (u64, Option<HashKv>);

/// What a comparison of one compaction's hashes says.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    /// All members have the same.
    Same,
    /// So have those that answered, but not all did.
    Unclear,
    /// These members have damaged data; 0 is the cluster.
    Corrupt(Vec<u64>),
}

impl Node {
    /// This member's history at `revision` (0: the current one), for its peers.
    pub async fn history_hash(&self, revision: i64) -> Result<HashKv, Error> {
        self.hash_in_turn(&self.0.admission.peer_hashes, revision).await
    }

    /// What a compaction has found is there at once; anything else is a pass over all of history.
    pub(super) async fn hash_in_turn(&self, turns: &Turns, revision: i64) -> Result<HashKv, Error> {
        self.fence()?;
        let (hash, current) = match self.0.machine.mvcc.stored_hash(revision) {
            Some(stored) => stored,
            None => {
                let hash =
                    move |mvcc: &Mvcc, wanted: &Wanted| mvcc.hash_by_revision(revision, wanted);
                self.read_all(turns, hash).await?
            }
        };
        Ok(HashKv::new(hash, current))
    }

    /// Whether this member's history is its peers', as far as they answer.
    pub async fn check_at_start(&self) -> Result<(), CorruptionError> {
        let id = format!("{:x}", self.0.member_id);
        let timeout = format!("{:?}", self.request_timeout());
        tracing::info!("local-member-id" = id, timeout, "starting initial corruption check");
        let ours = self.history_hash(0).await;
        let ours = ours.map_err(|error| CorruptionError::Hash(id.clone(), error))?;
        let mut is_same = true;
        for (peer, told) in self.histories(ours.hash_revision).await {
            let Some(told) = told.filter(|told| told.hash != ours.hash) else { continue };
            let is_comparable = told.compact_revision == ours.compact_revision;
            is_same &= !is_comparable;
            tracing::warn!(
                "local-member-id" = id,
                "local-member-revision" = ours.hash_revision,
                "local-member-compact-revision" = ours.compact_revision,
                "local-member-hash" = ours.hash,
                "remote-peer-id" = format!("{peer:x}"),
                "remote-peer-revision" = told.current_revision,
                "remote-peer-compact-revision" = told.compact_revision,
                "remote-peer-hash" = told.hash,
                "found different {} values from remote peer",
                if is_comparable { "hash" } else { "compact revision" }
            );
        }
        if !is_same {
            return Err(CorruptionError::Inconsistent(id));
        }
        tracing::info!("local-member-id" = id, "initial corruption checking passed; no corruption");
        Ok(())
    }

    pub(super) async fn compare_histories(&self) {
        let interval = self.0.config.corrupt_check_interval;
        if interval.is_zero() {
            return;
        }
        let id = format!("{:x}", self.0.member_id);
        let each = format!("{interval:?}");
        tracing::info!("local-member-id" = id, interval = each, "enabled corruption checking");
        loop {
            self.0.clock.sleep(interval).await;
            if self.is_leader()
                && let Err(error) = self.compare_history().await
            {
                tracing::warn!(%error, "failed to check hash KV");
            }
        }
    }

    async fn compare_history(&self) -> Result<(), Error> {
        let before = self.history_hash(0).await?;
        let peers = self.histories(before.hash_revision).await;
        // Whatever a peer had applied when it answered is applied here after this.
        self.barrier().await?;
        let after = self.history_hash(0).await?;
        if let Some(damaged) = differing(self.0.member_id, before, after, &peers) {
            self.raise_corrupt(damaged).await;
        }
        let checked = peers.iter().filter(|(_, told)| told.is_some()).count();
        tracing::info!("number-of-peers-checked" = checked, "finished peer corruption check");
        Ok(())
    }

    pub(super) async fn compare_compactions(&self) {
        let Some(interval) = self.0.config.compact_hash_check_interval else { return };
        let mut checked = 0;
        loop {
            self.0.clock.sleep(interval.max(SHORTEST_INTERVAL)).await;
            if self.is_leader() {
                self.compare_compaction(&mut checked).await;
            }
        }
    }

    /// `checked` is the newest revision that was compared on all members.
    async fn compare_compaction(&self, checked: &mut i64) {
        let id = format!("{:x}", self.0.member_id);
        let timeout = format!("{:?}", self.request_timeout());
        tracing::info!("local-member-id" = id, timeout, "starting compact hash check");
        let current = self.0.machine.mvcc.current().revision;
        let mut compared = 0;
        for hash in self.0.machine.mvcc.compaction_hashes().into_iter().rev() {
            let ours = HashKv::new(hash, current);
            if ours.hash_revision <= *checked {
                break;
            }
            let peers = self.histories(ours.hash_revision).await;
            if peers.is_empty() {
                continue;
            }
            compared += 1;
            match judge(self.0.member_id, ours, &peers) {
                Verdict::Unclear => continue,
                Verdict::Same => *checked = ours.hash_revision,
                Verdict::Corrupt(members) => {
                    for member in members {
                        self.raise_corrupt(member).await;
                    }
                }
            }
            break;
        }
        tracing::info!("number-of-hashes-checked" = compared, "finished compaction hash check");
    }

    /// What all other members say of their histories at a revision.
    async fn histories(&self, revision: i64) -> Vec<Told> {
        let members = self.members();
        let others = members.iter().filter(|member| member.id != self.0.member_id);
        let asked =
            others.map(|member| async { (member.id, self.history(member.id, revision).await) });
        futures_util::future::join_all(asked).await
    }

    async fn history(&self, id: u64, revision: i64) -> Option<HashKv> {
        let body = serde_json::json!({ "revision": revision }).to_string();
        let (reach, limit) = (&self.0.circle.reach, self.request_timeout());
        let answered = reach.ask(id, HASH_KV_PATH, Some(body.into()), limit).await;
        let ours = format!("{:x}", self.0.cluster_id);
        let told = answered.as_ref().ok_or_else(|| "no response".to_owned()).and_then(|answered| {
            let of = answered.headers.get(CLUSTER_ID).and_then(|id| id.to_str().ok());
            match answered.status {
                _ if of != Some(ours.as_str()) => Err("cluster ID mismatch".to_owned()),
                StatusCode::OK => parse(&answered.body).ok_or_else(|| "unknown answer".to_owned()),
                _ => Err(String::from_utf8_lossy(&answered.body).trim().to_owned()),
            }
        });
        told.inspect_err(|error| {
            tracing::warn!(
                "local-member-id" = format!("{:x}", self.0.member_id),
                "requested-revision" = revision,
                "remote-peer-id" = format!("{id:x}"),
                error,
                "failed hash kv request"
            );
        })
        .ok()
    }

    async fn raise_corrupt(&self, member_id: u64) {
        let corrupt = AlarmType::Corrupt as i32;
        let raised = self.0.machine.members.read().alarms(corrupt);
        if raised.iter().any(|alarm| alarm.member_id == member_id) {
            return;
        }
        let action = AlarmAction::Activate as i32;
        let alarm = AlarmRequest { action, member_id, alarm: corrupt };
        if let Err(error) = self.propose_own(Op::Alarm(alarm)).await {
            tracing::warn!(%error, "failed to raise alarm");
        }
    }
}

/// No check without a pause: each reads all of history.
const SHORTEST_INTERVAL: Duration = Duration::from_millis(1);

/// The member that has something else than this leader, who looked before and after the peers did.
fn differing(leader: u64, before: HashKv, after: HashKv, peers: &[Told]) -> Option<u64> {
    let is_still = (after.hash_revision, after.compact_revision)
        == (before.hash_revision, before.compact_revision);
    let mut damaged = None;
    if is_still && after.hash != before.hash {
        tracing::warn!(
            "revision-1" = before.hash_revision,
            "compact-revision-1" = before.compact_revision,
            "hash-1" = before.hash,
            "revision-2" = after.hash_revision,
            "compact-revision-2" = after.compact_revision,
            "hash-2" = after.hash,
            "found hash mismatch"
        );
        damaged = Some(leader);
    }
    for (id, told) in peers {
        let Some(told) = told else { continue };
        let follower = format!("{id:x}");
        let mut differs = true;
        if told.current_revision > after.current_revision {
            tracing::warn!(
                "leader-revision" = after.current_revision,
                "follower-revision" = told.current_revision,
                "follower-peer-id" = follower,
                "revision from follower must be less than or equal to leader's"
            );
        } else if told.compact_revision > after.compact_revision {
            tracing::warn!(
                "leader-compact-revision" = after.compact_revision,
                "follower-compact-revision" = told.compact_revision,
                "follower-peer-id" = follower,
                "compact revision from follower must be less than or equal to leader's"
            );
        } else if told.compact_revision == before.compact_revision && told.hash != before.hash {
            tracing::warn!(
                "leader-compact-revision" = after.compact_revision,
                "leader-hash" = before.hash,
                "follower-compact-revision" = told.compact_revision,
                "follower-hash" = told.hash,
                "follower-peer-id" = follower,
                "same compact revision then hashes must match"
            );
        } else {
            differs = false;
        }
        if differs {
            damaged = damaged.or(Some(*id));
        }
    }
    damaged
}

/// Who has another hash of one compaction than the majority.
fn judge(leader: u64, ours: HashKv, peers: &[Told]) -> Verdict {
    let mut by_hash = BTreeMap::from([(ours.hash, vec![leader])]);
    let mut checked = 0;
    for (id, told) in peers {
        match told {
            Some(told) if told.compact_revision == ours.compact_revision => {
                checked += 1;
                by_hash.entry(told.hash).or_default().push(*id);
            }
            _ => tracing::warn!(
                "number-of-peers" = peers.len(),
                "peer-id" = format!("{id:x}"),
                "Skipped peer's hash"
            ),
        }
    }
    if by_hash.len() == 1 {
        let (revision, compact) = (ours.hash_revision, ours.compact_revision);
        if checked < peers.len() {
            tracing::warn!(
                "number-of-peers-checked" = checked,
                "number-of-peers" = peers.len(),
                revision,
                "compactRevision" = compact,
                "skipped revision in compaction hash check; was not able to check all peers"
            );
            return Verdict::Unclear;
        }
        tracing::info!(
            "number-of-peers-checked" = checked,
            revision,
            "compactRevision" = compact,
            "successfully checked hash on whole cluster"
        );
        return Verdict::Same;
    }
    // Members that did not answer count: they could be of any opinion.
    let members = peers.len() + 1;
    let quorum = members / 2 + 1;
    let majority = by_hash.iter().find(|(_, members)| members.len() >= quorum);
    let majority = majority.map(|(hash, _)| *hash);
    by_hash.retain(|hash, _| Some(*hash) != majority);
    for (hash, members) in &by_hash {
        let members: Vec<String> = members.iter().map(|id| format!("{id:x}")).collect();
        tracing::error!(
            "leader-id" = format!("{leader:x}"),
            "leader-revision" = ours.hash_revision,
            "leader-compact-revision" = ours.compact_revision,
            "leader-hash" = ours.hash,
            "peer-hash" = hash,
            "peer-ids" = members.join(","),
            "quorum-exist" = majority.is_some(),
            "Detected compaction hash mismatch"
        );
    }
    Verdict::Corrupt(match majority {
        Some(_) => by_hash.into_values().flatten().collect(),
        None => vec![0],
    })
}

/// What etcd's members answer: fields that are zero are left out.
fn parse(body: &[u8]) -> Option<HashKv> {
    let json: Value = serde_json::from_slice(body).ok()?;
    let number = |of: &Value, name: &str| match of.get(name) {
        None => Some(0),
        Some(value) => value.as_i64(),
    };
    Some(HashKv {
        hash: u32::try_from(number(&json, "hash")?).ok()?,
        compact_revision: number(&json, "compact_revision")?,
        hash_revision: number(&json, "hash_revision")?,
        current_revision: number(json.get("header")?, "revision")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(hash: u32, compact_revision: i64, current_revision: i64) -> HashKv {
        HashKv { hash, compact_revision, hash_revision: 10, current_revision }
    }

    fn told(id: u64, told: HashKv) -> Told {
        (id, Some(told))
    }

    #[test]
    fn the_minority_is_corrupt_and_without_a_majority_the_cluster() {
        let ours = hash(1, 3, 10);
        let other = hash(2, 3, 10);
        assert_eq!(judge(1, ours, &[told(2, ours), told(3, ours)]), Verdict::Same);
        assert_eq!(judge(1, ours, &[told(2, ours), (3, None)]), Verdict::Unclear);
        assert_eq!(
            judge(1, ours, &[told(2, ours), told(3, hash(2, 4, 10))]),
            Verdict::Unclear,
            "above another compact revision"
        );
        assert_eq!(judge(1, ours, &[told(2, other), told(3, ours)]), Verdict::Corrupt(vec![2]));
        assert_eq!(judge(1, ours, &[told(2, other), told(3, other)]), Verdict::Corrupt(vec![1]));
        assert_eq!(judge(1, ours, &[told(2, other), (3, None)]), Verdict::Corrupt(vec![0]));
        assert_eq!(
            judge(1, ours, &[told(2, other), told(3, hash(5, 3, 10))]),
            Verdict::Corrupt(vec![0])
        );
    }

    #[test]
    fn the_leader_finds_who_differs_and_lets_who_is_behind_alone() {
        let ours = hash(1, 3, 10);
        let differs = |after, peers: &[Told]| differing(1, ours, after, peers);
        assert_eq!(differs(ours, &[told(2, ours), (3, None)]), None);
        assert_eq!(differs(ours, &[told(2, ours), told(3, hash(2, 3, 10))]), Some(3));
        assert_eq!(differs(ours, &[told(2, hash(2, 2, 9))]), None, "it has compacted less");
        assert_eq!(differs(ours, &[told(2, hash(1, 3, 11))]), Some(2), "ahead of the leader");
        assert_eq!(differs(hash(1, 3, 11), &[told(2, hash(1, 3, 11))]), None);
        assert_eq!(differs(ours, &[told(2, hash(7, 4, 10))]), Some(2), "compacted before it");
        assert_eq!(differs(hash(9, 3, 10), &[]), Some(1), "its own changed under it");
    }

    #[test]
    fn an_answer_of_etcd_is_understood() {
        let body = br#"{"header":{"revision":7},"hash":3735928559,"hash_revision":6}"#;
        let expected = HashKv {
            hash: 0xdead_beef,
            compact_revision: 0,
            hash_revision: 6,
            current_revision: 7,
        };
        assert_eq!(parse(body), Some(expected));
        for body in ["", "{}", r#"{"header":{"revision":"x"}}"#, r#"{"header":{},"hash":-1}"#] {
            assert_eq!(parse(body.as_bytes()), None, "{body}");
        }
    }
}
