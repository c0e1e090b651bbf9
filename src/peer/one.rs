//! One peer: the streams that it has dialed, with their queues, the queues of what is posted to it,
//! and the peer's streams that this member reads.

use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Instant;

use parking_lot::Mutex;
use prost::Message as _;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;

use super::frame::Channel;
use crate::raft::Message;
use crate::{limits, metrics};

pub(super) struct Peer {
    pub(super) id: u64,
    pub(super) urls: Vec<String>,
    /// Whether the peer was accepted because it called, while the log here does not name it as a
    /// member.
    pub(super) is_unconfirmed: bool,
    /// The streams that the peer has dialed, by `Channel`.
    pub(super) streams: Mutex<[Option<Outgoing>; 2]>,
    /// What goes to the peer in requests of its own while it has not dialed, by `Channel`.
    pub(super) posts: Mutex<[Option<Outgoing>; 2]>,
    /// The tasks that read the peer's streams, and probe.
    pub(super) readers: Mutex<Vec<AbortHandle>>,
    /// The tasks that post to the peer.
    pub(super) posters: Mutex<Vec<AbortHandle>>,
    /// Whether a snapshot is being sent to the peer. A new record of the same peer, with other
    /// URLs, shares the flag, so that no second snapshot is sent beside the first.
    pub(super) sends_snapshot: Arc<AtomicBool>,
    /// The number of URLs that failed; the next snapshot begins with another URL.
    pub(super) snapshot_url: AtomicUsize,
    pub(super) reading: Mutex<Reading>,
    /// Why the last attempt to read a stream of the peer ended.
    pub(super) failure: Mutex<String>,
    pub(super) series: metrics::PeerSeries,
}

/// How many of the peer's streams are read here, and since when both are.
#[derive(Default)]
pub(super) struct Reading {
    pub(super) streams: usize,
    pub(super) since: Option<Instant>,
}

/// The sending end of a queue of messages, and the count of queued bytes.
#[derive(Clone)]
pub(super) struct Outgoing {
    queue: mpsc::Sender<Message>,
    bytes: Arc<AtomicUsize>,
}

/// The receiving end.
pub(super) struct Queued {
    messages: mpsc::Receiver<Message>,
    bytes: Arc<AtomicUsize>,
}

/// A queue for so many messages, and for `PEER_QUEUE_BYTES_MAX`.
pub(super) fn queue(messages_max: usize) -> (Outgoing, Queued) {
    let (queue, messages) = mpsc::channel(messages_max);
    let bytes = Arc::new(AtomicUsize::new(0));
    (Outgoing { queue, bytes: Arc::clone(&bytes) }, Queued { messages, bytes })
}

impl Outgoing {
    fn is_closed(&self) -> bool {
        self.queue.is_closed()
    }

    /// Queues a message and returns its size; gives it back if there is no room, or nobody to take
    /// it.
    #[expect(clippy::result_large_err, reason = "a message that found no place goes back as it is")]
    pub(super) fn push(&self, message: Message) -> Result<usize, Message> {
        let size = message.encoded_len();
        if self.bytes.fetch_add(size, Ordering::Relaxed) + size > limits::PEER_QUEUE_BYTES_MAX {
            self.bytes.fetch_sub(size, Ordering::Relaxed);
            return Err(message);
        }
        self.queue.try_send(message).map(|()| size).map_err(|error| {
            self.bytes.fetch_sub(size, Ordering::Relaxed);
            error.into_inner()
        })
    }
}

impl Queued {
    /// The next message; None once the sending end is gone.
    pub(super) async fn next(&mut self) -> Option<Message> {
        poll_fn(|context| self.poll_next(context)).await
    }

    pub(super) fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<Message>> {
        let message = ready!(self.messages.poll_recv(context));
        Poll::Ready(message.inspect(|message| self.count_out(message)))
    }

    /// The next message if one is queued.
    pub(super) fn try_next(&mut self) -> Option<Message> {
        let message = self.messages.try_recv().ok()?;
        self.count_out(&message);
        Some(message)
    }

    /// Whether nobody can push any more.
    pub(super) fn is_closed(&self) -> bool {
        self.messages.is_closed()
    }

    /// Takes no more messages: who pushes one gets it back.
    pub(super) fn close(&mut self) {
        self.messages.close();
    }

    fn count_out(&self, message: &Message) {
        self.bytes.fetch_sub(message.encoded_len(), Ordering::Relaxed);
    }
}

impl Peer {
    /// Ends the streams that the peer has dialed, and stops posting to the peer and reading its
    /// streams.
    pub(super) fn hang_up(&self) {
        self.retire();
        for poster in self.posters.lock().drain(..) {
            poster.abort();
        }
    }

    /// As `hang_up`, for another record of the same peer. What is queued to be posted is still
    /// posted, or reported as unsent.
    pub(super) fn retire(&self) {
        for reader in self.readers.lock().drain(..) {
            reader.abort();
        }
        *self.posts.lock() = [None, None];
        *self.streams.lock() = [None, None];
    }

    pub(super) fn holds_both_streams(&self) -> bool {
        let streams = self.streams.lock();
        streams.iter().flatten().filter(|stream| !stream.is_closed()).count() == 2
    }

    /// Counts a stream of the peer as read until the returned value is dropped.
    pub(super) fn count_reader(self: &Arc<Self>) -> ReadingGuard {
        let mut reading = self.reading.lock();
        reading.streams += 1;
        if reading.streams == Channel::BOTH.len() {
            reading.since = Some(crate::clock::instant());
            self.series.active.set(1);
        }
        ReadingGuard(Arc::clone(self))
    }

    /// Makes a new stream in place of the old one, which then ends: its queue has no sender any
    /// more.
    pub(super) fn attach(&self, channel: Channel) -> Queued {
        let (outgoing, queued) = queue(limits::PEER_QUEUE_MAX);
        self.streams.lock()[channel as usize] = Some(outgoing);
        queued
    }

    /// Makes the queue of what is posted.
    pub(super) fn open_posts(&self, channel: Channel) -> Queued {
        let (outgoing, queued) = queue(limits::PEER_POSTS_QUEUE_MAX);
        self.posts.lock()[channel as usize] = Some(outgoing);
        queued
    }

    /// Queues a message for the peer's stream, or to be posted if it has none; gives it back if
    /// there is no room.
    pub(super) fn send(&self, message: Message) -> Option<Message> {
        let channel = Channel::of(&message) as usize;
        let stream = self.streams.lock()[channel].clone().filter(|stream| !stream.is_closed());
        let Some(stream) = stream else {
            return match &self.posts.lock()[channel] {
                Some(posts) => posts.push(message).err(),
                None => Some(message),
            };
        };
        match stream.push(message) {
            Ok(bytes) => {
                self.series.sent_bytes.inc_by(bytes as u64);
                None
            }
            Err(message) => Some(message),
        }
    }
}

/// Counts a stream as read until it is dropped.
pub(super) struct ReadingGuard(Arc<Peer>);

impl Drop for ReadingGuard {
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
