//! Snapshots that arrive slowly, damaged or twice, and the choice of the URL to send one to.

use std::convert::Infallible;
use std::io;
use std::pin::Pin;
use std::sync::atomic::AtomicU64;
use std::task::{Context, Poll, ready};

use futures_util::FutureExt as _;
use http::StatusCode;
use http_body::{Body, Frame, SizeHint};
use http_body_util::{Full, StreamBody};
use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpSocket;
use tokio::time::{Sleep, sleep, timeout};

use super::super::snapshot::arriving::Arriving;
use super::*;

/// A state that counts the calls of its functions.
#[derive(Default)]
struct State {
    received: AtomicUsize,
    opened: AtomicUsize,
    /// Held by a test to make `open` wait.
    gate: Mutex<()>,
    /// Bytes that were asked for when there was no room.
    refused_bytes: AtomicU64,
}

/// More than any disk has.
const HUGE: u64 = 1 << 40;

impl Snapshots for State {
    fn open(&self) -> io::Result<Box<dyn OutgoingSnapshot>> {
        self.opened.fetch_add(1, Ordering::SeqCst);
        drop(self.gate.lock());
        Ok(Box::new(Empty(place())))
    }

    fn receive(&self, _: SnapshotPlace) -> io::Result<Box<dyn IncomingSnapshot>> {
        self.received.fetch_add(1, Ordering::SeqCst);
        Ok(Box::new(Refused))
    }

    fn has_room(&self, bytes: u64) -> io::Result<()> {
        if bytes < HUGE / 2 {
            return Ok(());
        }
        self.refused_bytes.store(bytes, Ordering::SeqCst);
        Err(io::Error::new(io::ErrorKind::StorageFull, "no room"))
    }
}

struct Empty(SnapshotPlace);

impl OutgoingSnapshot for Empty {
    fn place(&self) -> &SnapshotPlace {
        &self.0
    }

    fn bytes(&self) -> u64 {
        0
    }

    fn next_piece(&mut self) -> io::Result<Option<Bytes>> {
        Ok(None)
    }
}

struct Refused;

impl IncomingSnapshot for Refused {
    fn write(&mut self, _: &[u8]) -> io::Result<()> {
        Ok(())
    }

    fn finish(self: Box<Self>, _: [u8; DIGEST_BYTES]) -> io::Result<()> {
        Err(io::ErrorKind::InvalidData.into())
    }
}

/// A body of a known length that comes byte by byte.
struct Dripping {
    left: Bytes,
    every: Duration,
    pause: Pin<Box<Sleep>>,
}

impl Dripping {
    fn new(left: Bytes, every: Duration) -> Self {
        Self { left, every, pause: Box::pin(sleep(every)) }
    }
}

impl Body for Dripping {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        ready!(self.pause.as_mut().poll(context));
        self.pause = Box::pin(sleep(self.every));
        let bytes = self.left.len().min(1);
        let first = self.left.split_to(bytes);
        Poll::Ready((!first.is_empty()).then(|| Ok(Frame::data(first))))
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left.len() as u64)
    }
}

fn place() -> SnapshotPlace {
    let conf_state = ConfState { voters: vec![1, 2, 3], ..ConfState::default() };
    SnapshotPlace { index: 1000, term: 1000, conf_state }
}

fn message(from: u64, to: u64) -> Message {
    let mut message = Message { to, from, term: place().term, ..Message::default() };
    message.set_msg_type(MessageType::MsgSnapshot);
    announce(&mut message, &place()).unwrap();
    message
}

/// The headers and the body of a snapshot that member 2 offers to member 1.
fn offer() -> (http::HeaderMap, Bytes) {
    let message = message(2, 1).encode_to_vec();
    let digest = format!("{:x}", Sha256::digest(&message));
    let mut headers = http::HeaderMap::new();
    headers.insert("x-rusd-snapshot-digest", digest.parse().unwrap());
    let mut body = (message.len() as u64).to_be_bytes().to_vec();
    body.extend_from_slice(&message);
    body.extend_from_slice(&[7; 1000]);
    (headers, body.into())
}

