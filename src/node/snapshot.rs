//! The member's state as etcd's snapshot file, made while it is read.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use sha2::{Digest, Sha256};
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::admission::Seat;
use super::{Error, Node};
use crate::auth::{Credentials, Demand};
use crate::bbolt::{self, Plan, Writer};
use crate::clock::Clock;
use crate::limits::{
    SNAPSHOT_PIECE_BYTES, SNAPSHOT_PIECES_MAX, SNAPSHOT_READER_RATE_MIN, SNAPSHOT_STALL_MAX,
};
use crate::mvcc::{Waiting, Wanted};
use crate::peer::Pace;
use crate::store::{self, Bucket, Frozen, Pair, Store, schema};
use crate::types::Revision;

/// etcd's bucket of the rows.
pub(super) const KEY_BUCKET: &str = "key";

#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    #[error(transparent)]
    Store(#[from] store::Error),
    #[error(transparent)]
    Bbolt(#[from] bbolt::Error),
}

/// A snapshot on its way out.
pub struct Snapshot {
    frozen: Frozen,
    writer: Writer,
    plan: Plan,
    buckets: Vec<(&'static str, Option<Bucket>)>,
    /// How many of them are written.
    done: usize,
    /// The next row, while the rows are being written.
    next_row: Option<Revision>,
    is_finished: bool,
}

impl Snapshot {
    /// Fixes the state and measures the file. It reads from disk.
    pub fn new(store: &Store) -> Result<Self, SnapshotError> {
        Self::while_wanted(store, &Wanted::default())
    }

    /// The same for somebody who may go away while it is measured.
    fn while_wanted(store: &Store, wanted: &Wanted) -> Result<Self, SnapshotError> {
        let frozen = store.freeze()?;
        let buckets = etcd_buckets();
        let plan = measure(&frozen, &buckets, wanted)?;
        let writer = Writer::write(plan);
        Ok(Self { frozen, writer, plan, buckets, done: 0, next_row: None, is_finished: false })
    }

    /// Length of the file.
    pub fn file_bytes(&self) -> u64 {
        self.plan.file_bytes()
    }

    /// What a bucket holds under a key.
    pub fn get(&self, bucket: Bucket, key: &[u8]) -> Option<&[u8]> {
        self.frozen.get(bucket, key)
    }

    pub fn storage_version(&self) -> String {
        let version = self.get(Bucket::Meta, schema::STORAGE_VERSION).unwrap_or_default();
        String::from_utf8_lossy(version).into_owned()
    }

    /// The next piece of the file; none at the end. It reads from disk.
    pub fn next_piece(&mut self) -> Result<Option<Bytes>, SnapshotError> {
        while self.writer.ready_bytes() < SNAPSHOT_PIECE_BYTES && !self.is_finished {
            self.advance()?;
        }
        let piece = self.writer.take();
        Ok((!piece.is_empty()).then(|| piece.into()))
    }

    fn advance(&mut self) -> Result<(), SnapshotError> {
        if let Some(from) = self.next_row {
            self.next_row = None;
            self.frozen.each_row(from, |rev, tombstone, kv| {
                let (key, len) = row_key(rev, tombstone);
                self.next_row = Some(after(rev));
                Ok::<_, SnapshotError>(self.writer.put(&key[..len], &kv)?)
            })?;
            if self.next_row.is_none() {
                self.writer.end()?;
                self.done += 1;
            }
            return Ok(());
        }
        let Some((name, bucket)) = self.buckets.get(self.done).copied() else {
            self.writer.finish()?;
            self.is_finished = true;
            return Ok(());
        };
        self.writer.begin(name.as_bytes())?;
        match bucket {
            Some(bucket) => {
                for (key, value) in self.frozen.bucket(bucket) {
                    self.writer.put(key, value)?;
                }
                self.writer.end()?;
                self.done += 1;
            }
            None => self.next_row = Some(Revision::default()),
        }
        Ok(())
    }
}

/// etcd's buckets in the order of their names; nothing stands for the rows.
pub(super) fn etcd_buckets() -> Vec<(&'static str, Option<Bucket>)> {
    let mut buckets = Bucket::ALL.map(|bucket| (bucket.name(), Some(bucket))).to_vec();
    buckets.push((KEY_BUCKET, None));
    buckets.sort_unstable();
    buckets
}

fn measure(
    frozen: &Frozen,
    buckets: &[(&'static str, Option<Bucket>)],
    wanted: &Wanted,
) -> Result<Plan, SnapshotError> {
    let mut measuring = Writer::measure();
    for (name, bucket) in buckets {
        measuring.begin(name.as_bytes())?;
        if let Some(bucket) = bucket {
            let mut put = |(key, value): &Pair| measuring.put_size(key, value.len());
            frozen.bucket(*bucket).iter().try_for_each(&mut put)?;
        } else {
            let mut from = Revision::default();
            loop {
                wanted.check().map_err(|_| store::Error::GivenUp("nobody waits for it"))?;
                let rows = frozen.row_sizes(from)?;
                let Some(last) = rows.last() else { break };
                from = after(last.rev);
                for row in rows {
                    let (key, len) = row_key(row.rev, row.tombstone);
                    measuring.put_size(&key[..len], row.bytes)?;
                }
            }
        }
        measuring.end()?;
    }
    Ok(measuring.finish()?)
}

fn after(rev: Revision) -> Revision {
    Revision::new(rev.main, rev.sub + 1)
}

/// A row's key in etcd's bucket: main, `_`, sub, and `t` for a tombstone.
pub(super) fn row_key(rev: Revision, tombstone: bool) -> ([u8; 18], usize) {
    let mut key = [b't'; 18];
    key[..17].copy_from_slice(&schema::revision_bytes(rev));
    (key, if tombstone { 18 } else { 17 })
}

/// A piece of the file, or the SHA-256 of all of them, which comes last.
#[derive(Clone, Debug)]
pub enum Piece {
    Bytes(Bytes),
    Digest([u8; bbolt::DIGEST_BYTES]),
}

/// A snapshot as it comes out of the threads that read it. Without the digest it is not whole.
pub struct Pieces {
    pub file_bytes: u64,
    pub storage_version: String,
    pieces: mpsc::Receiver<Result<Piece, SnapshotError>>,
}

impl Pieces {
    /// Starts to read; at most a few pieces ahead of the caller.
    fn start(snapshot: Snapshot, seat: Arc<Seat>, node: &Node) -> Self {
        let (sender, pieces) = mpsc::channel(SNAPSHOT_PIECES_MAX);
        let (file_bytes, storage_version) = (snapshot.file_bytes(), snapshot.storage_version());
        let (clock, raft) = (Arc::clone(&node.0.clock), node.0.raft.clone());
        let runtime = tokio::runtime::Handle::current();
        let pumping = node.clone();
        node.0.supervisor.clone().task("snapshot-read", async move {
            let pumped = pumping.nice("snapshot-read", move || {
                let reader = Reader { seat, pieces: sender, began: clock.now(), clock };
                pump(snapshot, &reader, &mut Pace::new(raft), &runtime);
                Ok(())
            });
            if let Err(error) = pumped.await {
                tracing::warn!(%error, "a snapshot ended early");
            }
        });
        Self { file_bytes, storage_version, pieces }
    }

    /// The next piece; none after the digest, or if this member stops or the caller was too slow.
    pub async fn next(&mut self) -> Option<Result<Piece, SnapshotError>> {
        self.pieces.recv().await
    }
}

/// Who takes the pieces.
struct Reader {
    seat: Arc<Seat>,
    pieces: mpsc::Sender<Result<Piece, SnapshotError>>,
    clock: Arc<dyn Clock>,
    began: Duration,
}

impl Reader {
    /// Waits until there is room for the piece; false if the reader gets no more.
    async fn take(&self, piece: Result<Piece, SnapshotError>, bytes_so_far: u64) -> bool {
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

/// Reads piece by piece for as long as somebody takes them.
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
                Piece::Bytes(piece)
            }
            None => Piece::Digest(std::mem::take(&mut hasher).finalize().into()),
        });
        bytes_so_far += bytes;
        if !runtime.block_on(reader.take(piece, bytes_so_far)) || is_last {
            return;
        }
        pace.rest(bytes);
    }
}

impl Node {
    /// Begins a snapshot of what is applied here, which is everything.
    pub async fn snapshot(&self, who: &Credentials) -> Result<Pieces, Error> {
        self.fence()?;
        self.permits(who, &Demand::Root).await?;
        let seat = self.0.admission.snapshots.take(self.0.clock.now())?;
        let store = Arc::clone(&self.0.machine.store);
        let waiting = Waiting::default();
        let wanted = waiting.wanted();
        // The seat goes with the thread, which ends some time after the caller if that goes away.
        let measured = self.nice("snapshot-size", move || {
            let snapshot = store.flush().map_err(SnapshotError::from);
            let snapshot = snapshot.and_then(|_| Snapshot::while_wanted(&store, &wanted));
            let snapshot = snapshot.map_err(|error| Error::Internal(error.to_string()))?;
            Ok((snapshot, seat))
        });
        let (snapshot, seat) = measured.await?;
        Ok(Pieces::start(snapshot, seat, self))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::admission::Seats;
    use crate::node::tests::{put, start};

    /// A clock that somebody sets.
    #[derive(Default)]
    struct Set(parking_lot::Mutex<Duration>);

    impl Clock for Set {
        fn now(&self) -> Duration {
            *self.0.lock()
        }

        fn unix_nanos(&self) -> u64 {
            0
        }

        fn random(&self) -> u64 {
            0
        }
    }

    #[tokio::test]
    async fn a_reader_that_takes_less_than_64_kib_a_second_gets_no_more() {
        let clock = Arc::new(Set::default());
        let (pieces, mut taken) = mpsc::channel(SNAPSHOT_PIECES_MAX);
        let seat = Seats::default().take(Duration::ZERO).unwrap();
        let (began, of) = (Duration::ZERO, Arc::clone(&clock));
        let reader = Reader { seat, pieces, began, clock: of };
        let mut takes = async |seconds: u64, kib: u64| {
            *clock.0.lock() = Duration::from_secs(seconds);
            let is_taken = reader.take(Ok(Piece::Bytes(Bytes::new())), kib << 10).await;
            assert_eq!(taken.try_recv().is_ok(), is_taken);
            is_taken
        };
        assert!(takes(60, 0).await, "the first minute is for nothing");
        assert!(takes(160, 6400).await);
        assert!(!takes(160, 6399).await);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_snapshot_that_nobody_reads_holds_four_pieces() {
        let dir = tempfile::tempdir().unwrap();
        let node = start(dir.path()).await;
        let (nobody, value) = (Credentials::default(), "v".repeat(100_000));
        for n in 0..60 {
            node.propose(&nobody, put(&format!("key {n}"), &value)).await.unwrap();
        }
        let mut unread = node.snapshot(&nobody).await.unwrap();
        assert!(unread.file_bytes > 6_000_000);
        let begun = tokio::time::Instant::now();
        while unread.pieces.len() < 4 {
            assert!(begun.elapsed() < Duration::from_secs(60), "{} pieces", unread.pieces.len());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        // Nothing more comes, however long nobody reads.
        tokio::time::sleep(Duration::from_millis(200)).await;
        assert_eq!(unread.pieces.len(), 4);
        for _ in 0..4 {
            let Some(Ok(Piece::Bytes(piece))) = unread.next().await else { panic!("no piece") };
            assert!((256 << 10..1 << 20).contains(&piece.len()), "{}", piece.len());
        }
        drop(unread);
        node.stop().await;
    }
}
