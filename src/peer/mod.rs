//! What goes between members: etcd's peer protocol below `/raft`, on HTTP/1.1.
//!
//! ```text
//!   us                                                      a peer
//!   Transport::send ─► queue ─► body of an endless answer ─► its reader ─► its raft
//!                               (it dialed: GET /raft/stream/msgapp/{its id}
//!                                           GET /raft/stream/message/{its id})
//!   our raft ◄─ our reader ◄─ (we dialed)
//! ```
//!
//! The receiver dials. A peer holds two streams of ours: entries go down `msgapp`, everything else
//! down `message`, so that a heartbeat does not wait behind a megabyte. Queues are bounded; what
//! does not fit, or finds no stream, is dropped and the peer reported unreachable: raft repeats
//! what matters. Both ends of a silent link notice: the sender puts a sign of life into each stream
//! and the reader hangs up without one.
//!
//! A member that is too far behind for the log gets a snapshot by a request of its own. Another, now
//! and then, measures the way to each peer and back.
//!
//! Caveats: until it is proven that this member applies every request
//! just as etcd does, it neither reads from nor answers members that do not say that they are rusd.

mod answer;
mod ask;
mod dial;
mod digest;
mod frame;
mod pace;
mod probe;
mod snapshot;

pub use self::answer::PeerBody;
pub use self::answer::{CLUSTER_ID, RUSD_VERSION};
pub use self::ask::{Answered, AskError, HASH_KV_PATH, ask, method_of};
pub use self::dial::{Dial, Dialing, Link, TcpDial, is_rusd};
pub use self::digest::{DIGEST_BYTES, SnapshotDigest};
pub use self::frame::{Broken, Decoder, Encoder, Read};
pub use self::pace::Pace;
pub use self::snapshot::{IncomingSnapshot, OutgoingSnapshot, Snapshots};

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use parking_lot::{Mutex, RwLock};
use prost::Message as _;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;

use crate::limits;
use crate::metrics;
use crate::raft::{Entry, Handle, Message, MessageType, Transport};
use crate::supervise::Supervisor;

/// What this member says of itself.
#[derive(Clone, Debug)]
pub struct PeersConfig {
    pub id: u64,
    pub cluster_id: u64,
    /// Where peers reach this member.
    pub urls: Vec<String>,
    /// The version of etcd that this member stands in for.
    pub version: String,
}

/// Told of what concerns the whole member. The calls must not block.
pub trait PeerEvents: Send + Sync {
    /// A proposal found no way to the leader, and stands nowhere else.
    fn unsent(&self, proposal: &Entry);
    /// A peer says that this member was removed from the cluster.
    fn removed(&self);
    /// Whether a peer's proposal can be applied: once it is in the log, every member has to.
    fn admits(&self, proposal: &Entry) -> bool;
}

/// What a member wants of its peers beside raft's messages.
pub trait Reach: Send + Sync {
    /// Asks a peer; nothing if it does not answer.
    fn ask<'a>(
        &'a self,
        id: u64,
        path: &'a str,
        body: Option<Bytes>,
        limit: Duration,
    ) -> BoxFuture<'a, Option<Answered>>;
    /// For how long both streams of a peer's have been read.
    fn connected_for(&self, id: u64) -> Option<Duration>;
}

/// All peers of this member.
pub struct Peers {
    config: PeersConfig,
    dial: Arc<dyn Dial>,
    runtime: tokio::runtime::Handle,
    supervisor: Supervisor,
    raft: OnceLock<Handle>,
    events: OnceLock<Arc<dyn PeerEvents>>,
    known: RwLock<Known>,
    me: Weak<Self>,
    snapshots: OnceLock<Arc<dyn Snapshots>>,
    /// Held while a snapshot is received and built, by the thread that does it.
    receives_snapshot: Arc<tokio::sync::Mutex<()>>,
    /// One held for each message that is received in a request of its own.
    posts: tokio::sync::Semaphore,
    messages_refused: AtomicU64,
    snapshots_refused: AtomicU64,
}

