//! The index checkpoint: a file that spares the scan of all rows at start.
//!
//! | bytes | what |
//! |---|---|
//! | 0-7 | `RUSDIDX1` |
//! | 8-47 | store id, generation, consistent index, revision, compact revision; 64 bits each, little-endian |
//! | 48-51 | CRC-32C of bytes 0-47, little-endian |
//! | 52- | blocks: length u32, CRC-32C u32 over block number (u64) and payload, payload |
//!
//! A block of length 0 ends the file. The checkpoint only repeats what the rows say, and a start
//! adds the rows that are newer. If it does not fit the store, or is damaged or incomplete, the
//! index is built from all rows.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, Read, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use super::{Error, Opened, Store, dir};
use crate::files;
use crate::limits::{CHECKPOINT_SYNC_BYTES, DEFRAG_PIECE_BYTES};
use crate::types::Revision;

const MAGIC: &[u8; 8] = b"RUSDIDX1";
const HEAD_BYTES: usize = 52;
/// Payload of one block: as much is read before its checksum is verified.
const BLOCK_BYTES_MAX: usize = 1 << 20;
/// File name of the checkpoint, in the generation's directory.
pub(super) const FILE: &str = "index";

/// The state that a checkpoint was written for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CheckpointBinding {
    pub store_id: u64,
    pub generation: u64,
    /// Everything in the checkpoint was applied by this entry or by an earlier one.
    pub consistent_index: u64,
    pub revision: i64,
    pub compact_revision: i64,
}

/// Why the checkpoint is not used; its text is logged.
#[derive(Debug, thiserror::Error)]
pub enum Unusable {
    #[error("there is none")]
    Absent,
    #[error("it cannot be read: {0}")]
    Unreadable(io::Error),
    #[error("it is damaged: {0}")]
    Damaged(&'static str),
    #[error("it was written for another state: {0:?}")]
    OtherState(CheckpointBinding),
}

impl CheckpointBinding {
    fn head(&self) -> [u8; HEAD_BYTES] {
        let mut head = [0; HEAD_BYTES];
        head[..8].copy_from_slice(MAGIC);
        head[8..16].copy_from_slice(&self.store_id.to_le_bytes());
        head[16..24].copy_from_slice(&self.generation.to_le_bytes());
        head[24..32].copy_from_slice(&self.consistent_index.to_le_bytes());
        head[32..40].copy_from_slice(&self.revision.to_le_bytes());
        head[40..48].copy_from_slice(&self.compact_revision.to_le_bytes());
        let crc = crc32c::crc32c(&head[..48]);
        head[48..].copy_from_slice(&crc.to_le_bytes());
        head
    }

    fn parse(head: &[u8; HEAD_BYTES]) -> Result<Self, Unusable> {
        let mut words = head[8..48].chunks_exact(8).map(|word| {
            let mut bytes = [0; 8];
            bytes.copy_from_slice(word);
            u64::from_le_bytes(bytes)
        });
        let mut word = || words.next().unwrap_or(0);
        let binding = Self {
            store_id: word(),
            generation: word(),
            consistent_index: word(),
            revision: word().cast_signed(),
            compact_revision: word().cast_signed(),
        };
        if binding.head() == *head { Ok(binding) } else { Err(Unusable::Damaged("the header")) }
    }
}

impl CheckpointBinding {
    /// Whether the checkpoint together with the rows after its revision gives the index of the
    /// store as it was opened. The store must hold every entry that the checkpoint has seen. And no
    /// later compaction may go beyond the checkpoint's revision: it would have deleted tombstones
    /// that the checkpoint does not have, and without them a key that the checkpoint shows as live
    /// would stay so.
    pub(super) fn serves(&self, opened: &Opened) -> bool {
        let main = |revision: &Option<Revision>| revision.map_or(-1, |revision| revision.main);
        let finished = main(&opened.finished_compact);
        let compacted = finished.max(main(&opened.scheduled_compact));
        self.store_id == opened.id
            && self.generation == opened.generation
            && self.consistent_index <= opened.consistent_index
            && self.compact_revision <= finished
            && (compacted == self.compact_revision || compacted <= self.revision)
    }
}

impl Store {
    /// Begins a checkpoint in a temporary file. It replaces the one before when it is published.
    /// There must be only one writer at a time.
    pub fn begin_checkpoint(&self) -> Result<CheckpointWriter, Error> {
        let path = self.place.read().1.join(FILE);
        let temporary = path.with_extension("tmp");
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(0o600);
        let file = files::open_with(&options, &temporary).map_err(Error::io(&temporary))?;
        let blocks = BlockWriter { file, number: 0, unsynced_bytes: 0, payload: Vec::new() };
        let mut writer = CheckpointWriter {
            path,
            temporary,
            blocks,
            store_id: self.id.load(Ordering::Relaxed),
            generation: self.generation(),
            is_published: false,
        };
        // Room for the header, which is known only at the end.
        writer.blocks.file.write_all(&[0; HEAD_BYTES]).map_err(Error::io(&writer.temporary))?;
        Ok(writer)
    }

