use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, sync_channel};

use bytes::Bytes;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

use super::*;
use crate::clock::{Clock, SystemClock};
use crate::raft::log::{Options, SystemDisk};
use crate::raft::{
    Bootstrap, Committed, ConfState, Config, Error, Observer, Raft, Role, SnapshotPlace,
    Surroundings, announce, exists, start,
};

mod snapshots;

struct Silent;

impl Observer for Silent {
    fn fatal(&self, error: &Error) {
        panic!("{error}");
    }
}

/// A member on a port of its own, with a state machine that is a list.
struct Member {
    id: u64,
    handle: Handle,
    raft: Option<Raft>,
    peers: Arc<Peers>,
    server: AbortHandle,
    committed: Receiver<Vec<Committed>>,
    applied: Vec<Bytes>,
    last: u64,
}

struct NoEvents;

impl PeerEvents for NoEvents {
    fn unsent(&self, _: &Entry) {}
    fn removed(&self) {}
    fn admits(&self, _: &Entry) -> bool {
        true
    }
}

struct Cluster {
    _temp: tempfile::TempDir,
    runtime: tokio::runtime::Runtime,
    root: PathBuf,
    addresses: Vec<SocketAddr>,
    members: Vec<Option<Member>>,
}

impl Cluster {
    fn new() -> Self {
        let temp = tempfile::tempdir().unwrap();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let bind = || std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let root = temp.path().to_path_buf();
        let addresses = vec![bind(), bind(), bind()];
        let mut cluster = Self { _temp: temp, runtime, root, addresses, members: Vec::new() };
        cluster.members = (0..3).map(|at| Some(cluster.start(at))).collect();
        cluster
    }

    fn start(&self, at: usize) -> Member {
        let id = at as u64 + 1;
        let dir = self.root.join(format!("{id}"));
        let config = PeersConfig {
            id,
            cluster_id: 9,
            urls: vec![format!("http://{}", self.addresses[at])],
            version: "3.7.1".into(),
        };
        let peers = peers_of(config, &self.runtime);
        for (other, address) in self.addresses.iter().enumerate() {
            peers.update(other as u64 + 1, vec![format!("http://{address}")]);
        }
        let server = self.runtime.spawn(serve(self.addresses[at], Arc::clone(&peers)));
        let (applier, committed) = sync_channel(64);
        let surroundings = Surroundings {
            clock: Arc::new(SystemClock::new()),
            disk: Arc::new(SystemDisk),
            transport: Arc::clone(&peers) as Arc<dyn Transport>,
            observer: Arc::new(Silent),
            applier,
            supervisor: Supervisor::default(),
        };
        let members = (1..=3).map(|id| (id, Bytes::from_static(b"{}"))).collect();
        let bootstrap = Bootstrap { members };
        let is_new = !exists(&SystemDisk, &dir.join("wal"));
        let (handle, raft) =
            start(config_of(id, &dir), surroundings, is_new.then_some(&bootstrap)).unwrap();
        peers.start(handle.clone(), Arc::new(NoEvents));
        Member {
            id,
            handle,
            raft: Some(raft),
            peers,
            server: server.abort_handle(),
            committed,
            applied: Vec::new(),
            last: 0,
        }
    }

    fn stop(&mut self, at: usize) {
        if let Some(mut member) = self.members[at].take() {
            member.raft.take().unwrap().stop();
            member.peers.stop();
            member.server.abort();
        }
    }

    fn running(&mut self) -> impl Iterator<Item = &mut Member> {
        self.members.iter_mut().flatten()
    }

