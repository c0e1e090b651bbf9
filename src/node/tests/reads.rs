//! Reads whose callers go away: they end soon, and so do their turns.

use futures_util::FutureExt as _;
use parking_lot::Condvar;

use super::*;
use crate::mvcc::{Change, ChangeKind};
use crate::pb::DeleteRangeRequest;
use crate::store::Faults;
use crate::types::{KeyRange, Revision};
use crate::watch::{Item, Next, WatchSpec};

/// Rows of the store: 20 of the pieces in which history is read. Half as many keys.
const ROWS: usize = 20_000;
/// Reads of the store that a read may still do after its caller has gone away.
const READS_AFTER_MAX: usize = 2;

/// Stands between long reads and the store, and lets through as many reads of LMDB as the test
/// says.
#[derive(Default)]
struct Gate {
    state: Mutex<GateState>,
    changed: Condvar,
}

#[derive(Default)]
struct GateState {
    /// Reads that may still pass; None for all.
    left: Option<usize>,
    passed: usize,
    waiting: usize,
}

impl Gate {
    fn admit(&self, left: Option<usize>) {
        let mut state = self.state.lock();
        (state.left, state.passed) = (left, 0);
        self.changed.notify_all();
    }

    fn is_reached(&self) -> bool {
        self.state.lock().waiting > 0
    }
}

impl Faults for Gate {
    fn read(&self) -> std::io::Result<()> {
        let thread = std::thread::current();
        if !matches!(
            thread.name(),
            Some("tokio-rt-worker" | "read-all" | "space" | "snapshot-size")
        ) {
            return Ok(());
        }
        let mut state = self.state.lock();
        while state.left == Some(0) {
            state.waiting += 1;
            self.changed.wait(&mut state);
            state.waiting -= 1;
        }
        state.left = state.left.map(|left| left - 1);
        state.passed += 1;
        Ok(())
    }
}

/// A member with `ROWS` rows, all of them in LMDB.
async fn member(dir: &std::path::Path, gate: &Arc<Gate>) -> Node {
    let mut surroundings = Surroundings::system(Arc::new(SystemClock::new()));
    surroundings.store.faults = Some(Arc::clone(gate) as _);
    let node = Node::start_with(config(dir), surroundings).unwrap();
    node.ready().wait_for(|ready| *ready).await.unwrap();
    for _ in 0..2 {
        put_many(&node, ROWS / 2).await;
    }
    node.0.machine.store.flush().unwrap();
    node
}

/// Starts a call, cancels it in the middle of its work, and checks that the work ends soon after.
async fn cancel<T: Send + 'static>(
    name: &str,
    gate: &Gate,
    call: impl Future<Output = Result<T, Error>> + Send + 'static,
    has_turn: impl Fn() -> bool,
) {
    gate.admit(Some(2));
    let call = tokio::spawn(async move { call.await.map(drop) });
    until("the read is under way", || gate.is_reached()).await;
    assert!(has_turn(), "{name}");
    call.abort();
    assert!(call.await.unwrap_err().is_cancelled(), "{name}");
    assert!(has_turn(), "{name}: the work has lost its turn");
    gate.admit(None);
    until("the turn is given back", || !has_turn()).await;
    let passed = gate.state.lock().passed;
    assert!(passed <= READS_AFTER_MAX, "{name}: {passed} reads for nobody");
}

