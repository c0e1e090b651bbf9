//! Building a generation from a snapshot beside the one in use, and putting it in its place.
//!
//! A generation is built in a directory that CURRENT does not name, so what an interrupted build
//! leaves is removed later. CURRENT decides which generation counts, and changes by one rename.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::committer::{Batch, Queue, call};
use super::env::{self, Env};
use super::{Bucket, Error, Opened, Options, Pair, Row, Store, check, dir, read_opened, schema};

/// A generation that is being filled. Each call commits durably.
pub struct Building {
    db: PathBuf,
    generation: u64,
    env: Env,
}

impl Building {
    /// Begins the generation after the current one, and removes all others, which earlier attempts
    /// left.
    pub fn begin(db: &Path) -> Result<Self, Error> {
        let current = dir::read_current(db)?;
        remove_others(db, current)?;
        Self::make(db, current + 1)
    }

    /// Begins the first generation of a store that is not there yet.
    pub fn first(db: &Path) -> Result<Self, Error> {
        Self::make(db, 1)
    }

    fn make(db: &Path, generation: u64) -> Result<Self, Error> {
        let generation_dir = dir::generation_dir(db, generation);
        dir::create_dir(&generation_dir)?;
        let env = Env::open(&generation_dir)?;
        let mut writer = env.write()?;
        writer.put_own(schema::FORMAT, Some(&schema::FORMAT_VERSION.to_le_bytes()))?;
        writer.commit()?;
        Ok(Self { db: db.to_path_buf(), generation, env })
    }

    /// Adds rows in revision order, in one durable commit.
    pub fn rows<'a>(&mut self, rows: impl IntoIterator<Item = &'a Row>) -> Result<(), Error> {
        let mut writer = self.env.write()?;
        for row in rows {
            writer.put_row(row)?;
        }
        writer.commit()
    }

    /// Adds pairs of a small bucket, in one durable commit.
    pub fn pairs(&mut self, bucket: Bucket, pairs: &[Pair]) -> Result<(), Error> {
        let mut writer = self.env.write()?;
        for (key, value) in pairs {
            writer.put_small(bucket, key, Some(value))?;
        }
        writer.commit()
    }

    /// Removes all pairs of a small bucket.
    pub fn clear(&mut self, bucket: Bucket) -> Result<(), Error> {
        let names = self.env.read()?.small_iter(bucket)?;
        let mut writer = self.env.write()?;
        for (name, _) in &names {
            writer.put_small(bucket, name, None)?;
        }
        writer.commit()
    }

    /// Makes the generation durable, writes CURRENT's next contents beside it, and returns the
    /// generation as a store without a committer and without a reserve.
    pub fn finish(self, mut options: Options) -> Result<(Store, Opened), Error> {
        let generation_dir = dir::generation_dir(&self.db, self.generation);
        dir::prepare_current(&self.db, self.generation)?;
        dir::sync_dir(&generation_dir)?;
        dir::sync_dir(&self.db)?;
        let mut writer = self.env.write()?;
        writer.put_own(schema::ID, Some(&options.clock.random().to_le_bytes()))?;
        writer.commit()?;
        let opened = read_opened(&self.env, true, self.generation)?;
        (options.committer, options.reserve_bytes) = (false, 0);
        let store = Store::over(&self.db, self.env, &opened, options)?;
        Ok((store, opened))
    }

    /// Makes CURRENT name the generation, durably: for an offline command, which has no open store.
    pub fn name_current(db: &Path, generation: u64) -> Result<(), Error> {
        dir::write_current(db, generation)
    }
}

impl Store {
    /// Replaces the state by that of `new`: CURRENT first, then everything in memory. Called on the
    /// apply thread alone, while no thread reads rows. Ends a defragmentation, stops the committer
    /// and starts it again.
    pub fn install(&self, new: &Self) -> Result<(), Error> {
        let db = new.db().to_path_buf();
        let _quiet = self.shared.defrag.quiet();
        self.end("another generation takes its place");
        let (generation, generation_dir) = new.place.read().clone();
        dir::write_current(&db, generation)?;
        *self.place.write() = (generation, generation_dir);
        self.id.store(new.id.load(Ordering::Relaxed), Ordering::Relaxed);
        *self.shared.env.write() = new.shared.env();
        *self.shared.open.lock() = Batch::default();
        *self.shared.held.lock() = None;
        *self.shared.tail.write() = super::tail::Tail::default();
        *self.shared.sizes.lock() = new.sizes();
        {
            let mut queue = self.shared.queue.lock();
            let position = new.shared.queue.lock().position;
            let sealed = queue.sealed;
            // All sealed entries are part of the installed state, so callers that wait for the
            // commit of one may go on.
            *queue = Queue {
                position,
                durable: position,
                sealed,
                committed: sealed,
                ..Queue::default()
            };
        }
        self.shared.done.notify_all();
        self.shared.measure();
        call(&self.shared.hooks.resized, &());
        if let Some(why) = self.shared.options.supervisor.failure_reason() {
            // The member failed meanwhile. The new queue has no `stop`, so it is set again: nothing
            // may be written any more.
            self.shared.stop(&why);
        }
        self.start_committer(&db)?;
        remove_others(&db, generation)
    }

