//! A data directory in the making.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Component, Path, PathBuf};

use super::Error;
use crate::files;
use crate::store;

/// What is being made, beside the place where it will be.
const WORK: &str = "restoring";
/// Says within `WORK` which log directory elsewhere belongs to it.
const WAL_NOTE: &str = "wal-dir";
/// What may stand in a directory that counts as empty.
const OWN: [&str; 3] = [WORK, "proxy", "rusd.lock"];

/// Where a member's store and log go.
#[derive(Clone, Copy)]
pub struct Place<'a> {
    pub data_dir: &'a Path,
    /// None: within the data directory.
    pub wal_dir: Option<&'a Path>,
}

/// Where the log is made.
enum Log {
    /// Within the directory that is being made, under this name.
    Within(PathBuf),
    /// Elsewhere: it is noted which directory that is.
    Apart(PathBuf),
}

impl Place<'_> {
    /// Refuses to overwrite anything. A log directory may be there only if an attempt that was
    /// killed has made it.
    pub fn check(&self) -> Result<(), Error> {
        let log = self.log()?;
        let apart = if let Log::Apart(wal) = &log { Some(wal.as_path()) } else { None };
        let has_made = apart.is_some_and(|wal| self.has_made(wal));
        if self.data_dir.exists() && !self.is_empty(apart.filter(|_| has_made)) {
            return Err(Error::NotEmpty { path: self.data_dir.to_path_buf() });
        }
        match apart {
            Some(wal) if wal.exists() && !has_made => {
                Err(Error::WalExists { path: self.wal_dir.unwrap_or(wal).to_path_buf() })
            }
            _ => Ok(()),
        }
    }

    /// A log directory below `member` appears with it. It may neither hold the store nor lie in it.
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
            Err(_) => Log::Apart(wal),
        })
    }

    /// Whether an attempt that did not end has made this log directory.
    fn has_made(&self, wal: &Path) -> bool {
        let note = files::read_small(&self.data_dir.join(WORK).join(WAL_NOTE)).unwrap_or_default();
        note == wal.as_os_str().as_encoded_bytes()
    }

    /// Whether nothing is there but what an attempt that did not end has made.
    fn is_empty(&self, made: Option<&Path>) -> bool {
        let Ok(mut entries) = fs::read_dir(self.data_dir) else { return false };
        // The log may lie in it, at any depth.
        let made = made.and_then(|wal| {
            let data = resolved(self.data_dir).ok()?;
            Some(wal.strip_prefix(data).ok()?.components().next()?.as_os_str().to_os_string())
        });
        entries.all(|entry| {
            let Ok(name) = entry.map(|entry| entry.file_name()) else { return false };
            made.as_ref() == Some(&name) || OWN.iter().any(|own| name == *own)
        })
    }

    /// Lets `fill` make the store and the log in directories that it is given, and puts them in
    /// place when both are complete. If it fails, nothing is left.
    pub(super) fn make<T>(
        &self,
        fill: impl FnOnce(&Path, &Path) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let log = self.log()?;
        let (existed, work) = (self.data_dir.exists(), self.data_dir.join(WORK));
        let lock = store::lock(self.data_dir)?;
        // Another attempt may have been at work until now.
        self.check()?;
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
        if let Log::Apart(wal) = log {
            remove(wal).map_err(Error::io("remove", wal))?;
        }
        remove(work).map_err(Error::io("remove", work))?;
        let (db, note) = (work.join("db"), work.join(WAL_NOTE));
        for dir in [work, &self.data_dir.join("proxy"), &db] {
            make_dir(dir)?;
        }
        let wal = match log {
            Log::Within(name) => work.join(name),
            Log::Apart(wal) => {
                let write = || {
                    fs::write(&note, wal.as_os_str().as_encoded_bytes())?;
                    File::open(&note)?.sync_all()
                };
                write().map_err(Error::io("write", &note))?;
                wal.clone()
            }
        };
        if let Some(parent) = wal.parent() {
            make_dir(parent)?;
        }
        let made = fill(&db, &wal)?;
        let member = self.data_dir.join("member");
        sync(work)?;
        fs::rename(work, &member).map_err(Error::io("rename", work))?;
        sync(self.data_dir)?;
        // It says nothing any more once `member` is there.
        let _ = fs::remove_file(member.join(WAL_NOTE));
        Ok(made)
    }

    /// Takes back what a failed attempt made. What cannot be removed, the next one removes.
    fn clean(&self, work: &Path, log: &Log, existed: bool) {
        if let (Log::Apart(wal), Ok(data)) = (log, resolved(self.data_dir))
            && self.has_made(wal)
        {
            let _ = remove(wal);
            let within =
                wal.ancestors().skip(1).take_while(|dir| *dir != data && dir.starts_with(&data));
            within.for_each(|dir| drop(fs::remove_dir(dir)));
        }
        let _ = remove(work);
        let _ = fs::remove_dir(self.data_dir.join("proxy"));
        let _ = fs::remove_file(self.data_dir.join("rusd.lock"));
        if !existed {
            let _ = fs::remove_dir(self.data_dir);
        }
    }
}

/// The same path for the same directory, wherever the next attempt is started and whether it is there
/// or not.
fn resolved(dir: &Path) -> Result<PathBuf, Error> {
    let mut path = PathBuf::new();
    for part in std::path::absolute(dir).map_err(Error::io("open", dir))?.components() {
        match part {
            Component::ParentDir => {
                path.pop();
            }
            part => path.push(part),
        }
        // What is not there has no links in it.
        path = path.canonicalize().unwrap_or(path);
    }
    Ok(path)
}

fn make_dir(dir: &Path) -> Result<(), Error> {
    let mut builder = DirBuilder::new();
    builder.recursive(true).mode(0o700);
    builder.create(dir).map_err(Error::io("mkdir", dir))
}

fn remove(dir: &Path) -> io::Result<()> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

pub(super) fn sync(dir: &Path) -> Result<(), Error> {
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(Error::io("sync", dir))
}
