//! Defragmentation: the store is copied into a new generation, in order, while it goes on.
//!
//! ```text
//!   small buckets ─► rows, oldest first ─► what came meanwhile ─► the last bit ─► CURRENT
//!   reads, writes and commits go on ─────────────────────────────► no commit ────► go on
//! ```
//!
//! The copy is made in small durable commits, with a rest after each that the caller chooses. New
//! rows only come at the end of the table, so the copy reaches them in order; keys of small buckets
//! that change meanwhile are noted by the committer and copied again; deletions by compaction wait.
//! For the last rows the committer pauses, while apply and all readers go on: what is applied stays
//! in the tail. Then CURRENT names the new generation, and all threads use it.
//!
//! A crash before CURRENT is renamed leaves the old generation and an unfinished copy; a later one
//! leaves the new generation and the old one. A copy is marked by a file until it is complete, and
//! the next start or the next defragmentation removes what CURRENT does not name. Until its last
//! commit a copy has the consistent index 0, so a start never takes it for a snapshot that waits to
//! be installed.
//!
//! A snapshot of another member that is to be installed goes first: the copy is given up.

use std::fs::{self, File, OpenOptions};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::committer::{Changed, Shared, call};
use super::env::copy::Copied;
use super::env::{DATA_FILE, Env};
use super::{Bucket, Building, Error, Opened, Options, Sizes, Store, checkpoint, dir, reserve};
use crate::files;
use crate::limits::{
    DEFRAG_CATCH_UP_PIECES_MAX, DEFRAG_CHANGES_MAX, DEFRAG_FILES, DEFRAG_FREE_BYTES_KEPT,
    DEFRAG_PIECE_BYTES, DEFRAG_READERS_WAIT, DEFRAG_TRUNCATE_BYTES,
};
use crate::types::Revision;

/// File that marks a generation as an unfinished copy.
const MARK: &str = "defragmenting";
/// Time between two looks whether the old generation's readers have ended, and the rest between two
/// truncations of the old file.
const PAUSE: Duration = Duration::from_millis(5);

/// The result of a defragmentation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Defragmented {
    pub before: Sizes,
    pub after: Sizes,
    pub copied_bytes: u64,
    /// How long the committer paused. Reads and writes went on.
    pub pause: Duration,
}

/// Called after each piece with its length in bytes. It blocks for as long as the copy is to rest.
type Rest<'a> = &'a mut dyn FnMut(u64);

impl Store {
    /// Copies the whole store into a new file and goes on with that one. Blocks for as long as the
    /// copying takes; a second call waits for the first. Fails, without an effect, for want of disk
    /// space, on damage, and when a snapshot is to be installed.
    pub fn defragment(&self, rest: Rest<'_>) -> Result<Defragmented, Error> {
        self.refuse_damaged()?;
        let running = self.shared.defrag.running.lock();
        let hold = self.hold();
        let mut copy = Copy::begin(self)?;
        let done = copy.run(self, rest);
        *self.shared.changed.lock() = None;
        drop(hold);
        let (swapped, old) = match done {
            Ok(done) => done,
            Err(error) => {
                let error = copy.abandon(self, error);
                self.shared.measure();
                return self.noted(Err(error));
            }
        };
        drop((copy, running));
        call(&self.shared.hooks.resized, &());
        discard(old.0, &old.1);
        self.shared.measure();
        Ok(swapped)
    }

    /// Begins the generation after the current one, for a snapshot. Removes what earlier attempts
    /// left, and ends a running defragmentation.
    pub fn begin_building(&self) -> Result<Building, Error> {
        let _quiet = self.shared.defrag.quiet();
        Building::begin(&self.directory())
    }

    /// As [`Building::finish`], for a generation that was begun with [`Self::begin_building`]. Ends a
    /// running defragmentation, which writes the next contents of CURRENT to the same file.
    pub fn finish_building(
        &self,
        building: Building,
        options: Options,
    ) -> Result<(Self, Opened), Error> {
        let _quiet = self.shared.defrag.quiet();
        building.finish(options)
    }

