//! A member: where raft, the state machine and the watchers meet.
//!
//! ```text
//!   rpc ─propose─► id, waiter ─► raft ─► log ─► committed ─► apply thread ─► publish view
//!                                                                            ─► events to the hub
//!                                                                            ─► answer waiters
//!   rpc ─range───► read index ─► applied up to it? ─► view ─► answer
//! ```
//!
//! The order of the last three steps is a promise that clients rely on: a client whose write was
//! answered finds that write in every view, and below the progress revision, that it asks for next.
//!
//! Threads: raft's loop and log writer, the apply thread, the store's committer, the sweeper of
//! compactions, and those that hash passwords. Async code only waits here: for an answer, for an
//! index, for a timer.
//!
//! `upkeep` keeps the store small and whole, and `transfer` moves states in and out; this room
//! starts both, decides who may ask for their work, and proposes what they need.
//!
//! The functions that a room above may call for a client take
//! [`Credentials`](crate::auth::Credentials) and decide, through `auth`, before they answer.
//! Without that parameter are logins, functions that serve peers, which have checked their own
//! callers (`…_here`, `history_hash`), those that `server` needs to start and stop the member, and
//! those that show no key and change nothing.
//!
//! This room knows requests as messages, not as RPCs: no gRPC codes, no metadata.

mod answers;
mod applier;
mod assemble;
mod auth;
mod boot;
mod conf_change;
mod conf_states;
mod config;
mod duties;
mod error;
mod expiry;
mod header;
mod identity;
mod ids;
mod known_peers;
mod leader;
mod leases;
mod long_work;
mod membership;
mod passwords;
mod pieces;
mod propose;
mod quota;
mod read;
mod reconfigure;
mod settle;
mod slow;
mod spans;
mod stall;
mod status;
mod steps;
mod surroundings;
mod unclaimed;
mod upkeep;
mod versions;
mod waits;
mod watching;

#[cfg(test)]
mod scripts;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::watch;

use crate::apply::Machine;
use crate::clock::Clock;
use crate::limits;
use crate::mvcc::Mvcc;
use crate::pb::{AlarmMember, AlarmType, Member};
use crate::peer::Peers;
use crate::raft;
use crate::store;
use crate::supervise::{Supervisor, Thread};
use crate::trace::Tracer;
use crate::transfer::Downloads;
use crate::upkeep::{DiskRoom, Sweeper, Upkeep};
use crate::watch::Hub;

pub use crate::apply::{Command as Op, Reply};
pub use answers::Answers;
pub use conf_change::check_entry;
pub use config::{AuthConfig, Config, Join, quota_bytes};
pub use error::{Error, StartError};
pub use pieces::{EncodedRange, LongAnswer, RangeAnswer};
pub use settle::settle;
pub use slow::warn_if_slow;
pub use status::{LeaseInfo, Status, alarm_name};
pub use steps::{Applied, Steps};
pub use surroundings::Surroundings;
pub use versions::Downgrade;
pub use watching::{PREVIOUS_INLINE_MAX, WatchError, WatchStream};

use ids::RequestIds;
use known_peers::KnownPeers;
use leader::Leading;
use long_work::LongWork;
use passwords::Passwords;
use stall::LogWriting;
use waits::{AppliedWaits, Waits};

/// The version that the member reports to clients: the etcd release whose contract this is.
pub const VERSION: &str = "3.7.1";

struct Inner {
    config: Config,
    clock: Arc<dyn Clock>,
    member_id: u64,
    cluster_id: u64,
    raft: raft::Handle,
    known_peers: KnownPeers,
    raft_threads: Mutex<Option<raft::Raft>>,
    log_writing: Arc<LogWriting>,
    /// The state: changed by the apply thread only, read by every other thread.
    machine: Machine,
    hub: Arc<Hub>,
    passwords: Passwords,
    ids: RequestIds,
    waits: Arc<Waits>,
    applied: Arc<AppliedWaits>,
    sweeper: Sweeper,
    disk_room: Arc<DiskRoom>,
    upkeep: Arc<Upkeep>,
    long_work: LongWork,
    downloads: Downloads,
    threads: Mutex<Vec<Thread<()>>>,
    /// Whether the member has no threads: a simulator does their work through `Steps`.
    is_stepped: bool,
    answers: Arc<Answers>,
    ready: watch::Sender<bool>,
    leading: Leading,
    supervisor: Supervisor,
    tracer: Tracer,
    stopping: watch::Sender<bool>,
    _lock: Arc<store::DirLock>,
}

