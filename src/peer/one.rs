//! One peer: the streams that it has dialed, with their queues, and the peer's streams that this
//! member reads.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
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
    pub(super) readers: Mutex<Vec<AbortHandle>>,
    /// Whether a snapshot is being sent to the peer. A new record of the same peer, with other
    /// URLs, shares the flag, so that no second snapshot is sent beside the first.
    pub(super) sends_snapshot: Arc<AtomicBool>,
    /// The number of URLs that failed; the next snapshot begins with another URL.
    pub(super) snapshot_url: AtomicUsize,
    pub(super) reading: Mutex<Reading>,
    pub(super) series: metrics::PeerSeries,
}

/// How many of the peer's streams are read here, and since when both are.
#[derive(Default)]
pub(super) struct Reading {
    pub(super) streams: usize,
    pub(super) since: Option<Instant>,
}

/// The sending end of a stream, and the count of queued bytes.
#[derive(Clone)]
pub(super) struct Outgoing {
    queue: mpsc::Sender<Message>,
    bytes: Arc<AtomicUsize>,
}

impl Peer {
    /// Ends the streams that the peer has dialed, and stops reading the peer's.
    pub(super) fn hang_up(&self) {
        for reader in self.readers.lock().drain(..) {
            reader.abort();
        }
        *self.streams.lock() = [None, None];
    }

    pub(super) fn holds_both_streams(&self) -> bool {
        let streams = self.streams.lock();
        streams.iter().flatten().filter(|stream| !stream.queue.is_closed()).count() == 2
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
    pub(super) fn attach(&self, channel: Channel) -> (mpsc::Receiver<Message>, Arc<AtomicUsize>) {
        let (queue, messages) = mpsc::channel(limits::PEER_QUEUE_MAX);
        let bytes = Arc::new(AtomicUsize::new(0));
        let outgoing = Outgoing { queue, bytes: Arc::clone(&bytes) };
        self.streams.lock()[channel as usize] = Some(outgoing);
        (messages, bytes)
    }

    /// Queues a message; gives it back if there is no stream or no room.
    pub(super) fn send(&self, message: Message) -> Option<Message> {
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