    fn check_wanted(&self) -> Result<(), Error> {
        if self.shared.defrag.unwanted.load(Ordering::Acquire) > 0 {
            return Err(Error::GivenUp("a snapshot of another member takes the store's place"));
        }
        match &self.shared.queue.lock().stop {
            Some(why) => Err(Error::Stopped(why.clone())),
            None => Ok(()),
        }
    }
}

/// A running copy.
struct Copy {
    old: Arc<Env>,
    old_dir: PathBuf,
    new: Option<Env>,
    new_dir: PathBuf,
    db: PathBuf,
    generation: u64,
    before: Sizes,
    /// Free bytes of the disk that the copy leaves to the log and the store.
    kept: u64,
    /// Revision of the first row that is not copied yet.
    next: Revision,
    copied_bytes: u64,
    /// Set before CURRENT is written: from then on CURRENT may name the copy.
    is_named: bool,
}

/// The environment that was replaced, and its directory.
type Replaced = (Arc<Env>, PathBuf);

impl Copy {
    fn begin(store: &Store) -> Result<Self, Error> {
        let shared = &store.shared;
        let (current, old_dir) = store.place.read().clone();
        let db = store.directory();
        remove_litter(&db, current)?;
        let before = shared.env().read()?.sizes()?;
        let kept = reserve::capped_by_disk(&db, DEFRAG_FREE_BYTES_KEPT);
        let needed = before.in_use + kept;
        let mut free = reserve::available(&db.join(MARK));
        // On a full disk the copy may use the reserve's space; `copy_rows` gives up before it takes
        // `kept` bytes.
        if free < needed && free.saturating_add(shared.room().reserve) >= needed {
            shared.reserve.release(shared.options.clock.now());
            free = reserve::available(&db.join(MARK));
        }
        let Some(kept) = kept_beside(before.in_use, kept, free) else {
            return Err(Error::NoRoom { dir: db, needed, free });
        };
        check_files(&db)?;
        let generation = dir::generations(&db)?.last().map_or(1, |last| last + 1);
        let new_dir = dir::generation_dir(&db, generation);
        let made = dir::create_dir(&new_dir)
            .and_then(|()| File::create(new_dir.join(MARK)).map_err(Error::io(&new_dir)))
            .and_then(|_| Env::open(&new_dir))
            .and_then(|mut new| new.set_syncs(shared.options.syncs).map(|()| new));
        let new = match made {
            Ok(mut new) => {
                new.faults = shared.options.faults.clone();
                Some(new)
            }
            Err(error) => {
                let _ = fs::remove_dir_all(&new_dir);
                return Err(name_full_disk(error, &new_dir));
            }
        };
        *shared.changed.lock() = Some(Changed::new());
        Ok(Self {
            old: shared.env(),
            old_dir,
            new,
            new_dir,
            db,
            generation,
            before,
            kept,
            next: Revision::default(),
            copied_bytes: 0,
            is_named: false,
        })
    }

    fn run(&mut self, store: &Store, rest: Rest<'_>) -> Result<(Defragmented, Replaced), Error> {
        let new = self.new.take().ok_or(Error::GivenUp("it has ended"))?;
        let new = Arc::new(new);
        self.copy_small(store, &new, rest)?;
        self.copy_rows(store, &new, rest)?;
        let mut heard = |bytes| {
            self.copied_bytes += bytes;
            rest(bytes);
        };
        checkpoint::carry_over(&self.old_dir, &self.new_dir, self.generation, &mut heard)?;
        self.swap(store, &new)
    }