/// A member of a cluster that receives snapshots.
fn receiver() -> (Cluster, Arc<Peers>, Arc<State>) {
    let cluster = Cluster::new();
    let state = Arc::new(State::default());
    let peers = Arc::clone(&cluster.members[0].as_ref().unwrap().peers);
    peers.serve_snapshots(Arc::clone(&state) as Arc<dyn Snapshots>);
    (cluster, peers, state)
}

/// A sole member that sends snapshots to member 2, and its runtime.
fn sender() -> (tokio::runtime::Runtime, Arc<Peers>, Arc<State>) {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    let runtime = builder.worker_threads(2).enable_all().build().unwrap();
    let config = member_config(1);
    let peers = peers_of(config, &runtime);
    let state = Arc::new(State::default());
    peers.serve_snapshots(Arc::clone(&state) as Arc<dyn Snapshots>);
    (runtime, peers, state)
}

fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let clock = SystemClock::new();
    while !holds() {
        assert!(clock.now() < Duration::from_secs(60), "not within a minute: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn a_snapshot_without_its_length_is_refused() {
    let (cluster, peers, state) = receiver();
    let (headers, body) = offer();
    let chunks = [Ok::<_, Infallible>(Frame::data(body.clone()))];
    let chunked = StreamBody::new(futures_util::stream::iter(chunks));
    let taken = cluster.runtime.block_on(peers.take_snapshot(&headers, chunked));
    assert_eq!(taken.unwrap_err().0, 411);
    assert_eq!(state.received.load(Ordering::SeqCst), 0, "nothing is begun");
    let taken = cluster.runtime.block_on(peers.take_snapshot(&headers, Full::new(body)));
    assert_eq!(taken.unwrap_err().0, 500, "one with its length is looked at");
    assert_eq!(state.received.load(Ordering::SeqCst), 1);
}

/// A body that says how long it is and does not end before.
struct Endless {
    first: Bytes,
    pieces: Arc<AtomicUsize>,
}

impl Body for Endless {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.pieces.fetch_add(1, Ordering::SeqCst);
        let first = std::mem::replace(&mut self.first, Bytes::from_static(&[7; 65536]));
        Poll::Ready(Some(Ok(Frame::data(first))))
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(HUGE)
    }
}

#[test]
fn a_snapshot_that_no_disk_has_room_for_is_refused_before_its_file() {
    let (cluster, peers, state) = receiver();
    let (headers, first) = offer();
    let pieces = Arc::new(AtomicUsize::new(0));
    let body = Endless { first, pieces: Arc::clone(&pieces) };
    let taken = cluster.runtime.block_on(async {
        timeout(Duration::from_secs(60), peers.take_snapshot(&headers, body)).await.unwrap()
    });
    assert_eq!(taken, Err((StatusCode::INSUFFICIENT_STORAGE, "no room".into())));
    let asked = state.refused_bytes.load(Ordering::SeqCst);
    assert!((HUGE - 4096..=HUGE).contains(&asked), "room for {asked} bytes was asked for");
    assert_eq!(state.received.load(Ordering::SeqCst), 0, "nothing is written");
    assert_eq!(pieces.load(Ordering::SeqCst), 1, "what comes after its message is not read");
}

#[test]
fn a_snapshot_that_has_not_begun_keeps_no_other_out() {
    let (cluster, peers, state) = receiver();
    let (headers, body) = offer();
    cluster.runtime.block_on(async {
        let slow = Dripping::new(body.clone(), Duration::from_secs(3600));
        let mut slow = Box::pin(peers.take_snapshot(&headers, slow));
        assert!((&mut slow).now_or_never().is_none());
        let taken = peers.take_snapshot(&headers, Full::new(body)).await;
        assert_eq!(taken.unwrap_err().0, 500, "it is looked at");
    });
    assert_eq!(state.received.load(Ordering::SeqCst), 1);
}

