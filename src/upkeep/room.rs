//! Room on the disks: writes are refused before a disk is full.
//!
//! ```text
//!   room of the store and of the log   what grows the state     deletes and the rest   compaction
//!   more than all that is under way    admitted                 admitted               admitted
//!   the reserve, half a segment        refused; NOSPACE         admitted               admitted
//!   a quarter of it, an eighth         refused; NOSPACE         refused                admitted
//! ```
//!
//! A proposal counts from before it is made until it is answered: until then it may be applied and
//! take its room. Each member admits by its own room only. What other members propose before
//! NOSPACE is applied goes into this member's reserve.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::Upkeep;
use super::door::Door;
use crate::apply::Command;
use crate::limits;
use crate::pb::alarm_request::AlarmAction;
use crate::pb::{AlarmMember, AlarmRequest, AlarmType};
use crate::raft;
use crate::store::Store;

/// The free room on the disks of the store and of the log, less what proposals under way may take.
pub struct DiskRoom {
    store: Arc<Store>,
    raft: raft::Handle,
    /// Whether the log and the store are on one file system.
    is_shared: bool,
    /// The log's bytes when the room was last measured.
    log_taken_bytes: AtomicU64,
    /// Bytes of this member's proposals that are not answered: what they take of the store, and
    /// below of the log.
    under_way: AtomicU64,
    log_under_way: AtomicU64,
    /// The largest proposal that was refused lately, in bytes, and for how many looks it counts.
    refused: Mutex<Option<(u64, u32)>>,
    /// Whether the store's reserve is lent to the log. Held during a look: of two looks at once, the
    /// older could otherwise be the last to tell the log how much to leave.
    is_lent: Mutex<bool>,
}

/// Counts a proposal's bytes as under way until it is dropped.
pub struct UnderWay<'a> {
    disk_room: &'a DiskRoom,
    bytes: u64,
    log_bytes: u64,
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.disk_room.under_way.fetch_sub(self.bytes, Ordering::Relaxed);
        self.disk_room.log_under_way.fetch_sub(self.log_bytes, Ordering::Relaxed);
    }
}

impl DiskRoom {
    pub fn new(store: &Arc<Store>, raft: &raft::Handle, log_dir: &Path) -> Self {
        let device = |path: &Path| std::fs::metadata(path).ok().map(|file| file.dev());
        let is_shared = device(log_dir) == device(&store.directory());
        let disk_room = Self {
            store: Arc::clone(store),
            raft: raft.clone(),
            is_shared,
            log_taken_bytes: AtomicU64::new(0),
            under_way: AtomicU64::new(0),
            log_under_way: AtomicU64::new(0),
            refused: Mutex::default(),
            is_lent: Mutex::default(),
        };
        disk_room.measure();
        disk_room
    }

    /// Measures the room again. Tells the log how much of a shared disk to leave to the store, and
    /// whether to delete all the segments that it can. True if room is short.
    pub fn measure(&self) -> bool {
        let mut is_lent = self.is_lent.lock();
        // Read before the store is measured: what the log takes in between then counts twice until
        // the next look. In the other order it would not count at all.
        let taken = self.raft.log_room().taken_bytes();
        // A log without a next segment asks for the store's reserve: pages that compaction freed
        // stay within the store's file, so the log can get space from nowhere else.
        let wants_reserve = self.is_shared && self.raft.log_room().wants_reserve(*is_lent);
        *is_lent = self.store.look_for_room(wants_reserve);
        self.log_taken_bytes.store(taken, Ordering::SeqCst);
        let store = self.store.room();
        let missing = store.reserve_wanted.saturating_sub(store.reserve);
        self.raft.log_room().reserve_for_store(if self.is_shared && !*is_lent {
            missing
        } else {
            0
        });
        // Short of space, the log deletes the entries that it keeps for members which lag. A proposal
        // that was refused counts until there is room for it: that all which is under way fits is not
        // enough, since half a segment may be left for that and take no large proposal.
        self.refused.lock().take_if(|(bytes, looks)| {
            // After a while nobody wants it any more.
            *looks -= 1;
            *looks == 0 || self.fits(*bytes)
        });
        let is_short = !self.fits(0);
        let wants_more = self.has_refused() || self.raft.log_room().lacks_next();
        self.raft.set_space_short(is_short || wants_more);
        is_short
    }

