//! Full disks: telling them apart from broken ones, and the reserve that is given up first.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FallocateFlags, fallocate, statvfs};

use super::Error;

/// A file of allocated space beside the generations.
pub(super) struct Reserve {
    path: PathBuf,
    bytes: u64,
}

impl Reserve {
    pub(super) fn new(db: &Path, bytes: u64) -> Self {
        Self { path: db.join("reserve"), bytes }
    }

    /// Takes the space if the disk has at least twice as much; the store works without it too.
    pub(super) fn take(&self) {
        let held = fs::metadata(&self.path).map_or(0, |file| file.len());
        if held >= self.bytes || available(&self.path) < self.bytes.saturating_mul(2) {
            return;
        }
        let allocate = || -> io::Result<()> {
            let mut options = OpenOptions::new();
            let file: File =
                options.write(true).create(true).truncate(true).mode(0o600).open(&self.path)?;
            Ok(fallocate(&file, FallocateFlags::empty(), 0, self.bytes)?)
        };
        if let Err(error) = allocate() {
            tracing::warn!(file = %self.path.display(), %error, "no space is held in reserve");
            self.give();
        }
    }

    /// Gives the space back to the disk; false if there was none.
    pub(super) fn give(&self) -> bool {
        fs::remove_file(&self.path).is_ok()
    }
}

/// Bytes that the disk of `path` still has for us, as far as it says so.
pub(super) fn available(path: &Path) -> u64 {
    let dir = path.parent().unwrap_or(path);
    statvfs(dir).map_or(u64::MAX, |stat| stat.f_bavail.saturating_mul(stat.f_frsize))
}

/// Whether a failed commit failed for want of space. LMDB reports a short write as EIO, so then
/// the disk is asked whether it has room for what was to be written.
pub(super) fn is_full(error: &Error, needed: u64) -> bool {
    let Error::Io { file, source } = error else { return false };
    let errno = rustix::io::Errno::from_io_error(source);
    match errno {
        Some(rustix::io::Errno::NOSPC | rustix::io::Errno::DQUOT) => true,
        Some(rustix::io::Errno::IO) => available(file) < needed,
        _ => false,
    }
}
