//! The space policy `auto`: what a member does by itself when its space is used up.
//!
//! ```text
//!   NOSPACE of this member ─► enough room within the file? ──no──► compact half of history, again
//!                                       │ yes
//!                                       ▼
//!                             defragment ─► room below the quota? ─► disarm
//! ```
//!
//! As little history as possible is compacted: none while an eighth of the quota is free within the
//! file; otherwise the older half of the revisions, after which the next look waits until they are
//! swept. The newest thousand revisions always stay. If these take too much space, the alarm stays
//! as well, and the log says why. A full disk counts as no room, and free pages within the file as
//! room on the disk.
//!
//! Without an alarm, the store is defragmented when more than half of its file, and at least
//! `SPACE_FREE_BYTES_MIN`, is free.
//!
//! The compaction goes through the log and so happens on every member; each member disarms only its
//! own alarm. A compaction that gets no answer, as without a quorum, may still be applied later.
//! The policy waits for it before it proposes another one, for twice as long each time.

use std::sync::Arc;
use std::time::Duration;

use super::Upkeep;
use super::door::{Door, Refusal};
use crate::apply::Command;
use crate::go;
use crate::limits::{
    SPACE_ANSWER_WAIT, SPACE_ANSWER_WAIT_MAX, SPACE_FREE_BYTES_MIN, SPACE_LOOK_INTERVAL,
    SPACE_NO_GAIN_REST, SPACE_RECLAIM_INTERVAL, SPACE_REVISIONS_KEPT, SPACE_ROOM_PARTS,
    SPACE_SWEEP_WAIT,
};
use crate::metrics;
use crate::pb::alarm_request::AlarmAction;
use crate::pb::{AlarmMember, AlarmRequest, AlarmType, CompactionRequest};
use crate::store::Sizes;

/// The revision to compact so that the older half of history goes. None if only the newest
/// `SPACE_REVISIONS_KEPT` revisions are left.
fn older_half(revision: i64, compacted: i64) -> Option<i64> {
    let history = revision - compacted.max(0);
    let kept = (history / 2).max(SPACE_REVISIONS_KEPT);
    (kept < history).then_some(revision - kept)
}

fn has_room(bytes: u64, quota_bytes: u64) -> bool {
    bytes <= quota_bytes - quota_bytes / SPACE_ROOM_PARTS
}

/// State about compactions of one recovery that got no answer.
struct Unanswered {
    /// How long to wait for the next one.
    patience: Duration,
    /// Whether one was waited for; that is logged once.
    has_waited: bool,
}

impl Default for Unanswered {
    fn default() -> Self {
        Self { patience: SPACE_ANSWER_WAIT, has_waited: false }
    }
}

fn is_mostly_free(sizes: Sizes) -> bool {
    let free = sizes.total - sizes.in_use;
    free >= SPACE_FREE_BYTES_MIN && free > sizes.total / 2
}

impl Upkeep {
    /// Runs the policy until the member stops: looks each second for this member's NOSPACE, and for
    /// a file that is mostly free.
    pub async fn keep_space(self: &Arc<Self>, door: &impl Door) {
        let clock = &self.context.clock;
        let mut rest_until = Duration::ZERO;
        loop {
            clock.sleep(SPACE_LOOK_INTERVAL).await;
            if self.has_own_alarm() {
                if !self.recover_space(door).await {
                    clock.sleep(SPACE_NO_GAIN_REST).await;
                }
            } else if clock.now() >= rest_until && is_mostly_free(self.context.store.sizes()) {
                self.reclaim("more than half of the file is free").await;
                rest_until = clock.now() + SPACE_RECLAIM_INTERVAL;
            }
        }
    }

    pub(crate) fn has_own_alarm(&self) -> bool {
        let alarm =
            AlarmMember { member_id: self.context.member_id, alarm: AlarmType::Nospace as i32 };
        self.context.members.read().alarms(AlarmType::Nospace as i32).contains(&alarm)
    }

    /// Makes room and disarms the alarm. False if nothing helps, so that the caller rests before it
    /// tries again.
    pub(crate) async fn recover_space(self: &Arc<Self>, door: &impl Door) -> bool {
        let quota = u64::try_from(self.context.settings.quota_bytes).unwrap_or(0);
        let quota = if quota == 0 { u64::MAX } else { quota };
        let sizes = self.context.store.sizes();
        tracing::warn!(
            "db-size-bytes" = sizes.total,
            "db-size-in-use-bytes" = sizes.in_use,
            "quota-bytes" = quota,
            "space policy: no space is left; history is compacted as far as needed"
        );
        let mut unanswered = Unanswered::default();
        loop {
            let is_swept = self.sweeps_end().await;
            let sizes = self.context.store.sizes();
            let disk_room = &self.context.disk_room;
            // What was refused has to fit, too: the alarm would be raised again at once otherwise.
            let has_disk = !disk_room.measure() && !disk_room.has_refused();
            if has_room(sizes.in_use, quota) && has_disk {
                break;
            }
            if !is_swept {
                tracing::warn!(
                    "db-size-in-use-bytes" = sizes.in_use,
                    waited = go::duration(SPACE_SWEEP_WAIT),
                    "space policy: the deletions of the last compaction do not end; history is not \
                     compacted further before they do"
                );
                return false;
            }
            // An operator may have made room and disarmed the alarm during the wait.
            if unanswered.has_waited && !self.has_own_alarm() {
                return true;
            }
            let current = self.context.mvcc.current();
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
            if !self.compact_for_space(door, revision, kept, &mut unanswered).await {
                return false;
            }
        }
        if !has_room(self.context.store.sizes().total, quota) {
            self.reclaim("no space is left").await;
        }
        let sizes = self.context.store.sizes();
        has_room(sizes.total, quota) && self.disarm_space(door, sizes).await
    }