    fn db(&self) -> PathBuf {
        let place = self.place.read();
        place.1.parent().map_or_else(|| place.1.clone(), Path::to_path_buf)
    }

    /// The directory that holds CURRENT and the generations (`member/db`).
    pub fn directory(&self) -> PathBuf {
        self.db()
    }
}

/// Whether there is a generation that CURRENT does not name, as a crash during an installation
/// leaves it.
pub fn has_other(db: &Path) -> Result<bool, Error> {
    let current = dir::read_current(db)?;
    Ok(dir::generations(db)?.iter().any(|generation| *generation != current))
}

/// Completes or undoes the installation of a snapshot that a crash interrupted. `index` is that of
/// the last snapshot in the log. If the current generation is older, the generation with exactly
/// that index becomes the current one. All others are removed.
pub fn settle(db: &Path, index: Option<u64>) -> Result<(), Error> {
    let current = dir::read_current(db)?;
    let mut chosen = current;
    let mut unread = None;
    if let Some(index) = index
        && consistent_index(db, current)? < index
    {
        for generation in dir::generations(db)?.into_iter().filter(|it| *it != current) {
            match consistent_index(db, generation) {
                Ok(at) if at == index => chosen = generation,
                // The system could not read it. It may be the only state that fits the log, so it
                // must not be removed.
                Err(Error::Io { file, source }) if source.raw_os_error().is_some() => {
                    unread = Some(Error::Io { file, source });
                }
                // It was not completed.
                _ => {}
            }
        }
    }
    if let Some(error) = unread.filter(|_| chosen == current) {
        return Err(error);
    }
    if chosen != current {
        tracing::info!(generation = chosen, "completing the installation of a snapshot");
        dir::write_current(db, chosen)?;
    }
    remove_others(db, chosen)
}

/// Sets or removes a key of a small bucket in a store that no process has open, without a log
/// entry.
pub fn amend(db: &Path, bucket: Bucket, key: &[u8], value: Option<&[u8]>) -> Result<(), Error> {
    let generation_dir = dir::generation_dir(db, dir::read_current(db)?);
    check::check(&generation_dir.join(env::DATA_FILE))?;
    let env = Env::open(&generation_dir)?;
    let mut writer = env.write()?;
    writer.put_small(bucket, key, value)?;
    writer.commit()
}

fn consistent_index(db: &Path, generation: u64) -> Result<u64, Error> {
    let generation_dir = dir::generation_dir(db, generation);
    check::check(&generation_dir.join(env::DATA_FILE))?;
    let env = Env::open(&generation_dir)?;
    Ok(read_opened(&env, false, generation)?.consistent_index)
}

fn remove_others(db: &Path, current: u64) -> Result<(), Error> {
    for generation in dir::generations(db)? {
        if generation != current {
            let path = dir::generation_dir(db, generation);
            match std::fs::remove_dir_all(&path) {
                // A defragmentation that has just ended removes what it copied, too.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                removed => removed.map_err(Error::io(&path))?,
            }
        }
    }
    dir::sync_dir(db)
}

