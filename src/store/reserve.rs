//! Full disks: telling them apart from broken ones, and the reserve, a file whose space is given up
//! on a full disk.
//!
//! The reserve is for requests that make room again: deletes and compactions write pages before
//! they free any. Its last quarter is left to compactions alone (`Room::is_critical`).

use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use rustix::fs::{FallocateFlags, fallocate, statvfs};
use rustix::io::retry_on_intr;

use super::Error;
use crate::clock::LogLimit;
use crate::files;
use crate::limits::{FULL_DISK_LOG_INTERVAL, RESERVE_DISK_PARTS, RESERVE_RETAKE_REST};

/// A file of allocated space beside the generations.
pub(super) struct Reserve {
    pub(super) path: PathBuf,
    /// Bytes that the reserve should have.
    pub(super) bytes: u64,
    /// Bytes that the reserve has; 0 while it is given up.
    held: AtomicU64,
    /// When the reserve was given up last, by the store's clock. The lock is held while the file is
    /// created or removed.
    given_at: Mutex<Option<Duration>>,
    given_said: LogLimit,
    /// Whether it was logged that the reserve cannot be taken; reset once it can.
    is_said: AtomicBool,
}

impl Reserve {
    /// The reserve of the store in `db`: `bytes`, or less on a small disk. A file that is there
    /// counts as held.
    pub(super) fn new(db: &Path, bytes: u64) -> Self {
        let path = db.join("reserve");
        let held = AtomicU64::new(fs::metadata(&path).map_or(0, |file| file.len()));
        let bytes = capped_by_disk(db, bytes);
        let given_said = LogLimit::new(FULL_DISK_LOG_INTERVAL);
        let (given_at, is_said) = (Mutex::default(), AtomicBool::default());
        Self { path, bytes, held, given_at, given_said, is_said }
    }

    /// Bytes that the reserve has.
    pub(super) fn held(&self) -> u64 {
        self.held.load(Ordering::Relaxed)
    }

    /// Whether the reserve was given up and is not whole again.
    pub(super) fn is_given(&self) -> bool {
        self.given_at.lock().is_some() && self.held() < self.bytes
    }

    /// Takes what is missing of the reserve, up to three quarters of what it holds and the disk has
    /// free together. Does nothing for `RESERVE_RETAKE_REST` after the reserve was given up, so
    /// that the space goes to the commit that lacked it. A failure is only logged: the store works
    /// without a reserve.
    pub(super) fn take(&self, now: Duration) {
        let given_at = self.given_at.lock();
        if given_at.is_some_and(|at| now.saturating_sub(at) < RESERVE_RETAKE_REST) {
            return;
        }
        let free = available(&self.path);
        let bytes = self.bytes.min((self.held().saturating_add(free) / 4).saturating_mul(3));
        if bytes <= self.held() {
            return;
        }
        let allocate = || -> io::Result<()> {
            let mut options = OpenOptions::new();
            options.write(true).create(true).truncate(false).mode(0o600);
            let file = files::open_with(&options, &self.path)?;
            // Some file systems end with EINTR when a signal is pending.
            Ok(retry_on_intr(|| fallocate(&file, FallocateFlags::empty(), 0, bytes))?)
        };
        match allocate() {
            Ok(()) => {
                self.held.store(bytes, Ordering::Relaxed);
                self.is_said.store(false, Ordering::Relaxed);
            }
            Err(error) => {
                if !self.is_said.swap(true, Ordering::Relaxed) {
                    let file = self.path.display();
                    tracing::warn!(%file, %error, "no space is held in reserve");
                }
                self.remove();
            }
        }
    }

    /// Gives the reserve up for a commit that failed with `error`. Returns false if there was no
    /// reserve.
    pub(super) fn give_up(&self, now: Duration, error: &Error) -> bool {
        let had_some = self.release(now);
        if had_some && self.given_said.may_log(now) {
            tracing::warn!(%error, "the disk is full; the reserve is given up");
        }
        had_some
    }

    /// Removes the reserve's file and notes the time, so that `take` creates it again after
    /// `RESERVE_RETAKE_REST`. Returns false if there was no file.
    pub(super) fn release(&self, now: Duration) -> bool {
        let mut given_at = self.given_at.lock();
        *given_at = Some(now);
        self.remove()
    }

    fn remove(&self) -> bool {
        self.held.store(0, Ordering::Relaxed);
        fs::remove_file(&self.path).is_ok()
    }
}

/// The free space as `Shared::measure` found it last, in bytes, and who has the reserve's space.
#[derive(Default)]
pub(super) struct MeasuredRoom {
    pub(super) free: AtomicU64,
    pub(super) within: AtomicU64,
    pub(super) waiting: AtomicU64,
    pub(super) is_full: AtomicBool,
    /// A commit found no room, and none has succeeded since. The reserve is not taken meanwhile:
    /// its space is for that commit.
    pub(super) is_short: AtomicBool,
    /// The reserve is lent to the log, and not taken meanwhile.
    pub(super) is_lent: AtomicBool,
}

impl MeasuredRoom {
    pub(super) fn set_waiting(&self, bytes: usize) {
        self.waiting.store(bytes as u64, Ordering::Relaxed);
    }

    pub(super) fn set_short(&self, is_short: bool) {
        self.is_short.store(is_short, Ordering::Relaxed);
    }
}

/// `bytes`, but at most the fraction 1/`RESERVE_DISK_PARTS` of the file system of `dir`.
pub(super) fn capped_by_disk(dir: &Path, bytes: u64) -> u64 {
    let disk = statvfs(dir).map_or(u64::MAX, |stat| stat.f_blocks.saturating_mul(stat.f_frsize));
    bytes.min(disk / RESERVE_DISK_PARTS)
}

/// Free bytes for this process on the file system of the directory that holds `path`; the largest
/// number if the system does not tell.
pub(super) fn available(path: &Path) -> u64 {
    statvfs(files::parent(path))
        .map_or(u64::MAX, |stat| stat.f_bavail.saturating_mul(stat.f_frsize))
}

/// Files and directories that can still be made on the file system of the directory that holds
/// `path`; the largest number if the system does not tell, or makes inodes as they are needed.
pub(super) fn available_files(path: &Path) -> u64 {
    let stat = statvfs(files::parent(path));
    stat.ok().filter(|stat| stat.f_files > 0).map_or(u64::MAX, |stat| stat.f_favail)
}

/// Size of the file system of `path`; 0 if it cannot be measured.
pub(super) fn total(path: &Path) -> u64 {
    statvfs(files::parent(path)).map_or(0, |stat| stat.f_blocks.saturating_mul(stat.f_frsize))
}

/// Whether a commit failed for want of disk space. LMDB reports a short write as EIO; then the disk
/// counts as full if it has fewer than `needed` bytes free.
pub(super) fn is_full(error: &Error, needed: u64) -> bool {
    let Error::Io { file, source } = error else { return false };
    let errno = rustix::io::Errno::from_io_error(source);
    match errno {
        Some(rustix::io::Errno::NOSPC | rustix::io::Errno::DQUOT) => true,
        Some(rustix::io::Errno::IO) => available(file) < needed,
        _ => false,
    }
}