    /// The checkpoint, if it serves the store as it was opened. Damage in its payload is an error
    /// while it is read; what was read before must be discarded then.
    pub fn read_checkpoint(&self, opened: &Opened) -> Result<CheckpointReader, Unusable> {
        let reader = open(&self.place.read().1.join(FILE))?;
        match reader.binding.serves(opened) {
            true => Ok(reader),
            false => Err(Unusable::OtherState(reader.binding)),
        }
    }
}

/// Copies the checkpoint of the generation in `from` to its defragmented copy in `to`, with the
/// number of that generation in the header. `rest` is called with the bytes of each piece. Does
/// nothing if there is no readable checkpoint.
pub(super) fn carry_over(
    from: &Path,
    to: &Path,
    generation: u64,
    rest: &mut dyn FnMut(u64),
) -> Result<(), Error> {
    let Ok(CheckpointReader { binding, mut file, .. }) = open(&from.join(FILE)) else {
        return Ok(());
    };
    let (path, temporary) = (to.join(FILE), to.join(FILE).with_extension("tmp"));
    let mut copy = || -> io::Result<()> {
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(0o600);
        let mut out = files::open_with(&options, &temporary)?;
        out.write_all(&CheckpointBinding { generation, ..binding }.head())?;
        let mut piece = vec![0; DEFRAG_PIECE_BYTES];
        loop {
            let read = file.read(&mut piece)?;
            if read == 0 {
                break;
            }
            out.write_all(&piece[..read])?;
            out.sync_data()?;
            rest(read as u64);
        }
        out.sync_all()?;
        fs::rename(&temporary, &path)
    };
    copy().map_err(Error::io(&temporary))
}

/// A checkpoint that is being written beside the one in use.
pub struct CheckpointWriter {
    path: PathBuf,
    temporary: PathBuf,
    blocks: BlockWriter,
    store_id: u64,
    generation: u64,
    is_published: bool,
}

impl CheckpointWriter {
    /// Appends bytes of the payload.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.blocks.write_all(bytes).map_err(Error::io(&self.temporary))
    }

    /// Makes the checkpoint the one that the next start reads: the index as of `revision` and
    /// `compact_revision`. The store must be durable up to `consistent_index`, and nothing in the
    /// checkpoint may come from a later entry.
    pub fn publish(
        mut self,
        consistent_index: u64,
        revision: i64,
        compact_revision: i64,
    ) -> Result<(), Error> {
        let (store_id, generation) = (self.store_id, self.generation);
        let binding = CheckpointBinding {
            store_id,
            generation,
            consistent_index,
            revision,
            compact_revision,
        };
        let mut produce = || -> io::Result<()> {
            self.blocks.finish()?;
            self.blocks.file.write_all_at(&binding.head(), 0)?;
            self.blocks.file.sync_all()?;
            fs::rename(&self.temporary, &self.path)
        };
        produce().map_err(Error::io(&self.path))?;
        self.is_published = true;
        dir::sync_dir(files::parent(&self.path))
    }
}

impl Drop for CheckpointWriter {
    fn drop(&mut self) {
        if !self.is_published {
            // A file that cannot be removed is overwritten by the next checkpoint.
            let _ = fs::remove_file(&self.temporary);
        }
    }
}