/// A running member. Clones share it; the last one releases the lock of the data directory.
#[derive(Clone)]
pub struct Node(Arc<Inner>);

impl Node {
    pub fn member_id(&self) -> u64 {
        self.0.member_id
    }

    pub fn cluster_id(&self) -> u64 {
        self.0.cluster_id
    }

    /// The longest time that a request may take: etcd's 5 s and two election timeouts.
    pub fn request_timeout(&self) -> Duration {
        self.0.config.request_timeout()
    }

    /// 64 random bits.
    pub fn random(&self) -> u64 {
        self.0.clock.random()
    }

    /// The state without a check of permissions, for the simulator's comparisons. No RPC and no
    /// HTTP request may come this way: `tests/tidy` keeps `rpc` and `http` away from it.
    pub fn unguarded(&self) -> Unguarded<'_> {
        Unguarded(&self.0)
    }

    /// All members as this member has applied them, by id.
    pub fn members(&self) -> Vec<Member> {
        self.0.machine.members.read().list()
    }

    /// The alarms that the cluster has raised through the log, and CORRUPT of this member while it
    /// is fenced, which is not in the log (`upkeep/scrub.rs`).
    pub fn alarms(&self) -> Vec<AlarmMember> {
        let mut alarms = self.0.machine.members.read().alarms(AlarmType::None as i32);
        let corrupt = AlarmMember { member_id: self.0.member_id, alarm: AlarmType::Corrupt as i32 };
        if self.is_fenced() && !alarms.contains(&corrupt) {
            alarms.push(corrupt);
        }
        alarms
    }

    /// True once the member's name and client URLs are applied from the log: only then may it
    /// serve.
    pub fn ready(&self) -> watch::Receiver<bool> {
        self.0.ready.subscribe()
    }

    /// The count of answer bytes that are built and not sent yet; `server` adds and removes them.
    pub fn answers(&self) -> &Arc<Answers> {
        &self.0.answers
    }

    /// The handler of peers' requests below `/raft`.
    pub fn peers(&self) -> &Arc<Peers> {
        &self.0.known_peers.peers
    }

    /// Whether this member is a learner: it has no vote.
    pub fn is_learner(&self) -> bool {
        self.0.known_peers.is_learner.load(Ordering::Relaxed)
    }

    /// `Some` once this member was removed from the cluster: it has to end after this time, which
    /// is zero if a peer told it so.
    pub fn removed(&self) -> watch::Receiver<Option<Duration>> {
        self.0.known_peers.removed.subscribe()
    }

    /// Waits until a member that stays knows of this member's removal, for five minutes at most.
    /// With two voters the other one could otherwise never win an election: it would still count
    /// this member as a voter.
    pub async fn leave(&self) {
        for _ in 0..limits::REMOVED_LOOKS_MAX {
            let is_told = *self.0.known_peers.removed.borrow() == Some(Duration::ZERO);
            if is_told || self.0.raft.may_leave() {
                return;
            }
            self.0.clock.sleep(limits::REMOVED_LOOK_INTERVAL).await;
        }
    }

    /// The error or panic that ends the member, once there is one.
    pub fn fatal(&self) -> watch::Receiver<Option<String>> {
        self.0.supervisor.failure()
    }

    /// The supervisor that starts this member's threads and tasks and notes their panics.
    pub fn supervisor(&self) -> &Supervisor {
        &self.0.supervisor
    }
}

/// The state, read without asking who reads.
pub struct Unguarded<'a>(&'a Inner);

impl<'a> Unguarded<'a> {
    pub fn mvcc(&self) -> &'a Arc<Mvcc> {
        &self.0.machine.mvcc
    }

    pub fn hub(&self) -> &'a Arc<Hub> {
        &self.0.hub
    }

    pub fn leases(&self) -> Vec<i64> {
        self.0.machine.lessor.lock().list()
    }
}