    /// Lets members apply until something holds.
    fn until(&mut self, what: &str, mut holds: impl FnMut(&mut Self) -> bool) {
        let clock = SystemClock::new();
        while !holds(self) {
            assert!(clock.now() < Duration::from_secs(60), "not within a minute: {what}");
            for member in self.running() {
                member.apply();
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn elect(&mut self) -> usize {
        let mut leader = 0;
        self.until("a leader", |cluster| {
            let leads = |member: &mut Member| member.handle.status().role == Role::Leader;
            let found = cluster.running().find_map(|member| leads(member).then_some(member.id));
            leader = found.unwrap_or(0) as usize;
            leader > 0
        });
        leader - 1
    }

    fn propose(&mut self, at: usize, number: usize) {
        let member = self.members[at].as_ref().unwrap();
        member.handle.propose(0, Bytes::from(format!("value {number}"))).unwrap();
    }

    fn expect(&mut self, count: usize) {
        self.until("everything applied", |cluster| {
            cluster.running().all(|member| member.applied.len() >= count)
        });
        for member in self.running() {
            let values = (0..count).map(|number| Bytes::from(format!("value {number}")));
            assert!(values.eq(member.applied.iter().cloned()), "member {}", member.id);
        }
    }
}

impl Member {
    fn apply(&mut self) {
        while let Ok(batch) = self.committed.try_recv() {
            for committed in batch {
                self.last = committed.index();
                match committed {
                    Committed::Normal { data, .. } if data.is_empty() => {}
                    Committed::Normal { data, .. } => self.applied.push(data),
                    Committed::ConfChange { index, change, .. } => {
                        self.handle.apply_conf_change(index, Some(change)).unwrap();
                    }
                    Committed::Snapshot { .. } => panic!("nobody sends snapshots here"),
                }
            }
            self.handle.applied(self.last);
        }
    }
}

fn config_of(id: u64, dir: &Path) -> Config {
    Config {
        id,
        cluster_id: 9,
        dir: dir.join("wal"),
        heartbeat_interval: Duration::from_millis(20),
        election_timeout: Duration::from_millis(200),
        pre_vote: true,
        applied: 0,
        applied_term: 0,
        conf_state: ConfState::default(),
        snapshot_count: 10_000,
        catch_up_entries: 1000,
        log: Options { segment_bytes: 1 << 20, fill_ahead: false },
    }
}

async fn serve(address: SocketAddr, peers: Arc<Peers>) {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.set_reuseaddr(true).unwrap();
    socket.bind(address).unwrap();
    let listener: TcpListener = socket.listen(64).unwrap();
    let mut connections = tokio::task::JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let peers = Arc::clone(&peers);
        let answer = service_fn(move |request| {
            let peers = Arc::clone(&peers);
            async move { Ok::<_, std::convert::Infallible>(peers.answer(request).await) }
        });
        connections.spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), answer));
    }
}

#[test]
fn members_replicate_over_sockets_and_survive_the_loss_of_one() {
    let mut cluster = Cluster::new();
    let leader = cluster.elect();
    let mut count = 0;
    // From the leader, and forwarded by a follower: one after the other, for the order's sake.
    for at in [leader, (leader + 1) % 3] {
        for _ in 0..100 {
            cluster.propose(at, count);
            count += 1;
        }
        cluster.expect(count);
    }
    let (reply, answer) = sync_channel(1);
    let follower = cluster.members[(leader + 2) % 3].as_ref().unwrap();
    follower.handle.read_index(move |outcome| reply.send(outcome).unwrap());
    let index = answer.recv_timeout(Duration::from_secs(20)).unwrap().unwrap();
    assert!(index >= 203, "{index}");

    cluster.stop(leader);
    let second = cluster.elect();
    assert_ne!(second, leader);
    for _ in 0..100 {
        cluster.propose(second, count);
        count += 1;
    }
    cluster.expect(count);
    cluster.members[leader] = Some(cluster.start(leader));
    cluster.expect(count);
}

fn peers_of(config: PeersConfig, runtime: &tokio::runtime::Runtime) -> Arc<Peers> {
    let dial = Arc::new(TcpDial::default());
    Peers::new(config, dial, runtime.handle().clone(), Supervisor::default())
}

