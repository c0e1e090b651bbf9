//! Comparisons of the members' histories, as etcd's corruption checks make them.
//!
//! ```text
//!   at the start     this member's history and each peer's at the same revision; the member does
//!                    not serve if one differs
//!   each interval    the leader does the same, and raises CORRUPT for the member that differs
//!   by compaction    the leader compares the hashes that all members computed when they compacted,
//!                    newest first, until one was compared on all of them; the minority is corrupt,
//!                    or the whole cluster (member 0) if there is no majority
//! ```
//!
//! Hashes are comparable if their revision and their compact revision are the same. A member that
//! does not answer, or that is behind, is skipped: silence is no sign of damage.

use std::time::Duration;

use http::StatusCode;
use serde_json::Value;

use super::door::Door;
use super::hash::HashKv;
use super::verdict::{Reported, Verdict, differing, judge};
use super::{CorruptionError, Error, Upkeep};
use crate::apply::Command;
use crate::pb::alarm_request::AlarmAction;
use crate::pb::{AlarmRequest, AlarmType};
use crate::peer::{CLUSTER_ID, HASH_KV_PATH};

impl Upkeep {
    /// Compares this member's history with that of the peers that answer, before the member serves.
    /// An error if the history of one differs, or if this member's could not be hashed.
    pub async fn check_at_start(&self) -> Result<(), CorruptionError> {
        let id = self.shown_id();
        let timeout = format!("{:?}", self.context.settings.request_timeout);
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

    /// Compares histories every `corrupt_check_interval` while this member leads. Ends at once if
    /// that is zero.
    pub async fn compare_histories(&self, door: &impl Door) {
        let interval = self.context.settings.corrupt_check_interval;
        if interval.is_zero() {
            return;
        }
        let id = self.shown_id();
        let each = format!("{interval:?}");
        tracing::info!("local-member-id" = id, interval = each, "enabled corruption checking");
        loop {
            self.context.clock.sleep(interval).await;
            if door.is_leader()
                && let Err(error) = self.compare_history(door).await
            {
                tracing::warn!(%error, "failed to check hash KV");
            }
        }
    }

    async fn compare_history(&self, door: &impl Door) -> Result<(), Error> {
        let before = self.history_hash(0).await?;
        let peers = self.histories(before.hash_revision).await;
        // After the barrier, this member has applied everything that a peer had applied when it
        // answered, so its revision is not behind theirs.
        door.barrier().await?;
        let after = self.history_hash(0).await?;
        if let Some(damaged) = differing(self.context.member_id, before, after, &peers) {
            self.raise_corrupt(door, damaged).await;
        }
        let checked = peers.iter().filter(|(_, told)| told.is_some()).count();
        tracing::info!("number-of-peers-checked" = checked, "finished peer corruption check");
        Ok(())
    }

    /// Compares the hashes of compactions every `compact_hash_check_interval` while this member
    /// leads.
    pub async fn compare_compactions(&self, door: &impl Door) {
        let Some(interval) = self.context.settings.compact_hash_check_interval else { return };
        let mut checked = 0;
        loop {
            self.context.clock.sleep(interval.max(SHORTEST_INTERVAL)).await;
            if door.is_leader() {
                self.compare_compaction(door, &mut checked).await;
            }
        }
    }

    /// `checked` is the newest revision whose hash was compared on all members.
    async fn compare_compaction(&self, door: &impl Door, checked: &mut i64) {
        let id = self.shown_id();
        let timeout = format!("{:?}", self.context.settings.request_timeout);
        tracing::info!("local-member-id" = id, timeout, "starting compact hash check");
        let current = self.context.mvcc.current().revision;
        let mut compared = 0;
        for hash in self.context.mvcc.compaction_hashes().into_iter().rev() {
            let ours = HashKv::new(hash, current);
            if ours.hash_revision <= *checked {
                break;
            }
            let peers = self.histories(ours.hash_revision).await;
            if peers.is_empty() {
                continue;
            }
            compared += 1;
            match judge(self.context.member_id, ours, &peers) {
                Verdict::Unclear => continue,
                Verdict::Same => *checked = ours.hash_revision,
                Verdict::Corrupt(members) => {
                    for member in members {
                        self.raise_corrupt(door, member).await;
                    }
                }
            }
            break;
        }
        tracing::info!("number-of-hashes-checked" = compared, "finished compaction hash check");
    }

    /// The hashes of history that the other members report for a revision.
    async fn histories(&self, revision: i64) -> Vec<Reported> {
        let members = self.context.members.read().list();
        let others = members.iter().filter(|member| member.id != self.context.member_id);
        let asked =
            others.map(|member| async { (member.id, self.history(member.id, revision).await) });
        futures_util::future::join_all(asked).await
    }

    async fn history(&self, id: u64, revision: i64) -> Option<HashKv> {
        let body = serde_json::json!({ "revision": revision }).to_string();
        let (reach, limit) = (&self.context.reach, self.context.settings.request_timeout);
        let answered = reach.ask(id, HASH_KV_PATH, Some(body.into()), limit).await;
        let ours = format!("{:x}", self.context.cluster_id);
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
                "local-member-id" = self.shown_id(),
                "requested-revision" = revision,
                "remote-peer-id" = format!("{id:x}"),
                error,
                "failed hash kv request"
            );
        })
        .ok()
    }

    async fn raise_corrupt(&self, door: &impl Door, member_id: u64) {
        let corrupt = AlarmType::Corrupt as i32;
        let raised = self.context.members.read().alarms(corrupt);
        if raised.iter().any(|alarm| alarm.member_id == member_id) {
            return;
        }
        let action = AlarmAction::Activate as i32;
        let alarm = AlarmRequest { action, member_id, alarm: corrupt };
        if let Err(error) = door.propose(Command::Alarm(alarm)).await {
            tracing::warn!(%error, "failed to raise alarm");
        }
    }
}

/// The shortest interval between two checks, because each asks all peers; the flag may say 0.
const SHORTEST_INTERVAL: Duration = Duration::from_millis(1);

/// Parses an answer in the JSON of etcd's members, which omit fields that are zero.
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
