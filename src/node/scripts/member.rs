//! The member that scripts drive: a state, a log and watchers, without raft, threads or network.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::{Mutex, RwLock};

use crate::apply::{self, Entry, Machine, Outcome, Quota, Reply};
use crate::auth::Tokens;
use crate::clock::Clock;
use crate::limits::{READ_CHUNK_ROWS, SIMPLE_TOKEN_TTL};
use crate::mvcc::{Change, KeyValueHash, Sweep, SweepStep};
use crate::node::Op;
use crate::pb::RequestHeader;
use crate::store::{Options, Store};
use crate::transfer::load;
use crate::upkeep::close_store;
use crate::watch::{Hub, Stream};

/// The default of the flag: a new leader extends leases by it.
pub(super) const ELECTION_TIMEOUT: Duration = Duration::from_secs(1);

/// A clock that a script moves.
#[derive(Default)]
pub(super) struct ManualClock(AtomicU64);

impl ManualClock {
    pub(super) fn advance(&self, by: Duration) {
        self.0.fetch_add(u64::try_from(by.as_nanos()).unwrap(), Ordering::Relaxed);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Duration {
        Duration::from_nanos(self.0.load(Ordering::Relaxed))
    }

    fn unix_nanos(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    fn random(&self) -> u64 {
        4
    }
}

/// A watch stream, and what its watchers want besides events.
pub(super) struct Watchers {
    pub stream: Stream,
    /// By watch id: whether events come with the pair before them.
    pub wants_previous: HashMap<i64, bool>,
}

pub(super) struct Member {
    pub machine: Machine,
    pub clock: Arc<ManualClock>,
    pub streams: BTreeMap<String, Watchers>,
    /// Compactions that are applied and not swept.
    pub sweeps: Vec<Sweep>,
    hub: Arc<Hub>,
    /// Entry `n` of the log is at index `n - 1`.
    log: Vec<Bytes>,
    applied: usize,
    /// Changes that are applied and not published.
    unpublished: Vec<Change>,
    /// Whether entries are applied in a batch, which is published as a whole.
    pub is_batch: bool,
    quota_bytes: i64,
    dir: Arc<tempfile::TempDir>,
}

impl Member {
    pub(super) fn new() -> Self {
        let dir = Arc::new(tempfile::tempdir().unwrap());
        Self::open(dir, Arc::default(), Vec::new())
    }

    /// Opens the state on the disk and applies the entries of the log after it.
    fn open(dir: Arc<tempfile::TempDir>, clock: Arc<ManualClock>, log: Vec<Bytes>) -> Self {
        let mut options = Options::new(Arc::clone(&clock) as Arc<dyn Clock>);
        options.reserve_bytes = 0;
        options.committer = false;
        let (store, opened) = Store::open(&db(&dir), options).unwrap();
        let store = Arc::new(store);
        let loaded = load(&store, &opened, None).unwrap();
        let mvcc = Arc::new(loaded.restore.mvcc);
        let machine = Machine {
            store,
            mvcc: Arc::clone(&mvcc),
            lessor: Arc::new(Mutex::new(loaded.lessor)),
            members: Arc::new(RwLock::new(loaded.members)),
            auth: Arc::new(RwLock::new(loaded.auth)),
            tokens: Arc::new(
                Tokens::new("simple", SIMPLE_TOKEN_TTL, Arc::clone(&clock) as _).unwrap(),
            ),
            quota: Arc::new(Quota::new(0, Arc::default())),
        };
        let mut member = Self {
            machine,
            clock,
            streams: BTreeMap::new(),
            sweeps: loaded.restore.unfinished.into_iter().collect(),
            hub: Hub::new(mvcc),
            log,
            applied: usize::try_from(opened.consistent_index).unwrap(),
            unpublished: Vec::new(),
            is_batch: false,
            quota_bytes: 0,
            dir,
        };
        while member.applied < member.log.len() {
            let _ = member.apply_next();
        }
        member.publish();
        member.promote();
        member
    }

    /// Stops cleanly, with the index checkpoint, and starts again.
    pub(super) fn restart(self) -> Self {
        let Machine { store, mvcc, lessor, .. } = &self.machine;
        let clock = Arc::clone(&self.clock) as Arc<dyn Clock>;
        close_store(store, mvcc, lessor, clock).unwrap();
        self.reopen()
    }

    /// Starts again without a stop: uncommitted changes are lost, the log is not.
    pub(super) fn crash(self) -> Self {
        self.reopen()
    }

    fn reopen(self) -> Self {
        let Self { dir, clock, log, quota_bytes, machine, streams, hub, sweeps, .. } = self;
        // A store can be opened once at a time, and each of these holds it.
        drop((machine, streams, hub, sweeps));
        let mut member = Self::open(dir, clock, log);
        member.set_quota(quota_bytes);
        member
    }

    pub(super) fn flush(&self) {
        self.machine.store.flush().unwrap();
    }

    /// Makes this member the leader, which lets leases expire.
    pub(super) fn promote(&self) {
        self.machine.lessor.lock().promote(self.clock.now(), ELECTION_TIMEOUT);
    }

    /// The store's size counts as 0 here, so a request fits if it costs less than `bytes`.
    pub(super) fn set_quota(&mut self, bytes: i64) {
        self.quota_bytes = bytes;
        self.machine.quota = Arc::new(Quota::new(bytes, Arc::new(AtomicI64::new(0))));
    }

    pub(super) fn apply(&mut self, op: Op) -> Result<Reply, apply::Error> {
        let header = RequestHeader { id: self.log.len() as u64 + 1, ..Default::default() };
        self.log.push(Entry { header, command: op }.encode());
        let reply = self.apply_next();
        if !self.is_batch {
            self.publish();
        }
        reply
    }

    fn apply_next(&mut self) -> Result<Reply, apply::Error> {
        let data = self.log[self.applied].clone();
        self.applied += 1;
        let (index, now) = (self.applied as u64, self.clock.now());
        let outcome = self.machine.apply(index, 1, data, now, &|_| true).unwrap();
        let Outcome { request_id, reply, changes, compaction, operation: _ } = outcome;
        assert_eq!(request_id, index);
        self.unpublished.extend(changes);
        self.sweeps.extend(compaction.map(|(compaction, _)| compaction));
        reply
    }

    /// Publishes to readers first, then to watchers.
    pub(super) fn publish(&mut self) {
        let current = self.machine.mvcc.publish();
        self.hub.publish(current.revision, &std::mem::take(&mut self.unpublished));
        for sweep in &mut self.sweeps {
            sweep.take_epoch(&self.machine.mvcc);
        }
    }

    /// Runs all sweeps to their ends. For each, the number of rows that it deleted, and its hash.
    pub(super) fn sweep(&mut self) -> Vec<(usize, KeyValueHash)> {
        let mut results = Vec::new();
        for mut sweep in std::mem::take(&mut self.sweeps) {
            loop {
                match sweep.step(&self.machine.mvcc, READ_CHUNK_ROWS).unwrap() {
                    SweepStep::Waiting => self.flush(),
                    SweepStep::Begun
                    | SweepStep::Thinned
                    | SweepStep::Part
                    | SweepStep::More
                    | SweepStep::Read => {}
                    SweepStep::Done { deleted, hash } => {
                        results.push((deleted, hash));
                        break;
                    }
                }
            }
        }
        results
    }

    pub(super) fn stream(&mut self, name: &str) -> &mut Watchers {
        let hub = &self.hub;
        self.streams
            .entry(name.to_owned())
            .or_insert_with(|| Watchers { stream: hub.stream(), wants_previous: HashMap::new() })
    }
}

fn db(dir: &tempfile::TempDir) -> PathBuf {
    dir.path().join("db")
}
