use bytes::Bytes;
use std::time::Duration;

use super::*;
use crate::clock::{SystemClock, split_mix};
use crate::mvcc::txn::NoLeases;
use crate::mvcc::{Sweep, SweepStep};
use crate::pb::{DeleteRangeRequest, PutRequest};
use crate::store::{Options, Store};

const HEADER_OF_ALL: ResponseHeader =
    ResponseHeader { cluster_id: u64::MAX, member_id: 1, revision: 300, raft_term: 2 };
/// Small enough that most answers come in several pieces.
const SHORT: Bounds = Bounds { room: 5, whole: 1200, piece: 300, message: i32::MAX as usize };

struct State {
    mvcc: Arc<Mvcc>,
    index: u64,
    chance: u64,
    _dir: tempfile::TempDir,
}

impl State {
    fn new(seed: u64) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut options = Options::new(Arc::new(SystemClock::new()));
        options.reserve_bytes = 0;
        options.commit_interval = std::time::Duration::from_millis(1);
        let (store, _) = Store::open(&dir.path().join("db"), options).unwrap();
        Self { mvcc: Arc::new(Mvcc::new(Arc::new(store))), index: 0, chance: seed, _dir: dir }
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.chance = split_mix(self.chance);
        (self.chance >> 8) % bound
    }

    fn seal(&mut self) {
        self.index += 1;
        self.mvcc.store.seal(self.index, 1);
        self.mvcc.publish();
    }

    /// Applies a transaction of one to four puts or deletes.
    fn change(&mut self) {
        let changes: Vec<_> = (0..=self.below(4))
            .map(|_| {
                let key = Bytes::from(format!("k{:02}", self.below(60)));
                let length = match self.below(30) {
                    // Two chunks and a bit.
                    0 => 9000,
                    _ => self.below(90) as usize,
                };
                (key, self.below(4) == 0, vec![b'v'; length])
            })
            .collect();
        let mut write = self.mvcc.begin();
        for (key, is_delete, value) in changes {
            if is_delete {
                let delete = DeleteRangeRequest { key, ..Default::default() };
                write.delete_range(&delete, &mut NoLeases).unwrap();
            } else {
                let put = PutRequest { key, value: value.into(), ..Default::default() };
                write.put(&put, &mut NoLeases).unwrap();
            }
        }
        write.finish();
        self.seal();
    }

    fn compact(&mut self, revision: i64) -> Sweep {
        let mut compaction = self.mvcc.compact(revision).unwrap();
        self.seal();
        compaction.take_epoch(&self.mvcc);
        compaction
    }

    fn step(&self, sweep: &mut Sweep) -> SweepStep {
        sweep.step(&self.mvcc, limits::READ_CHUNK_ROWS).unwrap()
    }

    fn request(&mut self) -> RangeRequest {
        let newest = self.mvcc.current().revision;
        let past = self.below(newest as u64) as i64;
        let (oldest, filter) = (self.mvcc.current().compact_revision, self.below(8));
        let mut request = all();
        request.key = Bytes::from(format!("k{:02}", self.below(10)));
        request.limit = [0, 0, 7, 33, 200, -1][self.below(6) as usize];
        request.keys_only = self.below(4) == 0;
        request.sort_order = self.below(3) as i32;
        request.sort_target = self.below(5) as i32;
        request.revision = [0, past.max(oldest)][self.below(2) as usize];
        request.min_mod_revision = if filter & 3 == 0 { past } else { 0 };
        request.max_create_revision = if filter == 1 { past } else { 0 };
        request
    }

    fn expected(&self, request: &RangeRequest) -> Vec<u8> {
        let mut response = self.mvcc.view().range(request).unwrap();
        response.header = Some(HEADER_OF_ALL);
        response.encode_to_vec()
    }

    fn measure(&self, request: &RangeRequest) -> Measured {
        self.mvcc.view().measure(request, &HEADER_OF_ALL, &SHORT).unwrap()
    }

    fn piece(&self, rest: &mut Rest) -> Result<Vec<u8>, Error> {
        self.mvcc.next_piece(rest, 500, &ReadCheck::default())
    }

    /// The message of an answer; `between` is called before each piece.
    fn message(&mut self, measured: Measured, mut between: impl FnMut(&mut Self)) -> Vec<u8> {
        let Measured { mut first, bytes, mut rest, .. } = measured;
        assert_eq!(first.drain(..SHORT.room).collect::<Vec<_>>(), [0; 5], "bytes of the caller");
        while let Some(left) = rest.as_mut().filter(|rest| !rest.is_done()) {
            between(self);
            let piece = self.piece(left).unwrap();
            assert!(piece.len() < 500 + 10_000, "a piece and a row");
            first.extend(piece);
            assert_eq!(bytes - first.len(), left.bytes());
        }
        assert_eq!(first.len(), bytes);
        first
    }
}

fn all() -> RangeRequest {
    RangeRequest { key: "k".into(), range_end: "l".into(), ..Default::default() }
}

/// A state with some history, and one answer of which only the first piece was taken.
fn half_read() -> (State, Rest) {
    let mut state = State::new(7);
    (0..100).for_each(|_| state.change());
    state.mvcc.store.flush().unwrap();
    let rest = state.measure(&all()).rest.unwrap();
    (state, rest)
}