#[test]
fn a_snapshots_message_has_one_time_limit() {
    let (cluster, peers, _) = receiver();
    let (headers, _) = offer();
    // A message of 64 KiB, which would take two hours to arrive.
    let mut body = (64_u64 << 10).to_be_bytes().to_vec();
    body.resize(64 << 10, 0);
    cluster.runtime.block_on(async {
        let slow = Dripping::new(body.into(), Duration::from_millis(100));
        let taken = timeout(Duration::from_secs(60), peers.take_snapshot(&headers, slow)).await;
        assert_eq!(taken.expect("it is waited for without an end").unwrap_err().0, 400);
    });
}

#[test]
fn a_snapshot_takes_the_next_url_after_one_that_fails() {
    let (runtime, peers, _) = sender();
    // No socket listens at the first URL, the second hangs up, the third belongs to a stranger.
    let closed = TcpSocket::new_v4().unwrap();
    closed.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listen = || runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
    let (silent, strange, good) = (listen(), listen(), listen());
    let mut addresses = vec![closed.local_addr().unwrap()];
    addresses.extend([&silent, &strange, &good].map(|at| at.local_addr().unwrap()));
    peers.update(2, addresses.iter().map(|address| format!("http://{address}")).collect());
    runtime.spawn(async move {
        loop {
            drop(silent.accept().await.unwrap());
        }
    });
    runtime.spawn(async move {
        loop {
            let (mut stream, _) = strange.accept().await.unwrap();
            let refusal = b"HTTP/1.1 412 Precondition Failed\r\ncontent-length: 0\r\n\r\n";
            let _ = stream.read(&mut [0; 4096]).await;
            let _ = stream.write_all(refusal).await;
        }
    });
    let reached = runtime.spawn(async move { good.accept().await.map(drop) });
    until("the snapshot comes to the last URL", || {
        Transport::send(&*peers, vec![message(1, 2)]);
        reached.is_finished()
    });
    runtime.block_on(reached).unwrap().unwrap();
}

#[test]
fn a_peer_with_other_urls_gets_no_second_snapshot_beside_the_first() {
    let (_runtime, peers, state) = sender();
    let send = || Transport::send(&*peers, vec![message(1, 2)]);
    let opened = || state.opened.load(Ordering::SeqCst);
    peers.update(2, vec!["http://127.0.0.1:1".into()]);
    let gate = state.gate.lock();
    send();
    until("the first is begun", || opened() == 1);
    peers.update(2, vec!["http://127.0.0.1:2".into()]);
    send();
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(opened(), 1, "a second is begun");
    // Once the first has ended, another may be sent.
    drop(gate);
    until("another is begun", || {
        send();
        opened() == 2
    });
}

#[tokio::test]
async fn a_snapshot_that_comes_too_slowly_ends() {
    let body = || Dripping::new(vec![0; 1000].into(), Duration::ZERO);
    let mut arriving = Arriving::new(body());
    assert_eq!(arriving.next().await.unwrap().unwrap().len(), 1);
    // After the first minute, the rate counts.
    arriving = Arriving::waited(body(), limits::SNAPSHOT_STALL_MAX);
    arriving.next().await.unwrap();
    arriving = Arriving::waited(body(), limits::SNAPSHOT_STALL_MAX + Duration::from_secs(2));
    arriving.next().await.unwrap_err();
}

/// A state whose file waits before it takes its first bytes.
#[derive(Default)]
struct SlowFile {
    begun: AtomicUsize,
    open: AtomicUsize,
    gate: parking_lot::Mutex<()>,
}

struct Incoming(Arc<SlowFile>);

impl Snapshots for Arc<SlowFile> {
    fn open(&self) -> std::io::Result<Box<dyn OutgoingSnapshot>> {
        Err(std::io::ErrorKind::Unsupported.into())
    }

