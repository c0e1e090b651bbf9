//! A data directory in the making.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use super::Error;
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

impl Place<'_> {
    /// Refuses to overwrite anything. A log directory may be there only if an attempt that was
    /// killed has made it.
    pub fn check(&self) -> Result<(), Error> {
        if self.data_dir.exists() && !is_empty(self.data_dir) {
            return Err(Error::NotEmpty { path: self.data_dir.to_path_buf() });
        }
        match self.wal_dir {
            Some(wal) if wal.exists() && !self.has_made(wal)? => {
                Err(Error::WalExists { path: wal.to_path_buf() })
            }
            _ => Ok(()),
        }
    }

    /// Whether an attempt that did not end has made this log directory.
    fn has_made(&self, wal: &Path) -> Result<bool, Error> {
        let note = fs::read(self.data_dir.join(WORK).join(WAL_NOTE)).unwrap_or_default();
        Ok(note == absolute(wal)?.as_os_str().as_encoded_bytes())
    }

    /// Lets `fill` make the store and the log in directories that it is given, and puts them in
    /// place when both are complete. If it fails, nothing is left.
    pub(super) fn make<T>(
        &self,
        fill: impl FnOnce(&Path, &Path) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let (existed, work) = (self.data_dir.exists(), self.data_dir.join(WORK));
        let lock = store::lock(self.data_dir)?;
        // Another attempt may have been at work until now.
        self.check()?;
        let made = self.try_make(&work, fill);
        if made.is_err() {
            self.clean(&work, existed);
        }
        drop(lock);
        made
    }

    fn try_make<T>(
        &self,
        work: &Path,
        fill: impl FnOnce(&Path, &Path) -> Result<T, Error>,
    ) -> Result<T, Error> {
        if let Some(wal) = self.wal_dir.filter(|wal| wal.exists()) {
            remove(wal).map_err(Error::io("remove", wal))?;
        }
        remove(work).map_err(Error::io("remove", work))?;
        let (db, note) = (work.join("db"), work.join(WAL_NOTE));
        for dir in [work, &self.data_dir.join("proxy"), &db] {
            let mut builder = DirBuilder::new();
            builder.recursive(true).mode(0o700);
            builder.create(dir).map_err(Error::io("mkdir", dir))?;
        }
        let wal = self.wal_dir.map_or_else(|| work.join("wal"), Path::to_path_buf);
        if self.wal_dir.is_some() {
            let place = absolute(&wal)?;
            let write = || {
                fs::write(&note, place.as_os_str().as_encoded_bytes())?;
                File::open(&note)?.sync_all()
            };
            write().map_err(Error::io("write", &note))?;
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
    fn clean(&self, work: &Path, existed: bool) {
        let made_wal = work.join(WAL_NOTE).exists();
        if let Some(wal) = self.wal_dir.filter(|_| made_wal) {
            let _ = remove(wal);
        }
        let _ = remove(work);
        let _ = fs::remove_dir(self.data_dir.join("proxy"));
        let _ = fs::remove_file(self.data_dir.join("rusd.lock"));
        if !existed {
            let _ = fs::remove_dir(self.data_dir);
        }
    }
}

/// The same directory wherever the next attempt is started.
fn absolute(dir: &Path) -> Result<PathBuf, Error> {
    std::path::absolute(dir).map_err(Error::io("open", dir))
}

fn is_empty(dir: &Path) -> bool {
    let Ok(mut entries) = fs::read_dir(dir) else { return false };
    entries.all(|entry| {
        entry.is_ok_and(|entry| OWN.iter().any(|own| entry.file_name().as_os_str() == *own))
    })
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
