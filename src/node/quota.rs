//! Requests that are refused because the quota or a disk has no room for them.

use super::{Error, Node, Op};
use crate::apply;
use crate::limits;
use crate::pb::AlarmType;
use crate::upkeep::UnderWay;

/// Whether the member's own upkeep, or an operator who makes room on a full disk, needs this
/// request.
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
    /// Refuses a request that would exceed the quota or the disk's room, after raising NOSPACE
    /// through the log. Called before a request's other checks, as in etcd.
    pub async fn quota_gate(&self, op: &Op) -> Result<(), Error> {
        let Some(cost) = apply::cost(op) else { return Ok(()) };
        let bytes = u64::try_from(cost).unwrap_or(0);
        let has_quota = self.0.machine.quota.has_room_for(cost);
        if has_quota && (self.0.disk_room.admits(bytes) || self.finds_room(bytes).await) {
            return Ok(());
        }
        // Boxed because it seldom runs, and would make the future of each request larger.
        Box::pin(self.0.upkeep.raise_no_space(self)).await;
        Err(apply::Error::NoSpace.into())
    }

    /// Looks again whether there is room, before the alarm is raised. The known sizes are as old as
    /// the last commit: an operator may have made room and disarmed the alarm since, and must not
    /// find it raised again. A commit that found no room is tried again each second, so the looks
    /// go on a little longer than that. While NOSPACE is raised no request waits here.
    async fn finds_room(&self, bytes: u64) -> bool {
        for _ in 0..limits::ROOM_LOOKS_MAX {
            if self.0.machine.members.read().has_alarm(AlarmType::Nospace) {
                return false;
            }
            self.0.disk_room.measure();
            if self.0.disk_room.fits(bytes) {
                return true;
            }
            if !self.0.machine.store.room().is_full {
                return false;
            }
            self.0.clock.sleep(limits::ROOM_LOOK_INTERVAL).await;
        }
        false
    }

    /// Counts a proposal as under way, or fails with `NoSpace` if there is no room for it. The
    /// count ends when the returned value is dropped.
    pub(super) fn admit_bytes(&self, op: &Op, bytes: usize) -> Result<UnderWay<'_>, Error> {
        let disk_room = &self.0.disk_room;
        let under_way = disk_room.begin(bytes as u64);
        let grows = apply::cost(op).is_some();
        let is_refused =
            if grows { !disk_room.fits(0) } else { !is_vital(op) && disk_room.is_critical() };
        if is_refused { Err(apply::Error::NoSpace.into()) } else { Ok(under_way) }
    }
}
