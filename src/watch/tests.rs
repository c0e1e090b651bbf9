use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use bytes::Bytes;
use futures_util::FutureExt as _;

use super::*;
use crate::clock::SystemClock;
use crate::limits;
use crate::mvcc::ReadCheck;
use crate::pb::PutRequest;
use crate::store::{Options, Store};

struct NoLeases;

impl crate::mvcc::Leases for NoLeases {
    fn exists(&self, _: i64) -> bool {
        false
    }

    fn set(&mut self, _: &Bytes, _: i64) {}
}

struct Fixture {
    hub: Arc<Hub>,
    mvcc: Arc<Mvcc>,
    store: Arc<Store>,
    index: u64,
    _dir: tempfile::TempDir,
}

impl Fixture {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut options = Options::new(Arc::new(SystemClock::new()));
        options.reserve_bytes = 0;
        let (store, _) = Store::open(&dir.path().join("db"), options).unwrap();
        let store = Arc::new(store);
        let mvcc = Arc::new(Mvcc::new(Arc::clone(&store)));
        Self { hub: Hub::new(Arc::clone(&mvcc)), mvcc, store, index: 0, _dir: dir }
    }

    /// One transaction that puts the keys.
    fn put(&mut self, keys: &[&str]) {
        self.put_value(keys, &Bytes::from_static(b"v"));
    }

    fn put_value(&mut self, keys: &[&str], value: &Bytes) {
        let mut write = self.mvcc.begin();
        for key in keys {
            let (key, value) = (Bytes::copy_from_slice(key.as_bytes()), value.clone());
            let put = PutRequest { key, value, ..Default::default() };
            write.put(&put, &mut NoLeases).unwrap();
        }
        self.publish(write.finish());
    }

    fn delete(&mut self, key: &str) {
        let mut write = self.mvcc.begin();
        write.delete(&Bytes::copy_from_slice(key.as_bytes()), &mut NoLeases);
        self.publish(write.finish());
    }

    fn publish(&mut self, changes: Vec<Change>) {
        self.index += 1;
        self.store.seal(self.index, 1);
        let current = self.mvcc.publish();
        self.hub.publish(current.revision, &changes);
    }
}

fn spec(key: &'static str, end: &'static str, start_revision: i64) -> WatchSpec {
    let range = KeyRange::new(Bytes::from(key), Bytes::from(end));
    let (no_put, no_delete, prev_kv) = (false, false, false);
    WatchSpec { range, start_revision, watch_id: 0, no_put, no_delete, prev_kv }
}

/// Everything that the stream has for its consumer now, as text.
fn drain(stream: &Stream) -> Vec<String> {
    let mut lines = Vec::new();
    loop {
        match stream.next() {
            Next::Item(item) => lines.push(text(&item)),
            Next::CatchUp => stream.catch_up().unwrap(),
            Next::Wait => return lines,
        }
    }
}

fn text(item: &Item) -> String {
    match item {
        Item::Created { watch_id, revision } => format!("created {watch_id} @{revision}"),
        Item::Canceled { watch_id, revision } => format!("canceled {watch_id} @{revision}"),
        Item::Progress { watch_id, revision } => format!("progress {watch_id} @{revision}"),
        Item::Compacted { watch_id, compact_revision } => {
            format!("compacted {watch_id} @{compact_revision}")
        }
        Item::Events { watch_id, changes, .. } => {
            let changes = changes.iter().map(|change| {
                format!(" {}@{}", String::from_utf8_lossy(&change.key), change.revision)
            });
            format!("events {watch_id}{}", changes.collect::<String>())
        }
    }
}

#[test]
fn live_watchers_get_whole_transactions_in_order() {
    let mut fixture = Fixture::new();
    let stream = fixture.hub.stream();
    stream.create(spec("a", "", 0)).unwrap();
    stream.create(spec("a", "c", 0)).unwrap();
    stream.create(spec("b", "\0", 4)).unwrap();
    fixture.put(&["a", "b"]);
    fixture.put(&["c"]);
    fixture.put(&["c", "a"]);
    assert_eq!(
        drain(&stream),
        [
            "created 0 @1",
            "created 1 @1",
            "created 2 @1",
            "events 0 a@2.0",
            "events 1 a@2.0 b@2.1",
            "events 0 a@4.1",
            "events 1 a@4.1",
            "events 2 c@4.0",
        ]
    );
    assert!(stream.cancel(1));
    assert!(!stream.cancel(1));
    fixture.put(&["a"]);
    assert_eq!(drain(&stream), ["canceled 1 @4", "events 0 a@5.0"]);
}