    fn receive(&self, _: SnapshotPlace) -> std::io::Result<Box<dyn IncomingSnapshot>> {
        self.begun.fetch_add(1, Ordering::SeqCst);
        assert_eq!(self.open.fetch_add(1, Ordering::SeqCst), 0, "two write one file");
        Ok(Box::new(Incoming(Arc::clone(self))))
    }
}

impl IncomingSnapshot for Incoming {
    fn write(&mut self, _: &[u8]) -> std::io::Result<()> {
        drop(self.0.gate.lock());
        Ok(())
    }

    fn finish(self: Box<Self>, _: [u8; 32]) -> std::io::Result<()> {
        Err(std::io::ErrorKind::InvalidData.into())
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::SeqCst);
    }
}

/// A body that stops after its first bytes without an end.
struct Begun(Option<Bytes>);

impl http_body::Body for Begun {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<http_body::Frame<Bytes>, Self::Error>>> {
        match self.0.take() {
            Some(bytes) => std::task::Poll::Ready(Some(Ok(http_body::Frame::data(bytes)))),
            None => std::task::Poll::Pending,
        }
    }

    fn size_hint(&self) -> http_body::SizeHint {
        http_body::SizeHint::with_exact(10_000)
    }
}

#[test]
fn a_snapshot_whose_sender_went_away_keeps_the_next_from_its_file() {
    let mut cluster = Cluster::new();
    cluster.elect();
    let file = Arc::new(SlowFile::default());
    let peers = Arc::clone(&cluster.members[0].as_ref().unwrap().peers);
    peers.serve_snapshots(Arc::new(Arc::clone(&file)));
    let conf_state = ConfState { voters: vec![1, 2, 3], ..ConfState::default() };
    let mut message = Message { to: 1, from: 2, term: 1000, ..Message::default() };
    message.set_msg_type(MessageType::MsgSnapshot);
    announce(&mut message, &SnapshotPlace { index: 1000, term: 1000, conf_state }).unwrap();
    let message = prost::Message::encode_to_vec(&message);
    let digest = format!("{:x}", <sha2::Sha256 as sha2::Digest>::digest(&message));
    let mut headers = http::HeaderMap::new();
    headers.insert("x-rusd-snapshot-digest", digest.parse().unwrap());
    let mut body = (message.len() as u64).to_be_bytes().to_vec();
    body.extend_from_slice(&message);
    body.extend_from_slice(&[7; 1000]);
    let send = || {
        let (peers, headers) = (Arc::clone(&peers), headers.clone());
        let body = Begun(Some(body.clone().into()));
        cluster.runtime.spawn(async move { peers.take_snapshot(&headers, body).await })
    };
    let until = |what: &str, holds: &dyn Fn() -> bool| {
        let clock = SystemClock::new();
        while !holds() {
            assert!(clock.now() < Duration::from_secs(60), "not within a minute: {what}");
            std::thread::sleep(Duration::from_millis(5));
        }
    };
    let begun = |count: usize| file.begun.load(Ordering::SeqCst) == count;
    let gate = file.gate.lock();
    let first = send();
    until("the first is received", &|| begun(1));
    first.abort();
    assert!(cluster.runtime.block_on(first).unwrap_err().is_cancelled());
    let (status, why) = cluster.runtime.block_on(send()).unwrap().unwrap_err();
    assert_eq!((status.as_u16(), &*why), (503, "another snapshot is being received"));
    assert!(begun(1));
    // Once the first has ended, another may be received.
    drop(gate);
    until("the first ends", &|| file.open.load(Ordering::SeqCst) == 0);
    let mut next = send();
    let clock = SystemClock::new();
    while !begun(2) {
        assert!(clock.now() < Duration::from_secs(60), "the next is not received");
        if next.is_finished() {
            next = send();
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    next.abort();
}