impl Store {
    /// Starts the committer's thread, unless the store is driven by `commit_turn`.
    pub(super) fn start_committer(&self, db: &Path) -> Result<(), Error> {
        if !self.shared.options.committer {
            return Ok(());
        }
        let committer = Arc::clone(&self.shared);
        let supervisor = &self.shared.options.supervisor;
        let thread = supervisor.thread("committer", move || super::committer::run(&committer));
        *self.committer.lock() = Some(thread.map_err(Error::io(db))?);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::time::Duration;

    use bytes::Bytes;

    use super::*;
    use crate::clock::{Clock, SystemClock};
    use crate::limits::SNAPSHOT_HOLD_MAX;
    use crate::types::Revision;

    fn options() -> Options {
        let mut options = Options::new(Arc::new(SystemClock::new()));
        options.reserve_bytes = 0;
        options
    }

    fn row(main: i64) -> Row {
        let kv = Bytes::from(vec![7; 9000 * usize::from(main == 3) + 10]);
        Row { rev: Revision::new(main, 0), tombstone: false, kv }
    }

    /// A store that has applied entry 5, with two rows.
    fn store(db: &Path) -> Store {
        let (store, _) = Store::open(db, options()).unwrap();
        for main in [2, 3] {
            store.push_row(row(main));
        }
        store.seal(5, 1);
        store.flush().unwrap();
        store
    }

    /// A generation of entry 9 with one more row, built and not put in place.
    fn build(db: &Path) -> Store {
        let mut building = Building::begin(db).unwrap();
        building.rows(&[row(2), row(3), row(4)]).unwrap();
        let number = |number: u64| number.to_be_bytes().to_vec();
        let pairs =
            [(schema::CONSISTENT_INDEX.to_vec(), number(9)), (schema::TERM.to_vec(), number(2))];
        building.pairs(Bucket::Meta, &pairs).unwrap();
        building.finish(options()).unwrap().0
    }

    fn opened(db: &Path) -> (u64, u64) {
        let (store, opened) = Store::open(db, options()).unwrap();
        drop(store);
        (opened.generation, opened.consistent_index)
    }

    #[test]
    fn a_crash_around_an_installation_leaves_the_old_or_the_new_state() {
        let dir = tempfile::tempdir().unwrap();
        let db = dir.path().join("db");
        drop(store(&db));
        assert!(!has_other(&db).unwrap());
        // A complete generation without a record in the log is removed.
        drop(build(&db));
        assert!(has_other(&db).unwrap());
        settle(&db, None).unwrap();
        assert_eq!(opened(&db), (1, 5));
        // A record of a snapshot that the state already includes changes nothing.
        drop(build(&db));
        settle(&db, Some(4)).unwrap();
        assert_eq!(opened(&db), (1, 5));
        // A generation that was not completed is never chosen.
        drop(Building::begin(&db).unwrap());
        settle(&db, Some(9)).unwrap();
        assert_eq!(opened(&db), (1, 5));
        // One that cannot be read now may be the one that is needed.
        let unread = dir::generation_dir(&db, 7).join(env::DATA_FILE);
        std::fs::create_dir(unread.parent().unwrap()).unwrap();
        std::os::unix::fs::symlink(&unread, &unread).unwrap();
        let settled = settle(&db, Some(9));
        assert!(matches!(settled, Err(Error::Io { .. })), "{settled:?}");
        assert!(unread.is_symlink());
        std::fs::remove_dir_all(unread.parent().unwrap()).unwrap();
        // With a durable record, the installation is completed.
        drop(build(&db));
        settle(&db, Some(9)).unwrap();
        assert!(!has_other(&db).unwrap());
        assert_eq!(opened(&db), (2, 9));
    }

    #[test]
    fn two_may_remove_what_is_left_over() {
        let dir = tempfile::tempdir().unwrap();
        let generations: Vec<_> =
            (0..300).map(|number| dir.path().join(format!("gen-{number}"))).collect();
        for _ in 0..5 {
            for generation in &generations {
                std::fs::create_dir_all(generation).unwrap();
            }
            std::thread::scope(|threads| {
                let remove = || remove_others(dir.path(), 7);
                let both = [threads.spawn(remove), threads.spawn(remove)];
                both.into_iter().for_each(|it| it.join().unwrap().unwrap());
            });
            assert_eq!(dir::generations(dir.path()).unwrap(), [7]);
        }
    }

    #[test]
    fn an_unsynced_store_stays_unsynced_in_each_generation() {
        let dir = tempfile::tempdir().unwrap();
        let db = dir.path().join("db");
        drop(store(&db));
        let unsynced = || Options { syncs: false, ..options() };
        let (store, _) = Store::open(&db, unsynced()).unwrap();
        assert!(!store.shared.env().syncs());
        store.defragment(&mut |_| {}).unwrap();
        assert!(!store.shared.env().syncs());
        let mut building = Building::begin(&db).unwrap();
        building.rows(&[row(2)]).unwrap();
        store.install(&building.finish(unsynced()).unwrap().0).unwrap();
        assert!(!store.shared.env().syncs());
        drop(store);
        let (store, _) = Store::open(&db, options()).unwrap();
        assert!(store.shared.env().syncs());
    }

    #[test]
    fn a_running_store_goes_on_with_what_was_installed() {
        let dir = tempfile::tempdir().unwrap();
        let db = dir.path().join("db");
        let store = store(&db);
        let frozen = store.freeze().unwrap();
        let new = build(&db);
        store.push_row(row(8));
        let measured = Arc::new(std::sync::Mutex::new(false));
        let heard = Arc::clone(&measured);
        store.on_resize(move || *heard.lock().unwrap() = true);
        let expected = new.sizes();
        store.install(&new).unwrap();
        drop(new);
        assert!(*measured.lock().unwrap(), "whoever follows the sizes hears of them at once");
        assert_eq!(store.sizes(), expected);
        assert_eq!((store.generation(), store.durable()), (2, (9, 2)));
        assert_eq!(store.get(Revision::new(8, 0)).unwrap(), None, "it was never committed");
        assert_eq!(store.get(Revision::new(4, 0)).unwrap(), Some(row(4)));
        store.push_row(row(5));
        store.seal(10, 2);
        assert_eq!(store.flush().unwrap(), 10);
        // A reader of the old state can finish.
        assert_eq!(frozen.rows(Revision::default()).unwrap(), [row(2), row(3)]);
        drop((frozen, store));
        assert_eq!(opened(&db), (2, 10));
    }

    #[test]
    fn nothing_is_deleted_from_a_frozen_state() {
        let dir = tempfile::tempdir().unwrap();
        let store = store(&dir.path().join("db"));
        let frozen = store.freeze().unwrap();
        let mut deleted = store.delete_rows(vec![Revision::new(2, 0)], Vec::new(), 2);
        store.push_row(row(4));
        store.seal(6, 1);
        store.flush().unwrap();
        assert!(deleted.try_recv().is_err());
        assert_eq!(frozen.rows(Revision::default()).unwrap(), [row(2), row(3)]);
        let sizes = frozen.row_sizes(Revision::default()).unwrap();
        assert_eq!(sizes.iter().map(|row| row.bytes).collect::<Vec<_>>(), [10, 9010]);
        drop(frozen);
        deleted.blocking_recv().unwrap();
        assert_eq!(store.get(Revision::new(2, 0)).unwrap(), None);
    }

    /// Seconds that the test sets.
    struct Seconds(AtomicU64);

    impl Clock for Seconds {
        fn now(&self) -> Duration {
            Duration::from_secs(self.0.load(Ordering::Relaxed))
        }

        fn unix_nanos(&self) -> u64 {
            0
        }

        fn random(&self) -> u64 {
            1
        }
    }

    #[test]
    fn deletions_wait_for_a_slow_reader_only_for_a_while() {
        let dir = tempfile::tempdir().unwrap();
        let clock = Arc::new(Seconds(AtomicU64::new(0)));
        let options =
            Options { reserve_bytes: 0, committer: false, ..Options::new(Arc::clone(&clock) as _) };
        let (store, _) = Store::open(&dir.path().join("db"), options).unwrap();
        for main in [2, 3] {
            store.push_row(row(main));
        }
        store.seal(5, 1);
        store.flush().unwrap();
        let frozen = store.freeze().unwrap();
        let mut deleted = store.delete_rows(vec![Revision::new(2, 0)], Vec::new(), 2);
        assert!(!store.commit_turn().unwrap());
        clock.0.store(SNAPSHOT_HOLD_MAX.as_secs(), Ordering::Relaxed);
        assert!(store.commit_turn().unwrap());
        deleted.try_recv().unwrap();
        assert_eq!(store.get(Revision::new(2, 0)).unwrap(), None);
        assert_eq!(frozen.rows(Revision::default()).unwrap(), [row(2), row(3)]);
        // A later snapshot sees the rows that are left, and deletions wait for it, too.
        let later = store.freeze().unwrap();
        assert_eq!(later.rows(Revision::default()).unwrap(), [row(3)]);
        let _deleted = store.delete_rows(vec![Revision::new(3, 0)], Vec::new(), 3);
        assert!(!store.commit_turn().unwrap());
        drop(later);
        assert!(store.commit_turn().unwrap());
        assert_eq!(store.get(Revision::new(3, 0)).unwrap(), None);
        assert_eq!(frozen.row_sizes(Revision::default()).unwrap().len(), 2);
    }
}