#[test]
fn strangers_get_no_stream() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let config = PeersConfig { id: 1, cluster_id: 9, urls: Vec::new(), version: "3.7.1".into() };
    let peers = peers_of(config, &runtime);
    peers.update(2, Vec::new());
    peers.remove(3);
    let asking = PeersConfig { id: 2, cluster_id: 9, urls: Vec::new(), version: "3.7.1".into() };
    let ask = |path: &str, change: &dyn Fn(&mut http::HeaderMap)| {
        let mut request =
            http::Request::get(path).body(http_body_util::Empty::<Bytes>::new()).unwrap();
        *request.headers_mut() = answer::headers(&asking, Some(1)).unwrap();
        change(request.headers_mut());
        runtime.block_on(peers.answer(request)).status().as_u16()
    };
    let as_is = |_: &mut http::HeaderMap| {};
    assert_eq!(ask("/raft/stream/message/2", &as_is), 200);
    assert_eq!(ask("/raft/stream/msgapp/2", &as_is), 200);
    assert_eq!(ask("/raft/stream/message/7", &as_is), 404);
    assert_eq!(ask("/raft/stream/message/3", &as_is), 410);
    assert_eq!(ask("/raft/stream/other/2", &as_is), 404);
    assert_eq!(ask("/raft/stream/message/2/x", &as_is), 404);
    assert_eq!(ask("/raft/probing", &as_is), 200);
    assert_eq!(ask("/raft", &as_is), 405);
    let set = |name: &'static str, value: &'static str| {
        move |headers: &mut http::HeaderMap| {
            headers.insert(name, http::HeaderValue::from_static(value));
        }
    };
    assert_eq!(ask("/raft/stream/message/2", &set("x-etcd-cluster-id", "8")), 412);
    assert_eq!(ask("/raft/stream/message/2", &set("x-raft-to", "5")), 412);
    let etcd = |headers: &mut http::HeaderMap| {
        headers.remove("x-rusd-version");
    };
    assert_eq!(ask("/raft/stream/message/2", &etcd), 412);
    // Who is behind does not know of everybody; one that says where it is found is believed.
    assert_eq!(ask("/raft/stream/message/7", &as_is), 404);
    let reachable = set("x-peerurls", "http://127.0.0.1:1");
    assert_eq!(ask("/raft/stream/message/7", &reachable), 404);
    assert_eq!(ask("/raft/stream/message/7", &as_is), 200);
    assert_eq!(ask("/raft/stream/message/3", &reachable), 410);
    assert_eq!(ask("/raft/stream/message/3", &as_is), 410);
}

#[test]
fn strangers_that_call_are_dialled_seldom() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let config = PeersConfig { id: 1, cluster_id: 9, urls: Vec::new(), version: "3.7.1".into() };
    let peers = peers_of(config, &runtime);
    let asking = PeersConfig { id: 2, cluster_id: 9, urls: Vec::new(), version: "3.7.1".into() };
    let began = crate::clock::instant();
    let call = |id: u64, urls: &str| {
        let path = format!("/raft/stream/message/{id:x}");
        let body = http_body_util::Empty::<Bytes>::new();
        let mut request = http::Request::get(path).body(body).unwrap();
        *request.headers_mut() = answer::headers(&asking, Some(1)).unwrap();
        request.headers_mut().insert("x-peerurls", http::HeaderValue::from_str(urls).unwrap());
        assert_eq!(runtime.block_on(peers.answer(request)).status(), 404);
    };
    call(99, &"http://127.0.0.1:1,".repeat(limits::PEER_REMEMBERED_URLS_MAX + 1));
    assert!(peers.peer(99).is_none(), "nobody has so many URLs");
    (100..228).for_each(|id| call(id, "http://127.0.0.1:1"));
    let believed = (100..228).filter(|id| peers.peer(*id).is_some()).count();
    let seconds = began.elapsed().as_secs() as usize;
    assert!((1..=seconds + 1).contains(&believed), "{believed} in {seconds} s");
    // One that the log tells of is not forgotten for its silence.
    peers.update(100, Vec::new());
    (100..228).for_each(|id| peers.forget(id));
    let left: Vec<u64> = (100..228).filter(|id| peers.peer(*id).is_some()).collect();
    assert_eq!(left, [100]);
}

