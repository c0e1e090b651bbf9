//! A state that is loaded with the index checkpoint, whenever that was written, equals the one that
//! is loaded without it.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::{Mutex, RwLock};

use super::*;
use crate::apply::{Command, Entry, Machine, Quota, Reply};
use crate::auth::Tokens;
use crate::clock::{Clock, split_mix};
use crate::limits;
use crate::pb::request_op::Request;
use crate::pb::{
    CompactionRequest, DeleteRangeRequest, LeaseGrantRequest, LeaseRevokeRequest, PutRequest,
    RangeRequest, RequestHeader, RequestOp, TxnRequest,
};
use crate::store::{Faults, Options, Row};
use crate::types::Revision;
use crate::upkeep::{
    CheckpointPace, Checkpointer, SweepBatches, SweepJob, SweepQueue, SweepWaiters, SweepWorker,
};

const KEYS: u64 = 1500;

struct Chance(u64);

impl Chance {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        split_mix(self.0) % end
    }

    /// A command for a state at `revision`.
    fn command(&mut self, revision: i64) -> Command {
        let first = self.below(KEYS);
        let key = |n: u64| Bytes::from(format!("k{:04}", n % KEYS));
        match self.below(20) {
            0..7 => {
                let lease = if self.below(3) == 0 { self.below(4).cast_signed() } else { 0 };
                Command::Put(PutRequest { key: key(first), lease, ..Default::default() })
            }
            7..11 => {
                let put = |n| Request::RequestPut(PutRequest { key: key(n), ..Default::default() });
                let put = |n| RequestOp { request: Some(put(n)) };
                let success = (first..first + 40).map(put).collect();
                Command::Txn(TxnRequest { success, ..Default::default() })
            }
            11..15 => {
                let (key, range_end) = (key(first), key(first + 30));
                let delete = DeleteRangeRequest { key, range_end, ..Default::default() };
                Command::DeleteRange(delete)
            }
            15 | 16 => {
                let id = 1 + self.below(3).cast_signed();
                Command::LeaseGrant(LeaseGrantRequest { id, ttl: 60 })
            }
            17 => {
                let id = 1 + self.below(3).cast_signed();
                Command::LeaseRevoke(LeaseRevokeRequest { id })
            }
            18 => {
                let furthest = if self.below(4) == 0 { 10 } else { 400 };
                let back = self.below(furthest);
                let revision = (revision - back.cast_signed()).max(1);
                Command::Compaction(CompactionRequest { revision, physical: false })
            }
            _ => Command::Put(PutRequest { key: key(first), ..Default::default() }),
        }
    }
}

/// A clock that stands still, so that the sweeper and the checkpointer never have to rest.
struct Still(AtomicU64);

impl Clock for Still {
    fn now(&self) -> Duration {
        Duration::ZERO
    }

    fn unix_nanos(&self) -> u64 {
        0
    }

    fn random(&self) -> u64 {
        split_mix(self.0.fetch_add(1, Ordering::Relaxed))
    }
}

/// A disk whose reads fail while the test says so.
#[derive(Default)]
struct Unread(AtomicBool);

impl Faults for Unread {
    fn read(&self) -> std::io::Result<()> {
        match self.0.load(Ordering::Relaxed) {
            true => Err(std::io::Error::from_raw_os_error(5)),
            false => Ok(()),
        }
    }
}

/// No callers that wait for sweeps.
struct Nobody;

impl SweepWaiters for Nobody {
    fn are_waiting(&self, _: u64) -> bool {
        false
    }

    fn answer(&self, _: u64, _: Result<Reply, apply::Error>) {}
}

/// A member without raft: it applies entries, commits, sweeps and writes checkpoints when told to.
struct Member {
    store: Arc<Store>,
    machine: Machine,
    worker: SweepWorker,
    sweeps: SweepQueue,
    opened: Opened,
    /// Index of the last applied entry.
    index: u64,
    used: (i64, u64),
    unread: Arc<Unread>,
}

impl Member {
    fn boot(db: &Path, seed: u64, rows: u64) -> Self {
        let clock: Arc<dyn Clock> = Arc::new(Still(AtomicU64::new(seed)));
        let mut options = Options::new(Arc::clone(&clock));
        (options.reserve_bytes, options.committer) = (0, false);
        let unread = Arc::new(Unread::default());
        options.faults = Some(Arc::clone(&unread) as _);
        let (store, opened) = Store::open(db, options).unwrap();
        let store = Arc::new(store);
        let Loaded { lessor, auth, restore, used, .. } = load(&store, &opened, None).unwrap();
        let machine = Machine {
            store: Arc::clone(&store),
            mvcc: Arc::new(restore.mvcc),
            lessor: Arc::new(Mutex::new(lessor)),
            members: Arc::new(RwLock::new(Members::default())),
            auth: Arc::new(RwLock::new(auth)),
            tokens: Arc::new(Tokens::new("", Duration::ZERO, Arc::clone(&clock)).unwrap()),
            quota: Arc::new(Quota::new(0, Arc::new(AtomicI64::new(0)))),
        };
        let (mvcc, lessor) = (Arc::clone(&machine.mvcc), Arc::clone(&machine.lessor));
        let pace = CheckpointPace { rows, interval: Duration::ZERO, pause: Duration::ZERO };
        let checkpointer = Checkpointer::new(
            Arc::clone(&store),
            Arc::clone(&mvcc),
            lessor,
            Arc::clone(&clock),
            pace,
            used,
        );
        let callers = Arc::new(Nobody);
        let (worker, sweeps) = SweepWorker::new(
            (mvcc, Arc::clone(&machine.members)),
            callers,
            clock,
            SweepBatches { rows: limits::READ_CHUNK_ROWS, pause: Duration::ZERO },
            restore.unfinished,
            checkpointer,
        );
        let index = opened.consistent_index;
        Self { store, machine, worker, sweeps, opened, index, used, unread }
    }