    /// Whether a proposal that was refused lately still has no room, as of the last look.
    pub fn has_refused(&self) -> bool {
        self.refused.lock().is_some()
    }

    /// Whether a proposal of so many bytes fits beside all that are under way. If not, the log is
    /// asked to make room for one of its size.
    pub fn admits(&self, bytes: u64) -> bool {
        let fits = self.fits(bytes);
        if !fits {
            let mut refused = self.refused.lock();
            let largest = refused.map_or(bytes, |(largest, _)| largest.max(bytes));
            *refused = Some((largest, limits::REFUSED_LOOKS));
        }
        fits
    }

    /// Whether `bytes` more fit beside all proposals under way.
    pub fn fits(&self, bytes: u64) -> bool {
        let log = self.raft.log_room();
        let log_bytes = if bytes > 0 { log.cost(bytes) } else { 0 };
        let log_bytes = log_bytes.saturating_add(self.log_under_way.load(Ordering::Relaxed));
        let bytes = bytes.saturating_add(self.under_way.load(Ordering::Relaxed));
        let mut store = self.store.room();
        if self.is_shared {
            // On a shared disk, leaves what the log needs next and subtracts what it has taken
            // since the last look. The store would otherwise grow into both.
            let wanted = log.wanted_bytes(log_bytes);
            let known = self.log_taken_bytes.load(Ordering::SeqCst);
            let taken = log.taken_bytes().saturating_sub(known);
            // Only the part of the store's room outside its file shrinks by that: the log cannot
            // use pages within the file.
            let of_disk = store.bytes.saturating_sub(store.within);
            store.bytes = store.bytes.saturating_sub((wanted + taken).min(of_disk));
        }
        store.fits(bytes) && log.fits(log_bytes)
    }

    /// Whether so little is left that only compactions, alarms and the members' own requests are
    /// admitted.
    pub fn is_critical(&self) -> bool {
        self.store.room().is_critical() || self.raft.log_room().is_critical()
    }

    /// Counts a proposal as under way until the returned value is dropped.
    pub fn begin(&self, bytes: u64) -> UnderWay<'_> {
        let log_bytes = self.raft.log_room().cost(bytes);
        self.under_way.fetch_add(bytes, Ordering::Relaxed);
        self.log_under_way.fetch_add(log_bytes, Ordering::Relaxed);
        UnderWay { disk_room: self, bytes, log_bytes }
    }
}

impl Upkeep {
    /// Raises NOSPACE for this member, unless it is raised. If another caller is raising it, waits
    /// until that is done.
    pub async fn raise_no_space(&self, door: &impl Door) {
        let Ok(_raising) = self.raising.try_lock() else {
            drop(self.raising.lock().await);
            return;
        };
        let alarm =
            AlarmMember { member_id: self.context.member_id, alarm: AlarmType::Nospace as i32 };
        if self.context.members.read().alarms(AlarmType::Nospace as i32).contains(&alarm) {
            return;
        }
        let store = self.context.store.room();
        tracing::warn!(
            "quota-size-bytes" = self.context.settings.quota_flag_bytes,
            "db-size-bytes" = self.context.store.sizes().total,
            "disk-room-bytes" = store.bytes,
            "disk-reserve-bytes" = store.reserve,
            hint = "compact history, delete what is not needed, and clear the alarm",
            "the store has no room; raising alarm"
        );
        let alarm = AlarmRequest {
            action: AlarmAction::Activate as i32,
            member_id: self.context.member_id,
            alarm: AlarmType::Nospace as i32,
        };
        if let Err(error) = door.propose(Command::Alarm(alarm)).await {
            tracing::warn!(%error, "failed to raise alarm");
        }
    }

    /// Raises NOSPACE each time apply or the store reports that it has no room.
    pub async fn watch_space(&self, door: &impl Door, no_space: &Notify) {
        loop {
            no_space.notified().await;
            let is_raised = self.context.members.read().has_alarm(AlarmType::Nospace);
            if !is_raised {
                self.raise_no_space(door).await;
            }
        }
    }
}
