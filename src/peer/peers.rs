//! All peers of this member: who is known, who was removed, and the messages from and to them.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use parking_lot::{Mutex, RwLock};
use prost::Message as _;

use super::ask::{Answered, ask};
use super::dial::Dial;
use super::frame::Channel;
use super::headers::PeersConfig;
use super::one::Peer;
use super::owner::PeerOwner;
use super::snapshot::Snapshots;
use super::{post, probe, reader};
use crate::clock::{self, LogLimit};
use crate::raft::{Entry, Handle, Message, MessageType, Transport};
use crate::supervise::Supervisor;
use crate::{limits, metrics};

/// Events of peers that concern the whole member. Called on the raft thread (`unsent`) and on the
/// tasks that serve peers, so they must not block.
pub trait PeerEvents: Send + Sync {
    /// A proposal could not be sent to the leader, and is in no log.
    fn unsent(&self, proposal: &Entry);
    /// A peer says that this member was removed from the cluster.
    fn removed(&self);
    /// Whether a peer's proposal can be applied. One that cannot must not get into the log: every
    /// member would have to apply it.
    fn admits(&self, proposal: &Entry) -> bool;
}

/// Questions to single members, beside raft's messages. A simulator answers them without sockets.
pub trait Reach: Send + Sync {
    /// Asks a peer; None if it does not answer.
    fn ask<'a>(
        &'a self,
        id: u64,
        path: &'a str,
        body: Option<Bytes>,
        limit: Duration,
    ) -> BoxFuture<'a, Option<Answered>>;
    /// For how long both streams of a peer have been read; None unless both are.
    fn connected_for(&self, id: u64) -> Option<Duration>;
}

/// All peers of this member.
pub struct Peers {
    pub(super) config: PeersConfig,
    pub(super) dial: Arc<dyn Dial>,
    pub(super) runtime: tokio::runtime::Handle,
    pub(super) supervisor: Supervisor,
    pub(super) raft: OnceLock<Handle>,
    pub(super) events: OnceLock<Arc<dyn PeerEvents>>,
    pub(super) known: RwLock<Known>,
    pub(super) me: Weak<Self>,
    pub(super) snapshots: OnceLock<Arc<dyn Snapshots>>,
    /// Held by the thread that receives and builds a snapshot: one at a time.
    pub(super) receives_snapshot: Arc<tokio::sync::Mutex<()>>,
    /// One permit for each byte of messages that come in requests of their own.
    pub(super) posts: tokio::sync::Semaphore,
    pub(super) messages_refused: AtomicU64,
    pub(super) snapshots_refused: AtomicU64,
    began: Instant,
    /// When it was logged that a member of another cluster has called.
    stranger_said: LogLimit,
}

