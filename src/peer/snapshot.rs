//! Snapshots between members: `POST /raft/snapshot`, etcd's framing.
//!
//! The body is a message's length (u64, big-endian), the message, and the file as it is made. Its
//! length is announced, so that a receiver without room refuses it at once. A header of ours holds the
//! message's SHA-256, and says that the file's digest follows it. The receiver answers when the state
//! is on disk, checked and known to raft, so the answer is also the report that raft waits for.

use std::convert::Infallible;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, Request, StatusCode, Uri};
use http_body::{Body, Frame, SizeHint};
use http_body_util::{BodyExt, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use prost::Message as _;
use sha2::{Digest, Sha256};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};

use super::answer::headers;
use super::digest::{DIGEST_BYTES, SnapshotDigest};
use super::pace::Pace;
use super::{Link, Peer, Peers};
use crate::clock;
use crate::limits::{self, SNAPSHOT_STALL_MAX};
use crate::metrics;
use crate::raft::{Message, MessageType, SnapshotPlace, announce, announced};

/// The SHA-256 of the message. The file's digest follows the file.
const DIGEST: HeaderName = HeaderName::from_static("x-rusd-snapshot-digest");

/// The state's side. All of it may block.
pub trait Snapshots: Send + Sync {
    /// Begins a snapshot of what is durable here.
    fn open(&self) -> io::Result<Box<dyn OutgoingSnapshot>>;
    /// Begins to take one in, in place of any that was not installed.
    fn receive(&self, place: SnapshotPlace) -> io::Result<Box<dyn IncomingSnapshot>>;
    /// Whether the disk has room for a file of so many bytes and the state built from it; an error
    /// says what is missing.
    fn has_room(&self, _bytes: u64) -> io::Result<()> {
        Ok(())
    }
}

/// A snapshot that is made while it is read.
pub trait OutgoingSnapshot: Send {
    fn place(&self) -> &SnapshotPlace;
    /// Length of the file.
    fn bytes(&self) -> u64;
    /// The next piece; none at the end.
    fn next_piece(&mut self) -> io::Result<Option<Bytes>>;
}

/// A snapshot that is being received. Dropped, it leaves nothing.
pub trait IncomingSnapshot: Send {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()>;
    /// Checks what came and makes it ready to be installed.
    fn finish(self: Box<Self>, digest: [u8; DIGEST_BYTES]) -> io::Result<()>;
}