#[test]
fn the_past_is_read_from_history_and_handed_over_without_gap() {
    let mut fixture = Fixture::new();
    for key in ["a", "b", "a", "c"] {
        fixture.put(&[key]);
    }
    let stream = fixture.hub.stream();
    stream.create(spec("a", "", 1)).unwrap();
    stream.create(spec("a", "\0", 4)).unwrap();
    assert_eq!(
        drain(&stream),
        ["created 0 @5", "created 1 @5", "events 0 a@2.0 a@4.0", "events 1 a@4.0 c@5.0"]
    );
    fixture.put(&["a"]);
    assert_eq!(drain(&stream), ["events 0 a@6.0", "events 1 a@6.0"]);
}

#[test]
fn a_consumer_that_does_not_read_costs_a_bounded_queue_and_loses_nothing() {
    let mut fixture = Fixture::new();
    let stream = fixture.hub.stream();
    stream.create(spec("a", "\0", 0)).unwrap();
    let puts = 3 * limits::WATCH_STREAM_RESPONSES_MAX + limits::WATCH_CATCH_UP_REVISIONS_MAX;
    for _ in 0..puts {
        fixture.put(&["a", "b"]);
    }
    let Counts { watchers, lagging, pending_events } = fixture.hub.counts();
    assert_eq!((watchers, lagging), (1, 1));
    assert!(pending_events > 0, "the queue is full");
    let mut seen = Vec::new();
    for line in drain(&stream) {
        seen.extend(line.split(' ').skip(2).map(str::to_owned));
    }
    let expected = (0..puts).flat_map(|n| [format!("a@{}.0", n + 2), format!("b@{}.1", n + 2)]);
    let created = ["@1".to_owned()];
    assert_eq!(seen, created.into_iter().chain(expected).collect::<Vec<_>>());
    assert_eq!(fixture.hub.counts(), Counts { watchers: 1, ..Counts::default() });
    drop(stream);
    assert_eq!(fixture.hub.counts(), Counts::default());
}

#[test]
fn progress_is_told_only_if_all_watchers_are_current() {
    let mut fixture = Fixture::new();
    fixture.put(&["a"]);
    let stream = fixture.hub.stream();
    stream.request_progress();
    assert_eq!(drain(&stream), Vec::<String>::new(), "no watchers");
    stream.create(spec("a", "", 0)).unwrap();
    fixture.put(&["a"]);
    stream.request_progress();
    assert_eq!(drain(&stream), ["created 0 @2", "events 0 a@3.0", "progress -1 @3"]);
    stream.create(spec("a", "", 100)).unwrap();
    stream.request_progress();
    stream.notify_progress(0);
    stream.notify_progress(1);
    assert_eq!(drain(&stream), ["created 1 @3", "progress 0 @3"], "1 wants only the future");
}

#[test]
fn a_compacted_watcher_is_told_once_and_mutes_progress() {
    let mut fixture = Fixture::new();
    for _ in 0..5 {
        fixture.put(&["a"]);
    }
    fixture.mvcc.compact(4).unwrap();
    fixture.mvcc.publish();
    let stream = fixture.hub.stream();
    stream.create(spec("a", "", 3)).unwrap();
    stream.create(spec("a", "", 4)).unwrap();
    assert_eq!(
        drain(&stream),
        ["created 0 @6", "created 1 @6", "compacted 0 @4", "events 1 a@4.0 a@5.0 a@6.0"]
    );
    stream.request_progress();
    assert_eq!(drain(&stream), Vec::<String>::new());
    stream.cancel(0);
    stream.request_progress();
    assert_eq!(drain(&stream), ["canceled 0 @6", "progress -1 @6"]);
}

#[test]
fn ids_are_chosen_as_etcd_chooses_them() {
    let fixture = Fixture::new();
    let stream = fixture.hub.stream();
    let create = |watch_id| stream.create(WatchSpec { watch_id, ..spec("a", "", 0) });
    assert_eq!(create(1), Ok(1));
    assert_eq!(create(0), Ok(0));
    assert_eq!(create(0), Ok(2));
    assert_eq!(create(-7), Ok(-7));
    assert_eq!(create(1), Err(CreateError::DuplicateId));
    assert_eq!(stream.create(spec("b", "a", 0)), Err(CreateError::EmptyRange));
    assert_eq!(stream.create(spec("b", "b", 0)), Err(CreateError::EmptyRange));
}

