//! The space policy `auto`: what a member does by itself when its space is used up.
//!
//! ```text
//!   NOSPACE of this member ─► enough room within the file? ──no──► compact half of history, again
//!                                       │ yes
//!                                       ▼
//!                             defragment ─► room below the quota? ─► disarm
//! ```
//!
//! The rule for history: nothing is compacted that need not be. While an eighth of the quota is free
//! within the file, nothing at all. Else the older half of the revisions that are left goes, and
//! only when these are swept up it is looked again. The newest thousand revisions always stay; if
//! they are too much, the alarm stays too, and the log says why. A full disk counts as no room, and
//! what is free within the file counts as room on it.
//!
//! Apart from alarms, space is given back when more than half of the file is free, and not little.
//!
//! The compaction goes through the log, so it is every member's; each disarms only its own alarm. One
//! that gets no answer, as without a quorum, may still be applied later: it is waited for, longer each
//! time, before it is proposed again.

use std::time::Duration;

use super::config::quota_bytes;
use super::usage::Growth;
use super::{Error, Node, Op};
use crate::limits::{
    SPACE_ANSWER_WAIT, SPACE_ANSWER_WAIT_MAX, SPACE_FREE_BYTES_MIN, SPACE_HELPLESS_REST,
    SPACE_LOOK_INTERVAL, SPACE_RECLAIM_INTERVAL, SPACE_REVISIONS_KEPT, SPACE_ROOM_PARTS,
    SPACE_SWEEP_LOOK, SPACE_SWEEP_WAIT,
};
use crate::metrics;
use crate::pb::alarm_request::AlarmAction;
use crate::pb::{AlarmMember, AlarmRequest, AlarmType, CompactionRequest};
use crate::store::Sizes;

/// What housekeeping remembers.
#[derive(Default)]
pub(super) struct Upkeep {
    pub growth: Growth,
}

/// The revision to compact so that the older half of history goes, but never the newest ones.
fn older_half(revision: i64, compacted: i64) -> Option<i64> {
    let history = revision - compacted.max(0);
    let kept = (history / 2).max(SPACE_REVISIONS_KEPT);
    (kept < history).then_some(revision - kept)
}

fn has_room(bytes: u64, quota_bytes: u64) -> bool {
    bytes <= quota_bytes - quota_bytes / SPACE_ROOM_PARTS
}

/// Compactions of one recovery that got no answer.
struct Unanswered {
    /// How long the next one is waited for.
    patience: Duration,
    /// Whether one was waited for, which is said once.
    has_waited: bool,
}

impl Default for Unanswered {
    fn default() -> Self {
        Self { patience: SPACE_ANSWER_WAIT, has_waited: false }
    }
}

/// Whether a proposal may be applied although it failed.
fn is_open(error: &Error) -> bool {
    matches!(
        error,
        Error::Timeout
            | Error::TimeoutDueToLeaderFail
            | Error::TimeoutDueToConnectionLost
            | Error::DeadlineExceeded
    )
}

fn is_mostly_free(sizes: Sizes) -> bool {
    let free = sizes.total - sizes.in_use;
    free >= SPACE_FREE_BYTES_MIN && free > sizes.total / 2
}

impl Node {
    pub(super) async fn keep_space(&self) {
        let clock = &self.0.clock;
        let mut rest_until = Duration::ZERO;
        loop {
            clock.sleep(SPACE_LOOK_INTERVAL).await;
            if self.has_own_alarm() {
                if !self.recover_space().await {
                    clock.sleep(SPACE_HELPLESS_REST).await;
                }
            } else if clock.now() >= rest_until && is_mostly_free(self.0.machine.store.sizes()) {
                self.reclaim("more than half of the file is free").await;
                rest_until = clock.now() + SPACE_RECLAIM_INTERVAL;
            }
        }
    }

    fn has_own_alarm(&self) -> bool {
        let alarm = AlarmMember { member_id: self.0.member_id, alarm: AlarmType::Nospace as i32 };
        self.alarms().contains(&alarm)
    }

