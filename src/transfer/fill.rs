//! Fills a generation of the store with a state from a file or another store.

use std::fs::File;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use super::error::{InstallError, refused};
use super::snapshot::{KEY_BUCKET, etcd_buckets};
use crate::bbolt::{Item, Reader};
use crate::limits::{SNAPSHOT_BUILD_BATCHES, SNAPSHOT_BUILD_BYTES};
use crate::mvcc::Restoring;
use crate::store::{Bucket, Building, Frozen, Pair, Row, schema};
use crate::types::Revision;

/// The source of a state.
pub enum Source<'a> {
    /// etcd's snapshot file. `fill` checks all of its pages first.
    File(&'a File),
    /// Another store.
    Store(&'a Frozen),
}

/// An item that `walk` finds.
pub enum WalkItem<'a> {
    Bucket(&'a [u8]),
    Pair { bucket: &'a [u8], key: &'a [u8], value: &'a [u8] },
}

impl Source<'_> {
    /// Copies the whole state.
    pub fn fill(&self, building: &mut Building) -> Result<(), InstallError> {
        match self {
            Self::File(file) => from_file(file, building),
            Self::Store(frozen) => {
                for bucket in Bucket::ALL {
                    building.pairs(bucket, frozen.bucket(bucket))?;
                }
                let mut batch = Batch::default();
                self.rows(|row| batch.add(row, building))?;
                batch.end(building)
            }
        }
    }

    /// All pairs of a small bucket.
    pub fn bucket(&self, bucket: Bucket) -> Result<Vec<Pair>, InstallError> {
        match self {
            Self::Store(frozen) => Ok(frozen.bucket(bucket).to_vec()),
            Self::File(file) => pairs_of(&Reader::open(*file)?, bucket),
        }
    }

    /// The value under a key of a small bucket.
    pub fn get(&self, bucket: Bucket, key: &[u8]) -> Result<Option<Vec<u8>>, InstallError> {
        let file = match self {
            Self::Store(frozen) => return Ok(frozen.get(bucket, key).map(<[u8]>::to_vec)),
            Self::File(file) => file,
        };
        let reader = Reader::open(file)?;
        let Some(found) = reader.bucket(bucket.name().as_bytes())? else { return Ok(None) };
        let mut cursor = reader.cursor(&found);
        while let Some((found, item)) = cursor.next()? {
            match item {
                Item::Value(value) if found == key => return Ok(Some(value.to_vec())),
                _ => {}
            }
        }
        Ok(None)
    }

    /// Passes everything to `each`, as etcd's file holds it and in its order.
    pub fn walk(&self, mut each: impl FnMut(WalkItem<'_>)) -> Result<(), InstallError> {
        match self {
            Self::File(file) => {
                let reader = Reader::open(file)?;
                let (mut root, mut found) = (reader.cursor(&reader.root()), Vec::new());
                while let Some((name, item)) = root.next()? {
                    let Item::Bucket(bucket) = item else {
                        return Err(refused("a pair stands among the buckets"));
                    };
                    found.push((name.to_vec(), bucket));
                }
                for (name, bucket) in found {
                    each(WalkItem::Bucket(&name));
                    let mut cursor = reader.cursor(&bucket);
                    while let Some((key, item)) = cursor.next()? {
                        let value = if let Item::Value(value) = item { value } else { &[] };
                        each(WalkItem::Pair { bucket: &name, key, value });
                    }
                }
            }
            Self::Store(frozen) => {
                for (name, bucket) in etcd_buckets() {
                    each(WalkItem::Bucket(name.as_bytes()));
                    let Some(bucket) = bucket else {
                        self.rows(|row| {
                            let (key, len) = schema::row_key(row.rev, row.tombstone);
                            let (bucket, key, value) = (name.as_bytes(), &key[..len], &row.kv);
                            each(WalkItem::Pair { bucket, key, value });
                            Ok(())
                        })?;
                        continue;
                    };
                    for (key, value) in frozen.bucket(bucket) {
                        each(WalkItem::Pair { bucket: name.as_bytes(), key, value });
                    }
                }
            }
        }
        Ok(())
    }

    /// Passes all rows to `each`, in the order of their revisions.
    pub fn rows(
        &self,
        mut each: impl FnMut(Row) -> Result<(), InstallError>,
    ) -> Result<(), InstallError> {
        match self {
            Self::File(file) => {
                let reader = Reader::open(file)?;
                let Some(rows) = reader.bucket(KEY_BUCKET.as_bytes())? else { return Ok(()) };
                let mut cursor = reader.cursor(&rows);
                while let Some((key, item)) = cursor.next()? {
                    if !matches!(item, Item::Value(_)) {
                        return Err(refused("a row is a bucket"));
                    }
                    let Some((rev, tombstone)) = schema::row_key_parse(key) else {
                        return Err(refused(format!("{} is no key of a row", key.escape_ascii())));
                    };
                    each(Row { rev, tombstone, kv: cursor.value() })?;
                }
            }
            Self::Store(frozen) => {
                let mut from = Revision::default();
                loop {
                    let rows = frozen.rows(from)?;
                    let Some(last) = rows.last() else { break };
                    from = Revision::new(last.rev.main, last.rev.sub + 1);
                    rows.into_iter().try_for_each(&mut each)?;
                }
            }
        }
        Ok(())
    }
}

/// Rows that go into one commit.
#[derive(Default)]
struct Batch {
    rows: Vec<Row>,
    bytes: usize,
}

impl Batch {
    fn add(&mut self, row: Row, building: &mut Building) -> Result<(), InstallError> {
        self.bytes += row.kv.len() + size_of::<Row>();
        self.rows.push(row);
        if self.bytes >= SNAPSHOT_BUILD_BYTES { self.end(building) } else { Ok(()) }
    }

    fn end(&mut self, building: &mut Building) -> Result<(), InstallError> {
        building.rows(&self.rows)?;
        self.bytes = 0;
        self.rows.clear();
        Ok(())
    }
}

fn from_file(file: &File, building: &mut Building) -> Result<(), InstallError> {
    let reader = Reader::open(file)?;
    reader.check()?;
    small_buckets(&reader, building)?;
    let mut batch = Batch::default();
    Source::File(file).rows(|row| batch.add(row, building))?;
    batch.end(building)
}

/// As [`Source::fill`] for a file that is proved by its digest, so that its pages are not checked.
/// Builds the index in memory at the same time: this thread reads while another one writes.
pub(super) fn fill_and_index(
    file: &File,
    mut building: Building,
) -> Result<(Building, Restoring), InstallError> {
    let reader = Reader::open(file)?;
    small_buckets(&reader, &mut building)?;
    std::thread::scope(|scope| {
        let (batches, filled) = sync_channel::<Vec<Row>>(SNAPSHOT_BUILD_BATCHES);
        let (spent, emptied) = sync_channel(SNAPSHOT_BUILD_BATCHES);
        let writing = scope.spawn(move || {
            for rows in filled {
                building.rows(&rows)?;
                // Batches go back to the thread that allocated them. If the writer freed the rows,
                // both threads would wait for the lock of one malloc arena.
                let _ = spent.try_send(rows);
            }
            Ok::<_, InstallError>(building)
        });
        let read = read_rows(file, &batches, &emptied);
        drop(batches);
        // If the writer ended early, its error is the cause, so it comes first.
        let ended = writing.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        Ok((ended?, read?))
    })
}

/// Passes all rows on in batches, and reuses the batches that come back.
fn read_rows(
    file: &File,
    batches: &SyncSender<Vec<Row>>,
    emptied: &Receiver<Vec<Row>>,
) -> Result<Restoring, InstallError> {
    let (mut index, mut batch) = (Restoring::default(), Batch::default());
    let gone = |_| refused("nobody writes it");
    Source::File(file).rows(|row| {
        index.add(&row).map_err(|error| refused(error.to_string()))?;
        batch.bytes += row.kv.len() + size_of::<Row>();
        batch.rows.push(row);
        if batch.bytes >= SNAPSHOT_BUILD_BYTES {
            batches.send(std::mem::take(&mut batch).rows).map_err(gone)?;
            if let Some(mut rows) = emptied.try_iter().last() {
                rows.clear();
                batch.rows = rows;
            }
        }
        Ok(())
    })?;
    batches.send(batch.rows).map_err(gone)?;
    Ok(index)
}

fn small_buckets(reader: &Reader<&File>, building: &mut Building) -> Result<(), InstallError> {
    for name in ["meta", KEY_BUCKET] {
        if reader.bucket(name.as_bytes())?.is_none() {
            return Err(refused(format!("it has no bucket {name}")));
        }
    }
    for bucket in Bucket::ALL {
        building.pairs(bucket, &pairs_of(reader, bucket)?)?;
    }
    Ok(())
}

fn pairs_of(reader: &Reader<&File>, bucket: Bucket) -> Result<Vec<Pair>, InstallError> {
    let mut pairs = Vec::new();
    let Some(found) = reader.bucket(bucket.name().as_bytes())? else { return Ok(pairs) };
    let mut cursor = reader.cursor(&found);
    while let Some((key, item)) = cursor.next()? {
        let Item::Value(value) = item else {
            return Err(refused(format!("bucket {} holds a bucket", bucket.name())));
        };
        pairs.push((key.to_vec(), value.to_vec()));
    }
    Ok(pairs)
}

#[cfg(test)]
mod tests;