#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("{0}")]
    Url(#[from] http::uri::InvalidUri),
    #[error("{0}")]
    Http(#[from] hyper::Error),
    #[error("{0}")]
    Request(#[from] http::Error),
    #[error("{0}")]
    Other(&'static str),
    #[error("it answered {0}: {1}")]
    Status(StatusCode, String),
    #[error("it took too long")]
    Slow(#[from] tokio::time::error::Elapsed),
}

/// The body on its way to the peer.
struct SnapshotBody {
    pieces: mpsc::Receiver<Bytes>,
    left: u64,
}

impl Body for SnapshotBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.pieces.poll_recv(context).map(|piece| {
            let piece = piece?;
            self.left -= (piece.len() as u64).min(self.left);
            Some(Ok(Frame::data(piece)))
        })
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

impl Peers {
    /// Sends the state in place of a message that says so, and tells raft how it went. There is at
    /// most one on its way to a peer.
    pub(super) fn send_snapshot(&self, message: Message) {
        let to = message.to;
        let (Some(peers), Some(peer)) = (self.me.upgrade(), self.peer(to)) else { return };
        if peer.sends_snapshot.swap(true, Ordering::AcqRel) {
            return;
        }
        let supervisor = self.supervisor.clone();
        supervisor.task_on(&self.runtime, "snapshot-send", async move {
            let series = metrics::snapshots_to(to);
            let inflight = series.begin();
            let began = clock::instant();
            let outcome = peers.transfer(message, &peer).await;
            drop(inflight);
            match outcome {
                Ok(bytes) => {
                    series.successes.inc();
                    series.seconds.observe(began.elapsed().as_secs_f64());
                    peer.series.sent_bytes.inc_by(bytes);
                }
                Err(ref error) => {
                    series.failures.inc();
                    peer.series.sent_failures.inc();
                    let to = format_args!("{to:x}").to_string();
                    tracing::warn!(peer = to, %error, "failed to send database snapshot");
                    // A refusal as well may be of somebody else who has that URL now.
                    peer.snapshot_url.fetch_add(1, Ordering::Relaxed);
                    // Raft would try again with the next heartbeat. A disk seldom has room again
                    // so soon.
                    let is_full = matches!(error, Failure::Status(status, _)
                        if *status == StatusCode::INSUFFICIENT_STORAGE);
                    let pause = match is_full {
                        true => limits::SNAPSHOT_NO_ROOM_PAUSE,
                        false => limits::SNAPSHOT_RETRY_PAUSE,
                    };
                    tokio::time::sleep(pause).await;
                }
            }
            peer.sends_snapshot.store(false, Ordering::Release);
            if let Some(raft) = peers.raft.get() {
                // A full inbox loses it; the peer's answers tell raft as well.
                let _ = raft.report_snapshot(to, outcome.is_ok());
            }
            let peer = format_args!("{to:x}").to_string();
            if let Ok(bytes) = outcome {
                tracing::info!(peer, bytes, "sent database snapshot");
            }
        });
    }

    async fn transfer(&self, mut message: Message, peer: &Peer) -> Result<u64, Failure> {
        let snapshots = self.snapshots.get().cloned();
        let snapshots = snapshots.ok_or(Failure::Other("there is no state to send"))?;
        let opened = self.supervisor.blocking("snapshot-size", move || snapshots.open()).await;
        let outgoing = opened.map_err(io::Error::other)??;
        let place = outgoing.place().clone();
        announce(&mut message, &place).map_err(Failure::Other)?;
        let mut head = BytesMut::new();
        let encoded = message.encode_to_vec();
        head.put_u64(encoded.len() as u64);
        head.extend_from_slice(&encoded);
        let digest = format!("{:x}", Sha256::digest(&encoded));
        let bytes = head.len() as u64 + outgoing.bytes() + DIGEST_BYTES as u64;
        let (pieces, receiver) = mpsc::channel(limits::SNAPSHOT_PIECES_MAX);
        // There is room for the first one.
        let _ = pieces.try_send(head.freeze());
        let (url, link) = self.reach(peer).await?;
        let body = SnapshotBody { pieces: receiver, left: bytes };
        tracing::info!(bytes, index = place.index, "sending database snapshot");
        let (answer, pumped) = tokio::join!(
            self.post(&url, link, message.to, &digest, body),
            self.pump(outgoing, pieces)
        );
        let (status, why) = answer?;
        if status == StatusCode::NO_CONTENT {
            return pumped.map(|()| bytes);
        }
        // A peer that refuses also ends the connection; its reason is worth more than that.
        Err(Failure::Status(status, why))
    }

    /// Connects to a peer at one of its URLs, first at the one that served last.
    async fn reach(&self, peer: &Peer) -> Result<(Uri, Box<dyn Link>), Failure> {
        let mut failure = Failure::Other("it has no URL");
        for _ in &peer.urls {
            let at = peer.snapshot_url.load(Ordering::Relaxed) % peer.urls.len();
            match self.reach_at(&peer.urls[at]).await {
                Ok(reached) => return Ok(reached),
                Err(error) => failure = error,
            }
            peer.snapshot_url.fetch_add(1, Ordering::Relaxed);
        }
        Err(failure)
    }

    async fn reach_at(&self, url: &str) -> Result<(Uri, Box<dyn Link>), Failure> {
        let url: Uri = url.parse()?;
        let link = timeout(limits::PEER_DIAL_TIMEOUT, self.dial.dial(&url)).await??;
        Ok((url, link))
    }

    async fn post(
        &self,
        url: &Uri,
        link: Box<dyn Link>,
        to: u64,
        digest: &str,
        body: SnapshotBody,
    ) -> Result<(StatusCode, String), Failure> {
        let (mut sender, connection) = http1::handshake(TokioIo::new(link)).await?;
        // It ends with the answer, or with an error that the answer reports as well.
        self.supervisor.task("peer-connection", async { drop(connection.await) });
        let mut request = Request::post("/raft/snapshot").body(body)?;
        *request.headers_mut() = headers(&self.config, Some(to))?;
        let host = url.authority().map_or("", |authority| authority.as_str());
        let host = HeaderValue::from_str(host).map_err(http::Error::from)?;
        request.headers_mut().insert(http::header::HOST, host);
        let digest = HeaderValue::from_str(digest).map_err(http::Error::from)?;
        request.headers_mut().insert(DIGEST, digest);
        let answer = timeout(limits::SNAPSHOT_ANSWER_MAX, sender.send_request(request)).await??;
        let status = answer.status();
        let body = Limited::new(answer.into_body(), limits::PEER_REASON_BYTES_MAX).collect();
        let why = timeout(limits::PEER_DIAL_TIMEOUT, body).await?;
        let why = why.map(|why| why.to_bytes()).unwrap_or_default();
        Ok((status, String::from_utf8_lossy(&why).trim().to_owned()))
    }

    /// Reads the state piece by piece, on a thread of its own that gives way to all others. While
    /// requests are committed here, it also leaves them most of the disk and the network.
    async fn pump(
        &self,
        mut outgoing: Box<dyn OutgoingSnapshot>,
        pieces: mpsc::Sender<Bytes>,
    ) -> Result<(), Failure> {
        let raft = self.raft.get().cloned().ok_or(Failure::Other("there is no raft"))?;
        let runtime = self.runtime.clone();
        let work = move || {
            let mut pace = Pace::new(raft);
            let mut digest = SnapshotDigest::default();
            loop {
                let piece = outgoing.next_piece()?;
                let is_last = piece.is_none();
                let end = || std::mem::take(&mut digest).finish().to_vec().into();
                let piece = piece.unwrap_or_else(end);
                digest.update(&piece);
                let bytes = piece.len() as u64;
                let sending = async { timeout(SNAPSHOT_STALL_MAX, pieces.send(piece)).await };
                let sent = runtime.block_on(sending)?;
                // The answer says why nobody takes them any more.
                if sent.is_err() || is_last {
                    return Ok(());
                }
                pace.rest(bytes);
            }
        };
        self.supervisor.nice("snapshot-send", work).await?
    }

    /// A peer sends its state.
    pub(super) async fn take_snapshot<B>(
        &self,
        headers: &HeaderMap,
        body: B,
    ) -> Result<(), (StatusCode, String)>
    where
        B: Body<Data = Bytes> + Send,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let mut from = None;
        let began = clock::instant();
        let taken = self.receive_snapshot(headers, body, &mut from).await;
        let series = metrics::snapshots_from(from);
        if let Err((_, why)) = &taken {
            let refused = self.snapshots_refused.fetch_add(1, Ordering::Relaxed) + 1;
            metrics::snapshots_refused().inc();
            series.failures.inc();
            // A peer that tries again and again must not flood the log; want of room is rare enough,
            // and only a person can mend it.
            let is_full = matches!(&taken, Err((StatusCode::INSUFFICIENT_STORAGE, _)));
            if refused.is_power_of_two() || is_full {
                tracing::warn!(refused, "refused a database snapshot: {why}");
            }
        } else {
            series.successes.inc();
            series.seconds.observe(began.elapsed().as_secs_f64());
        }
        taken
    }

    async fn receive_snapshot<B>(
        &self,
        headers: &HeaderMap,
        body: B,
        sender: &mut Option<u64>,
    ) -> Result<(), (StatusCode, String)>
    where
        B: Body<Data = Bytes> + Send,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let refuse = |status, why: &str| Err((status, why.to_owned()));
        let (Some(raft), Some(snapshots)) = (self.raft.get(), self.snapshots.get().cloned()) else {
            return refuse(StatusCode::SERVICE_UNAVAILABLE, "not ready for snapshots");
        };
        // Without it a flipped bit in a value would not be noticed.
        let Some(digest) = headers.get(DIGEST) else {
            return refuse(StatusCode::BAD_REQUEST, "the snapshot comes without its digest");
        };
        // Without it nobody knows whether the disk has room, and it would be filled to find out.
        let Some(announced_bytes) = body.size_hint().exact() else {
            return refuse(StatusCode::LENGTH_REQUIRED, "the snapshot comes without its length");
        };
        let mut body = Arriving::new(body);
        let mut buffer = BytesMut::new();
        let head = read_head(&mut body, &mut buffer, digest.as_bytes());
        let message = match timeout(limits::PEER_POST_TIMEOUT, head).await {
            Ok(Ok(message)) => message,
            Ok(Err(why)) => return refuse(StatusCode::BAD_REQUEST, why),
            Err(_) => return refuse(StatusCode::BAD_REQUEST, "the snapshot's message stalled"),
        };
        if message.msg_type != MessageType::MsgSnapshot as i32 {
            return refuse(StatusCode::BAD_REQUEST, "wrong raft message type");
        }
        if message.to != self.config.id || self.peer(message.from).is_none() {
            return refuse(StatusCode::FORBIDDEN, "error sender not found");
        }
        *sender = Some(message.from);
        // Not before a member's message is here: whoever only connects must not keep it from others.
        let Ok(one_at_a_time) = Arc::clone(&self.receives_snapshot).try_lock_owned() else {
            return refuse(StatusCode::SERVICE_UNAVAILABLE, "another snapshot is being received");
        };
        let place = match announced(&message, raft) {
            Ok(place) => place,
            Err(why) => return refuse(StatusCode::CONFLICT, why),
        };
        if let Err(error) = snapshots.has_room(announced_bytes) {
            return Err((StatusCode::INSUFFICIENT_STORAGE, error.to_string()));
        }
        let from = format_args!("{:x}", message.from).to_string();
        tracing::info!(from, index = place.index, "receiving database snapshot");
        let _inflight = metrics::snapshots_from(*sender).begin();
        let began = clock::instant();
        let (chunks, receiver) = mpsc::channel(limits::SNAPSHOT_PIECES_MAX);
        // The sender may hang up and come again, which drops this call. What was begun goes on, so it
        // keeps others from its file, and what came whole is not wasted.
        let raft = raft.clone();
        let save = move || {
            let _one_at_a_time = one_at_a_time;
            save(snapshots.receive(place)?, receiver)?;
            raft.step_snapshot(message).map_err(io::Error::other)
        };
        let saving = self.supervisor.nice("snapshot-save", save);
        let (saved, arrived) = tokio::join!(saving, forward(&mut body, buffer, chunks));
        metrics::snap_db_save_seconds().observe(began.elapsed().as_secs_f64());
        if let Err(error) = saved.and_then(|saved| saved) {
            // A file that ends early says less than what cut it off; any other error is the cause.
            let is_cut = error.kind() == io::ErrorKind::UnexpectedEof;
            let why = match arrived {
                Err(why) if is_cut => why.to_owned(),
                _ => format!("the snapshot could not be saved: {error}"),
            };
            let status = match error.kind() {
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                    StatusCode::INSUFFICIENT_STORAGE
                }
                _ => StatusCode::INTERNAL_SERVER_ERROR,
            };
            return Err((status, why));
        }
        Ok(())
    }

    /// Snapshots of peers that were refused.
    pub fn snapshots_refused(&self) -> &AtomicU64 {
        &self.snapshots_refused
    }

    /// Sends and takes snapshots from now on.
    pub fn serve_snapshots(&self, snapshots: Arc<dyn Snapshots>) {
        // The first one stays.
        let _ = self.snapshots.set(snapshots);
    }
}

/// What is on its way to the file. Without the end it was cut off.
enum Chunk {
    Bytes(Bytes),
    End,
}

/// A body on its way in, what has come of it, and how long that was waited for.
pub(super) struct Arriving<B> {
    body: Pin<Box<B>>,
    bytes: u64,
    waited: Duration,
}

impl<B: Body<Data = Bytes>> Arriving<B> {
    pub(super) fn new(body: B) -> Self {
        Self::waited(body, Duration::ZERO)
    }

    /// One that was waited for so long.
    pub(super) fn waited(body: B, waited: Duration) -> Self {
        Self { body: Box::pin(body), bytes: 0, waited }
    }

    /// The next bytes; nothing at the end.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, &'static str> {
        loop {
            // While one is received no other is, so one that never ends would keep out all others.
            let fair = self.waited.saturating_sub(SNAPSHOT_STALL_MAX).as_secs();
            if fair * limits::SNAPSHOT_READER_RATE_MIN > self.bytes {
                return Err("the snapshot comes too slowly");
            }
            let began = Instant::now();
            let frame = timeout(SNAPSHOT_STALL_MAX, self.body.frame()).await;
            self.waited += began.elapsed();
            match frame {
                Ok(Some(Ok(frame))) => match frame.into_data() {
                    Ok(bytes) => {
                        self.bytes += bytes.len() as u64;
                        return Ok(Some(bytes));
                    }
                    Err(_) => continue,
                },
                Ok(Some(Err(_))) => return Err("the snapshot was cut off"),
                Ok(None) => return Ok(None),
                Err(_) => return Err("the snapshot stalled"),
            }
        }
    }
}