    /// False if nothing helps.
    async fn recover_space(&self) -> bool {
        let quota = u64::try_from(quota_bytes(&self.0.config)).unwrap_or(0);
        let quota = if quota == 0 { u64::MAX } else { quota };
        let sizes = self.0.machine.store.sizes();
        tracing::warn!(
            "db-size-bytes" = sizes.total,
            "db-size-in-use-bytes" = sizes.in_use,
            "quota-bytes" = quota,
            "space policy: no space is left; history is compacted as far as needed"
        );
        let mut unanswered = Unanswered::default();
        loop {
            let is_swept = self.sweeps_end().await;
            let sizes = self.0.machine.store.sizes();
            if has_room(sizes.in_use, quota) && self.0.rooms.fits(0) {
                break;
            }
            if !is_swept {
                tracing::warn!(
                    "db-size-in-use-bytes" = sizes.in_use,
                    waited = ?SPACE_SWEEP_WAIT,
                    "space policy: the deletions of the last compaction do not end; history is not \
                     compacted further before they do"
                );
                return false;
            }
            // While it was waited for an answer, an operator may have made room.
            if unanswered.has_waited && !self.has_own_alarm() {
                return true;
            }
            let current = self.0.machine.mvcc.current();
            let Some(revision) = older_half(current.revision, current.compact_revision) else {
                tracing::warn!(
                    "db-size-in-use-bytes" = sizes.in_use,
                    "quota-bytes" = quota,
                    "revisions-kept" = current.revision - current.compact_revision.max(0),
                    "space policy: what is left is live data and the newest history; delete keys \
                     or raise the quota"
                );
                return false;
            };
            let kept = current.revision - revision;
            if !self.compact_for_space(revision, kept, &mut unanswered).await {
                return false;
            }
        }
        if !has_room(self.0.machine.store.sizes().total, quota) {
            self.reclaim("no space is left").await;
        }
        let sizes = self.0.machine.store.sizes();
        has_room(sizes.total, quota) && self.disarm_space(sizes).await
    }

    /// Waits until no deletion is under way any more; false if that takes too long.
    async fn sweeps_end(&self) -> bool {
        let end = self.0.clock.now() + SPACE_SWEEP_WAIT;
        while self.0.machine.mvcc.is_sweeping() {
            if self.0.clock.now() >= end {
                return false;
            }
            self.0.clock.sleep(SPACE_SWEEP_LOOK).await;
        }
        true
    }

    async fn compact_for_space(
        &self,
        revision: i64,
        kept: i64,
        unanswered: &mut Unanswered,
    ) -> bool {
        let request = CompactionRequest { revision, physical: true };
        let term = self.0.raft.status().term;
        match self.propose_own(Op::Compaction(request)).await {
            Ok(_) => {
                metrics::space_compactions().inc();
                tracing::warn!(
                    "compact-revision" = revision,
                    "revisions-kept" = kept,
                    "space policy: compacted history"
                );
                *unanswered = Unanswered::default();
                true
            }
            // Somebody else was faster: the sizes will tell.
            Err(Error::Compacted) => true,
            Err(error) if is_open(&error) => {
                if !std::mem::replace(&mut unanswered.has_waited, true) {
                    tracing::warn!(
                        "compact-revision" = revision,
                        %error,
                        hint = "see whether most voters are up and whether their disks take writes",
                        "space policy: the compaction got no answer; it is waited for, and then \
                         proposed again"
                    );
                }
                self.wait_for_compaction(revision, term, unanswered.patience).await;
                unanswered.patience = (2 * unanswered.patience).min(SPACE_ANSWER_WAIT_MAX);
                true
            }
            Err(error) => {
                tracing::warn!(revision, %error, "space policy: the compaction failed");
                false
            }
        }
    }

    /// Waits until a compaction that was proposed in `term` and got no answer is applied or the alarm
    /// is gone. Ends earlier once the cluster answers in a later term, when the compaction is either
    /// applied or lost, or after so long, when it may be lost; in both cases another can be proposed.
    async fn wait_for_compaction(&self, revision: i64, term: u64, patience: Duration) {
        let clock = &self.0.clock;
        let end = clock.now() + patience;
        loop {
            clock.sleep(SPACE_LOOK_INTERVAL).await;
            let is_done = self.0.machine.mvcc.current().compact_revision >= revision;
            if is_done || !self.has_own_alarm() {
                return;
            }
            let may_be_lost = clock.now() >= end || self.0.raft.status().term != term;
            let has_leader = *self.0.leader.borrow() != 0;
            if may_be_lost && has_leader && self.barrier().await.is_ok() {
                return;
            }
        }
    }

    async fn reclaim(&self, why: &str) {
        match self.defragment_own().await {
            Ok(done) => {
                let bytes = done.before.total.saturating_sub(done.after.total);
                metrics::space_reclaims().inc();
                metrics::space_reclaimed_bytes().inc_by(bytes);
                tracing::info!(why, "reclaimed-bytes" = bytes, "space policy: gave space back");
            }
            Err(error) => tracing::warn!(why, %error, "space policy: no space could be given back"),
        }
    }

    async fn disarm_space(&self, sizes: Sizes) -> bool {
        let alarm = AlarmRequest {
            action: AlarmAction::Deactivate as i32,
            member_id: self.0.member_id,
            alarm: AlarmType::Nospace as i32,
        };
        if let Err(error) = self.propose_own(Op::Alarm(alarm)).await {
            tracing::warn!(%error, "space policy: the alarm could not be cleared");
            return false;
        }
        metrics::space_recoveries().inc();
        tracing::warn!(
            "db-size-bytes" = sizes.total,
            "db-size-in-use-bytes" = sizes.in_use,
            "space policy: there is room again; the NOSPACE alarm is cleared"
        );
        true
    }
}

#[cfg(test)]
mod tests;
