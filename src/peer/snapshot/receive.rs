//! Receives a snapshot: the offer is checked before anything is written, then a thread writes the
//! file while it arrives.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::{Buf, Bytes, BytesMut};
use http::{HeaderMap, StatusCode};
use http_body::Body;
use prost::Message as _;
use sha2::{Digest, Sha256};
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::arriving::Arriving;
use super::{DIGEST, IncomingSnapshot, Snapshots};
use crate::files;
use crate::limits;
use crate::peer::digest::DIGEST_BYTES;
use crate::peer::peers::Peers;
use crate::raft::{Message, MessageType, announced};
use crate::{clock, metrics};

/// The status and the text of a refusal.
type Refusal = (StatusCode, String);

fn refuse<T>(status: StatusCode, why: &str) -> Result<T, Refusal> {
    Err((status, why.to_owned()))
}

impl Peers {
    /// Receives a snapshot from a peer, until raft knows of it.
    pub(in crate::peer) async fn take_snapshot<B>(
        &self,
        headers: &HeaderMap,
        body: B,
    ) -> Result<(), Refusal>
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
            // A peer that repeats its attempt must not flood the log. Lack of room is logged each
            // time: attempts are ten seconds apart then, and an operator has to act.
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
    ) -> Result<(), Refusal>
    where
        B: Body<Data = Bytes> + Send,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let (Some(raft), Some(snapshots)) = (self.raft.get(), self.snapshots.get().cloned()) else {
            return refuse(StatusCode::SERVICE_UNAVAILABLE, "not ready for snapshots");
        };
        let offered = Offered::read(headers, body).await?;
        let Offered { message, announced_bytes, mut body, rest } = offered;
        if message.to != self.config.id || self.peer(message.from).is_none() {
            return refuse(StatusCode::FORBIDDEN, "error sender not found");
        }
        *sender = Some(message.from);
        // Taken after the message of a known member has arrived: a client that merely connects must
        // not keep out snapshots.
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
        // The sender may hang up and come again, which drops this future. The thread goes on: it
        // holds the lock, so that no second receiver writes to the same file, and a file that had
        // arrived completely is still used.
        let raft = raft.clone();
        let save = move || {
            let _one_at_a_time = one_at_a_time;
            save(snapshots.receive(place)?, receiver)?;
            raft.step_snapshot(message).map_err(io::Error::other)
        };
        let saving = self.supervisor.nice("snapshot-save", save);
        let (saved, arrived) = tokio::join!(saving, forward(&mut body, rest, chunks));
        metrics::snap_db_save_seconds().observe(began.elapsed().as_secs_f64());
        saved.and_then(|saved| saved).map_err(|error| why_not_saved(&error, arrived))
    }

    /// Sends and receives snapshots from now on.
    pub fn serve_snapshots(&self, snapshots: Arc<dyn Snapshots>) {
        // A second call changes nothing.
        let _ = self.snapshots.set(snapshots);
    }

    /// The number of peers' snapshots that were refused.
    pub fn snapshots_refused(&self) -> &AtomicU64 {
        &self.snapshots_refused
    }
}

/// A peer's offer: the message, the announced length, and the body with the file.
struct Offered<B> {
    message: Message,
    announced_bytes: u64,
    body: Arriving<B>,
    /// The first bytes of the file, which came with the end of the message.
    rest: BytesMut,
}

impl<B: Body<Data = Bytes>> Offered<B> {
    async fn read(headers: &HeaderMap, body: B) -> Result<Self, Refusal> {
        // Without the digest, a flipped bit in a value would not be noticed.
        let Some(digest) = headers.get(DIGEST) else {
            return refuse(StatusCode::BAD_REQUEST, "the snapshot comes without its digest");
        };
        // Without the length, lack of room would show only when the disk is full.
        let Some(announced_bytes) = body.size_hint().exact() else {
            return refuse(StatusCode::LENGTH_REQUIRED, "the snapshot comes without its length");
        };
        let mut body = Arriving::new(body);
        let mut rest = BytesMut::new();
        let head = read_head(&mut body, &mut rest, digest.as_bytes());
        let message = match timeout(limits::PEER_POST_TIMEOUT, head).await {
            Ok(Ok(message)) => message,
            Ok(Err(why)) => return refuse(StatusCode::BAD_REQUEST, why),
            Err(_) => return refuse(StatusCode::BAD_REQUEST, "the snapshot's message stalled"),
        };
        if message.msg_type != MessageType::MsgSnapshot as i32 {
            return refuse(StatusCode::BAD_REQUEST, "wrong raft message type");
        }
        Ok(Self { message, announced_bytes, body, rest })
    }
}

/// The refusal of a snapshot that could not be saved.
fn why_not_saved(error: &io::Error, arrived: Result<(), &'static str>) -> Refusal {
    // If the file ended early, what cut it off is the cause; otherwise the error of saving it is.
    let is_cut = error.kind() == io::ErrorKind::UnexpectedEof;
    let why = match arrived {
        Err(why) if is_cut => why.to_owned(),
        _ => format!("the snapshot could not be saved: {error}"),
    };
    let status = match files::is_full(error) {
        true => StatusCode::INSUFFICIENT_STORAGE,
        false => StatusCode::INTERNAL_SERVER_ERROR,
    };
    (status, why)
}

/// A piece of the file on its way to the thread that writes it. A file without `End` was cut off.
enum Chunk {
    Bytes(Bytes),
    End,
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

/// Writes the file as it arrives, holding back the last bytes, which may be the digest. Blocks.
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