    /// Applies the next entry of the log; makes one first if the log has none.
    fn apply(&mut self, log: &mut Vec<Command>, chance: &mut Chance) {
        self.index += 1;
        let at = usize::try_from(self.index - 1).unwrap();
        if at == log.len() {
            log.push(chance.command(self.machine.mvcc.current().revision));
        }
        let (header, command) = (RequestHeader::default(), log[at].clone());
        let data = Entry { header, command }.encode();
        let outcome = self.machine.apply(self.index, 1, data, Duration::ZERO, &|_| true).unwrap();
        self.machine.mvcc.publish();
        if let Some((mut compaction, _)) = outcome.compaction {
            compaction.take_epoch(&self.machine.mvcc);
            self.sweeps.push(SweepJob::new(compaction, None));
        }
    }

    /// Runs a turn of the sweeper in which no row can be read.
    fn fail_to_sweep(&mut self) {
        self.unread.0.store(true, Ordering::Relaxed);
        let _ = self.worker.turn();
        self.unread.0.store(false, Ordering::Relaxed);
    }

    /// Runs all sweeps to their ends.
    fn settle(&mut self) {
        while self.worker.turn().is_some() {
            while self.store.commit_turn().unwrap() {}
        }
    }

    fn rows(&self) -> Vec<Row> {
        let last = Revision::last_of(i64::MAX);
        self.store.scan(Revision::default(), last, usize::MAX, usize::MAX).unwrap()
    }

    /// Everything that a client could read, by revision.
    fn history(&self) -> Vec<(i64, Vec<Bytes>)> {
        let view = self.machine.mvcc.view();
        let current = view.current();
        let everything = Bytes::from_static(&[0]);
        let at = |revision| {
            let (key, range_end) = (everything.clone(), everything.clone());
            let all = RangeRequest { key, range_end, revision, ..Default::default() };
            let response = view.range(&all).unwrap();
            assert_eq!(response.count, i64::try_from(response.kvs.len()).unwrap());
            (revision, response.kvs)
        };
        let oldest = current.compact_revision.max(1);
        let step = usize::try_from((current.revision - oldest) / 4 + 1).unwrap();
        (oldest..=current.revision).rev().step_by(step).map(at).collect()
    }

    fn attachments(&self) -> Vec<(i64, Vec<Bytes>)> {
        let lessor = self.machine.lessor.lock();
        let mut ids: Vec<i64> = lessor.ids().collect();
        ids.sort_unstable();
        ids.into_iter().map(|id| (id, lessor.keys_after(id, None).cloned().collect())).collect()
    }

    fn same_as(&self, other: &Self) {
        assert_eq!(self.machine.mvcc.current(), other.machine.mvcc.current());
        assert_eq!(self.attachments(), other.attachments());
        assert!(self.history() == other.history(), "what clients read differs");
    }
}

fn copy(from: &Path, to: PathBuf, with_index: bool) -> PathBuf {
    let generation = to.join("gen-1");
    std::fs::create_dir_all(&generation).unwrap();
    std::fs::copy(from.join("CURRENT"), to.join("CURRENT")).unwrap();
    for file in ["data.mdb", "index"] {
        if from.join("gen-1").join(file).exists() && (with_index || file != "index") {
            std::fs::copy(from.join("gen-1").join(file), generation.join(file)).unwrap();
        }
    }
    to
}

#[derive(Default)]
struct CasesSeen {
    checkpoints: u32,
    behind: u32,
    compacted_since: u32,
    unfinished: u32,
    refused: u32,
    thinned: u32,
}