/// Why an answer ends before its last piece.
fn failure(state: &State, rest: &mut Rest) -> Error {
    loop {
        match state.piece(rest) {
            Ok(_) => assert!(!rest.is_done()),
            Err(error) => return error,
        }
    }
}

/// Puts, deletes, commits, a compaction and a defragmentation come between the pieces.
#[test]
fn pieces_make_up_the_message_that_is_made_at_once() {
    let mut in_pieces = 0;
    for seed in 0..12 {
        let mut state = State::new(seed);
        (0..120).for_each(|_| state.change());
        for _ in 0..40 {
            let request = state.request();
            let expected = state.expected(&request);
            let measured = state.measure(&request);
            in_pieces += usize::from(measured.rest.is_some());
            let response = crate::pb::RangeResponse::decode(&expected[..]).unwrap();
            assert_eq!((measured.rows, measured.count), (response.kvs.len(), response.count));
            let mut sweep = None;
            let found = state.message(measured, |state| match state.below(12) {
                0..6 => state.change(),
                6 => drop(state.mvcc.store.flush().unwrap()),
                7 if sweep.is_none() => {
                    let current = state.mvcc.current();
                    if current.revision > current.compact_revision {
                        let mut compaction = state.compact(current.revision);
                        assert_eq!(state.step(&mut compaction), SweepStep::Waiting);
                        sweep = Some(compaction);
                    }
                }
                8 => drop(state.mvcc.store.defragment(&mut |_| {}).unwrap()),
                _ => {}
            });
            assert!(found == expected, "seed {seed}: {request:?}");
            while let Some(compaction) = &mut sweep {
                if matches!(state.step(compaction), SweepStep::Done { .. }) {
                    break;
                }
            }
            (0..5).for_each(|_| state.change());
        }
    }
    assert!(in_pieces > 100, "{in_pieces}");
}

#[test]
fn a_message_that_is_too_long_is_measured_and_not_made() {
    let (state, rest) = half_read();
    let bytes = state.expected(&all()).len();
    assert!(rest.bytes() < bytes);
    for (request, is_listed) in
        [(all(), true), (RangeRequest { sort_target: SortTarget::Value.into(), ..all() }, false)]
    {
        let bounds = Bounds { message: bytes - 1, ..SHORT };
        let measured = state.mvcc.view().measure(&request, &HEADER_OF_ALL, &bounds).unwrap();
        assert_eq!((measured.bytes, measured.first.len()), (bytes, 0), "{is_listed}");
        assert!(measured.rest.is_none());
    }
}

#[test]
fn a_sweep_waits_for_the_answer_until_the_answer_is_ended() {
    let (mut state, mut rest) = half_read();
    let revision = state.mvcc.current().revision;
    let mut sweep = state.compact(revision);
    let mut young = state.measure(&all()).rest.unwrap();
    for _ in 0..3 {
        assert_eq!(state.step(&mut sweep), SweepStep::Waiting);
        state.piece(&mut rest).unwrap();
    }
    // It has its time from when the sweep has seen it first, however old the sweep is.
    let [seen, early, late] = [100, 159, 160].map(Duration::from_secs);
    let max = Duration::from_secs(60);
    assert_eq!(sweep.end_pins(&state.mvcc, seen, max), 0);
    assert_eq!(sweep.end_pins(&state.mvcc, early, max), 0);
    state.piece(&mut rest).unwrap();
    assert_eq!(sweep.end_pins(&state.mvcc, late, max), 1);
    assert!(matches!(state.piece(&mut rest), Err(Error::Expired)));
    while !matches!(state.step(&mut sweep), SweepStep::Done { .. }) {}
    // What was asked for after the compaction has nothing to fear of it.
    state.piece(&mut young).unwrap();
    drop((rest, young));
    assert_eq!(state.mvcc.pins.end(|_| true), 0, "a pin outlives its answer");
}

#[test]
fn an_answer_ends_with_the_state_that_it_reads() {
    let (state, mut rest) = half_read();
    let new = Mvcc::new(Arc::clone(&state.mvcc.store));
    state.mvcc.install(&new, || Ok(())).unwrap();
    assert!(matches!(state.piece(&mut rest), Err(Error::Expired)));
}

#[test]
fn rows_that_are_not_those_that_were_measured_end_the_answer() {
    let (state, mut rest) = half_read();
    rest.left_bytes -= 1;
    let outcome = failure(&state, &mut rest);
    assert!(matches!(outcome, Error::Changed), "{outcome}");
    let mut rest = state.measure(&all()).rest.unwrap();
    rest.left_rows += 1;
    let outcome = failure(&state, &mut rest);
    assert!(matches!(outcome, Error::Changed), "{outcome}");
    let mut rest = state.measure(&all()).rest.unwrap();
    let rows = state.mvcc.rows(Revision::default(), i64::MAX, limits::READ_CHUNK_ROWS).unwrap();
    let dead = rows.iter().map(|row| row.rev).collect();
    state.mvcc.store.delete_rows(dead, Vec::new(), 1).blocking_recv().unwrap();
    let outcome = failure(&state, &mut rest);
    assert!(matches!(outcome, Error::Store(_)), "{outcome}");
}