#[derive(Default)]
struct Known {
    peers: HashMap<u64, Arc<Peer>>,
    removed: HashSet<u64>,
    /// When a caller was last believed that nobody has told of.
    remembered_at: Option<Instant>,
}

/// Which stream a message takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Channel {
    /// Entries.
    Append,
    /// Everything else.
    Other,
}

impl Channel {
    pub const BOTH: [Self; 2] = [Self::Append, Self::Other];

    fn name(self) -> &'static str {
        match self {
            Self::Append => "msgapp",
            Self::Other => "message",
        }
    }

    pub fn of(message: &Message) -> Self {
        if message.msg_type == MessageType::MsgAppend as i32 { Self::Append } else { Self::Other }
    }
}

struct Peer {
    id: u64,
    urls: Vec<String>,
    /// It called, and this member has not learned from the log that it is one.
    is_remembered: bool,
    /// The streams that the peer has dialed.
    streams: Mutex<[Option<Outgoing>; 2]>,
    readers: Mutex<Vec<AbortHandle>>,
    /// Also of the one with other URLs that takes its place.
    sends_snapshot: Arc<AtomicBool>,
    /// Counts the URLs that failed: the next snapshot begins with another.
    snapshot_url: AtomicUsize,
    reading: Mutex<Reading>,
    series: metrics::PeerSeries,
}

/// How many streams of a peer's are read, and since when both are.
#[derive(Default)]
struct Reading {
    streams: usize,
    since: Option<Instant>,
}

/// The sending end of a stream, and what is queued in it.
#[derive(Clone)]
struct Outgoing {
    queue: mpsc::Sender<Message>,
    bytes: Arc<AtomicUsize>,
}

impl Peers {
    pub fn new(
        config: PeersConfig,
        dial: Arc<dyn Dial>,
        runtime: tokio::runtime::Handle,
        supervisor: Supervisor,
    ) -> Arc<Self> {
        Arc::new_cyclic(|me| Self {
            config,
            dial,
            runtime,
            supervisor,
            raft: OnceLock::new(),
            events: OnceLock::new(),
            known: RwLock::default(),
            me: me.clone(),
            snapshots: OnceLock::new(),
            receives_snapshot: Arc::default(),
            posts: tokio::sync::Semaphore::new(limits::PEER_POSTS_MAX),
            messages_refused: AtomicU64::new(0),
            snapshots_refused: AtomicU64::new(0),
        })
    }

    /// Gives received messages to raft from now on, and dials the peers known so far.
    pub fn start(self: &Arc<Self>, raft: Handle, events: Arc<dyn PeerEvents>) {
        let _ = self.events.set(events);
        if self.raft.set(raft).is_ok() {
            for peer in self.known.read().peers.values() {
                self.read_from(peer);
            }
        }
    }

    /// Adds a peer, or gives it other URLs.
    pub fn update(self: &Arc<Self>, id: u64, urls: Vec<String>) {
        self.insert(id, urls, false);
    }

    fn insert(self: &Arc<Self>, id: u64, urls: Vec<String>, is_remembered: bool) {
        if id == self.config.id {
            return;
        }
        let mut known = self.known.write();
        let is_known = |peer: &Arc<Peer>| peer.urls == urls && peer.is_remembered == is_remembered;
        if known.peers.get(&id).is_some_and(is_known) {
            return;
        }
        let old = known.peers.get(&id);
        let sends_snapshot = old.map(|old| Arc::clone(&old.sends_snapshot)).unwrap_or_default();
        let peer = Arc::new(Peer {
            id,
            urls,
            is_remembered,
            streams: Mutex::default(),
            readers: Mutex::default(),
            reading: Mutex::default(),
            sends_snapshot,
            snapshot_url: AtomicUsize::new(0),
            series: metrics::peer(self.config.id, id),
        });
        peer.series.known.set(1);
        if let Some(old) = known.peers.insert(id, Arc::clone(&peer)) {
            // It goes on with the streams that it has dialed.
            std::mem::swap(&mut *peer.streams.lock(), &mut *old.streams.lock());
            old.hang_up();
        }
        if self.raft.get().is_some() {
            self.read_from(&peer);
        }
    }