fn all() -> RangeRequest {
    let (key, range_end) = (Bytes::from("key "), Bytes::from("key!"));
    RangeRequest { key, range_end, serializable: true, ..Default::default() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_nobody_waits_for_ends_soon() {
    let (dir, gate) = (tempfile::tempdir().unwrap(), Arc::new(Gate::default()));
    let node = member(dir.path(), &gate).await;
    let who = Credentials::default();

    let reads = || node.0.answers.free_turns() < limits::LONG_ANSWERS_MAX;
    let (reader, caller) = (node.clone(), who.clone());
    let range = async move { reader.range(&caller, &all()).await };
    cancel("a range", &gate, range, reads).await;
    let (reader, caller) = (node.clone(), who.clone());
    let op = RequestOp { request: Some(Request::RequestRange(all())) };
    let txn = TxnRequest { success: vec![op; 3], ..Default::default() };
    let txn = async move { reader.read_txn_as(&caller, &txn, |response| response).await };
    cancel("a transaction", &gate, txn, reads).await;

    let hashes = || node.0.upkeep.passes().hashes.free() < limits::HASHES_RUNNING_MAX;
    let (reader, caller) = (node.clone(), who.clone());
    let hash = async move { reader.hash_kv(&caller, 0).await };
    cancel("HashKV", &gate, hash, hashes).await;
    let (reader, caller) = (node.clone(), who.clone());
    let hash = async move { reader.hash(&caller).await };
    cancel("Hash", &gate, hash, hashes).await;
    let (reader, caller) = (node.clone(), who.clone());
    let usage = async move { reader.usage(&caller, 1, 1).await };
    cancel("a report of the space", &gate, usage, || node.0.upkeep.passes().usages.free() == 0)
        .await;

    let (reader, caller) = (node.clone(), who.clone());
    let snapshot = async move { reader.snapshot(&caller).await };
    cancel("a snapshot", &gate, snapshot, || node.0.downloads.seats_taken() > 0).await;

    let change = |n: i64| {
        let key = Bytes::from(format!("key {n}"));
        let revision = Revision::new(node.header().revision, n);
        let kind = ChangeKind::Put;
        Change { kind, kv: key.clone(), key, revision, is_create: false, previous: None }
    };
    let changes: Vec<Change> = (0..2000).map(change).collect();
    let stream = node.watch_stream();
    let previous = async move { stream.read_previous(changes).await };
    let catch_ups = &node.0.long_work.catch_ups;
    let catches_up = || catch_ups.available_permits() < limits::CATCH_UPS_RUNNING_MAX;
    cancel("previous pairs", &gate, previous, catches_up).await;
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_stream_that_nobody_looks_at_any_more_keeps_no_turn() {
    let dir = tempfile::tempdir().unwrap();
    let node = start(dir.path()).await;
    let turns = Arc::clone(&node.0.long_work.catch_ups);
    let taken = turns.acquire_many_owned(limits::CATCH_UPS_RUNNING_MAX as u32).await.unwrap();
    let streams: Vec<_> =
        (0..2 * limits::CATCH_UPS_RUNNING_MAX).map(|_| node.watch_stream()).collect();
    let mut left: Vec<_> = streams.iter().map(|stream| Box::pin(stream.catch_up())).collect();
    for stream in &mut left {
        assert!(stream.now_or_never().is_none(), "it waits for its turn");
    }
    drop(taken);
    let other = node.watch_stream();
    let caught_up = tokio::time::timeout(Duration::from_secs(60), other.catch_up()).await;
    caught_up.expect("those in line before keep the turns").unwrap();
    drop(left);
    node.stop().await;
}

/// A response with more previous pairs than are read in a turn for history, and one of many small
/// pairs, whose places count as well.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn previous_pairs_of_any_size_come_whole_and_count_until_they_are_taken() {
    const LARGE: usize = 12;
    const SMALL: usize = 3000;
    let dir = tempfile::tempdir().unwrap();
    let node = start(dir.path()).await;
    for n in 0..LARGE {
        let put = put(&format!("key {n}"), &"v".repeat(1_000_000));
        node.propose(&Credentials::default(), put).await.unwrap();
    }
    put_all(&node, SMALL, "v").await;
    let revision = Revision::new(node.header().revision, 0);
    put_all(&node, SMALL, "w").await;
    let changes = |count: usize, main: i64| -> Vec<Change> {
        let change = |n: usize| {
            let key = Bytes::from(format!("key {n}"));
            let kind = ChangeKind::Put;
            let (kv, revision) = (key.clone(), Revision::new(main, n as i64));
            Change { kind, kv, key, revision, is_create: false, previous: None }
        };
        (0..count).map(change).collect()
    };
    let stream = node.watch_stream();
    // What is known of a response is read again in its turn, so that nobody holds it in line.
    let mut known = changes(LARGE, revision.main);
    let pair = Bytes::from(vec![b'v'; 1_000_000]);
    known[0].previous = Some(pair.clone());
    let turns = Arc::clone(&node.0.long_work.catch_ups);
    let turns = turns.acquire_many_owned(limits::CATCH_UPS_RUNNING_MAX as u32).await.unwrap();
    let mut large = Box::pin(stream.read_previous(known));
    assert!((&mut large).now_or_never().is_none() && pair.is_unique());
    drop(turns);
    let large = large.await.unwrap();
    assert!(large.iter().all(|it| it.previous.as_ref().unwrap().len() > 1_000_000));
    let mut left = Box::pin(stream.read_previous(changes(SMALL, revision.main + 1)));
    assert!((&mut left).now_or_never().is_none());
    let bytes = || node.0.long_work.caught_up.bytes();
    until("the pairs are read", || bytes() > 0).await;
    assert!(bytes() > SMALL * size_of::<Option<Bytes>>(), "{} bytes", bytes());
    assert_eq!(left.await.unwrap().iter().filter(|it| it.previous.is_some()).count(), SMALL);
    assert_eq!(bytes(), 0);
    drop(stream);
    node.stop().await;
    assert_eq!(Arc::strong_count(&node.0), 1, "somebody else keeps the directory locked");
}

/// The number of events that a stream has for its client, up to the read of history that comes next.
fn take_events(stream: &WatchStream) -> usize {
    let mut events = 0;
    loop {
        match stream.next() {
            Next::Item(Item::Events { changes, .. }) => events += changes.len(),
            Next::Item(_) => {}
            Next::CatchUp | Next::Wait => return events,
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn history_that_was_read_for_streams_nobody_looks_at_is_bounded_and_not_lost() {
    const KEYS: usize = 20;
    const STREAMS: usize = 60;
    let dir = tempfile::tempdir().unwrap();
    let node = start(dir.path()).await;
    // Two pieces for each stream.
    for _ in 0..2 {
        put_all(&node, KEYS, &"v".repeat(50_000)).await;
    }
    let mut streams = Vec::new();
    for _ in 0..STREAMS {
        let stream = node.watch_stream();
        let RangeRequest { key, range_end, .. } = all();
        let range = KeyRange::new(key, range_end);
        let (no_put, no_delete, prev_kv) = (false, false, true);
        let spec = WatchSpec { range, start_revision: 2, watch_id: 0, no_put, no_delete, prev_kv };
        stream.create(&Credentials::default(), spec).await.unwrap();
        take_events(&stream);
        streams.push(stream);
    }
    let turns = Arc::clone(&node.0.long_work.catch_ups);
    let taken = turns.acquire_many_owned(limits::CATCH_UPS_RUNNING_MAX as u32).await.unwrap();
    let (last, unseen) = streams.split_last().unwrap();
    let mut left: Vec<_> = unseen.iter().map(|stream| Box::pin(stream.catch_up())).collect();
    for catch_up in &mut left {
        assert!(catch_up.now_or_never().is_none());
    }
    drop(taken);
    // Those in line before have had their turns.
    last.catch_up().await.unwrap();
    let bytes = || node.0.long_work.caught_up.bytes();
    let most = limits::CATCH_UPS_UNCLAIMED_BYTES_MAX;
    // Beside the largest, which is a piece of one stream.
    let largest = 3 * KEYS * 50_000;
    assert!((most / 2..=most + largest).contains(&bytes()), "{} bytes", bytes());
    for catch_up in left {
        catch_up.await.unwrap();
    }
    for stream in &streams {
        let mut events = take_events(stream);
        while events < 2 * KEYS {
            stream.catch_up().await.unwrap();
            events += take_events(stream);
        }
        assert_eq!(events, 2 * KEYS);
    }
    assert_eq!(bytes(), 0);
    node.stop().await;
}

/// The test occupies the only blocking thread, because a count reads no row that a gate could hold.
#[test]
fn counts_that_take_long_take_turns() {
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime = runtime.worker_threads(2).max_blocking_threads(1).enable_all().build().unwrap();
    runtime.block_on(async {
        let dir = tempfile::tempdir().unwrap();
        let node = start(dir.path()).await;
        for _ in 0..2 {
            put_many(&node, ROWS / 2).await;
        }
        // Each leaf has changed after this revision, so the count visits each key.
        let revision = node.header().revision - 1;
        let count = RangeRequest { count_only: true, revision, ..all() };
        let (release, released) = std::sync::mpsc::sync_channel::<()>(1);
        let busy = tokio::task::spawn_blocking(move || released.recv().is_err());
        let mut calls = Vec::new();
        for _ in 0..2 * limits::COUNTS_RUNNING_MAX {
            let (node, count) = (node.clone(), count.clone());
            let call = async move { node.range(&Credentials::default(), &count).await };
            calls.push(tokio::spawn(call));
        }
        until("all turns are taken", || node.0.long_work.counts.free() == 0).await;
        let last = calls.pop().unwrap();
        for call in calls {
            call.abort();
            let _ = call.await;
        }
        drop(release);
        assert!(busy.await.unwrap());
        assert_eq!(last.await.unwrap().unwrap().count, ROWS as i64 / 2);
        let free = || node.0.long_work.counts.free() == limits::COUNTS_RUNNING_MAX;
        until("the turns are given back", free).await;
        node.stop().await;
    });
}

/// A transaction that writes, and answers with all keys that begin with `a`.
fn writes_and_reads() -> Op {
    let range = RangeRequest { key: "a".into(), range_end: "b".into(), ..Default::default() };
    let put = PutRequest { key: "k".into(), ..Default::default() };
    let op = |request| RequestOp { request: Some(request) };
    let success = vec![op(Request::RequestPut(put)), op(Request::RequestRange(range))];
    // Both branches are the same, because the measuring does not know which one will run.
    Op::Txn(TxnRequest { failure: success.clone(), success, ..Default::default() })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writes_with_long_answers_take_turns() {
    let dir = tempfile::tempdir().unwrap();
    let (node, clock) = start_bent(dir.path()).await;
    let who = Credentials::default();
    let delete = |key: &str, end: &str| {
        let (key, range_end) = (Bytes::from(key.to_owned()), Bytes::from(end.to_owned()));
        Op::DeleteRange(DeleteRangeRequest { key, range_end, prev_kv: true })
    };
    let answers = &node.0.answers;
    let mut turns = Vec::new();
    for _ in 0..limits::LONG_ANSWERS_MAX {
        turns.push(answers.turn_to_write(&*clock, Duration::ZERO).await.unwrap());
    }
    // Writes with short answers take no turn.
    node.propose(&who, put("a1", "1")).await.unwrap();
    node.propose(&who, writes_and_reads()).await.unwrap();
    node.propose(&who, delete("a", "b")).await.unwrap();
    for key in ["a1", "a2", "a3"] {
        node.propose(&who, put(key, &"x".repeat(600_000))).await.unwrap();
    }
    node.propose(&who, delete("k", "")).await.unwrap();
    let nested = TxnRequest {
        success: vec![RequestOp {
            request: match writes_and_reads() {
                Op::Txn(txn) => Some(Request::RequestTxn(Box::new(txn))),
                _ => None,
            },
        }],
        ..Default::default()
    };
    let op = |request| RequestOp { request: Some(request) };
    let Op::Put(new) = put("n", &"x".repeat(600_000)) else { panic!() };
    let get_new = RangeRequest { key: "n".into(), ..Default::default() };
    let mut success = vec![op(Request::RequestPut(new))];
    success.resize(4, op(Request::RequestRange(get_new)));
    let puts_and_gets = Op::Txn(TxnRequest { success, ..Default::default() });
    for op in [writes_and_reads(), delete("a", "b"), Op::Txn(nested), puts_and_gets] {
        *clock.skips.lock() = Some(node.request_timeout());
        let refused = tokio::time::timeout(Duration::from_secs(60), node.propose(&who, op.clone()));
        let refused = refused.await.expect("it waits on").map(drop);
        assert_eq!(refused, Err(Error::TooManyRequests), "{op:?}");
        *clock.skips.lock() = None;
    }
    drop(turns);
    let Ok(Reply::Txn(reply)) = node.propose(&who, writes_and_reads()).await else { panic!() };
    assert_eq!(reply.responses.len(), 2);
    node.propose(&who, delete("a", "b")).await.unwrap();
    assert_eq!(answers.free_turns_to_write(), limits::LONG_ANSWERS_MAX);
    assert_eq!(get(&node, "a1").await, None);
    node.stop().await;
}

/// A transaction that might answer with many small pairs, and a deletion that does.
fn measured() -> [Op; 2] {
    let range = RequestOp { request: Some(Request::RequestRange(all())) };
    let (key, range_end) = (Bytes::from("key "), Bytes::from("key!"));
    [
        // Without a comparison the success branch runs, so this one does not.
        Op::Txn(TxnRequest { failure: vec![range], ..Default::default() }),
        Op::DeleteRange(DeleteRangeRequest { key, range_end, prev_kv: true }),
    ]
}

/// All calls are made on this one thread: if one of them read rows here, the test would stand
/// still.
#[tokio::test]
async fn how_long_an_answer_will_be_is_found_out_on_another_thread() {
    let (dir, gate) = (tempfile::tempdir().unwrap(), Arc::new(Gate::default()));
    let node = member(dir.path(), &gate).await;
    for op in measured() {
        gate.admit(Some(0));
        let mut calls = Vec::new();
        for _ in 0..2 * limits::MEASURES_RUNNING_MAX {
            let (node, op) = (node.clone(), op.clone());
            calls
                .push(tokio::spawn(async move { node.propose(&Credentials::default(), op).await }));
        }
        until("all turns are taken", || node.0.long_work.measures.free() == 0).await;
        until("rows are read", || gate.is_reached()).await;
        // Small writes and reads go on meanwhile.
        node.propose(&Credentials::default(), put("other", "1")).await.unwrap();
        let Op::Put(previous) = put("other", "2") else { panic!() };
        let previous = PutRequest { prev_kv: true, ..previous };
        let get_other = RangeRequest { key: "other".into(), ..Default::default() };
        let op = |request| RequestOp { request: Some(request) };
        let small = TxnRequest {
            success: vec![op(Request::RequestPut(previous))],
            failure: vec![op(Request::RequestRange(get_other))],
            ..Default::default()
        };
        node.propose(&Credentials::default(), Op::Txn(small)).await.unwrap();
        assert_eq!(get(&node, "other").await, Some("2".to_owned()));
        assert!(calls.iter().all(|call| !call.is_finished()));
        let last = calls.pop().unwrap();
        for call in calls {
            call.abort();
            let _ = call.await;
        }
        gate.admit(None);
        last.await.unwrap().unwrap();
        let free = || node.0.long_work.measures.free() == limits::MEASURES_RUNNING_MAX;
        until("the turns are given back", free).await;
    }
    node.stop().await;
}

/// Counts reads of LMDB.
#[derive(Default)]
struct ReadCounter(AtomicUsize);

impl Faults for ReadCounter {
    fn read(&self) -> std::io::Result<()> {
        self.0.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}

/// The pairs of a write's answer are not read if its caller has gone away before it is applied.
#[test]
fn the_answer_to_a_write_that_nobody_awaits_is_not_built() {
    use futures_util::FutureExt;

    let dir = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let _entered = runtime.enter();
    let reads = Arc::new(ReadCounter::default());
    let mut surroundings = Surroundings::system(Arc::new(SystemClock::new()));
    surroundings.transport = Some(Arc::new(raft::NoTransport));
    surroundings.store.faults = Some(Arc::clone(&reads) as _);
    let (node, steps) = Node::start_stepped(config(dir.path()), surroundings).unwrap();
    let who = Credentials::default();
    let turn = || {
        steps.raft().unwrap();
        while steps.log().unwrap() {}
        runtime.block_on(async {
            for _ in 0..100 {
                tokio::task::yield_now().await;
            }
        });
    };
    let apply = || while steps.apply(usize::MAX).is_some() {};
    let end = crate::clock::instant() + Duration::from_secs(60);
    while !*node.ready().borrow() {
        assert!(crate::clock::instant() < end, "no start");
        turn();
        apply();
        node.0.machine.store.flush().unwrap();
    }
    let answered = |op: Op| {
        let mut call = Box::pin(node.propose(&who, op));
        loop {
            assert!(crate::clock::instant() < end, "no answer");
            turn();
            apply();
            if let Some(reply) = call.as_mut().now_or_never() {
                return reply.unwrap();
            }
        }
    };
    answered(put("a1", "1"));
    node.0.machine.store.flush().unwrap();
    let before = reads.0.load(Ordering::Relaxed);
    let Reply::Txn(reply) = answered(writes_and_reads()) else { panic!() };
    assert_eq!(reply.responses.len(), 2);
    assert!(reads.0.load(Ordering::Relaxed) > before, "the answer has come from nowhere");
    node.0.machine.store.flush().unwrap();

    let mut call = Box::pin(node.propose(&who, writes_and_reads()));
    let committed = steps.status().committed;
    while steps.status().committed == committed {
        assert!(call.as_mut().now_or_never().is_none());
        assert!(crate::clock::instant() < end, "nothing is committed");
        turn();
    }
    drop(call);
    let (before, revision) = (reads.0.load(Ordering::Relaxed), node.header().revision);
    apply();
    assert_eq!(node.header().revision, revision + 1, "it stands all the same");
    assert_eq!(reads.0.load(Ordering::Relaxed), before, "rows are read for nobody");
    node.stop_now();
}