    fn copy_small(&self, store: &Store, new: &Env, rest: Rest<'_>) -> Result<(), Error> {
        let small = Bucket::ALL.into_iter().filter(|bucket| *bucket != Bucket::Meta);
        for bucket in std::iter::once(None).chain(small.map(Some)) {
            let mut after = Vec::new();
            loop {
                store.check_wanted()?;
                let mut bytes = DEFRAG_PIECE_BYTES;
                let mut writer = new.write()?;
                let copied =
                    self.old.read()?.copy_pairs(bucket, &after, &mut bytes, &mut writer)?;
                writer.commit()?;
                rest((DEFRAG_PIECE_BYTES - bytes) as u64);
                match copied {
                    Copied::UpTo(last) => after = last,
                    Copied::End => break,
                }
            }
        }
        Ok(())
    }

    /// Copies rows until none is left, or until `DEFRAG_CATCH_UP_PIECES_MAX` pieces were copied
    /// after the row that was newest at the start. Those pieces are copied without rests, to catch
    /// up with the writers.
    fn copy_rows(&mut self, store: &Store, new: &Env, rest: Rest<'_>) -> Result<(), Error> {
        let newest = self.old.read()?.last_rev()?.unwrap_or_default();
        let mut pieces_after = 0;
        while pieces_after < DEFRAG_CATCH_UP_PIECES_MAX {
            store.check_wanted()?;
            if reserve::available(&self.db.join(MARK)) < self.kept {
                return Err(Error::NoSpace { file: self.new_dir.clone() });
            }
            let changed = store.shared.changed.lock().as_mut().map(|changed| {
                let is_large = changed.len() >= DEFRAG_CHANGES_MAX;
                if is_large { std::mem::take(changed) } else { Changed::new() }
            });
            let mut writer = new.write()?;
            let has_more = self.copy_piece(&mut writer, &changed.unwrap_or_default())?;
            writer.commit()?;
            if self.next > newest {
                pieces_after += 1;
            } else {
                rest(DEFRAG_PIECE_BYTES as u64);
            }
            if !has_more {
                break;
            }
        }
        Ok(())
    }

    /// Copies one piece of the rows, and the `changed` keys of small buckets. Returns false once
    /// the last row is copied.
    fn copy_piece(
        &mut self,
        writer: &mut super::env::Writer<'_>,
        changed: &Changed,
    ) -> Result<bool, Error> {
        let mut left = DEFRAG_PIECE_BYTES;
        let mut has_more = true;
        while left > 0 && has_more {
            has_more = self.old.read()?.copy_rows(&mut self.next, &mut left, writer)?;
        }
        self.copied_bytes += (DEFRAG_PIECE_BYTES - left) as u64;
        let reader = self.old.read()?;
        for (bucket, name) in changed {
            writer.put_small(*bucket, name, reader.small(*bucket, name)?.as_deref())?;
        }
        Ok(has_more)
    }

    /// Copies what is left while no commit can begin, and puts the copy in the store's place.
    fn swap(&mut self, store: &Store, new: &Arc<Env>) -> Result<(Defragmented, Replaced), Error> {
        let shared: &Shared = &store.shared;
        let _committing = shared.committing.lock();
        let began = shared.options.clock.now();
        store.check_wanted()?;
        let changed = shared.changed.lock().take().unwrap_or_default();
        let mut writer = new.write()?;
        while self.copy_piece(&mut writer, &Changed::new())? {}
        self.copy_piece(&mut writer, &changed)?;
        for (name, value) in self.old.read()?.small_iter(Bucket::Meta)? {
            writer.put_small(Bucket::Meta, &name, Some(&value))?;
        }
        writer.commit()?;
        let mark = self.new_dir.join(MARK);
        fs::remove_file(&mark).map_err(Error::io(&mark))?;
        dir::sync_dir(&self.new_dir)?;
        dir::sync_dir(&self.db)?;
        let after = new.read()?.sizes()?;
        self.is_named = true;
        dir::write_current(&self.db, self.generation)?;
        *store.place.write() = (self.generation, self.new_dir.clone());
        *shared.env.write() = Arc::clone(new);
        *shared.sizes.lock() = after;
        let pause = shared.options.clock.now().saturating_sub(began);
        let (before, copied_bytes) = (self.before, self.copied_bytes);
        let done = Defragmented { before, after, copied_bytes, pause };
        Ok((done, (Arc::clone(&self.old), self.old_dir.clone())))
    }