    /// Forgets a member that was removed from the cluster, and tells it so when it calls.
    pub fn remove(&self, id: u64) {
        let mut known = self.known.write();
        known.removed.insert(id);
        if let Some(peer) = known.peers.remove(&id) {
            peer.series.known.set(0);
            peer.hang_up();
        }
    }

    /// Forgets a caller that was believed and never answered.
    fn forget(&self, id: u64) {
        let mut known = self.known.write();
        if known.peers.get(&id).is_some_and(|peer| peer.is_remembered) {
            let peer = known.peers.remove(&id);
            peer.inspect(|peer| peer.series.known.set(0)).inspect(|peer| peer.hang_up());
        }
    }

    /// Whether a peer holds both streams of ours.
    pub fn is_connected(&self, id: u64) -> bool {
        let peer = self.known.read().peers.get(&id).cloned();
        peer.is_some_and(|peer| {
            let streams = peer.streams.lock();
            streams.iter().flatten().filter(|stream| !stream.queue.is_closed()).count() == 2
        })
    }

    /// Whether this member knows that another was removed.
    pub fn is_removed(&self, id: u64) -> bool {
        self.known.read().removed.contains(&id)
    }

    /// Hangs up on all peers.
    pub fn stop(&self) {
        for (_, peer) in self.known.write().peers.drain() {
            peer.hang_up();
        }
    }

    fn read_from(self: &Arc<Self>, peer: &Arc<Peer>) {
        let mut readers = peer.readers.lock();
        for channel in Channel::BOTH {
            let reader = dial::read(Arc::downgrade(self), peer.id, peer.urls.clone(), channel);
            readers.push(self.supervisor.task_on(&self.runtime, "peer-stream", reader));
        }
        let prober = probe::probe(Arc::downgrade(self), peer.id, peer.urls.clone());
        readers.push(self.supervisor.task_on(&self.runtime, "peer-probe", prober));
    }

    /// Takes a message from a stream of `from`'s.
    fn receive(&self, from: u64, message: Message) {
        if message.from != from {
            return self.refuse(from, "it has another sender");
        }
        let is_proposal = message.msg_type == MessageType::MsgPropose as i32;
        if is_proposal
            && let Some(events) = self.events.get()
            && !message.entries.iter().all(|entry| events.admits(entry))
        {
            return self.refuse(from, "it proposes what nobody could apply");
        }
        let peer = self.peer(from);
        if let Some(peer) = &peer {
            peer.series.received_bytes.inc_by(message.encoded_len() as u64);
        }
        if let Some(raft) = self.raft.get()
            && let Err(error) = raft.step(message)
        {
            tracing::debug!(%error, "a peer's message was dropped");
            if let Some(peer) = peer {
                peer.series.received_failures.inc();
            }
        }
    }

    fn refuse(&self, from: u64, why: &str) {
        let refused = self.messages_refused.fetch_add(1, Ordering::Relaxed) + 1;
        metrics::messages_refused().inc();
        // A broken peer must not flood the log.
        if refused.is_power_of_two() {
            let peer = format_args!("{from:x}");
            tracing::warn!(%peer, refused, "a message of another member was refused: {why}");
        }
    }

    fn peer(&self, id: u64) -> Option<Arc<Peer>> {
        self.known.read().peers.get(&id).cloned()
    }
}

impl Peer {
    fn hang_up(&self) {
        for reader in self.readers.lock().drain(..) {
            reader.abort();
        }
        *self.streams.lock() = [None, None];
    }

