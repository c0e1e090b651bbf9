//! A member: its threads, its disks and clock, the life that it may have now, and what troubles it.

use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use rusd::node::{Join, Node, Steps};
use rusd::peer::Answered;
use rusd::raft::{self, Committed};

use super::clock::{Chance, SECOND, SimClock, Trap};
use super::disk::SimDisk;
use super::plan::Plan;
use super::store_faults::StoreFaults;
use crate::wire::{Out, Reply};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Worker {
    Raft,
    Log,
    Apply,
    Commit,
    Sweep,
    Tasks,
}

pub const WORKERS: usize = 6;

/// A member that runs. Its tasks hold the node, so the runtime goes first.
pub struct Life {
    pub runtime: tokio::runtime::Runtime,
    pub node: Node,
    pub steps: Steps,
    pub clock: Arc<SimClock>,
    pub out: Arc<Mutex<Out>>,
    /// Who waits for this one's answers. Tasks that end with it do so in an order of their own, in
    /// which those who hear of it must not be woken.
    pub asked: BTreeMap<u64, (usize, Reply)>,
    pub last_asked: u64,
    pub given: Arc<Mutex<Vec<(u64, Answered)>>>,
    /// Since when, in the world's time.
    pub since: u64,
    pub armed: [bool; WORKERS],
    /// The last entry of the last batch that was applied, and of the one that is being applied.
    pub applied: u64,
    pub reached: u64,
    /// Entries that it may have applied or not, since its end had begun.
    pub unsure: VecDeque<Committed>,
    /// What its raft said last.
    pub before: raft::Status,
    /// After the last event, it had no vote in raft's configuration.
    pub has_no_vote: bool,
    pub is_leaving: bool,
    /// Other threads go on until then after one has panicked.
    pub ends_at: Option<u64>,
}

pub struct Member {
    pub id: u64,
    pub name: String,
    pub urls: Vec<String>,
    /// Of one that came later.
    pub join: Option<Join>,
    pub dir: PathBuf,
    pub disk: SimDisk,
    pub store_faults: StoreFaults,
    pub life: Option<Life>,
    pub lives: u64,
    /// It was removed and will not come back.
    pub is_gone: bool,
    pub trap: Trap,
    /// Whose turn is to end in a panic, by its name, and after how many places that may.
    pub trapped: Option<(Worker, &'static str, u64)>,
    /// A bit of its log changed while it was down.
    pub is_damaged: bool,
    /// Its data directory was deleted.
    pub is_wiped: bool,
    /// It cannot start for that, and is to be replaced.
    pub is_ruined: bool,
    /// Parts in a million by which its clock is fast.
    pub drift: i64,
    pub wall: u64,
    /// Until then its log writer hangs.
    pub slow_until: u64,
    /// Until then each write of its log takes so long at most.
    pub drag: (u64, u64),
    /// Until then its apply thread does not run.
    pub lags_until: u64,
    /// Until then nothing of it runs, as if it were stopped by a signal.
    pub frozen_until: u64,
}

impl Member {
    pub fn new(id: u64, number: usize, dir: &Path, chance: &mut Chance, plan: &Plan) -> Self {
        let name = format!("m{number}");
        let (trap, disk, store_faults) =
            (Trap::default(), SimDisk::default(), StoreFaults::default());
        disk.troubles(|troubles| troubles.trap = trap.clone());
        store_faults.lock().trap = trap.clone();
        Self {
            id,
            dir: dir.join(&name),
            name,
            urls: peer_urls(number),
            join: None,
            disk,
            store_faults,
            life: None,
            lives: 0,
            is_gone: false,
            trap,
            trapped: None,
            is_damaged: false,
            is_wiped: false,
            is_ruined: false,
            drift: chance.below(2 * plan.drift + 1) as i64 - plan.drift as i64,
            wall: 1_700_000_000 * SECOND + chance.below(3600) * SECOND,
            slow_until: 0,
            drag: (0, 0),
            lags_until: 0,
            frozen_until: 0,
        }
    }

    /// The world's time at which this member's clock shows `nanos`, or a little later.
    pub fn to_world(&self, nanos: u64) -> u64 {
        let mut world = (nanos as i64 - nanos as i64 / 1_000_000 * self.drift) as u64;
        while local(self.drift, world) < nanos {
            world += 1 + (nanos - local(self.drift, world));
        }
        world
    }
}

pub fn peer_urls(number: usize) -> Vec<String> {
    vec![format!("http://10.0.0.{number}:2380")]
}

/// A member's time for the world's.
pub fn local(drift: i64, nanos: u64) -> u64 {
    (nanos as i64 + nanos as i64 / 1_000_000 * drift) as u64
}