    /// Removes the copy and returns the error. If CURRENT may have been changed and does not
    /// verifiably name the old generation, it is unknown which one the next start opens. Both stay
    /// then, and the member stops: entries committed to one of them would be missing in the other.
    fn abandon(self, store: &Store, error: Error) -> Error {
        let current = if self.is_named { dir::read_current(&self.db).ok() } else { None };
        if self.is_named && current != Some(store.generation()) {
            let why = error.to_string();
            store.shared.stop(&why);
            store.shared.options.supervisor.fail(&why);
            return error;
        }
        if let Err(error) = fs::remove_dir_all(&self.new_dir) {
            let dir = self.new_dir.display();
            tracing::warn!(%dir, %error, "what a defragmentation left could not be removed");
        }
        name_full_disk(error, &self.new_dir)
    }
}

/// Fails if the file system of `db` has fewer inodes than a copy needs.
fn check_files(db: &Path) -> Result<(), Error> {
    let free = reserve::available_files(&db.join(MARK));
    if free >= DEFRAG_FILES {
        return Ok(());
    }
    Err(Error::NoFiles { dir: db.to_path_buf(), needed: DEFRAG_FILES, free })
}

/// Turns an I/O error into `NoSpace` if the disk is full, or into `NoFiles` if it has no inodes.
fn name_full_disk(error: Error, new_dir: &Path) -> Error {
    if !reserve::is_full(&error, DEFRAG_FREE_BYTES_KEPT) {
        return error;
    }
    let no_space = Error::NoSpace { file: new_dir.to_path_buf() };
    new_dir.parent().and_then(|db| check_files(db).err()).unwrap_or(no_space)
}

/// Removes copies that a crash left unfinished.
fn remove_litter(db: &Path, current: u64) -> Result<(), Error> {
    for generation in dir::generations(db)? {
        let path = dir::generation_dir(db, generation);
        if generation != current && path.join(MARK).exists() {
            fs::remove_dir_all(&path).map_err(Error::io(&path))?;
        }
    }
    Ok(())
}

/// Removes the old generation. Once no thread reads it, its file is truncated step by step first: a
/// file system that frees gigabytes at once delays the log's syncs.
fn discard(old: Arc<Env>, old_dir: &Path) {
    let mut waited = Duration::ZERO;
    while Arc::strong_count(&old) > 1 && waited < DEFRAG_READERS_WAIT {
        std::thread::sleep(PAUSE);
        waited += PAUSE;
    }
    let truncate = |old: Env| -> std::io::Result<()> {
        drop(old);
        let file = files::open_with(OpenOptions::new().write(true), &old_dir.join(DATA_FILE))?;
        let mut left = file.metadata()?.len();
        while left > DEFRAG_TRUNCATE_BYTES {
            left -= DEFRAG_TRUNCATE_BYTES;
            file.set_len(left)?;
            std::thread::sleep(PAUSE);
        }
        Ok(())
    };
    let truncated = Arc::into_inner(old).map_or(Ok(()), truncate);
    if let Err(error) = truncated.and_then(|()| fs::remove_dir_all(old_dir))
        && error.kind() != std::io::ErrorKind::NotFound
    {
        let dir = old_dir.display();
        tracing::warn!(%dir, %error, "the file from before the defragmentation was not removed");
    }
}

/// How many of the disk's `free` bytes a copy of `in_use` bytes leaves to everybody else: `kept`, or
/// less if the copy takes no more than half of what is free. A small copy gives back more than it
/// takes, and on a disk so full that the log has no next segment nothing else does. None if the
/// copy has no room.
fn kept_beside(in_use: u64, kept: u64, free: u64) -> Option<u64> {
    if free >= in_use.saturating_add(kept) {
        return Some(kept);
    }
    (free / 2 >= in_use).then(|| (free - in_use) / 2)
}

#[cfg(test)]
mod tests;