/// Reads a generation's checkpoint to its end and verifies it.
pub(super) fn verify(generation_dir: &Path) -> Result<CheckpointBinding, Unusable> {
    let mut reader = open(&generation_dir.join(FILE))?;
    match io::copy(&mut reader, &mut io::sink()) {
        Ok(_) => Ok(reader.binding),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
            Err(Unusable::Damaged("it is cut off"))
        }
        Err(error) => Err(Unusable::Unreadable(error)),
    }
}

fn open(path: &Path) -> Result<CheckpointReader, Unusable> {
    let file = match files::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(Unusable::Absent),
        Err(error) => return Err(Unusable::Unreadable(error)),
    };
    let mut file = BufReader::with_capacity(64 << 10, file);
    let mut head = [0; HEAD_BYTES];
    file.read_exact(&mut head).map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof => Unusable::Damaged("the header is cut off"),
        _ => Unusable::Unreadable(error),
    })?;
    let binding = CheckpointBinding::parse(&head)?;
    Ok(CheckpointReader { binding, file, number: 0, payload: Vec::new(), taken: 0, ended: false })
}

/// Cuts the bytes written into blocks with checksums.
struct BlockWriter {
    file: File,
    number: u64,
    /// Bytes since the last sync of the file: one sync of the whole file would delay the log's
    /// syncs.
    unsynced_bytes: usize,
    payload: Vec<u8>,
}

impl BlockWriter {
    fn block(&mut self) -> io::Result<()> {
        let size = u32::try_from(self.payload.len()).unwrap_or(u32::MAX);
        let mut block = size.to_le_bytes().to_vec();
        block.extend_from_slice(&block_crc(self.number, &self.payload).to_le_bytes());
        self.file.write_all(&block)?;
        self.file.write_all(&self.payload)?;
        self.unsynced_bytes += self.payload.len();
        if self.unsynced_bytes >= CHECKPOINT_SYNC_BYTES {
            self.file.sync_data()?;
            self.unsynced_bytes = 0;
        }
        self.number += 1;
        self.payload.clear();
        Ok(())
    }

    fn finish(&mut self) -> io::Result<()> {
        if !self.payload.is_empty() {
            self.block()?;
        }
        self.block()
    }
}

impl Write for BlockWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = bytes.len().min(BLOCK_BYTES_MAX - self.payload.len());
        self.payload.extend_from_slice(&bytes[..taken]);
        if self.payload.len() == BLOCK_BYTES_MAX {
            self.block()?;
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn block_crc(number: u64, payload: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&number.to_le_bytes()), payload)
}

/// Reads the payload. Each block is verified before any of its bytes are returned.
#[derive(Debug)]
pub struct CheckpointReader {
    pub binding: CheckpointBinding,
    file: BufReader<File>,
    number: u64,
    payload: Vec<u8>,
    taken: usize,
    ended: bool,
}

impl CheckpointReader {
    fn next_block(&mut self) -> io::Result<()> {
        let damaged = |what| io::Error::new(io::ErrorKind::InvalidData, what);
        let mut head = [0; 8];
        self.file.read_exact(&mut head)?;
        let [s0, s1, s2, s3, c0, c1, c2, c3] = head;
        let size = u32::from_le_bytes([s0, s1, s2, s3]) as usize;
        if size > BLOCK_BYTES_MAX {
            return Err(damaged("a block of impossible length"));
        }
        self.payload.resize(size, 0);
        self.file.read_exact(&mut self.payload)?;
        if block_crc(self.number, &self.payload) != u32::from_le_bytes([c0, c1, c2, c3]) {
            self.payload.clear();
            return Err(damaged("the checksum of a block does not match"));
        }
        self.number += 1;
        self.taken = 0;
        self.ended = size == 0;
        if self.ended && self.file.read(&mut [0])? != 0 {
            return Err(damaged("bytes after the last block"));
        }
        Ok(())
    }
}

impl Read for CheckpointReader {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.taken == self.payload.len() && !self.ended {
            self.next_block()?;
        }
        let count = into.len().min(self.payload.len() - self.taken);
        into[..count].copy_from_slice(&self.payload[self.taken..self.taken + count]);
        self.taken += count;
        Ok(count)
    }
}