#[derive(Default)]
pub(super) struct Known {
    pub(super) peers: HashMap<u64, Arc<Peer>>,
    pub(super) removed: HashSet<u64>,
    /// When a caller was last accepted that the log does not name.
    pub(super) unconfirmed_at: Option<Instant>,
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
            posts: tokio::sync::Semaphore::new(limits::PEER_POSTS_BYTES_MAX),
            messages_refused: AtomicU64::new(0),
            snapshots_refused: AtomicU64::new(0),
            began: clock::instant(),
            stranger_said: LogLimit::new(limits::STRANGER_LINE_INTERVAL),
        })
    }

    /// Whether it is to be logged now that a member of another cluster has called: it calls several
    /// times a second.
    pub(super) fn may_log_stranger(&self) -> bool {
        self.stranger_said.may_log(self.began.elapsed())
    }

    /// Hands received messages to raft from now on, and dials the peers known so far.
    pub fn start(self: &Arc<Self>, raft: Handle, events: Arc<dyn PeerEvents>) {
        let _ = self.events.set(events);
        if self.raft.set(raft).is_ok() {
            for peer in self.known.read().peers.values() {
                self.talk_to(peer);
            }
        }
    }

    /// Adds a peer, or sets its URLs.
    pub fn update(self: &Arc<Self>, id: u64, urls: Vec<String>) {
        self.insert(id, urls, false);
    }

    pub(super) fn insert(self: &Arc<Self>, id: u64, urls: Vec<String>, is_unconfirmed: bool) {
        if id == self.config.id {
            return;
        }
        let mut known = self.known.write();
        // The log may have named it, or removed it, since the caller looked.
        if is_unconfirmed && (known.removed.contains(&id) || known.peers.contains_key(&id)) {
            return;
        }
        let is_known =
            |peer: &Arc<Peer>| peer.urls == urls && peer.is_unconfirmed == is_unconfirmed;
        if known.peers.get(&id).is_some_and(is_known) {
            return;
        }
        let old = known.peers.get(&id);
        let sends_snapshot = old.map(|old| Arc::clone(&old.sends_snapshot)).unwrap_or_default();
        let peer = Arc::new(Peer {
            id,
            urls,
            is_unconfirmed,
            streams: Mutex::default(),
            readers: Mutex::default(),
            posters: Mutex::default(),
            posts: Mutex::default(),
            reading: Mutex::default(),
            failure: Mutex::default(),
            sends_snapshot,
            snapshot_url: AtomicUsize::new(0),
            series: metrics::peer(self.config.id, id),
        });
        peer.series.known.set(1);
        if let Some(old) = known.peers.insert(id, Arc::clone(&peer)) {
            // The peer keeps the streams that it has dialed; only this member's reading begins
            // anew.
            std::mem::swap(&mut *peer.streams.lock(), &mut *old.streams.lock());
            old.retire();
        }
        if self.raft.get().is_some() {
            self.talk_to(&peer);
        }
    }

    /// Forgets a member that was removed from the cluster. It is told so when it calls.
    pub fn remove(&self, id: u64) {
        let mut known = self.known.write();
        known.removed.insert(id);
        if let Some(peer) = known.peers.remove(&id) {
            peer.series.known.set(0);
            peer.hang_up();
        }
    }

    /// Forgets a caller that was accepted and never answered.
    pub(super) fn forget(&self, id: u64) {
        let mut known = self.known.write();
        if known.peers.get(&id).is_some_and(|peer| peer.is_unconfirmed) {
            let peer = known.peers.remove(&id);
            peer.inspect(|peer| peer.hang_up());
            metrics::forget_peer(self.config.id, id);
        }
    }

    /// Whether a peer reads both streams of this member.
    pub fn is_connected(&self, id: u64) -> bool {
        let peer = self.known.read().peers.get(&id).cloned();
        peer.is_some_and(|peer| peer.holds_both_streams())
    }

    /// Why the last attempt to read a peer's stream ended; empty if none has.
    pub fn last_failure(&self, id: u64) -> String {
        self.peer(id).map(|peer| peer.failure.lock().clone()).unwrap_or_default()
    }

    /// Whether the log here says that this member was removed.
    pub fn is_removed(&self, id: u64) -> bool {
        self.known.read().removed.contains(&id)
    }

    /// Hangs up on all peers, and forgets them.
    pub fn stop(&self) {
        for (_, peer) in self.known.write().peers.drain() {
            peer.hang_up();
        }
    }

    /// Starts the tasks that read the peer's streams, post to it and probe it.
    fn talk_to(self: &Arc<Self>, peer: &Arc<Peer>) {
        let owner: Weak<dyn PeerOwner> = self.me.clone();
        let (mut readers, mut posters) = (peer.readers.lock(), peer.posters.lock());
        for channel in Channel::BOTH {
            let reader = reader::read(owner.clone(), peer.id, peer.urls.clone(), channel);
            readers.push(self.supervisor.task_on(&self.runtime, "peer-stream", reader));
            let poster =
                post::post(owner.clone(), peer.id, peer.urls.clone(), peer.open_posts(channel));
            posters.push(self.supervisor.task_on(&self.runtime, "peer-post", poster));
        }
        let prober = probe::probe(owner, peer.id, peer.urls.clone());
        readers.push(self.supervisor.task_on(&self.runtime, "peer-probe", prober));
    }

    /// Hands a message of `from` to raft, unless it names another sender or proposes
    /// an entry that no member could apply. Returns false if raft could not take it: it may be sent
    /// again.
    pub(super) fn receive(&self, from: u64, message: Message) -> bool {
        if message.from != from {
            self.refuse(from, "it has another sender");
            return true;
        }
        let is_proposal = message.msg_type == MessageType::MsgPropose as i32;
        if is_proposal
            && let Some(events) = self.events.get()
            && !message.entries.iter().all(|entry| events.admits(entry))
        {
            self.refuse(from, "it proposes what nobody could apply");
            return true;
        }
        let peer = self.peer(from);
        if let Some(peer) = &peer {
            peer.series.received_bytes.inc_by(message.encoded_len() as u64);
        }
        let Some(raft) = self.raft.get() else { return false };
        let taken = raft.step(message);
        if let Err(error) = &taken {
            tracing::debug!(%error, "a peer's message was dropped");
            if let Some(peer) = peer {
                peer.series.received_failures.inc();
            }
        }
        taken.is_ok()
    }

    /// Tells raft that the receiver of a message is out of reach. Who proposed is told only if the
    /// proposal surely is in no log: it may be proposed again.
    fn unsent(&self, message: Message, may_have_come: bool) {
        if let Some(peer) = self.peer(message.to) {
            peer.series.sent_failures.inc();
        }
        if message.msg_type == MessageType::MsgPropose as i32 {
            if let Some(events) = self.events.get()
                && !may_have_come
            {
                message.entries.iter().for_each(|entry| events.unsent(entry));
            }
        } else if let Some(raft) = self.raft.get() {
            // A report that the full inbox refuses only makes raft probe the peer later.
            let _ = raft.report_unreachable(message.to);
        }
    }

    fn refuse(&self, from: u64, why: &str) {
        let refused = self.messages_refused.fetch_add(1, Ordering::Relaxed) + 1;
        metrics::messages_refused().inc();
        // Logged at powers of two: a broken peer must not flood the log.
        if refused.is_power_of_two() {
            let peer = format_args!("{from:x}");
            tracing::warn!(%peer, refused, "a message of another member was refused: {why}");
        }
    }

    /// The peer of this id, if it is known.
    pub(super) fn peer(&self, id: u64) -> Option<Arc<Peer>> {
        self.known.read().peers.get(&id).cloned()
    }
}

impl PeerOwner for Peers {
    fn config(&self) -> &PeersConfig {
        &self.config
    }

    fn dial(&self) -> Arc<dyn Dial> {
        Arc::clone(&self.dial)
    }

    fn supervisor(&self) -> Supervisor {
        self.supervisor.clone()
    }

    fn peer(&self, id: u64) -> Option<Arc<Peer>> {
        Self::peer(self, id)
    }

    fn receive(&self, from: u64, message: Message) -> bool {
        Self::receive(self, from, message)
    }

    fn unsent(&self, message: Message, may_have_come: bool) {
        Self::unsent(self, message, may_have_come);
    }

    fn forget(&self, id: u64) {
        Self::forget(self, id);
    }

    fn removed(&self) {
        if let Some(events) = self.events.get() {
            events.removed();
        }
    }
}

impl Reach for Peers {
    fn connected_for(&self, id: u64) -> Option<Duration> {
        let since = self.peer(id)?.reading.lock().since?;
        Some(since.elapsed())
    }

    /// Tries one URL of the peer after the other. None before `start`: nobody is asked then.
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
            if let Some(unsent) = unsent {
                self.unsent(unsent, false);
            }
        }
    }
}
