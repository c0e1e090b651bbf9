//! Sends a snapshot: a thread makes the file piece by piece while a request carries it.

use std::convert::Infallible;
use std::io;
use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};

use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderValue, Request, StatusCode, Uri};
use http_body::{Body, Frame, SizeHint};
use http_body_util::{BodyExt, Limited};
use prost::Message as _;
use sha2::{Digest, Sha256};
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::{DIGEST, OutgoingSnapshot};
use crate::limits::{self, SNAPSHOT_STALL_MAX};
use crate::peer::connection::{handshake, host};
use crate::peer::dial::Link;
use crate::peer::digest::{DIGEST_BYTES, SnapshotDigest};
use crate::peer::headers::headers;
use crate::peer::one::Peer;
use crate::peer::pace::Pace;
use crate::peer::peers::Peers;
use crate::raft::{self, Message, announce};
use crate::{clock, metrics};

#[derive(Debug, thiserror::Error)]
enum Failure {
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

/// The body of the request: pieces from the thread, of a known total length.
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
    /// Sends the state to the peer that raft's snapshot message is for, then reports the outcome to
    /// raft. Does nothing while another snapshot is being sent to that peer.
    pub(in crate::peer) fn send_snapshot(&self, message: Message) {
        let to = message.to;
        let Some(peers) = self.me.upgrade() else { return };
        let supervisor = self.supervisor.clone();
        let Some(peer) = self.peer(to) else {
            // It may become known later, and raft would wait for the outcome for ever.
            let report = async move { peers.report_snapshot(to, false).await };
            supervisor.task_on(&self.runtime, "snapshot-send", report);
            return;
        };
        if peer.sends_snapshot.swap(true, Ordering::AcqRel) {
            return;
        }
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
                    // The next attempt uses another URL, after a refusal too: another member may
                    // have this URL by now.
                    peer.snapshot_url.fetch_add(1, Ordering::Relaxed);
                    // Raft would try again at the next heartbeat. A full disk is unlikely to have
                    // room so soon, so the pause is longer then.
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
            peers.report_snapshot(to, outcome.is_ok()).await;
            let peer = format_args!("{to:x}").to_string();
            if let Ok(bytes) = outcome {
                tracing::info!(peer, bytes, "sent database snapshot");
            }
        });
    }

    /// Reports the outcome to raft, which sends the peer nothing until it has the report: a full
    /// inbox, which refuses it, is asked again until it takes it or raft has stopped.
    async fn report_snapshot(&self, to: u64, arrived: bool) {
        let Some(raft) = self.raft.get() else { return };
        while let Err(raft::Error::Busy) = raft.report_snapshot(to, arrived) {
            tokio::time::sleep(limits::PEER_RETRY).await;
        }
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
        // Cannot fail: the queue is empty.
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
        // A peer that refuses also closes the connection. Its reason is reported instead of that
        // error.
        Err(Failure::Status(status, why))
    }

    /// Connects to a peer at one of its URLs, beginning with the one that worked last.
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
        let mut sender = handshake(link, &self.supervisor).await?;
        let mut request = Request::post("/raft/snapshot").body(body)?;
        *request.headers_mut() = headers(&self.config, Some(to))?;
        request.headers_mut().insert(http::header::HOST, host(url)?);
        let digest = HeaderValue::from_str(digest).map_err(http::Error::from)?;
        request.headers_mut().insert(DIGEST, digest);
        let answer = timeout(limits::SNAPSHOT_ANSWER_MAX, sender.send_request(request)).await??;
        let status = answer.status();
        let body = Limited::new(answer.into_body(), limits::PEER_REASON_BYTES_MAX).collect();
        let why = timeout(limits::PEER_DIAL_TIMEOUT, body).await?;
        let why = why.map(|why| why.to_bytes()).unwrap_or_default();
        Ok((status, String::from_utf8_lossy(&why).trim().to_owned()))
    }

    /// Reads the state piece by piece on a thread of niceness 10. While proposals are committed
    /// here, `Pace` leaves them most of the disk and the network.
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
                // If the receiver of the pieces is gone, the peer's answer says why.
                if sent.is_err() || is_last {
                    return Ok(());
                }
                pace.rest(bytes);
            }
        };
        self.supervisor.nice("snapshot-send", work).await?
    }
}
