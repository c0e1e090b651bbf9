//! Snapshots for clients. Each has a seat, and is read by a thread of niceness 10, no faster than
//! its reader takes it.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use sha2::{Digest, Sha256};
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::error::SnapshotError;
use super::seats::{Seat, Seats};
use super::snapshot::Snapshot;
use crate::bbolt;
use crate::clock::Clock;
use crate::limits::{SNAPSHOT_PIECES_MAX, SNAPSHOT_READER_RATE_MIN, SNAPSHOT_STALL_MAX};
use crate::metrics;
use crate::mvcc::CallerGuard;
use crate::peer::Pace;
use crate::raft;
use crate::store::{DirLock, Store};
use crate::supervise::Supervisor;

/// Why a snapshot did not begin.
#[derive(Debug, thiserror::Error)]
pub enum DownloadError {
    #[error("too many snapshots are under way")]
    NoSeat,
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// No thread could be started for it, or the member is ending.
    #[error(transparent)]
    Thread(#[from] io::Error),
}

/// Makes snapshots for clients.
pub struct Downloads {
    store: Arc<Store>,
    clock: Arc<dyn Clock>,
    raft: raft::Handle,
    supervisor: Supervisor,
    /// Keeps the directory locked while a snapshot outlives the member.
    lock: Arc<DirLock>,
    seats: Seats,
}

impl Downloads {
    pub fn new(
        store: Arc<Store>,
        clock: Arc<dyn Clock>,
        raft: raft::Handle,
        supervisor: Supervisor,
        lock: Arc<DirLock>,
    ) -> Self {
        Self { store, clock, raft, supervisor, lock, seats: Seats::default() }
    }

    /// Begins a snapshot of everything that is applied here: it waits for a commit first.
    pub async fn begin(&self) -> Result<SnapshotPieces, DownloadError> {
        let seat = self.seats.take(self.clock.now()).ok_or(DownloadError::NoSeat)?;
        let store = Arc::clone(&self.store);
        let waiting = CallerGuard::default();
        let wanted = waiting.read_check();
        // The seat moves into the thread, which outlives a caller that goes away.
        let measured = self.supervisor.nice("snapshot-size", move || {
            let snapshot = store.flush().map_err(SnapshotError::from);
            snapshot.and_then(|_| Snapshot::while_wanted(&store, &wanted)).map(|it| (it, seat))
        });
        let (snapshot, seat) = measured.await??;
        Ok(self.start(snapshot, seat))
    }

    /// Starts the thread that reads, at most `SNAPSHOT_PIECES_MAX` pieces ahead of the caller.
    fn start(&self, snapshot: Snapshot, seat: Arc<Seat>) -> SnapshotPieces {
        let (sender, pieces) = mpsc::channel(SNAPSHOT_PIECES_MAX);
        let (file_bytes, storage_version) = (snapshot.file_bytes(), snapshot.storage_version());
        let (clock, raft) = (Arc::clone(&self.clock), self.raft.clone());
        let runtime = tokio::runtime::Handle::current();
        let (supervisor, lock) = (self.supervisor.clone(), Arc::clone(&self.lock));
        self.supervisor.task("snapshot-read", async move {
            let _lock = lock;
            let pumped = supervisor.nice("snapshot-read", move || {
                let reader = Reader { seat, pieces: sender, began: clock.now(), clock };
                pump(snapshot, &reader, &mut Pace::new(raft), &runtime);
                let took = reader.clock.now().saturating_sub(reader.began);
                metrics::backend_snapshot_seconds().observe(took.as_secs_f64());
            });
            if let Err(error) = pumped.await {
                tracing::warn!(%error, "a snapshot ended early");
            }
        });
        SnapshotPieces { file_bytes, storage_version, pieces }
    }

    #[cfg(test)]
    pub(crate) fn seats_taken(&self) -> usize {
        self.seats.taken()
    }
}

/// A piece of the file, or the SHA-256 of the whole file, which comes last.
#[derive(Clone, Debug)]
pub enum SnapshotPiece {
    Bytes(Bytes),
    Digest([u8; bbolt::DIGEST_BYTES]),
}

/// The pieces of a snapshot, from the thread that reads it. A file without the digest is
/// incomplete.
pub struct SnapshotPieces {
    pub file_bytes: u64,
    pub storage_version: String,
    pieces: mpsc::Receiver<Result<SnapshotPiece, SnapshotError>>,
}

impl SnapshotPieces {
    /// The next piece; None after the digest, if the member stops, or if the caller was too slow.
    pub async fn next(&mut self) -> Option<Result<SnapshotPiece, SnapshotError>> {
        self.pieces.recv().await
    }

    #[cfg(test)]
    pub(crate) fn read_ahead(&self) -> usize {
        self.pieces.len()
    }
}

/// The thread's side of a snapshot: its seat, and the queue to the client.
struct Reader {
    seat: Arc<Seat>,
    pieces: mpsc::Sender<Result<SnapshotPiece, SnapshotError>>,
    clock: Arc<dyn Clock>,
    began: Duration,
}

impl Reader {
    /// Queues a piece, and waits for room; false if the reader gets no more pieces.
    async fn take(&self, piece: Result<SnapshotPiece, SnapshotError>, bytes_so_far: u64) -> bool {
        let now = self.clock.now();
        let fair = self.began + SNAPSHOT_STALL_MAX;
        let seconds = now.saturating_sub(fair).as_secs();
        if seconds * SNAPSHOT_READER_RATE_MIN > bytes_so_far {
            tracing::warn!("a snapshot is given up: its reader is too slow");
            return false;
        }
        self.seat.waits_since(Some(now));
        let taken = tokio::select! {
            taken = timeout(SNAPSHOT_STALL_MAX, self.pieces.send(piece)) => taken,
            () = self.seat.given_away() => {
                tracing::warn!("a snapshot is given up for another: its reader took too long");
                return false;
            }
        };
        self.seat.waits_since(None);
        if taken.is_err() {
            tracing::warn!("a snapshot is given up: its reader took too long");
        }
        matches!(taken, Ok(Ok(())))
    }
}

/// Reads the snapshot piece by piece until its end, or until the reader takes no more. Blocks.
fn pump(
    mut snapshot: Snapshot,
    reader: &Reader,
    pace: &mut Pace,
    runtime: &tokio::runtime::Handle,
) {
    let mut hasher = Sha256::new();
    let mut bytes_so_far = 0;
    loop {
        let piece = snapshot.next_piece();
        let is_last = !matches!(piece, Ok(Some(_)));
        let mut bytes = 0;
        let piece = piece.map(|piece| match piece {
            Some(piece) => {
                hasher.update(&piece);
                bytes = piece.len() as u64;
                SnapshotPiece::Bytes(piece)
            }
            None => SnapshotPiece::Digest(std::mem::take(&mut hasher).finalize().into()),
        });
        bytes_so_far += bytes;
        if !runtime.block_on(reader.take(piece, bytes_so_far)) || is_last {
            return;
        }
        pace.rest(bytes);
    }
}

#[cfg(test)]
mod tests;
