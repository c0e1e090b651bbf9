//! Loads on history: compactions in quick succession, watches and snapshots that are not read,
//! hashes and counts of all keys.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use rusd::pb::kv_client::KvClient;
use rusd::pb::maintenance_client::MaintenanceClient;
use rusd::pb::request_op::Request;
use rusd::pb::watch_client::WatchClient;
use rusd::pb::watch_request::RequestUnion;
use rusd::pb::{
    CompactionRequest, DeleteRangeRequest, HashKvRequest, PutRequest, RangeRequest, RequestOp,
    SnapshotRequest, SnapshotResponse, TxnRequest, WatchCreateRequest, WatchRequest, WatchResponse,
};
use tokio::task::JoinSet;
use tonic::transport::Channel;
use tonic::{Code, Streaming};

use super::case::Case;
use super::fixture::{Member, PATIENCE};

/// Operations per transaction, below etcd's default limit.
const OPS: usize = 100;

fn key(n: usize) -> Bytes {
    format!("load/{n:08}").into()
}

fn all() -> (Bytes, Bytes) {
    (Bytes::from("load/"), Bytes::from("load0"))
}

/// Puts keys, in transactions as large as the limits allow, and returns the revision.
async fn fill(member: &Member, keys: usize, value_bytes: usize) -> i64 {
    let mut client = KvClient::new(member.channel().await);
    let value = Bytes::from(vec![b'v'; value_bytes]);
    let at_once = (1_000_000 / (value_bytes + 100)).clamp(1, OPS);
    let mut revision = 0;
    for first in (0..keys).step_by(at_once) {
        let put = |n| {
            let put = PutRequest { key: key(n), value: value.clone(), ..Default::default() };
            RequestOp { request: Some(Request::RequestPut(put)) }
        };
        let success = (first..keys.min(first + at_once)).map(put).collect();
        let answer = client.txn(TxnRequest { success, ..Default::default() }).await.unwrap();
        revision = answer.into_inner().header.unwrap().revision;
    }
    revision
}

/// Deletes the keys one by one and returns the revision of the first deletion.
async fn delete(member: &Member, keys: usize) -> i64 {
    let mut client = KvClient::new(member.channel().await);
    let mut first = 0;
    for n in 0..keys {
        let request = DeleteRangeRequest { key: key(n), ..Default::default() };
        let answer = client.delete_range(request).await.unwrap().into_inner();
        first = if first == 0 { answer.header.unwrap().revision } else { first };
    }
    first
}

async fn snapshot(channel: Channel) -> Result<Streaming<SnapshotResponse>, tonic::Status> {
    let mut client = MaintenanceClient::new(channel);
    Ok(client.snapshot(SnapshotRequest {}).await?.into_inner())
}

/// A stream with `watchers` watchers, not read. It stays open as long as the returned sender lives.
async fn watch(
    channel: Channel,
    watchers: usize,
    start_revision: i64,
    prev_kv: bool,
) -> (Streaming<WatchResponse>, tokio::sync::mpsc::Sender<WatchRequest>) {
    let (sender, receiver) = tokio::sync::mpsc::channel(watchers);
    for _ in 0..watchers {
        let (key, range_end) = all();
        let create =
            WatchCreateRequest { key, range_end, start_revision, prev_kv, ..Default::default() };
        let request_union = Some(RequestUnion::CreateRequest(create));
        sender.send(WatchRequest { request_union }).await.unwrap();
    }
    let requests = tokio_stream::wrappers::ReceiverStream::new(receiver);
    let stream = WatchClient::new(channel).watch(requests).await.unwrap().into_inner();
    (stream, sender)
}

