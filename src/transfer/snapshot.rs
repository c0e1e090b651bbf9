//! A member's state as etcd's snapshot file, made while it is read.

use bytes::Bytes;

use super::error::SnapshotError;
use crate::bbolt::{Plan, Writer};
use crate::limits::SNAPSHOT_PIECE_BYTES;
use crate::mvcc::ReadCheck;
use crate::store::{self, Bucket, Frozen, Pair, Store, schema};
use crate::types::Revision;

/// etcd's bucket for the rows.
pub(super) const KEY_BUCKET: &str = "key";

/// A snapshot file that is being made.
pub struct Snapshot {
    frozen: Frozen,
    writer: Writer,
    plan: Plan,
    buckets: Vec<(&'static str, Option<Bucket>)>,
    /// The number of buckets that are written.
    done: usize,
    /// The revision of the next row, while the rows are being written.
    next_row: Option<Revision>,
    is_finished: bool,
}

impl Snapshot {
    /// Freezes the state and measures the file. Blocks: it reads all sizes from the disk.
    pub fn new(store: &Store) -> Result<Self, SnapshotError> {
        Self::while_wanted(store, &ReadCheck::default())
    }

    /// As [`Snapshot::new`], but ends early with an error once its caller is gone.
    pub(super) fn while_wanted(store: &Store, wanted: &ReadCheck) -> Result<Self, SnapshotError> {
        let frozen = store.freeze()?;
        let buckets = etcd_buckets();
        let plan = measure(&frozen, &buckets, wanted)?;
        let writer = Writer::write(plan);
        Ok(Self { frozen, writer, plan, buckets, done: 0, next_row: None, is_finished: false })
    }

    /// Length of the file in bytes.
    pub fn file_bytes(&self) -> u64 {
        self.plan.file_bytes()
    }

    /// The value under a key of a small bucket.
    pub fn get(&self, bucket: Bucket, key: &[u8]) -> Option<&[u8]> {
        self.frozen.get(bucket, key)
    }

    pub fn storage_version(&self) -> String {
        let version = self.get(Bucket::Meta, schema::STORAGE_VERSION).unwrap_or_default();
        String::from_utf8_lossy(version).into_owned()
    }

    /// The next piece of the file; None at the end. Blocks: it reads from the disk.
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
                let (key, len) = schema::row_key(rev, tombstone);
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

/// etcd's buckets in the order of their names; None stands for the rows.
pub(super) fn etcd_buckets() -> Vec<(&'static str, Option<Bucket>)> {
    let mut buckets = Bucket::ALL.map(|bucket| (bucket.name(), Some(bucket))).to_vec();
    buckets.push((KEY_BUCKET, None));
    buckets.sort_unstable();
    buckets
}

fn measure(
    frozen: &Frozen,
    buckets: &[(&'static str, Option<Bucket>)],
    wanted: &ReadCheck,
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
                    let (key, len) = schema::row_key(row.rev, row.tombstone);
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
