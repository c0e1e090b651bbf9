//! The index checkpoint: a file that spares the scan of all rows at start.
//!
//! | bytes | what |
//! |---|---|
//! | 0-7 | `RUSDIDX1` |
//! | 8-39 | generation, consistent index, revision, compact revision; 64 bits each, little-endian |
//! | 40-43 | CRC-32C of bytes 0-39, little-endian |
//! | 44- | blocks: length u32, CRC-32C u32 over block number (u64) and payload, payload |
//!
//! A block of length 0 ends the file. The checkpoint is only a copy of what the rows say, so it is
//! used exactly if it was written for the state at hand and is whole; else the rows are scanned.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use super::{Error, Store, dir};

const MAGIC: &[u8; 8] = b"RUSDIDX1";
const HEAD_BYTES: usize = 44;
/// Payload in one block: what a reader takes in before it has verified it.
const BLOCK_BYTES_MAX: usize = 1 << 20;
const FILE: &str = "index";

/// The state that a checkpoint was written for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CheckpointBinding {
    pub generation: u64,
    pub consistent_index: u64,
    pub revision: i64,
    pub compact_revision: i64,
}

/// Why there is no checkpoint to use; for the log.
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
        head[8..16].copy_from_slice(&self.generation.to_le_bytes());
        head[16..24].copy_from_slice(&self.consistent_index.to_le_bytes());
        head[24..32].copy_from_slice(&self.revision.to_le_bytes());
        head[32..40].copy_from_slice(&self.compact_revision.to_le_bytes());
        let crc = crc32c::crc32c(&head[..40]);
        head[40..].copy_from_slice(&crc.to_le_bytes());
        head
    }

    fn parse(head: &[u8; HEAD_BYTES]) -> Result<Self, Unusable> {
        let mut words = head[8..40].chunks_exact(8).map(|word| {
            let mut bytes = [0; 8];
            bytes.copy_from_slice(word);
            u64::from_le_bytes(bytes)
        });
        let mut word = || words.next().unwrap_or(0);
        let binding = Self {
            generation: word(),
            consistent_index: word(),
            revision: word().cast_signed(),
            compact_revision: word().cast_signed(),
        };
        if binding.head() == *head { Ok(binding) } else { Err(Unusable::Damaged("the header")) }
    }
}

impl Store {
    /// Replaces the checkpoint by what `write` produces.
    pub fn write_checkpoint(
        &self,
        binding: &CheckpointBinding,
        write: impl FnOnce(&mut dyn Write) -> io::Result<()>,
    ) -> Result<(), Error> {
        let generation_dir = self.place.read().1.clone();
        let path = generation_dir.join(FILE);
        let temporary = path.with_extension("tmp");
        let produce = || -> io::Result<()> {
            let mut options = OpenOptions::new();
            options.write(true).create(true).truncate(true).mode(0o600);
            let mut file = options.open(&temporary)?;
            file.write_all(&binding.head())?;
            let mut blocks = BlockWriter { file, number: 0, payload: Vec::new() };
            write(&mut blocks)?;
            blocks.finish()?.sync_all()?;
            fs::rename(&temporary, &path)
        };
        produce().map_err(Error::io(&path))?;
        dir::sync_dir(&generation_dir)
    }

    /// The checkpoint, if it was written for exactly this state. Damage in its payload shows as an
    /// error while it is read: what was read until then must be thrown away.
    pub fn read_checkpoint(
        &self,
        binding: &CheckpointBinding,
    ) -> Result<CheckpointReader, Unusable> {
        open(&self.place.read().1.join(FILE), binding)
    }
}

fn open(path: &Path, binding: &CheckpointBinding) -> Result<CheckpointReader, Unusable> {
    let file = match File::open(path) {
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
    let found = CheckpointBinding::parse(&head)?;
    if found != *binding {
        return Err(Unusable::OtherState(found));
    }
    Ok(CheckpointReader { file, number: 0, payload: Vec::new(), taken: 0, ended: false })
}

/// Cuts what is written into blocks.
struct BlockWriter {
    file: File,
    number: u64,
    payload: Vec<u8>,
}

impl BlockWriter {
    fn block(&mut self) -> io::Result<()> {
        let size = u32::try_from(self.payload.len()).unwrap_or(u32::MAX);
        let mut block = size.to_le_bytes().to_vec();
        block.extend_from_slice(&block_crc(self.number, &self.payload).to_le_bytes());
        self.file.write_all(&block)?;
        self.file.write_all(&self.payload)?;
        self.number += 1;
        self.payload.clear();
        Ok(())
    }

    fn finish(mut self) -> io::Result<File> {
        if !self.payload.is_empty() {
            self.block()?;
        }
        self.block()?;
        Ok(self.file)
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

/// Hands the payload out block by block, each verified first.
#[derive(Debug)]
pub struct CheckpointReader {
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
