//! Requests that are refused because the quota or a disk has no room for them.

use super::{Error, Node, Op};
use crate::apply;
use crate::limits;
use crate::pb::AlarmType;
use crate::upkeep::UnderWay;

/// Whether the member's housekeeping, or the way out of a full disk, needs it.
fn is_vital(op: &Op) -> bool {
    matches!(
        op,
        Op::Compaction(_)
            | Op::Alarm(_)
            | Op::ClusterVersionSet(_)
            | Op::ClusterMemberAttrSet(_)
            | Op::DowngradeInfoSet(_)
    )
}

impl Node {
    /// Refuses what would outgrow the quota or the disk, after raising the alarm through the log.
    /// Comes before a request's other checks.
    pub async fn quota_gate(&self, op: &Op) -> Result<(), Error> {
        let Some(cost) = apply::cost(op) else { return Ok(()) };
        let bytes = u64::try_from(cost).unwrap_or(0);
        let has_quota = self.0.machine.quota.has_room_for(cost);
        if has_quota && (self.0.rooms.fits(bytes) || self.finds_room(bytes).await) {
            return Ok(());
        }
        // Rare, so it does not burden the size of each request.
        Box::pin(self.0.upkeep.raise_no_space(self)).await;
        Err(Error::NoSpace)
    }

    /// Whether there is room after all. What is known is as old as the last commit; since then
    /// somebody may have made room and taken the alarm back, and must not find it raised again. A
    /// store whose last commit did not fit tries it each second. While the alarm is raised nobody
    /// waits for that.
    async fn finds_room(&self, bytes: u64) -> bool {
        for _ in 0..limits::ROOM_LOOKS_MAX {
            if self.0.machine.members.read().has_alarm(AlarmType::Nospace) {
                return false;
            }
            self.0.rooms.look();
            if self.0.rooms.fits(bytes) {
                return true;
            }
            if !self.0.machine.store.room().is_full {
                return false;
            }
            self.0.clock.sleep(limits::ROOM_LOOK_INTERVAL).await;
        }
        false
    }

    /// Counts a proposal as under way, if there is room for it.
    pub(super) fn admit_bytes(&self, op: &Op, bytes: usize) -> Result<UnderWay<'_>, Error> {
        let rooms = &self.0.rooms;
        let under_way = rooms.begin(bytes as u64);
        let grows = apply::cost(op).is_some();
        let is_refused = if grows { !rooms.fits(0) } else { !is_vital(op) && rooms.is_critical() };
        if is_refused { Err(Error::NoSpace) } else { Ok(under_way) }
    }
}
