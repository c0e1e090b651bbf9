use bytes::Bytes;

use super::*;
use crate::clock::{SystemClock, split_mix};
use crate::limits;
use crate::mvcc::txn::NoLeases;
use crate::mvcc::{ReadCheck, Write};
use crate::pb::{DeleteRangeRequest, PutRequest, RangeRequest};
use crate::store::{Options, Store};

struct State {
    mvcc: Arc<Mvcc>,
    index: u64,
    _dir: tempfile::TempDir,
}

impl State {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut options = Options::new(Arc::new(SystemClock::new()));
        options.reserve_bytes = 0;
        options.commit_interval = std::time::Duration::from_millis(1);
        let (store, _) = Store::open(&dir.path().join("db"), options).unwrap();
        Self { mvcc: Arc::new(Mvcc::new(Arc::new(store))), index: 0, _dir: dir }
    }

    fn seal(&mut self) {
        self.index += 1;
        self.mvcc.store.seal(self.index, 1);
        self.mvcc.publish();
    }

    /// Applies a transaction that the seed determines.
    fn change(&mut self, seed: u64) {
        let mut write: Write<'_> = self.mvcc.begin();
        for n in 0..1 + seed % 3 {
            let chance = split_mix(seed.wrapping_add(n));
            let key = Bytes::from(format!("k{}", chance % 12));
            if (chance >> 32).is_multiple_of(3) {
                let delete = DeleteRangeRequest { key, ..Default::default() };
                write.delete_range(&delete, &mut NoLeases).unwrap();
            } else {
                let put = PutRequest { key, value: Bytes::from("v"), ..Default::default() };
                write.put(&put, &mut NoLeases).unwrap();
            }
        }
        write.finish();
        self.seal();
    }

    fn delete_all(&mut self) {
        let mut write = self.mvcc.begin();
        let (key, range_end) = (Bytes::from("k"), Bytes::from("l"));
        let all = DeleteRangeRequest { key, range_end, ..Default::default() };
        write.delete_range(&all, &mut NoLeases).unwrap();
        write.finish();
        self.seal();
    }

    fn compact(&mut self, revision: i64) -> Sweep {
        let mut compaction = self.mvcc.compact(revision).unwrap();
        self.seal();
        compaction.take_epoch(&self.mvcc);
        compaction
    }

    fn sweep(&self, mut compaction: Sweep) -> usize {
        loop {
            match compaction.step(&self.mvcc, limits::READ_CHUNK_ROWS).unwrap() {
                SweepStep::Waiting => std::thread::yield_now(),
                SweepStep::Begun
                | SweepStep::Thinned
                | SweepStep::Part
                | SweepStep::More
                | SweepStep::Read => {}
                SweepStep::Done { deleted, .. } => return deleted,
            }
        }
    }

    fn rows(&self) -> Vec<Row> {
        self.mvcc.store.flush().unwrap();
        self.mvcc.rows(Revision::default(), i64::MAX, limits::READ_CHUNK_ROWS).unwrap()
    }
}

/// Compares the same history and compactions, swept one by one and together at the end.
#[test]
fn sweeps_together_leave_the_rows_and_the_hashes_that_they_leave_one_by_one() {
    for seed in 0..24_u64 {
        let (mut apart, mut together) = (State::new(), State::new());
        let mut pending: Option<Sweep> = None;
        let mut deleted = (0, 0);
        let compactions = 2 + seed % 16;
        for round in 0..compactions {
            for n in 0..split_mix(seed + round) % 9 {
                let change = split_mix(split_mix(seed * 100 + round) + n);
                apart.change(change);
                together.change(change);
            }
            if split_mix(seed * 7 + round).is_multiple_of(4) {
                apart.delete_all();
                together.delete_all();
            }
            let current = apart.mvcc.current();
            let back = i64::try_from(split_mix(seed + round * 3) % 3).unwrap();
            let revision = (current.revision - back).max(current.compact_revision + 1);
            if revision > current.revision {
                continue;
            }
            let compaction = apart.compact(revision);
            deleted.0 += apart.sweep(compaction);
            let later = together.compact(revision);
            match &mut pending {
                Some(pending) => pending.absorb(later),
                None => pending = Some(later),
            }
        }
        assert!(together.mvcc.is_sweeping());
        deleted.1 = together.sweep(pending.unwrap());
        assert!(!together.mvcc.is_sweeping() && !apart.mvcc.is_sweeping());
        assert_eq!(deleted.0, deleted.1, "seed {seed}");
        assert_eq!(apart.rows(), together.rows(), "seed {seed}");
        let hashes = apart.mvcc.compaction_hashes();
        assert_eq!(hashes, together.mvcc.compaction_hashes(), "seed {seed}");
        let current = apart.mvcc.current().revision;
        for revision in 0..=current {
            let hash =
                |state: &State| state.mvcc.hash_by_revision(revision, &ReadCheck::default()).ok();
            assert_eq!(hash(&apart), hash(&together), "seed {seed} at {revision}");
        }
    }
}