/// Starts twice from what a crash left, with the checkpoint and without, and lets both go on.
fn compare(db: &Path, log: &mut Vec<Command>, chance: &mut Chance, seen: &mut CasesSeen) {
    let dir = tempfile::tempdir().unwrap();
    let with = copy(db, dir.path().join("with"), true);
    let without = copy(db, dir.path().join("without"), false);
    let mut with = Member::boot(&with, 1, u64::MAX);
    let mut without = Member::boot(&without, 1, u64::MAX);
    let is_used = with.used.0 >= 0;
    seen.checkpoints += u32::from(is_used);
    seen.refused += u32::from(!is_used && db.join("gen-1/index").exists());
    seen.behind += u32::from(is_used && with.used.1 > 0);
    let main = |revision: Option<Revision>| revision.map_or(-1, |revision| revision.main);
    let finished = main(with.opened.finished_compact);
    seen.unfinished += u32::from(is_used && main(with.opened.scheduled_compact) > finished);
    if is_used {
        let found = with.store.read_checkpoint(&with.opened).unwrap().binding;
        seen.compacted_since += u32::from(found.compact_revision < finished);
    }
    assert_eq!(without.used.0, -1);
    with.same_as(&without);
    seen.thinned += u32::from(with.machine.mvcc.keys() < without.machine.mvcc.keys());
    with.settle();
    without.settle();
    with.same_as(&without);
    assert_eq!(with.machine.mvcc.keys(), without.machine.mvcc.keys());
    assert!(with.rows() == without.rows(), "a sweep removed other rows");
    for _ in 0..chance.below(40) {
        with.apply(log, chance);
        without.apply(log, chance);
        while with.store.commit_turn().unwrap() {}
        while without.store.commit_turn().unwrap() {}
    }
    with.settle();
    without.settle();
    with.same_as(&without);
    assert_eq!(with.machine.mvcc.keys(), without.machine.mvcc.keys());
    assert!(with.rows() == without.rows(), "a later sweep removed other rows");
    let hash = |member: &Member| {
        member.machine.mvcc.hash_by_revision(0, &crate::mvcc::ReadCheck::default()).unwrap().0
    };
    assert_eq!(hash(&with), hash(&without));
}

#[test]
fn a_checkpoint_of_any_age_gives_the_index_that_the_rows_give() {
    let mut seen = CasesSeen::default();
    for seed in 0..8 {
        let dir = tempfile::tempdir().unwrap();
        let db = dir.path().join("db");
        let (mut chance, mut log) = (Chance(seed), Vec::new());
        for _ in 0..6 {
            let fails = chance.below(2) == 0;
            let rows = 1 + chance.below(if fails { 100 } else { 3000 });
            let mut member = Member::boot(&db, seed, rows);
            for _ in 0..chance.below(250) {
                match chance.below(10) {
                    0..5 => member.apply(&mut log, &mut chance),
                    5..8 if fails => member.fail_to_sweep(),
                    5..8 => drop(member.worker.turn()),
                    _ => drop(member.store.commit_turn().unwrap()),
                }
            }
            if chance.below(2) == 0 {
                member.store.flush().unwrap();
            }
            // Dropped without a close, so that uncommitted entries are lost.
            drop(member);
            compare(&db, &mut log, &mut chance, &mut seen);
        }
    }
    let CasesSeen { checkpoints, behind, compacted_since, unfinished, refused, thinned } = seen;
    eprintln!(
        "{checkpoints} used, {behind} behind, {compacted_since} compacted since, {unfinished} with a sweep, {refused} refused, {thinned} in the middle of one"
    );
    let all = [checkpoints, behind, compacted_since, unfinished, refused, thinned];
    assert!(all.iter().all(|count| *count >= 1), "a case is missing: {all:?}");
}

/// A start reads little, however long the disk has failed the sweep.
#[test]
fn a_sweep_that_fails_for_ever_keeps_no_checkpoint_from_being_written() {
    let dir = tempfile::tempdir().unwrap();
    let db = dir.path().join("db");
    let mut member = Member::boot(&db, 1, 100);
    let mut chance = Chance(1);
    let put = |number: u64| {
        let (key, value) = (Bytes::from(format!("k{}", number % 50)), Bytes::from("v"));
        Command::Put(PutRequest { key, value, ..Default::default() })
    };
    let mut log: Vec<Command> = (0..500).map(put).collect();
    let all = DeleteRangeRequest { key: "k".into(), range_end: "l".into(), ..Default::default() };
    log.push(Command::DeleteRange(all));
    log.extend((0..20).map(put));
    log.push(Command::Compaction(CompactionRequest { revision: 510, physical: false }));
    log.extend((0..700).map(|number| put(number % 20)));
    for number in 0..log.len() {
        member.apply(&mut log, &mut chance);
        member.fail_to_sweep();
        while number % 10 == 0 && member.store.commit_turn().unwrap() {}
    }
    assert!(member.machine.mvcc.is_sweeping());
    let rows = member.rows().len();
    drop(member);
    let mut seen = CasesSeen::default();
    compare(&db, &mut log, &mut chance, &mut seen);
    assert_eq!((seen.checkpoints, seen.unfinished, seen.thinned), (1, 1, 1));
    let mut member = Member::boot(&db, 1, u64::MAX);
    assert!(member.used.1 < 300, "a start reads {} rows of {rows}", member.used.1);
    member.settle();
    assert!(member.rows().len() < rows - 400, "the sweep goes on where it can read");
}
