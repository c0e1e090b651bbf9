//! Reading old entries back, when apply or a follower needs what is no longer in memory.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use prost::Message;
use raft::eraftpb::Entry;

use super::disk::{Disk, File};
use super::format::{Bad, Decoded, FRAME_BYTES, Record, RecordKind, decode};
use super::table::{EntryPosition, LogPosition};
use super::{Error, Segments, io_error};
use crate::limits;
use crate::planted::{self, Bug};

pub(super) fn message<M: Message + Default>(data: &Bytes) -> Result<M, String> {
    M::decode(data.clone()).map_err(|error| format!("a record's data cannot be decoded ({error})"))
}

/// Reads entries that are no longer in memory. It keeps the last segment open.
pub struct Reader {
    pub(super) disk: Arc<dyn Disk>,
    pub(super) segments: Segments,
    pub(super) open: Option<(u32, PathBuf, Arc<dyn File>)>,
}

impl Reader {
    /// Closes the open segment if its number is below this one: an open file keeps the blocks of a
    /// purged segment, which a full disk needs.
    pub fn release(&mut self, below: u32) {
        self.open.take_if(|(segment, ..)| *segment < below);
    }

    /// Reads the entries at these places; index and term have to be those that are given. Stops
    /// before the data exceeds `bytes_max`, but reads at least one entry.
    pub fn read(
        &mut self,
        wanted: impl Iterator<Item = EntryPosition>,
        bytes_max: u64,
    ) -> Result<Vec<Entry>, Error> {
        let mut entries = Vec::new();
        let mut size = 0;
        let mut window = Window::default();
        for (index, term, place) in wanted {
            let (path, file) = self.file(place.segment)?;
            let damage = |what: String| Error::Damage {
                file: path.clone(),
                offset: u64::from(place.offset),
                what,
            };
            let record = window.record(&file, place).map_err(|bad| match bad {
                Unread::Io(source) => Error::Io { doing: "read", path: path.clone(), source },
                Unread::Bad(what) => damage(what),
            })?;
            let entry: Entry = message(&Bytes::copy_from_slice(&record.data)).map_err(damage)?;
            if record.kind != RecordKind::Entry || (entry.index, entry.term) != (index, term) {
                return Err(damage(format!("entry {index} of term {term} is not here")));
            }
            size += entry.data.len() as u64;
            if size > bytes_max && !entries.is_empty() {
                break;
            }
            entries.push(entry);
        }
        Ok(entries)
    }

    fn file(&mut self, sequence: u32) -> Result<(PathBuf, Arc<dyn File>), Error> {
        if let Some((open, path, file)) = &self.open
            && *open == sequence
        {
            return Ok((path.clone(), Arc::clone(file)));
        }
        let segment = self.segments.0.lock().get(&u64::from(sequence)).cloned();
        let path =
            segment.ok_or_else(|| Error::Missing(format!("segment {sequence}").into()))?.path;
        let file = self.disk.open(&path).map_err(io_error("open", &path))?;
        self.open = Some((sequence, path.clone(), Arc::clone(&file)));
        Ok((path, file))
    }
}

enum Unread {
    Io(io::Error),
    Bad(String),
}

/// A piece of a segment in memory, so that successive entries take one read.
#[derive(Default)]
struct Window {
    segment: Option<u32>,
    start: u64,
    bytes: Bytes,
}

impl Window {
    fn record(&mut self, file: &Arc<dyn File>, place: LogPosition) -> Result<Record, Unread> {
        let offset = u64::from(place.offset);
        if self.segment != Some(place.segment) {
            *self = Self { segment: Some(place.segment), ..Self::default() };
        }
        self.cover(file, offset, FRAME_BYTES as u64)?;
        let crc = (!planted::is(Bug::BelievedDamage)).then_some(place.crc);
        loop {
            let at = offset - self.start;
            match decode(&self.bytes, at, crc, limits::LOG_RECORD_BYTES_MAX) {
                Decoded::Record(record) => return Ok(record),
                Decoded::Bad(Bad { torn: true, .. }) if self.grow(file, offset)? => {}
                Decoded::Bad(Bad { what, .. }) => return Err(Unread::Bad(what)),
                Decoded::End => return Err(Unread::Bad("there is no record here".into())),
            }
        }
    }

    /// Makes sure that `need` bytes from `offset` on are in the window.
    fn cover(&mut self, file: &Arc<dyn File>, offset: u64, need: u64) -> Result<(), Unread> {
        let end = self.start + self.bytes.len() as u64;
        if offset >= self.start && offset + need <= end {
            return Ok(());
        }
        self.load(file, offset, limits::LOG_READ_BYTES)
    }

    /// Reads more from `offset` on; false if the window already reaches the file's end.
    fn grow(&mut self, file: &Arc<dyn File>, offset: u64) -> Result<bool, Unread> {
        let length = file.size().map_err(Unread::Io)?;
        if self.start + self.bytes.len() as u64 >= length {
            return Ok(false);
        }
        let twice = 2 * self.bytes.len() as u64;
        self.load(file, offset, twice.max(limits::LOG_READ_BYTES))?;
        Ok(true)
    }

    fn load(&mut self, file: &Arc<dyn File>, offset: u64, size: u64) -> Result<(), Unread> {
        let mut length = file.size().map_err(Unread::Io)?;
        let bytes = loop {
            let mut bytes = vec![0; size.min(length.saturating_sub(offset)) as usize];
            let Err(error) = file.read_at(&mut bytes, offset) else { break bytes };
            // The writer, on its own thread, cuts a segment where its records end when the next one
            // begins.
            let before = length;
            length = file.size().map_err(Unread::Io)?;
            if error.kind() != io::ErrorKind::UnexpectedEof || length >= before {
                return Err(Unread::Io(error));
            }
        };
        self.start = offset;
        self.bytes = Bytes::from(bytes);
        Ok(())
    }
}
