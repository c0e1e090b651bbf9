//! Shared by the tests of this room: a cluster of three members on ports of their own, each with a
//! state machine that is a list.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::Duration;

use bytes::Bytes;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use prost::Message as _;
use tokio::net::TcpListener;
use tokio::task::AbortHandle;

use super::*;
use crate::clock::{Clock, SystemClock};
use crate::limits;
use crate::raft::log::{Options, SystemDisk};
use crate::raft::{
    Bootstrap, Committed, ConfState, Config, Entry, Error, Handle, Message, MessageType, Observer,
    Raft, Role, SnapshotPlace, Surroundings, Transport, announce, exists, start,
};
use crate::supervise::Supervisor;

mod posts;
mod snapshots;
mod strangers;
mod streams;

struct Silent;

impl Observer for Silent {
    fn fatal(&self, error: &Error) {
        panic!("{error}");
    }
}

/// A member of the tests' cluster without a URL.
fn member_config(id: u64) -> PeersConfig {
    PeersConfig {
        id,
        cluster_id: 9,
        urls: Vec::new(),
        version: "3.7.1".into(),
        read_timeout: limits::PEER_READ_TIMEOUT,
    }
}

/// A member with a port of its own, whose state machine is a list.
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

/// Reaches nobody.
struct NoDial;

impl Dial for NoDial {
    fn dial<'a>(&'a self, _: &'a http::Uri) -> Dialing<'a> {
        Box::pin(async { Err(std::io::ErrorKind::ConnectionRefused.into()) })
    }
}

struct Cluster {
    _temp: tempfile::TempDir,
    runtime: tokio::runtime::Runtime,
    root: PathBuf,
    addresses: Vec<SocketAddr>,
    members: Vec<Option<Member>>,
    /// The place of the member that reaches nobody, though everybody reaches it.
    mute: Option<usize>,
}

impl Cluster {
    fn new() -> Self {
        Self::with_mute(None)
    }

    fn with_mute(mute: Option<usize>) -> Self {
        let temp = tempfile::tempdir().unwrap();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let bind = || std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let root = temp.path().to_path_buf();
        let addresses = vec![bind(), bind(), bind()];
        let mut cluster = Self { _temp: temp, runtime, root, addresses, members: Vec::new(), mute };
        cluster.members = (0..3).map(|at| Some(cluster.start(at))).collect();
        cluster
    }

    fn start(&self, at: usize) -> Member {
        let id = at as u64 + 1;
        let dir = self.root.join(format!("{id}"));
        let urls = vec![format!("http://{}", self.addresses[at])];
        let config = PeersConfig { urls, ..member_config(id) };
        let dial: Arc<dyn Dial> = match self.mute == Some(at) {
            true => Arc::new(NoDial),
            false => Arc::new(TcpDial::default()),
        };
        let handle = self.runtime.handle().clone();
        let peers = Peers::new(config, dial, handle, Supervisor::default());
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
        let is_new = !exists(&SystemDisk, &dir.join("wal")).unwrap();
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

    /// Lets members apply until `holds`.
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

fn peers_of(config: PeersConfig, runtime: &tokio::runtime::Runtime) -> Arc<Peers> {
    let dial = Arc::new(TcpDial::default());
    Peers::new(config, dial, runtime.handle().clone(), Supervisor::default())
}
