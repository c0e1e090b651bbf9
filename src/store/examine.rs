//! A store at rest, read from its first page to its last without LMDB and without changing a byte.
//!
//! The walk of `check` passes each entry on; here its checksum is verified, and large records are
//! put together from their chunks. Damage is noted with its place, and the walk continues after it.

use std::path::{Path, PathBuf};

use bytes::{Bytes, BytesMut};

use super::check::{self, Damages, Entries, Head, TableKind, Walk, WalkItem};
use super::schema::{self, Bucket};
use super::{Error, Opened, Pair, Row, Unusable};
use super::{checkpoint, damage, dir, env, parse_opened, record};
use crate::limits::{RECORD_CHUNK_BYTES, REQUEST_BYTES_MAX};
use crate::types::Revision;

/// The result of an examination.
#[derive(Default)]
pub struct Examined {
    pub file: PathBuf,
    pub file_bytes: u64,
    /// Pages up to the last one that LMDB has used.
    pub pages: u64,
    pub rows: u64,
    pub row_bytes: u64,
    pub opened: Opened,
    /// Why the index checkpoint cannot be used; None if it can.
    pub checkpoint: Option<Unusable>,
    pub checkpoint_file: PathBuf,
    /// The text of `DAMAGED`, in which a running member has noted damage.
    pub noted: Option<String>,
    /// Directories of generations that CURRENT does not name.
    pub others: Vec<PathBuf>,
    /// Damage to the store: the first places, and the number of further ones.
    pub damages: Vec<Error>,
    pub damages_unnamed: u64,
    pairs: Vec<(Bucket, Pair)>,
}

impl Examined {
    /// The undamaged pairs of a small bucket.
    pub fn pairs(&self, bucket: Bucket) -> impl Iterator<Item = &Pair> {
        self.pairs.iter().filter(move |(of, _)| *of == bucket).map(|(_, pair)| pair)
    }

    /// The value of a key of a small bucket, if it is undamaged.
    pub fn get(&self, bucket: Bucket, key: &[u8]) -> Option<&[u8]> {
        let mut pairs = self.pairs(bucket);
        pairs.find(|(found, _)| found == key).map(|(_, value)| value.as_slice())
    }
}

/// Reads the store in `db` and passes each undamaged row to `see`, in revision order. An error of
/// `see` counts as damage at that revision. The function's own error is one that keeps the store
/// from being read at all.
pub fn examine(
    db: &Path,
    see: &mut dyn FnMut(&Row) -> Result<(), String>,
) -> Result<Examined, Error> {
    let generation = dir::read_current(db)?;
    let generation_dir = dir::generation_dir(db, generation);
    let path = generation_dir.join(env::DATA_FILE);
    let (file, file_bytes) = check::open(&path)?;
    let head = Head { file: &file, path: &path, file_bytes };
    let meta = head.newest_meta()?;
    let mut walk = Walk::thorough(&head, &meta);
    let tables = walk.tables(&meta)?;
    let mut examined = Examined { file: path.clone(), file_bytes, ..Examined::default() };
    examined.pages = meta.last_page + 1;
    let mut own: Vec<Pair> = Vec::new();
    for (name, table) in &tables {
        let kind = TableKind::of(name);
        if name == schema::REV.as_bytes() {
            let blobs = tables.iter().find(|(name, _)| name == schema::BLOB.as_bytes());
            let chunks = blobs.map(|(_, table)| Entries::new(walk.pages, table));
            let mut rows = Rows { path: &path, chunks, ahead: None, see, examined: &mut examined };
            walk.table(table, kind, &mut |found| rows.entry(found))?;
            let rest = rows.end();
            walk.note_or_fail(rest)?;
        } else if name == schema::BLOB.as_bytes() {
            walk.table(table, kind, &mut |_| Ok(()))?;
        } else {
            let bucket = Bucket::ALL.into_iter().find(|it| it.name().as_bytes() == name);
            walk.table(table, kind, &mut |found| {
                let Some(pair) = pair(&path, name, found)? else { return Ok(()) };
                match bucket {
                    Some(bucket) => examined.pairs.push((bucket, pair)),
                    None => own.push(pair),
                }
                Ok(())
            })?;
        }
    }
    walk.table(&meta.free, TableKind::Free, &mut |_| Ok(()))?;
    let Damages { named, unnamed } = walk.into_damages();
    (examined.damages, examined.damages_unnamed) = (named, unnamed);
    examined.position(&own, generation);
    examined.examine_other_files(db, &generation_dir, generation)?;
    Ok(examined)
}

impl Examined {
    /// Fills in the description of the store from its small tables, as far as they are undamaged.
    fn position(&mut self, own: &[Pair], generation: u64) {
        let own = |name: &[u8]| {
            let found = own.iter().find(|(key, _)| key == name);
            Ok(found.map(|(_, value)| value.clone()))
        };
        let meta = |name: &[u8]| Ok(self.get(Bucket::Meta, name).map(<[u8]>::to_vec));
        let last = self.opened.last;
        match parse_opened(&self.file, own, meta) {
            Ok(opened) => self.opened = Opened { generation, last, ..opened },
            // The damage that caused this is reported already.
            Err(_) if !self.damages.is_empty() => {}
            Err(error) => self.damages.push(error),
        }
    }