/// Each client compacts after each of its puts, while a snapshot is open and not read.
#[tokio::test(flavor = "multi_thread")]
async fn compactions_after_each_put() {
    let member = Member::start(&[]);
    fill(&member, 200, 100_000).await;
    let case = Case { name: "put and compact", growth_kib_max: 96 << 10, left_kib_max: 96 << 10 };
    let rounds = Arc::new(AtomicU64::new(0));
    case.run(&member, async |member, end| {
        let snapshot = snapshot(member.channel().await).await.unwrap();
        let mut clients = JoinSet::new();
        for n in 0..8 {
            let (mut client, rounds) = (KvClient::new(member.channel().await), Arc::clone(&rounds));
            clients.spawn(async move {
                let key = Bytes::from(format!("client {n}"));
                while Instant::now() < end {
                    let put = PutRequest { key: key.clone(), ..Default::default() };
                    let revision =
                        client.put(put).await.unwrap().into_inner().header.unwrap().revision;
                    // Fails if another client has compacted at a later revision.
                    let _ = client.compact(CompactionRequest { revision, physical: false }).await;
                    rounds.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        clients.join_all().await;
        snapshot
    })
    .await;
    eprintln!("  {} rounds", rounds.load(Ordering::Relaxed));
    let mut client = KvClient::new(member.channel().await);
    let put = PutRequest { key: "last".into(), ..Default::default() };
    let revision = client.put(put).await.unwrap().into_inner().header.unwrap().revision;
    let started = Instant::now();
    let physical = client.compact(CompactionRequest { revision, physical: true });
    tokio::time::timeout(PATIENCE, physical).await.unwrap().unwrap();
    eprintln!("  a physical compaction took {:?}", started.elapsed());
}

/// Physical compactions in sequence, each with one new key.
#[tokio::test(flavor = "multi_thread")]
async fn physical_compactions_one_after_the_other() {
    let member = Member::start(&[]);
    fill(&member, 1000, 100).await;
    let case =
        Case { name: "physical compactions", growth_kib_max: 32 << 10, left_kib_max: 32 << 10 };
    let rounds = Arc::new(AtomicU64::new(0));
    case.run(&member, async |member, end| {
        let mut client = KvClient::new(member.channel().await);
        while Instant::now() < end {
            let put = PutRequest { key: "a".into(), ..Default::default() };
            let revision = client.put(put).await.unwrap().into_inner().header.unwrap().revision;
            let compaction = CompactionRequest { revision, physical: true };
            client.compact(compaction).await.unwrap();
            rounds.fetch_add(1, Ordering::Relaxed);
        }
    })
    .await;
    eprintln!("  {} rounds", rounds.load(Ordering::Relaxed));
}

#[tokio::test(flavor = "multi_thread")]
async fn watchers_with_previous_pairs_that_nobody_reads() {
    let member = Member::start(&[]);
    fill(&member, 1000, 20_000).await;
    let first = delete(&member, 1000).await;
    let case = Case {
        name: "150 watchers with prev_kv, unread",
        growth_kib_max: 32 << 10,
        left_kib_max: 32 << 10,
    };
    case.run(&member, async |member, end| {
        let held = watch(member.channel().await, 150, first, true).await;
        tokio::time::sleep_until(end.into()).await;
        held
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn watch_streams_from_the_past_that_nobody_reads() {
    let member = Member::start(&[]);
    fill(&member, 2000, 20_000).await;
    let case = Case {
        name: "400 watch streams from revision 2, unread",
        // Unsent answers, history that was read for streams that do not come, and a busy debug build.
        growth_kib_max: (256 + 32 + 96) << 10,
        left_kib_max: 64 << 10,
    };
    case.run(&member, async |member, end| {
        let mut held = Vec::new();
        for _ in 0..8 {
            let channel = member.channel().await;
            for _ in 0..50 {
                held.push(watch(channel.clone(), 1, 2, true).await);
            }
        }
        tokio::time::sleep_until(end.into()).await;
        held
    })
    .await;
}

/// One small transaction over large values: the previous pairs make each response large. A client
/// takes what is small, so that the stream goes on to the response.
#[tokio::test(flavor = "multi_thread")]
async fn responses_with_large_previous_pairs_that_nobody_reads() {
    const KEYS: usize = 60;
    let member = Member::start(&[]);
    fill(&member, KEYS, 1_000_000).await;
    let revision = fill(&member, KEYS, 1).await;
    let case = Case {
        name: "40 watch streams with responses of 60 MB, unread",
        // Unsent answers, and at most three responses that are being made.
        growth_kib_max: (512 + 3 * 60 + 96) << 10,
        left_kib_max: 96 << 10,
    };
    case.run(&member, async |member, end| {
        let mut held = Vec::new();
        for _ in 0..20 {
            let channel = member.endpoint().initial_stream_window_size(100).connect().await;
            let channel = channel.unwrap();
            for _ in 0..2 {
                held.push(watch(channel.clone(), 1, revision, true).await);
            }
        }
        tokio::time::sleep_until(end.into()).await;
        held
    })
    .await;
}

/// Streams that read all of history, over and over.
#[tokio::test(flavor = "multi_thread")]
async fn watch_streams_that_read_the_past() {
    let member = Member::start(&[]);
    fill(&member, 2000, 5_000).await;
    let case = Case {
        name: "50 watch streams that read from revision 2",
        growth_kib_max: 128 << 10,
        left_kib_max: 64 << 10,
    };
    let events = Arc::new(AtomicU64::new(0));
    case.run(&member, async |member, end| {
        let mut clients = JoinSet::new();
        for _ in 0..50 {
            let (channel, events) = (member.channel().await, Arc::clone(&events));
            clients.spawn(async move {
                while Instant::now() < end {
                    let (mut stream, _requests) = watch(channel.clone(), 1, 2, false).await;
                    let mut seen = 0;
                    while seen < 2000 {
                        seen += stream.message().await.unwrap().unwrap().events.len();
                    }
                    events.fetch_add(seen as u64, Ordering::Relaxed);
                }
            });
        }
        clients.join_all().await;
    })
    .await;
    eprintln!("  {} events", events.load(Ordering::Relaxed));
}

#[tokio::test(flavor = "multi_thread")]
async fn snapshots_that_nobody_reads() {
    let member = Member::start(&[]);
    fill(&member, 200, 100_000).await;
    let case =
        Case { name: "1000 snapshots, unread", growth_kib_max: 96 << 10, left_kib_max: 64 << 10 };
    case.run(&member, async |member, end| {
        let before = member.usage().threads;
        let mut asked = JoinSet::new();
        for _ in 0..10 {
            let channel = member.channel().await;
            for _ in 0..100 {
                asked.spawn(snapshot(channel.clone()));
            }
        }
        let answers = asked.join_all().await;
        let refused: Vec<_> = answers.iter().filter_map(|answer| answer.as_ref().err()).collect();
        for status in &refused {
            // etcd sends this error with code Unknown; its client recognizes the text.
            assert_eq!(status.code(), Code::Unknown, "{status}");
            assert_eq!(status.message(), "etcdserver: too many requests");
        }
        eprintln!("  {} of {} are refused", refused.len(), answers.len());
        if std::env::var_os("HOSTILE_BINARY").is_none() {
            assert!(refused.len() > 900);
            let threads = member.usage().threads;
            assert!(threads < before + 64, "{threads} threads");
        }
        tokio::time::sleep_until(end.into()).await;
        answers
    })
    .await;
    // A snapshot that is read completes, also while unread ones hold all places.
    let held: Vec<_> = [member.channel().await; 1].into_iter().collect();
    let mut unread = Vec::new();
    for _ in 0..8 {
        unread.push(snapshot(held[0].clone()).await);
    }
    let started = Instant::now();
    let mut bytes = 0;
    'again: while bytes == 0 {
        assert!(started.elapsed() < PATIENCE);
        let Ok(mut read) = snapshot(member.channel().await).await else {
            tokio::time::sleep(Duration::from_millis(200)).await;
            continue;
        };
        let mut got = 0;
        while let Some(piece) = read.message().await.transpose() {
            match piece {
                Ok(piece) => got += piece.blob.len(),
                Err(_) => continue 'again,
            }
        }
        bytes = got;
    }
    assert!(bytes > 20_000_000, "{bytes} bytes");
}

#[tokio::test(flavor = "multi_thread")]
async fn hashes_of_history() {
    let member = Member::start(&[]);
    fill(&member, 20_000, 1000).await;
    let case = Case { name: "600 HashKV", growth_kib_max: 128 << 10, left_kib_max: 64 << 10 };
    let answered = Arc::new(AtomicU64::new(0));
    case.run(&member, async |member, end| {
        let before = member.usage().threads;
        let mut clients = JoinSet::new();
        for n in 0..600 {
            let (channel, answered) = (member.channel().await, Arc::clone(&answered));
            let first = n == 0;
            clients.spawn(async move {
                let mut client = MaintenanceClient::new(channel);
                let (mut refused, mut asked) = (0, false);
                while !asked || Instant::now() < end {
                    asked = true;
                    match client.hash_kv(HashKvRequest { revision: 0 }).await {
                        Ok(_) => drop(answered.fetch_add(1, Ordering::Relaxed)),
                        Err(status) => {
                            // etcd sends this error with code Unknown; its client recognizes the
                            // text.
                            assert_eq!(status.code(), Code::Unknown, "{status}");
                            assert_eq!(status.message(), "etcdserver: too many requests");
                            refused += 1;
                            tokio::time::sleep(Duration::from_millis(50)).await;
                        }
                    }
                    if first && refused > 1000 {
                        break;
                    }
                }
            });
        }
        clients.join_all().await;
        let threads = member.usage().threads;
        if std::env::var_os("HOSTILE_BINARY").is_none() {
            assert!(threads < before + 64, "{threads} threads");
        }
    })
    .await;
    eprintln!("  {} hashes", answered.load(Ordering::Relaxed));
}

/// Counts and small pages of all keys, while writers keep apply busy.
#[tokio::test(flavor = "multi_thread")]
async fn counts_of_everything_beside_writers() {
    let member = Member::start(&[]);
    let keys = 50_000;
    fill(&member, keys, 10).await;
    let case =
        Case { name: "counts beside writers", growth_kib_max: 192 << 10, left_kib_max: 160 << 10 };
    let counts = Arc::new(AtomicU64::new(0));
    case.run(&member, async |member, end| {
        let mut clients = JoinSet::new();
        for n in 0..4 {
            let mut client = KvClient::new(member.channel().await);
            clients.spawn(async move {
                let mut at = n;
                while Instant::now() < end {
                    let put = |n: usize| {
                        let put = PutRequest { key: key(n % keys), ..Default::default() };
                        RequestOp { request: Some(Request::RequestPut(put)) }
                    };
                    let success = (0..OPS).map(|n| put(at + n * 499)).collect();
                    at += 7919;
                    client.txn(TxnRequest { success, ..Default::default() }).await.unwrap();
                }
            });
            let (mut client, counts) = (KvClient::new(member.channel().await), Arc::clone(&counts));
            clients.spawn(async move {
                let (key, range_end) = all();
                let count = RangeRequest { key, range_end, count_only: true, ..Default::default() };
                let page = RangeRequest { count_only: false, limit: 5, ..count.clone() };
                while Instant::now() < end {
                    for request in [&count, &page] {
                        let answer = client.range(request.clone()).await.unwrap().into_inner();
                        assert_eq!(answer.count, keys as i64);
                        counts.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
        }
        clients.join_all().await;
    })
    .await;
    eprintln!("  {} counts", counts.load(Ordering::Relaxed));
}

/// Work under way for calls that were cancelled, the bystander, and the writer's rows.
const CANCELLED_KIB_MAX: u64 = 256 << 10;
/// The writer's rows, which are in memory until they are committed, and their place in the index.
const WRITTEN_KIB_MAX: u64 = 160 << 10;

/// Clients that ask for all keys, and cancel before the answer can be complete.
#[tokio::test(flavor = "multi_thread")]
async fn long_ranges_and_counts_that_are_cancelled() {
    let member = Member::start(&[]);
    let keys = 20_000;
    fill(&member, keys, 1000).await;
    let name = "long ranges and counts, cancelled";
    let case = Case { name, growth_kib_max: CANCELLED_KIB_MAX, left_kib_max: WRITTEN_KIB_MAX };
    let cancelled = Arc::new(AtomicU64::new(0));
    let (key, range_end) = all();
    let range = RangeRequest { key, range_end, ..Default::default() };
    let (count, page) = (
        RangeRequest { count_only: true, ..range.clone() },
        RangeRequest { limit: 5, ..range.clone() },
    );
    let requests = [range.clone(), count, page];
    case.run(&member, async |member, end| {
        let mut clients = JoinSet::new();
        let mut writer = KvClient::new(member.channel().await);
        clients.spawn(async move {
            let mut at = 0;
            while Instant::now() < end {
                // Puts all over the index, so that a count must look at many leaves again.
                let put = |n: usize| {
                    let put = PutRequest { key: self::key(n % keys), ..Default::default() };
                    RequestOp { request: Some(Request::RequestPut(put)) }
                };
                let success = (0..OPS).map(|n| put(at + n * 199)).collect();
                at += 7919;
                writer.txn(TxnRequest { success, ..Default::default() }).await.unwrap();
            }
        });
        for n in 0..16 {
            let client = KvClient::new(member.channel().await);
            let (requests, cancelled) = (requests.clone(), Arc::clone(&cancelled));
            clients.spawn(async move {
                for round in (0_u64..).take_while(|_| Instant::now() < end) {
                    let patience = Duration::from_millis(1 + (n + round) % 7);
                    let mut calls = JoinSet::new();
                    for request in requests.clone() {
                        let mut client = client.clone().max_decoding_message_size(usize::MAX);
                        calls.spawn(async move {
                            let call = client.range(request);
                            match tokio::time::timeout(patience, call).await {
                                Ok(Err(status)) => {
                                    // etcd sends this error with code Unknown; its client
                                    // recognizes the text.
                                    assert_eq!(status.message(), "etcdserver: too many requests");
                                    0
                                }
                                Ok(Ok(_)) => 0,
                                Err(_) => 1,
                            }
                        });
                    }
                    let gone: u64 = calls.join_all().await.into_iter().sum();
                    cancelled.fetch_add(gone, Ordering::Relaxed);
                }
            });
        }
        clients.join_all().await;
    })
    .await;
    eprintln!("  {} calls were cancelled", cancelled.load(Ordering::Relaxed));
    assert!(cancelled.load(Ordering::Relaxed) > 0, "nothing was cancelled");
    // Cancelled calls have given back their turns.
    let client = KvClient::new(member.channel().await);
    let mut client = client.max_decoding_message_size(usize::MAX);
    let answer = tokio::time::timeout(PATIENCE, client.range(range)).await.unwrap().unwrap();
    assert_eq!(answer.into_inner().kvs.len(), keys);
}