/// The hashes are those of etcd 3.7.1 after the same writes: at a revision that leaves no key, it hashes
/// all rows that there are.
#[test]
fn a_hash_at_a_revision_that_deletes_all_is_etcds() {
    let mut state = State::new();
    for (key, value) in [("a", "1"), ("b", "1"), ("c", "1"), ("a", "2")] {
        let mut write = state.mvcc.begin();
        let put = PutRequest { key: key.into(), value: value.into(), ..Default::default() };
        write.put(&put, &mut NoLeases).unwrap();
        write.finish();
        state.seal();
    }
    let sweep = state.compact(4);
    state.sweep(sweep);
    let mut write = state.mvcc.begin();
    let all = DeleteRangeRequest { key: "a".into(), range_end: "z".into(), ..Default::default() };
    write.delete_range(&all, &mut NoLeases).unwrap();
    write.finish();
    state.seal();
    for (revision, hash) in [(4, 3_870_129_361), (5, 1_530_116_317), (6, 1_578_887_508)] {
        let (found, _) = state.mvcc.hash_by_revision(revision, &ReadCheck::default()).unwrap();
        assert_eq!(found.hash, hash, "at {revision}");
    }
}

#[test]
fn a_sweep_together_waits_for_the_readers_of_each() {
    let mut state = State::new();
    for n in 0..10 {
        state.change(n);
    }
    let mvcc = Arc::clone(&state.mvcc);
    let first = mvcc.view();
    let mut pending = state.compact(3);
    let second = mvcc.view();
    pending.absorb(state.compact(4));
    pending.absorb(state.compact(5));
    drop(first);
    assert_eq!(pending.step(&state.mvcc, limits::READ_CHUNK_ROWS).unwrap(), SweepStep::Waiting);
    drop(second);
    assert_eq!(pending.step(&state.mvcc, limits::READ_CHUNK_ROWS).unwrap(), SweepStep::Begun);
}

fn keys(keys: std::ops::Range<usize>) -> impl Iterator<Item = Bytes> {
    keys.map(|n| Bytes::from(format!("k{n:05}")))
}

/// Reads that turn out long fail with `TakesLong` on a thread that serves connections, and are
/// answered elsewhere.
#[test]
fn a_read_that_turns_out_long_is_not_for_every_thread() {
    let mut state = State::new();
    let mvcc = Arc::clone(&state.mvcc);
    let put_all = |value: &Bytes| {
        let mut write = mvcc.begin();
        for (n, key) in keys(0..6000).enumerate() {
            let value = if n < 100 { value.clone() } else { Bytes::new() };
            let put = PutRequest { key, value, ..Default::default() };
            write.put(&put, &mut NoLeases).unwrap();
        }
        write.finish();
    };
    let (key, range_end) = (Bytes::from("k"), Bytes::from("l"));
    let page = RangeRequest { key, range_end, limit: 100, ..Default::default() };
    let count = RangeRequest { count_only: true, ..page.clone() };
    let shortly = |request: &RangeRequest| match mvcc
        .view()
        .range_shortly(request, limits::INLINE_RANGE_BYTES_MAX)
    {
        Ok(response) => Some((response.kvs.len(), response.count)),
        Err(Error::TakesLong) => None,
        Err(error) => panic!("{error}"),
    };
    let whole = |request: &RangeRequest| {
        let response = mvcc.view().range(request).unwrap();
        (response.kvs.len(), response.count)
    };
    put_all(&Bytes::from(vec![b'v'; 20_000]));
    state.seal();
    assert_eq!((shortly(&count), shortly(&page)), (Some((0, 6000)), None), "2 MB of values");
    assert_eq!(whole(&page), (100, 6000));
    // A batch that is being applied changes each leaf.
    put_all(&Bytes::new());
    assert_eq!((shortly(&count), whole(&count)), (None, (0, 6000)));
    state.seal();
    assert_eq!((shortly(&count), shortly(&page)), (Some((0, 6000)), Some((100, 6000))));
    state.delete_all();
    assert_eq!((shortly(&page), whole(&page)), (None, (0, 0)), "thousands of deleted keys");
    assert_eq!(shortly(&count), Some((0, 0)));
}
