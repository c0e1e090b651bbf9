//! Damage that is found in a running store, by a read or by the scrub.
//!
//! The first damage is remembered until the process ends, and noted in the file `DAMAGED` beside
//! CURRENT. From then on the store is neither defragmented nor sent as a snapshot, so that damage
//! does not spread, and a later start reads all of it first. If that finds no damage, the note is
//! removed.

use std::fs;
use std::io;
use std::ops::Bound;
use std::path::Path;

use super::committer::{Shared, call};
use super::damage::FILE;
use super::{Bucket, Error, Store, dir, examine};
use crate::files;
use crate::limits::{READ_CHUNK_ROWS, SCRUB_PIECE_BYTES};
use crate::types::Revision;

/// The result of one call of `scrub`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Scrubbed {
    /// Where the next piece begins; None after the last one.
    pub next: Option<Revision>,
    pub rows: u64,
    pub bytes: u64,
}

impl Shared {
    /// If `outcome` is the first damage of this process: remembers it, calls the hooks and writes
    /// `DAMAGED`. Returns `outcome`.
    pub(super) fn note<T>(&self, db: &Path, outcome: Result<T, Error>) -> Result<T, Error> {
        if let Err(error @ Error::Damage { .. }) = &outcome {
            let text = error.to_string();
            if self.damage.found.set(text.clone()).is_ok() {
                // Before the note: a disk with damage may take long for it.
                call(&self.hooks.damaged, &text);
                if let Err(error) = dir::write_whole(&db.join(FILE), text.as_bytes()) {
                    tracing::error!(%error, "failed to note the damage beside the store");
                }
            }
        }
        outcome
    }
}

impl Store {
    /// The first damage that was found since the store was opened.
    pub fn damage(&self) -> Option<&str> {
        self.shared.damage.found.get().map(String::as_str)
    }

    /// Calls back once, with the first damage, on the thread that found it.
    pub fn on_damage(&self, callback: impl Fn(&str) + Send + Sync + 'static) {
        let callback = move |text: String| callback(&text);
        self.shared.hooks.damaged.lock().push(Box::new(callback));
    }

    /// An error if damage was found: a damaged store must not be copied.
    pub(super) fn refuse_damaged(&self) -> Result<(), Error> {
        match self.damage() {
            None => Ok(()),
            Some(text) => Err(Error::Damaged(text.to_owned())),
        }
    }

    /// Passes the outcome of a read on, and remembers damage in it: every read of the store goes
    /// through here.
    pub(super) fn noted<T>(&self, outcome: Result<T, Error>) -> Result<T, Error> {
        match outcome {
            Err(Error::Damage { .. }) => self.shared.note(&self.directory(), outcome),
            outcome => outcome,
        }
    }

    /// Verifies the checksums of the next committed rows from `from` on; with the first rows, those
    /// of the small buckets, too. Each call is one short read transaction.
    pub fn scrub(&self, from: Revision) -> Result<Scrubbed, Error> {
        self.noted(self.scrub_piece(from))
    }

    fn scrub_piece(&self, from: Revision) -> Result<Scrubbed, Error> {
        let env = self.shared.env();
        let reader = env.read()?;
        let mut scrubbed = Scrubbed::default();
        if from == Revision::default() {
            for bucket in Bucket::ALL {
                let pairs = reader.small_iter(bucket)?;
                let bytes = pairs.iter().map(|(key, value)| key.len() + value.len());
                scrubbed.bytes += bytes.sum::<usize>() as u64;
            }
        }
        let mut bytes = SCRUB_PIECE_BYTES;
        let rows = reader.rows(from, Bound::Unbounded, READ_CHUNK_ROWS, &mut bytes)?;
        scrubbed.next = rows.last().map(|row| Revision::new(row.rev.main, row.rev.sub + 1));
        scrubbed.rows = rows.len() as u64;
        scrubbed.bytes += rows.iter().map(|row| row.kv.len() as u64).sum::<u64>();
        Ok(scrubbed)
    }
}

/// If `DAMAGED` is there, reads the whole store before it is used again. Damage is an error;
/// without any, the file is removed.
pub(super) fn recheck_if_damaged(db: &Path) -> Result<(), Error> {
    let path = db.join(FILE);
    let text = match files::read_small(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        // The note cannot be read, so the store may be damaged.
        Err(source) => return Err(Error::Io { file: path, source }),
    };
    let text = String::from_utf8_lossy(&text).into_owned();
    tracing::warn!(damage = text, "the store was found damaged; reading all of it");
    let examined = examine::examine(db, &mut |_| Ok(()))?;
    if let Some(damage) = examined.damages.into_iter().next() {
        return Err(damage);
    }
    tracing::warn!("the store is sound; what was read then was not what is on the disk");
    fs::remove_file(&path).map_err(Error::io(&path))?;
    dir::sync_dir(db)
}