    /// A stream of the peer's is read until what this gives is dropped.
    fn read(self: &Arc<Self>) -> Held {
        let mut reading = self.reading.lock();
        reading.streams += 1;
        if reading.streams == Channel::BOTH.len() {
            reading.since = Some(crate::clock::instant());
            self.series.active.set(1);
        }
        Held(Arc::clone(self))
    }

    /// Puts a new stream in the place of the one before it.
    fn attach(&self, channel: Channel) -> (mpsc::Receiver<Message>, Arc<AtomicUsize>) {
        let (queue, messages) = mpsc::channel(limits::PEER_QUEUE_MAX);
        let bytes = Arc::new(AtomicUsize::new(0));
        let outgoing = Outgoing { queue, bytes: Arc::clone(&bytes) };
        self.streams.lock()[channel as usize] = Some(outgoing);
        (messages, bytes)
    }

    /// Queues a message, or gives it back.
    fn send(&self, message: Message) -> Option<Message> {
        let size = message.encoded_len();
        let unsent = self.queue(message, size);
        match unsent {
            None => self.series.sent_bytes.inc_by(size as u64),
            Some(_) => self.series.sent_failures.inc(),
        }
        unsent
    }

    fn queue(&self, message: Message, size: usize) -> Option<Message> {
        let channel = Channel::of(&message);
        let Some(stream) = self.streams.lock()[channel as usize].clone() else {
            return Some(message);
        };
        if stream.bytes.fetch_add(size, Ordering::Relaxed) + size > limits::PEER_QUEUE_BYTES_MAX {
            stream.bytes.fetch_sub(size, Ordering::Relaxed);
            return Some(message);
        }
        let error = stream.queue.try_send(message).err()?;
        stream.bytes.fetch_sub(size, Ordering::Relaxed);
        Some(error.into_inner())
    }
}

struct Held(Arc<Peer>);

impl Drop for Held {
    fn drop(&mut self) {
        let mut reading = self.0.reading.lock();
        if reading.streams == Channel::BOTH.len() {
            self.0.series.active.set(0);
            self.0.series.lost.inc();
        }
        reading.streams -= 1;
        reading.since = None;
    }
}

impl Reach for Peers {
    fn connected_for(&self, id: u64) -> Option<Duration> {
        let since = self.peer(id)?.reading.lock().since?;
        Some(since.elapsed())
    }

    /// At one of its URLs after the other. Before the start nobody is asked.
    fn ask<'a>(
        &'a self,
        id: u64,
        path: &'a str,
        body: Option<Bytes>,
        limit: Duration,
    ) -> BoxFuture<'a, Option<Answered>> {
        Box::pin(async move {
            self.raft.get()?;
            let peer = self.peer(id)?;
            for url in &peer.urls {
                match ask(&*self.dial, url, path, body.clone(), limit).await {
                    Ok(answered) => return Some(answered),
                    Err(error) => tracing::debug!(url, path, %error, "a peer did not answer"),
                }
            }
            None
        })
    }
}

impl Transport for Peers {
    fn send(&self, messages: Vec<Message>) {
        for message in messages {
            let to = message.to;
            if message.msg_type == MessageType::MsgSnapshot as i32 {
                self.send_snapshot(message);
                continue;
            }
            let unsent = match self.peer(to) {
                Some(peer) => peer.send(message),
                None => Some(message),
            };
            let Some(unsent) = unsent else { continue };
            if unsent.msg_type == MessageType::MsgPropose as i32 {
                if let Some(events) = self.events.get() {
                    unsent.entries.iter().for_each(|entry| events.unsent(entry));
                }
            } else if let Some(raft) = self.raft.get() {
                // It only makes raft probe earlier.
                let _ = raft.report_unreachable(to);
            }
        }
    }
}

/// How long a stream may be silent, etcd's.
const READ_TIMEOUT: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests;
