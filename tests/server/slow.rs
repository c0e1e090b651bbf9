//! Clients that do not read: they cost bounded memory, and others do not wait for them.

use std::time::Duration;

use bytes::Bytes;
use rusd::pb::watch_client::WatchClient;
use rusd::pb::watch_request::RequestUnion;
use rusd::pb::{PutRequest, RangeRequest, WatchCreateRequest, WatchRequest, WatchResponse};
use tokio::sync::mpsc::{Sender, channel};
use tonic::Streaming;
use tonic::transport::Channel;

use super::fixture::{Member, PATIENCE};

const WATCHERS: usize = 10_000;
const PUTS: usize = 60;
const VALUE_BYTES: usize = 1000;
/// Events that nobody takes would be some times this.
const GROWTH_KIB_MAX: u64 = 20 << 10;

fn create(prev_kv: bool) -> WatchRequest {
    let (key, range_end) = (Bytes::from_static(b"watched/"), Bytes::from_static(b"watched0"));
    let create = WatchCreateRequest { key, range_end, prev_kv, ..Default::default() };
    WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) }
}

async fn watch(channel: Channel) -> (Sender<WatchRequest>, Streaming<WatchResponse>) {
    let (sender, receiver) = tokio::sync::mpsc::channel(100);
    let requests = tokio_stream::wrappers::ReceiverStream::new(receiver);
    let mut client = WatchClient::new(channel).max_decoding_message_size(usize::MAX);
    // The headers of the answer come with the first response only.
    sender.send(create(true)).await.unwrap();
    let answers = client.watch(requests).await.unwrap().into_inner();
    (sender, answers)
}

async fn next(answers: &mut Streaming<WatchResponse>) -> WatchResponse {
    tokio::time::timeout(PATIENCE, answers.message()).await.unwrap().unwrap().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_watchers_that_nobody_reads_cost_little() {
    let member = Member::start();
    let (requests, mut unread) = watch(member.channel().await).await;
    assert!(next(&mut unread).await.created);
    let asking = tokio::spawn(async move {
        for _ in 1..WATCHERS {
            requests.send(create(true)).await.unwrap();
        }
        requests
    });
    for _ in 1..WATCHERS {
        assert!(next(&mut unread).await.created);
    }
    let _requests = asking.await.unwrap();

    // From here on nobody reads that stream.
    let (_others, mut read) = watch(member.channel().await).await;
    assert!(next(&mut read).await.created);
    let before = member.memory_kib();
    let mut kv = member.kv().await;
    for number in 0..PUTS {
        let key = Bytes::from(format!("watched/{}", number % 10));
        let value = Bytes::from(vec![b'v'; VALUE_BYTES]);
        let put = PutRequest { key, value, ..Default::default() };
        tokio::time::timeout(PATIENCE, kv.put(put)).await.unwrap().unwrap();
    }
    let mut events = 0;
    while events < PUTS {
        events += next(&mut read).await.events.len();
    }
    assert_eq!(events, PUTS);
    let growth = member.memory_kib().saturating_sub(before);
    assert!(growth < GROWTH_KIB_MAX, "memory has grown by {growth} KiB");

    // Whoever reads again misses nothing.
    let mut of_one = Vec::new();
    while of_one.len() < 3 {
        let answer = next(&mut unread).await;
        if answer.watch_id == 5 {
            of_one.extend(answer.events.into_iter().map(|event| event.kv.unwrap().mod_revision));
        }
    }
    assert_eq!(of_one[..3], [2, 3, 4]);
    member.serves().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_that_nobody_reads_hold_nobody_up() {
    let member = Member::start();
    let mut kv = member.kv().await;
    for number in 0..20 {
        let key = Bytes::from(format!("large/{number}"));
        let value = Bytes::from(vec![b'v'; 1_000_000]);
        kv.put(PutRequest { key, value, ..Default::default() }).await.unwrap();
    }
    let before = member.memory_kib();
    // Ten connections ask for 20 MB each, and take none of it.
    let (sender, mut asked) = channel(10);
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..10 {
        let endpoint =
            tonic::transport::Endpoint::from_shared(format!("http://{}", member.address));
        let endpoint = endpoint.unwrap().initial_stream_window_size(1000);
        let channel = endpoint.connect().await.unwrap();
        let sender = sender.clone();
        tasks.spawn(async move {
            let mut kv = rusd::pb::kv_client::KvClient::new(channel);
            let all = Bytes::from_static(b"large/");
            let request =
                RangeRequest { key: all, range_end: "large0".into(), ..Default::default() };
            let stream = kv.range_stream(request).await.unwrap();
            sender.send(()).await.unwrap();
            tokio::time::sleep(PATIENCE).await;
            drop(stream);
        });
    }
    for _ in 0..10 {
        tokio::time::timeout(PATIENCE, asked.recv()).await.unwrap().unwrap();
    }
    for _ in 0..20 {
        member.serves().await;
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    // Each may hold one piece of ten rows.
    let growth = member.memory_kib().saturating_sub(before);
    assert!(growth < 400 << 10, "memory has grown by {growth} KiB");
    tasks.abort_all();
}
