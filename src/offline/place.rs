//! A data directory under construction.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Component, Path, PathBuf};

use super::Error;
use crate::files;
use crate::store;

/// Directory in which `member` is built, within the data directory.
const WORK: &str = "restoring";
/// File within `WORK` that names the log directory, if that lies elsewhere.
const WAL_NOTE: &str = "wal-dir";
/// Names that a data directory may hold and count as empty.
const NAMES_IGNORED: [&str; 3] = [WORK, "proxy", LOCK_FILE];
const LOCK_FILE: &str = "rusd.lock";

/// The directories of a new member's store and log.
#[derive(Clone, Copy)]
pub struct TargetDirs<'a> {
    pub data_dir: &'a Path,
    /// None if the log is within the data directory.
    pub wal_dir: Option<&'a Path>,
}

/// The directory in which the log is built.
enum Log {
    /// Within `WORK`, under this relative path.
    Within(PathBuf),
    /// At this absolute path, which `WAL_NOTE` names.
    Elsewhere(PathBuf),
}

impl TargetDirs<'_> {
    /// Fails if anything would be overwritten. A log directory elsewhere may exist only if an
    /// attempt that was killed has made it.
    pub fn check(&self) -> Result<(), Error> {
        let log = self.log()?;
        let apart = if let Log::Elsewhere(wal) = &log { Some(wal.as_path()) } else { None };
        let was_made_by_killed_attempt =
            apart.is_some_and(|wal| self.was_made_by_killed_attempt(wal));
        if self.data_dir.exists() && !self.is_empty(apart.filter(|_| was_made_by_killed_attempt)) {
            return Err(Error::NotEmpty { path: self.data_dir.to_path_buf() });
        }
        match apart {
            Some(wal) if wal.exists() && !was_made_by_killed_attempt => {
                Err(Error::WalExists { path: self.wal_dir.unwrap_or(wal).to_path_buf() })
            }
            _ => Ok(()),
        }
    }

    /// The place of the log. A log directory below `member` is part of the rename; one that would
    /// contain the store, or lie within it, is an error.
    fn log(&self) -> Result<Log, Error> {
        let Some(wal_dir) = self.wal_dir else { return Ok(Log::Within("wal".into())) };
        let (wal, data) = (resolved(wal_dir)?, resolved(self.data_dir)?);
        let member = data.join("member");
        let db = member.join("db");
        if db.starts_with(&wal) || wal.starts_with(&db) || wal.starts_with(data.join(WORK)) {
            return Err(Error::WalPlace { path: wal_dir.to_path_buf() });
        }
        Ok(match wal.strip_prefix(&member) {
            Ok(name) => Log::Within(name.to_path_buf()),
            Err(_) => Log::Elsewhere(wal),
        })
    }

    /// Whether an attempt that was killed has made this log directory.
    fn was_made_by_killed_attempt(&self, wal: &Path) -> bool {
        let note = files::read_small(&self.data_dir.join(WORK).join(WAL_NOTE)).unwrap_or_default();
        note == wal.as_os_str().as_encoded_bytes()
    }

    /// Whether the data directory holds nothing but remains of an attempt that was killed.
    fn is_empty(&self, made: Option<&Path>) -> bool {
        let Ok(mut entries) = fs::read_dir(self.data_dir) else { return false };
        // The log directory may lie within the data directory, at any depth.
        let made = made.and_then(|wal| {
            let data = resolved(self.data_dir).ok()?;
            Some(wal.strip_prefix(data).ok()?.components().next()?.as_os_str().to_os_string())
        });
        entries.all(|entry| {
            let Ok(name) = entry.map(|entry| entry.file_name()) else { return false };
            made.as_ref() == Some(&name) || NAMES_IGNORED.iter().any(|own| name == *own)
        })
    }

    /// Builds a member: `fill` makes store and log in the two directories that it is given. Both
    /// get their final names when they are complete. A failure removes what was made.
    pub(super) fn make<T>(
        &self,
        fill: impl FnOnce(&Path, &Path) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let log = self.log()?;
        let (existed, work) = (self.data_dir.exists(), self.data_dir.join(WORK));
        let had_lock = self.data_dir.join(LOCK_FILE).exists();
        let lock = store::lock(self.data_dir).inspect_err(|_| self.clean_up(existed))?;
        // Checks again under the lock: another attempt may have finished before this one got it.
        if let Err(error) = self.check() {
            if !had_lock && !self.data_dir.join("member").exists() {
                let _ = fs::remove_file(self.data_dir.join(LOCK_FILE));
            }
            self.clean_up(existed);
            return Err(error);
        }
        let made = self.try_make(&work, &log, fill);
        if made.is_err() {
            self.clean(&work, &log, existed);
        }
        drop(lock);
        made
    }

    fn try_make<T>(
        &self,
        work: &Path,
        log: &Log,
        fill: impl FnOnce(&Path, &Path) -> Result<T, Error>,
    ) -> Result<T, Error> {
        if let Log::Elsewhere(wal) = log {
            remove(wal).map_err(Error::io("remove", wal))?;
        }
        remove(work).map_err(Error::io("remove", work))?;
        let (db, note) = (work.join("db"), work.join(WAL_NOTE));
        for dir in [work, &self.data_dir.join("proxy"), &db] {
            make_dir(dir)?;
        }
        let wal = match log {
            Log::Within(name) => work.join(name),
            Log::Elsewhere(wal) => {
                let write = || {
                    fs::write(&note, wal.as_os_str().as_encoded_bytes())?;
                    File::open(&note)?.sync_all()
                };
                write().map_err(Error::io("write", &note))?;
                wal.clone()
            }
        };
        make_dir(files::parent(&wal))?;
        let made = fill(&db, &wal)?;
        let member = self.data_dir.join("member");
        sync(work)?;
        fs::rename(work, &member).map_err(Error::io("rename", work))?;
        sync(self.data_dir)?;
        // Without a meaning once `member` exists, so an error is ignored.
        let _ = fs::remove_file(member.join(WAL_NOTE));
        Ok(made)
    }

    /// Removes what a failed attempt made. The next attempt removes what could not be removed here.
    fn clean(&self, work: &Path, log: &Log, existed: bool) {
        if let (Log::Elsewhere(wal), Ok(data)) = (log, resolved(self.data_dir))
            && self.was_made_by_killed_attempt(wal)
        {
            let _ = remove(wal);
            let within =
                wal.ancestors().skip(1).take_while(|dir| *dir != data && dir.starts_with(&data));
            within.for_each(|dir| drop(fs::remove_dir(dir)));
        }
        let _ = remove(work);
        let _ = fs::remove_dir(self.data_dir.join("proxy"));
        let _ = fs::remove_file(self.data_dir.join(LOCK_FILE));
        self.clean_up(existed);
    }

    /// Removes the data directory if this attempt made it and nothing is in it.
    fn clean_up(&self, existed: bool) {
        if !existed {
            let _ = fs::remove_dir(self.data_dir);
        }
    }
}

/// An absolute path without links, equal for equal directories, so that the note of one attempt
/// matches the path of the next. Works for directories that do not exist yet.
fn resolved(dir: &Path) -> Result<PathBuf, Error> {
    let mut path = PathBuf::new();
    for part in std::path::absolute(dir).map_err(Error::io("open", dir))?.components() {
        match part {
            Component::ParentDir => {
                path.pop();
            }
            part => path.push(part),
        }
        // Fails for a path that does not exist, which has no links to resolve.
        path = path.canonicalize().unwrap_or(path);
    }
    Ok(path)
}

fn make_dir(dir: &Path) -> Result<(), Error> {
    let mut builder = DirBuilder::new();
    builder.recursive(true).mode(0o700);
    builder.create(dir).map_err(Error::io("mkdir", dir))
}

/// Removes a directory with all that is in it, if it is there.
pub(super) fn remove(dir: &Path) -> io::Result<()> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

pub(super) fn sync(dir: &Path) -> Result<(), Error> {
    files::sync_dir(dir).map_err(Error::io("sync", dir))
}