    /// Waits until no sweep is under way; false if one still is after `SPACE_SWEEP_WAIT`.
    async fn sweeps_end(&self) -> bool {
        self.ends_within(SPACE_SWEEP_WAIT, || self.context.mvcc.is_sweeping()).await
    }

    async fn compact_for_space(
        &self,
        door: &impl Door,
        revision: i64,
        kept: i64,
        unanswered: &mut Unanswered,
    ) -> bool {
        let request = CompactionRequest { revision, physical: true };
        let term = self.context.raft.status().term;
        match door.propose(Command::Compaction(request)).await {
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
            // Another member or a client compacted first; the next look at the sizes shows what
            // that gained.
            Err(Refusal::Compacted) => true,
            Err(error @ Refusal::Unanswered(_)) => {
                if !std::mem::replace(&mut unanswered.has_waited, true) {
                    tracing::warn!(
                        "compact-revision" = revision,
                        %error,
                        hint = "see whether most voters are up and whether their disks take writes",
                        "space policy: the compaction got no answer; it is waited for, and then \
                         proposed again"
                    );
                }
                self.wait_for_compaction(door, revision, term, unanswered.patience).await;
                unanswered.patience = (2 * unanswered.patience).min(SPACE_ANSWER_WAIT_MAX);
                true
            }
            Err(error) => {
                tracing::warn!(revision, %error, "space policy: the compaction failed");
                false
            }
        }
    }

    /// Waits for a compaction that was proposed in `term` and got no answer. Returns when it is
    /// applied or the alarm is gone. Returns also, if a barrier succeeds, once a later term has
    /// begun (the compaction is then applied or lost) or after `patience` (it may be lost): another
    /// one may then be proposed.
    async fn wait_for_compaction(
        &self,
        door: &impl Door,
        revision: i64,
        term: u64,
        patience: Duration,
    ) {
        let clock = &self.context.clock;
        let end = clock.now() + patience;
        loop {
            clock.sleep(SPACE_LOOK_INTERVAL).await;
            let is_done = self.context.mvcc.current().compact_revision >= revision;
            if is_done || !self.has_own_alarm() {
                return;
            }
            let may_be_lost = clock.now() >= end || self.context.raft.status().term != term;
            if may_be_lost && door.has_leader() && door.barrier().await.is_ok() {
                return;
            }
        }
    }

    async fn reclaim(self: &Arc<Self>, why: &str) {
        match self.defragment().await {
            Ok(done) => {
                let bytes = done.before.total.saturating_sub(done.after.total);
                metrics::space_reclaims().inc();
                metrics::space_reclaimed_bytes().inc_by(bytes);
                tracing::info!(why, "reclaimed-bytes" = bytes, "space policy: gave space back");
            }
            Err(error) => tracing::warn!(why, %error, "space policy: no space could be given back"),
        }
    }

    async fn disarm_space(&self, door: &impl Door, sizes: Sizes) -> bool {
        let alarm = AlarmRequest {
            action: AlarmAction::Deactivate as i32,
            member_id: self.context.member_id,
            alarm: AlarmType::Nospace as i32,
        };
        if let Err(error) = door.propose(Command::Alarm(alarm)).await {
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
mod tests {
    use super::*;

    #[test]
    fn history_is_halved_and_the_newest_of_it_stays() {
        let (revision, mut compacted) = (1_000_000, -1);
        let mut steps = Vec::new();
        while let Some(next) = older_half(revision, compacted) {
            assert!(next > compacted);
            compacted = next;
            steps.push(revision - next);
        }
        assert_eq!(&steps[..2], [500_000, 250_000]);
        assert_eq!(steps.last(), Some(&SPACE_REVISIONS_KEPT));
        assert_eq!(older_half(SPACE_REVISIONS_KEPT, -1), None);
        assert_eq!(older_half(5000, 4500), None);
    }

    #[test]
    fn room_is_an_eighth_of_the_quota() {
        assert!(has_room(700, 800) && !has_room(701, 800) && has_room(u64::MAX / 2, u64::MAX));
    }

    #[test]
    fn little_space_is_not_worth_a_copy() {
        let sizes = |total: u64, in_use: u64| Sizes { total: total << 20, in_use: in_use << 20 };
        assert!(is_mostly_free(sizes(200, 90)));
        assert!(!is_mostly_free(sizes(200, 110)) && !is_mostly_free(sizes(60, 1)));
    }
}
