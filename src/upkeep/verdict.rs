//! Verdicts on comparisons of histories: which members differ.

use std::collections::BTreeMap;

use super::hash::HashKv;

/// A peer's id, and the hash that it reported, if it answered.
pub(super) type Reported = (u64, Option<HashKv>);

/// The outcome of comparing the hashes of one compaction.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// All members have the same hash.
    Same,
    /// The members that answered have the same hash, but not all answered.
    Unclear,
    /// The data of these members is corrupt; 0 is the whole cluster.
    Corrupt(Vec<u64>),
}

/// The first member whose history differs from the leader's, the leader included. The leader hashed
/// its own history before the peers did and again after (etcd's `PeriodicCheck`).
pub(super) fn differing(
    leader: u64,
    before: HashKv,
    after: HashKv,
    peers: &[Reported],
) -> Option<u64> {
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

/// The members whose hash of one compaction is not the majority's (etcd's `CompactHashCheck`).
pub(super) fn judge(leader: u64, ours: HashKv, peers: &[Reported]) -> Verdict {
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
    // The quorum is one of all members: those that did not answer may have either hash.
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

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(hash: u32, compact_revision: i64, current_revision: i64) -> HashKv {
        HashKv { hash, compact_revision, hash_revision: 10, current_revision }
    }

    fn told(id: u64, told: HashKv) -> Reported {
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
        let differs = |after, peers: &[Reported]| differing(1, ours, after, peers);
        assert_eq!(differs(ours, &[told(2, ours), (3, None)]), None);
        assert_eq!(differs(ours, &[told(2, ours), told(3, hash(2, 3, 10))]), Some(3));
        assert_eq!(differs(ours, &[told(2, hash(2, 2, 9))]), None, "it has compacted less");
        assert_eq!(differs(ours, &[told(2, hash(1, 3, 11))]), Some(2), "ahead of the leader");
        assert_eq!(differs(hash(1, 3, 11), &[told(2, hash(1, 3, 11))]), None);
        assert_eq!(differs(ours, &[told(2, hash(7, 4, 10))]), Some(2), "compacted before it");
        assert_eq!(differs(hash(9, 3, 10), &[]), Some(1), "its own changed under it");
    }
}