async fn read_head<B>(
    body: &mut Arriving<B>,
    buffer: &mut BytesMut,
    digest: &[u8],
) -> Result<Message, &'static str>
where
    B: Body<Data = Bytes>,
{
    const CUT: &str = "the snapshot's message is cut off";
    while buffer.len() < 8 {
        buffer.extend_from_slice(&body.next().await?.ok_or(CUT)?);
    }
    let length = buffer.get_u64();
    if length > limits::SNAPSHOT_HEAD_BYTES_MAX {
        return Err("the snapshot's message is too long");
    }
    let length = length as usize;
    while buffer.len() < length {
        buffer.extend_from_slice(&body.next().await?.ok_or(CUT)?);
    }
    let message = buffer.split_to(length);
    if format!("{:x}", Sha256::digest(&message)).as_bytes() != digest {
        return Err("the SHA-256 of the snapshot's message does not match");
    }
    Message::decode(message).map_err(|_| "failed to decode raft message")
}

async fn forward<B>(
    body: &mut Arriving<B>,
    first: BytesMut,
    chunks: mpsc::Sender<Chunk>,
) -> Result<(), &'static str>
where
    B: Body<Data = Bytes>,
{
    let gone = |_| "the snapshot could not be saved";
    chunks.send(Chunk::Bytes(first.freeze())).await.map_err(gone)?;
    while let Some(bytes) = body.next().await? {
        chunks.send(Chunk::Bytes(bytes)).await.map_err(gone)?;
    }
    chunks.send(Chunk::End).await.map_err(gone)
}

/// Writes what arrives, but for the digest at the end.
fn save(
    mut incoming: Box<dyn IncomingSnapshot>,
    mut chunks: mpsc::Receiver<Chunk>,
) -> io::Result<()> {
    let mut held = BytesMut::new();
    loop {
        match chunks.blocking_recv() {
            None => return Err(io::ErrorKind::UnexpectedEof.into()),
            Some(Chunk::Bytes(mut bytes)) => {
                let ready = (held.len() + bytes.len()).saturating_sub(DIGEST_BYTES);
                let first = held.split_to(ready.min(held.len()));
                incoming.write(&first)?;
                incoming.write(&bytes.split_to(ready - first.len()))?;
                held.extend_from_slice(&bytes);
            }
            Some(Chunk::End) => {
                let digest = held.first_chunk::<DIGEST_BYTES>().copied();
                return incoming.finish(digest.ok_or(io::ErrorKind::UnexpectedEof)?);
            }
        }
    }
}