    /// Examines the files beside the data file: checkpoint, `DAMAGED`, other generations.
    fn examine_other_files(
        &mut self,
        db: &Path,
        generation_dir: &Path,
        generation: u64,
    ) -> Result<(), Error> {
        self.checkpoint_file = generation_dir.join(checkpoint::FILE);
        self.checkpoint = match checkpoint::verify(generation_dir) {
            Ok(binding) if self.damages.is_empty() && !binding.serves(&self.opened) => {
                Some(Unusable::OtherState(binding))
            }
            Ok(_) => None,
            Err(unusable) => Some(unusable),
        };
        let others = dir::generations(db)?.into_iter().filter(|number| *number != generation);
        self.noted = damage::noted_damage(db);
        self.others = others.map(|number| dir::generation_dir(db, number)).collect();
        Ok(())
    }
}

/// The name and value of an entry of a small table.
fn pair(path: &Path, table: &[u8], found: WalkItem<'_>) -> Result<Option<Pair>, Error> {
    let WalkItem::Entry { page, key, value } = found else { return Ok(None) };
    let title = String::from_utf8_lossy(table);
    let (name, value) = schema::small_parse(&title, key, value).map_err(|what| {
        let at = format!("table {title}, key {} (page {page})", key.escape_ascii());
        Error::damage(path, at, what)
    })?;
    Ok(Some((name.to_vec(), value.to_vec())))
}

/// Puts rows together from the entries that the walk passes on.
struct Rows<'a> {
    path: &'a Path,
    chunks: Option<Entries<'a>>,
    /// A chunk that was read and belongs to a later row.
    ahead: Option<(Vec<u8>, Vec<u8>)>,
    see: &'a mut dyn FnMut(&Row) -> Result<(), String>,
    examined: &'a mut Examined,
}

impl Rows<'_> {
    fn entry(&mut self, found: WalkItem<'_>) -> Result<(), Error> {
        let WalkItem::Entry { page, key, value } = found else { return Ok(()) };
        let parsed = schema::rev_of(key).zip(schema::RevKey::try_from(key).ok());
        let Some((rev, key)) = parsed else {
            let at = format!("page {page}, key {}", key.escape_ascii());
            return Err(Error::damage(self.path, at, "not the key of a revision"));
        };
        let at = || format!("revision {rev} (page {page})");
        self.examined.opened.last = Some(rev);
        let row = self.row(rev, &key, value);
        let seen = row.and_then(|row| {
            self.examined.rows += 1;
            self.examined.row_bytes += row.kv.len() as u64;
            (self.see)(&row)
        });
        seen.map_err(|what| Error::damage(self.path, at(), what))
    }

    fn row(&mut self, rev: Revision, key: &schema::RevKey, value: &[u8]) -> Result<Row, String> {
        let (header, inline) = record::decode(value)?;
        let kv = if header.chunked {
            self.chunked(key, header.record_bytes)?
        } else {
            Bytes::copy_from_slice(inline)
        };
        header.verify(key, &kv)?;
        Ok(Row { rev, tombstone: header.tombstone, kv })
    }

    /// Puts a record together from its chunks. Chunks of earlier records are skipped.
    fn chunked(&mut self, key: &schema::RevKey, record_bytes: usize) -> Result<Bytes, String> {
        // A damaged header can claim any length, and that much would be allocated.
        let mut record = BytesMut::with_capacity(record_bytes.min(REQUEST_BYTES_MAX));
        let (first, last) = (schema::blob_key(key, 0), schema::blob_key(key, u32::MAX));
        let mut number = 0;
        while let Some((at, chunk)) = self.next_chunk() {
            if at[..] > last[..] {
                self.ahead = Some((at, chunk));
                break;
            }
            if at[..] < first[..] {
                continue;
            }
            let left = record_bytes.saturating_sub(record.len());
            if at[..] != schema::blob_key(key, number)[..]
                || chunk.len() != left.min(RECORD_CHUNK_BYTES)
            {
                break;
            }
            record.extend_from_slice(&chunk);
            number += 1;
        }
        if record.len() != record_bytes {
            return Err(format!("the chunks do not make up {record_bytes} bytes"));
        }
        Ok(record.freeze())
    }

    fn next_chunk(&mut self) -> Option<(Vec<u8>, Vec<u8>)> {
        self.ahead.take().or_else(|| self.chunks.as_mut()?.next())
    }

    /// After the last row, no chunk may be left.
    fn end(&mut self) -> Result<(), Error> {
        match self.next_chunk() {
            Some((key, _)) => {
                let at = format!("table {}, key {}", schema::BLOB, key.escape_ascii());
                Err(Error::damage(self.path, at, "a chunk of a record that is not there"))
            }
            None => Ok(()),
        }
    }
}