/// Whoever waits for something else does not wait for the consumers of a thousand streams, and all of
/// them get the event.
#[tokio::test]
async fn a_delivery_to_very_many_streams_lets_other_tasks_in() {
    let mut fixture = Fixture::new();
    let hub = Arc::clone(&fixture.hub);
    let waking = tokio::spawn(async move { hub.wake_gradually().await });
    let woken = Arc::new(AtomicUsize::new(0));
    let mut consumers = tokio::task::JoinSet::new();
    for _ in 0..1000 {
        let (stream, woken) = (fixture.hub.stream(), Arc::clone(&woken));
        stream.create(spec("a", "", 0)).unwrap();
        assert_eq!(drain(&stream).len(), 1);
        // From now on only a wake lets it look, however late its task begins.
        assert!(stream.wait().now_or_never().is_some());
        consumers.spawn(async move {
            let mut events = Vec::new();
            while events.is_empty() {
                stream.wait().await;
                events = drain(&stream);
            }
            woken.fetch_add(1, Ordering::Relaxed);
            events
        });
    }
    // The task that wakes begins, as the first one.
    tokio::task::yield_now().await;
    assert_eq!(woken.load(Ordering::Relaxed), 0);
    fixture.put(&["a"]);
    let other = tokio::spawn(async move { woken.load(Ordering::Relaxed) });
    assert!(other.await.unwrap() < 100, "it has waited for most of the consumers");
    while let Some(events) = consumers.join_next().await {
        assert_eq!(events.unwrap(), ["events 0 a@2.0"]);
    }
    waking.abort();
}

/// A stream holds one piece of history with its previous pairs, however many watchers it has.
#[test]
fn history_with_previous_pairs_is_read_once_for_all_watchers_of_a_stream() {
    let mut fixture = Fixture::new();
    let (keys, watchers) = (200, 150);
    let value = Bytes::from(vec![b'v'; 20_000]);
    for n in 0..keys {
        fixture.put_value(&[&format!("k{n:03}")], &value);
    }
    let first = fixture.hub.revision() + 1;
    for n in 0..keys {
        fixture.delete(&format!("k{n:03}"));
    }
    let stream = fixture.hub.stream();
    for _ in 0..watchers {
        stream.create(WatchSpec { prev_kv: true, ..spec("k", "l", first) }).unwrap();
    }
    let (mut events, mut most, mut pieces) = (vec![0; watchers], 0, 0);
    loop {
        match stream.next() {
            Next::Item(Item::Events { watch_id, changes, .. }) => {
                for change in changes {
                    assert!(change.previous.is_some_and(|previous| previous.len() > 20_000));
                    events[usize::try_from(watch_id).unwrap()] += 1;
                }
            }
            Next::Item(_) => {}
            Next::CatchUp => {
                stream.catch_up().unwrap();
                most = most.max(fixture.hub.held_bytes());
                pieces += 1;
            }
            Next::Wait => break,
        }
    }
    assert_eq!(events, vec![keys; watchers]);
    assert!(most < limits::WATCH_CATCH_UP_BYTES + 25_000, "{most} bytes");
    assert!(pieces < 2 * keys * 20_000 / limits::WATCH_CATCH_UP_BYTES, "{pieces} pieces");
    assert_eq!(fixture.hub.held_bytes(), 0);
}

