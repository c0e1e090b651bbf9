//! Makes etcd's data directory one of rusd's where it is, for a server that is told to.
//!
//! ```text
//!   member: etcd's       importing/member: rusd's, built from it, complete and synced
//!      └────────── exchanged by one rename ──────────┘
//!   member: rusd's       importing/member: etcd's ─► member.etcd
//! ```
//!
//! `member` is at each moment etcd's and whole, or rusd's and whole, so a process may be killed at
//! any point: the next attempt builds anew, or gives etcd's files their name. They are never
//! written and never removed.

use std::fs;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, RenameFlags, renameat_with};

use super::rebuild::free_name;
use super::{Error, Import, Imported, TargetDirs, place};
use crate::store;

/// Directory within the data directory in which the new `member` is built.
const WORK: &str = "importing";

/// A data directory of etcd that is one of rusd's.
pub struct TakenIn {
    pub imported: Imported,
    /// Where etcd's files are.
    pub kept: PathBuf,
}

/// Makes a data directory of etcd, with its log within, one of rusd's with the same ids. Returns None
/// if it is not etcd's.
pub fn take_in(data_dir: &Path) -> Result<Option<TakenIn>, Error> {
    let (member, work) = (data_dir.join("member"), data_dir.join(WORK));
    let built = work.join("member");
    if !is_etcds(&member) && !is_etcds(&built) {
        return Ok(None);
    }
    let _lock = store::lock_to_import(data_dir)?;
    if is_etcds(&built) {
        // The attempt before this one was killed after the exchange.
        keep(data_dir, &work)?;
    }
    if !is_etcds(&member) {
        return Ok(None);
    }
    place::remove(&work).map_err(Error::io("remove", &work))?;
    let into = TargetDirs { data_dir: &work, wal_dir: None };
    let imported = Import { from: data_dir, from_wal: None, place: into }.run()?;
    if let Err(errno) = renameat_with(CWD, &built, CWD, &member, RenameFlags::EXCHANGE) {
        // The error is ignored: the next attempt removes it, too.
        let _ = place::remove(&work);
        return Err(Error::io("exchange", &member)(errno.into()));
    }
    place::sync(&work)?;
    place::sync(data_dir)?;
    let kept = keep(data_dir, &work)?;
    Ok(Some(TakenIn { imported, kept }))
}

/// Whether a directory `member` is etcd's, as `store::refuse_foreign` tells it.
fn is_etcds(member: &Path) -> bool {
    member.join("snap").exists()
}

/// Moves etcd's files from `work` to a name of their own.
fn keep(data_dir: &Path, work: &Path) -> Result<PathBuf, Error> {
    let (etcds, kept) = (work.join("member"), free_name(&data_dir.join("member"), "etcd"));
    fs::rename(&etcds, &kept).map_err(Error::io("rename", &etcds))?;
    place::sync(data_dir)?;
    place::remove(work).map_err(Error::io("remove", work))?;
    Ok(kept)
}
