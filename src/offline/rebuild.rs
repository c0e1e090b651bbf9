//! Prepares a damaged member's directory for a new member in its place.
//!
//! The plan and its progress are in `rebuild.json` in the data directory, so that an interrupted
//! attempt can go on. A server that finds this file and no log joins the cluster as the member that
//! it names, whatever its flags say about a first start. The damaged files are moved aside and
//! kept.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{Error, place};
use crate::files;
use crate::raft::{self, log::SystemDisk};

const FILE: &str = "rebuild.json";

/// The plan of a rebuild and its progress.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rebuild {
    pub cluster_id: u64,
    /// The member whose data is damaged or lost; 0 if there was none before.
    pub old_id: u64,
    pub name: String,
    /// Peer URLs of the old member and of the new one.
    pub peer_urls: Vec<String>,
    /// Peer URLs of the other members.
    pub others: Vec<String>,
    /// Id of the new member, once the cluster has added it.
    pub new_id: Option<u64>,
    /// Whether it was added as a voter, so that nothing is left to do once it has a log.
    #[serde(default)]
    pub is_voter: bool,
}

/// How far a rebuild has come, as its directories show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RebuildProgress {
    /// The damaged member's files are still there, or the cluster has not added the new member.
    Begun,
    /// The damaged files are put aside, and the new member has not been started.
    PutAside,
    /// There is a log of the new member.
    Started,
}

impl Rebuild {
    /// How far this rebuild of a directory, whose log may have one of its own, has come.
    pub fn progress(&self, data_dir: &Path, wal_dir: Option<&Path>) -> RebuildProgress {
        let is_there = data_dir.join("member").exists() || wal_dir.is_some_and(Path::exists);
        match owner(data_dir, wal_dir) {
            Some((id, _)) if self.new_id == Some(id) => RebuildProgress::Started,
            None if self.new_id.is_some() && !is_there => RebuildProgress::PutAside,
            _ => RebuildProgress::Begun,
        }
    }

    /// The plan of an earlier attempt; None if there is none.
    pub fn read(data_dir: &Path) -> Result<Option<Self>, Error> {
        let path = data_dir.join(FILE);
        let json = match files::read_small(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            read => read.map_err(Error::io("read", &path))?,
        };
        let parsed = serde_json::from_slice(&json);
        parsed.map(Some).map_err(|error| Error::io("read", &path)(error.into()))
    }

    /// Writes the plan and syncs it.
    pub fn write(&self, data_dir: &Path) -> Result<(), Error> {
        let path = data_dir.join(FILE);
        let part = path.with_extension("part");
        let write = || -> io::Result<()> {
            let mut options = OpenOptions::new();
            options.write(true).create(true).truncate(true).mode(0o600);
            let mut file = files::open_with(&options, &part)?;
            file.write_all(&serde_json::to_vec(self)?)?;
            file.sync_all()?;
            fs::rename(&part, &path)
        };
        write().map_err(Error::io("write", &path))?;
        place::sync(data_dir)
    }

    /// Removes the plan, once the new member votes.
    pub fn remove(data_dir: &Path) -> Result<(), Error> {
        let path = data_dir.join(FILE);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(Error::io("remove", &path)(error))
            }
            _ => place::sync(data_dir),
        }
    }
}

/// Ids of the member and the cluster whose log a directory holds. None if there is no log or its
/// head cannot be read.
pub fn owner(data_dir: &Path, wal_dir: Option<&Path>) -> Option<(u64, u64)> {
    let wal = wal_dir.map_or_else(|| data_dir.join("member/wal"), Path::to_path_buf);
    let metadata = raft::identity(&SystemDisk, &wal).ok()?;
    Some((metadata.node_id, metadata.cluster_id))
}

/// Renames a member's directories so that their names tell the member's id. Returns the old and new
/// paths.
pub fn put_aside(
    data_dir: &Path,
    wal_dir: Option<&Path>,
    id: u64,
) -> Result<Vec<(PathBuf, PathBuf)>, Error> {
    let mut moved = Vec::new();
    // The log comes first: after a crash in between, the store has no log, and a store without a
    // log does not start.
    for dir in wal_dir.map(Path::to_path_buf).into_iter().chain([data_dir.join("member")]) {
        if !dir.exists() {
            continue;
        }
        let to = free_name(&dir, &format!("damaged-{id:x}"));
        fs::rename(&dir, &to).map_err(Error::io("rename", &dir))?;
        place::sync(files::parent(&dir))?;
        moved.push((dir, to));
    }
    Ok(moved)
}

/// A name beside `dir` that nobody has: its own with a mark.
pub(super) fn free_name(dir: &Path, mark: &str) -> PathBuf {
    let mut number = 1;
    loop {
        let end = if number == 1 { String::new() } else { format!("-{number}") };
        let mut name = dir.file_name().unwrap_or_default().to_os_string();
        name.push(format!(".{mark}{end}"));
        let to = dir.with_file_name(name);
        if !to.exists() {
            return to;
        }
        number += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_noted_is_found_again_and_nothing_that_is_put_aside_is_lost() {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path();
        assert_eq!(Rebuild::read(data).unwrap(), None);
        let noted = Rebuild { old_id: 7, new_id: Some(u64::MAX), ..Rebuild::default() };
        noted.write(data).unwrap();
        assert_eq!(Rebuild::read(data).unwrap(), Some(noted));
        Rebuild::remove(data).unwrap();
        Rebuild::remove(data).unwrap();
        assert_eq!(Rebuild::read(data).unwrap(), None);
        for number in 0..2 {
            fs::create_dir(data.join("member")).unwrap();
            fs::write(data.join("member/file"), format!("{number}")).unwrap();
            put_aside(data, None, 0xab).unwrap();
        }
        assert_eq!(fs::read(data.join("member.damaged-ab/file")).unwrap(), b"0");
        assert_eq!(fs::read(data.join("member.damaged-ab-2/file")).unwrap(), b"1");
        assert!(put_aside(data, None, 0xab).unwrap().is_empty());
    }
}