/// A body that never comes.
struct NeverComes;

impl http_body::Body for NeverComes {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<http_body::Frame<Bytes>, Self::Error>>> {
        std::task::Poll::Pending
    }
}

#[test]
fn messages_that_do_not_end_are_few_and_small() {
    use futures_util::FutureExt as _;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let config = PeersConfig { id: 1, cluster_id: 9, urls: Vec::new(), version: "3.7.1".into() };
    let peers = peers_of(config, &runtime);
    let asking = PeersConfig { id: 2, cluster_id: 9, urls: Vec::new(), version: "3.7.1".into() };
    let headers = answer::headers(&asking, Some(1)).unwrap();
    let post = |bytes: usize| {
        let body = http_body_util::Full::new(Bytes::from(vec![0; bytes]));
        let mut request = http::Request::post("/raft").body(body).unwrap();
        *request.headers_mut() = headers.clone();
        request
    };
    runtime.block_on(async {
        let large = peers.answer(post(limits::PEER_POST_BYTES_MAX + 1)).await;
        assert_eq!(large.status(), 400);
        let mut held: Vec<_> = (0..limits::PEER_POSTS_MAX)
            .map(|_| {
                let mut request = http::Request::post("/raft").body(NeverComes).unwrap();
                *request.headers_mut() = headers.clone();
                Box::pin(peers.answer(request))
            })
            .collect();
        assert!(held.iter_mut().all(|answer| answer.now_or_never().is_none()));
        assert_eq!(peers.answer(post(1)).await.status(), 503);
        drop(held);
        assert_ne!(peers.answer(post(1)).await.status(), 503);
    });
}

/// A state whose file takes its first bytes only when it is let.
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

/// A body that goes on after its first bytes, but not yet.
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
    // Once the first has ended there is room for another.
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

#[test]
fn a_peer_that_takes_nothing_costs_no_more_than_its_queue() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let _context = runtime.enter();
    let of = |id| PeersConfig { id, cluster_id: 9, urls: Vec::new(), version: "3.7.1".into() };
    let peers = peers_of(of(1), &runtime);
    peers.update(2, Vec::new());
    let path = "/raft/stream/msgapp/2";
    let mut request = http::Request::get(path).body(http_body_util::Empty::<Bytes>::new()).unwrap();
    *request.headers_mut() = answer::headers(&of(2), Some(1)).unwrap();
    // The peer asks for the stream, and then reads nothing of it.
    let hung = runtime.block_on(peers.answer(request));
    assert_eq!(hung.status(), 200);
    let peer = peers.peer(2).unwrap();
    let fill = |bytes: usize| {
        let entry = Entry { data: vec![0; bytes].into(), ..Entry::default() };
        let mut message = Message { to: 2, from: 1, entries: vec![entry], ..Message::default() };
        message.set_msg_type(MessageType::MsgAppend);
        (0..2 * limits::PEER_QUEUE_MAX).filter(|_| peer.send(message.clone()).is_none()).count()
    };
    let large = fill(1 << 20);
    assert!(0 < large && large << 20 <= limits::PEER_QUEUE_BYTES_MAX, "{large}");
    let small = fill(1);
    assert!(large + small <= limits::PEER_QUEUE_MAX, "{large} and {small}");
    drop(hung);
    assert_eq!(fill(1), 0, "nobody holds the stream");
}

#[tokio::test]
async fn a_peer_is_dialled_from_the_address_that_was_chosen() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url: http::Uri = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
    for local in [None, Some([127, 0, 0, 3].into())] {
        let dial = TcpDial { local };
        let (dialled, accepted) = tokio::join!(dial.dial(&url), listener.accept());
        dialled.map(drop).unwrap();
        let expected = local.unwrap_or([127, 0, 0, 1].into());
        assert_eq!(accepted.unwrap().1.ip(), expected);
    }
}