/// What a member holds for streams that are not read is bounded, and a stream that is read gets
/// everything.
#[test]
fn streams_that_nobody_reads_hold_a_bounded_number_of_bytes() {
    let mut fixture = Fixture::new();
    let value = Bytes::from(vec![b'v'; 100_000]);
    let reader = fixture.hub.stream();
    reader.create(spec("k", "l", 0)).unwrap();
    let mut unread = Vec::new();
    let (mut most, mut seen) = (0, 0);
    for n in 0..120 {
        let stream = fixture.hub.stream();
        stream.create(spec("k", "l", 0)).unwrap();
        // In every second stream one of two watchers begins in the past.
        stream.create(spec("k", "l", if n % 2 == 0 { 0 } else { 2 })).unwrap();
        while let Next::Item(_) = stream.next() {}
        let _ = stream.catch_up();
        unread.push(stream);
        fixture.put_value(&["k1", "k2"], &value);
        most = most.max(fixture.hub.held_bytes());
        loop {
            match reader.next() {
                Next::Item(Item::Events { changes, .. }) => seen += changes.len(),
                Next::Item(_) => {}
                Next::CatchUp => reader.catch_up().unwrap(),
                Next::Wait => break,
            }
        }
        assert_eq!(seen, 2 * (n + 1));
    }
    let one_transaction = 2 * 110_000;
    assert!(most > limits::WATCH_BYTES_MAX / 2, "{most} bytes show nothing");
    let allowed = limits::WATCH_BYTES_MAX + 2 * one_transaction;
    assert!(most <= allowed + unread.len() * one_transaction / 2, "{most} bytes");
    drop((unread, reader));
    assert_eq!(fixture.hub.held_bytes(), 0);
}

/// Apply does not wait long while many watchers end, though all of them watch one key.
#[test]
fn a_stream_of_very_many_watchers_ends_quickly() {
    let mut fixture = Fixture::new();
    let stream = fixture.hub.stream();
    for n in 0..50_000 {
        stream.create(spec("a", if n % 2 == 0 { "" } else { "b" }, 0)).unwrap();
    }
    drop(stream);
    assert_eq!(fixture.hub.counts(), Counts::default());
    fixture.put(&["a"]);
}

/// The revisions of the changes that a stream has for one watcher now.
fn revisions_of(stream: &Stream, watch_id: i64) -> Vec<i64> {
    let mut revisions = Vec::new();
    loop {
        match stream.next() {
            Next::Item(Item::Events { watch_id: of, changes, .. }) if of == watch_id => {
                revisions.extend(changes.iter().map(|change| change.revision.main));
            }
            Next::Item(_) => {}
            Next::CatchUp => stream.catch_up().unwrap(),
            Next::Wait => return revisions,
        }
    }
}

/// A stream is told to read history, and until it does, a live watcher falls behind whose earlier
/// events wait in the queue.
#[test]
fn history_does_not_overtake_what_waits_in_the_queue() {
    let small = Bytes::from_static(b"v");
    let large = Bytes::from(vec![b'v'; limits::WATCH_STREAM_BYTES_MAX]);
    let many = limits::WATCH_STREAM_RESPONSES_MAX + 2;
    for (puts, value, is_replaced) in [(many, &small, false), (3, &large, false), (1, &small, true)]
    {
        let mut fixture = Fixture::new();
        fixture.put(&["old"]);
        let stream = fixture.hub.stream();
        stream.create(spec("old", "", 2)).unwrap();
        let live = stream.create(spec("a", "", 0)).unwrap();
        while let Next::Item(_) = stream.next() {}
        let first = fixture.hub.revision() + 1;
        for _ in 0..puts {
            fixture.put_value(&["a"], value);
        }
        let mut expected: Vec<i64> = (first..=fixture.hub.revision()).collect();
        if is_replaced {
            fixture.hub.replace(fixture.hub.revision());
            fixture.put(&["a"]);
            expected.push(fixture.hub.revision());
        }
        stream.catch_up().unwrap();
        assert_eq!(revisions_of(&stream, live), expected, "{puts} puts");
    }
}

/// Something is written between each read of history and the moment at which the consumer comes for
/// what was read.
#[test]
fn watchers_catch_up_while_others_write() {
    let mut fixture = Fixture::new();
    for _ in 0..5 {
        fixture.put(&["a", "b"]);
    }
    let stream = fixture.hub.stream();
    let id = stream.create(spec("a", "", 2)).unwrap();
    let mut seen = Vec::new();
    for _ in 0..3 {
        while let Next::Item(item) = stream.next() {
            if let Item::Events { changes, .. } = item {
                seen.extend(changes.iter().map(|change| change.revision.main));
            }
        }
        let piece = stream.read_piece(&ReadCheck::default()).unwrap();
        fixture.put(&["a"]);
        fixture.put(&["b"]);
        stream.take_piece(piece).unwrap();
    }
    assert_eq!(fixture.hub.counts().lagging, 0);
    seen.extend(revisions_of(&stream, id));
    let of_others = [8, 10, 12];
    let expected: Vec<i64> = (2..=12).filter(|it| !of_others.contains(it)).collect();
    assert_eq!(seen, expected);
}
