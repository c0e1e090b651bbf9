//! Room on the disks: what is refused before it is gone.
//!
//! ```text
//!   room of the store and of the log   what grows the state     deletes and the rest   compaction
//!   more than all that is under way    admitted                 admitted               admitted
//!   the reserve, half a segment        refused; NOSPACE         admitted               admitted
//!   a quarter of it, an eighth         refused; NOSPACE         refused                admitted
//! ```
//!
//! A proposal counts from before it is made until it is answered, so that what was admitted fits
//! whatever comes of it. Other members admit what they have room for; what they sent before the alarm
//! is in force goes into the reserve here.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::Upkeep;
use super::door::Door;
use crate::apply::Command;
use crate::pb::alarm_request::AlarmAction;
use crate::pb::{AlarmMember, AlarmRequest, AlarmType};
use crate::raft;
use crate::store::Store;

/// The free room on the disks of store and log, less what is under way.
pub struct Rooms {
    store: Arc<Store>,
    raft: raft::Handle,
    /// The log is on the store's file system.
    is_shared: bool,
    /// Bytes that the log had taken when the room was measured last.
    log_taken_bytes: AtomicU64,
    /// Bytes of proposals made here and not answered, and what they may take of the log.
    under_way: AtomicU64,
    log_under_way: AtomicU64,
    /// Held during a look: of two at once, the older could be the last to tell the log what to leave.
    looking: Mutex<()>,
}

/// The bytes of a proposal, while it is under way.
pub struct UnderWay<'a> {
    rooms: &'a Rooms,
    bytes: u64,
    log_bytes: u64,
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.rooms.under_way.fetch_sub(self.bytes, Ordering::Relaxed);
        self.rooms.log_under_way.fetch_sub(self.log_bytes, Ordering::Relaxed);
    }
}

impl Rooms {
    pub fn new(store: &Arc<Store>, raft: &raft::Handle, log_dir: &Path) -> Self {
        let device = |path: &Path| std::fs::metadata(path).ok().map(|file| file.dev());
        let is_shared = device(log_dir) == device(&store.directory());
        let rooms = Self {
            store: Arc::clone(store),
            raft: raft.clone(),
            is_shared,
            log_taken_bytes: AtomicU64::new(0),
            under_way: AtomicU64::new(0),
            log_under_way: AtomicU64::new(0),
            looking: Mutex::default(),
        };
        rooms.look();
        rooms
    }

    /// Measures the room anew, and tells the log what it must leave to the store, and whether to forget
    /// all that it can. True if space is short.
    pub fn look(&self) -> bool {
        let _looking = self.looking.lock();
        // Read first: what the log takes while the store is measured then counts twice until the next
        // look. In the other order it would not count at all.
        let taken = self.raft.log_room().taken_bytes();
        // Pages that compaction freed stay within the store's file. A log without a next segment gets
        // space only if the store does without its reserve instead.
        let wants_reserve = self.is_shared && self.raft.log_room().lacks_segment();
        let is_lent = self.store.look_for_room(wants_reserve);
        self.log_taken_bytes.store(taken, Ordering::SeqCst);
        let store = self.store.room();
        let missing = store.reserve_wanted.saturating_sub(store.reserve);
        self.raft.log_room().leave(if self.is_shared && !is_lent { missing } else { 0 });
        let is_short = !self.fits(0);
        self.raft.spare_space(is_short);
        is_short
    }

    /// Whether so many bytes fit beside all that is under way.
    pub fn fits(&self, bytes: u64) -> bool {
        let log = self.raft.log_room();
        let log_bytes = if bytes > 0 { log.cost(bytes) } else { 0 };
        let log_bytes = log_bytes.saturating_add(self.log_under_way.load(Ordering::Relaxed));
        let bytes = bytes.saturating_add(self.under_way.load(Ordering::Relaxed));
        let mut store = self.store.room();
        if self.is_shared {
            // Else the store would grow into what the log needs next, or has taken since the last
            // commit.
            let wanted = log.wanted_bytes(log_bytes);
            let known = self.log_taken_bytes.load(Ordering::SeqCst);
            let taken = log.taken_bytes().saturating_sub(known);
            // It comes out of what is free outside the store's file alone: the log cannot use the rest.
            let of_disk = store.bytes.saturating_sub(store.within);
            store.bytes = store.bytes.saturating_sub((wanted + taken).min(of_disk));
        }
        store.fits(bytes) && log.fits(log_bytes)
    }

    pub fn is_critical(&self) -> bool {
        self.store.room().is_critical() || self.raft.log_room().is_critical()
    }

    /// Counts a proposal as under way until what it answers is dropped.
    pub fn begin(&self, bytes: u64) -> UnderWay<'_> {
        let log_bytes = self.raft.log_room().cost(bytes);
        self.under_way.fetch_add(bytes, Ordering::Relaxed);
        self.log_under_way.fetch_add(log_bytes, Ordering::Relaxed);
        UnderWay { rooms: self, bytes, log_bytes }
    }
}

impl Upkeep {
    /// Raises this member's NOSPACE, unless it is raised. A caller that finds another one raising it
    /// waits until that is done.
    pub async fn raise_no_space(&self, door: &impl Door) {
        let Ok(_raising) = self.raising.try_lock() else {
            drop(self.raising.lock().await);
            return;
        };
        let alarm =
            AlarmMember { member_id: self.ground.member_id, alarm: AlarmType::Nospace as i32 };
        if self.ground.members.read().alarms(AlarmType::Nospace as i32).contains(&alarm) {
            return;
        }
        let store = self.ground.store.room();
        tracing::warn!(
            "quota-size-bytes" = self.ground.settings.quota_flag_bytes,
            "db-size-bytes" = self.ground.store.sizes().total,
            "disk-room-bytes" = store.bytes,
            "disk-reserve-bytes" = store.reserve,
            hint = "compact history, delete what is not needed, and clear the alarm",
            "the store has no room; raising alarm"
        );
        let alarm = AlarmRequest {
            action: AlarmAction::Activate as i32,
            member_id: self.ground.member_id,
            alarm: AlarmType::Nospace as i32,
        };
        if let Err(error) = door.propose(Command::Alarm(alarm)).await {
            tracing::warn!(%error, "failed to raise alarm");
        }
    }

    /// Raises NOSPACE when apply or the store found no room.
    pub async fn watch_space(&self, door: &impl Door, no_space: &Notify) {
        loop {
            no_space.notified().await;
            let is_raised = self.ground.members.read().has_alarm(AlarmType::Nospace);
            if !is_raised {
                self.raise_no_space(door).await;
            }
        }
    }
}
