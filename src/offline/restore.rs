//! Makes a data directory from a snapshot.

use std::path::Path;
use std::sync::Arc;

use super::{Archive, Error, TargetDirs};
use crate::clock::SystemClock;
use crate::members::Founders;
use crate::store::Options;
use crate::transfer::Seed;

/// One member of a new cluster that has the state of an old one.
pub struct Restore<'a> {
    pub snapshot: &'a Path,
    pub place: TargetDirs<'a>,
    /// Name of this member; `cluster` must have it.
    pub name: &'a str,
    /// Names and peer URLs of the new cluster's members.
    pub cluster: &'a [(String, Vec<String>)],
    pub token: &'a str,
    pub skip_hash_check: bool,
    pub bump_revision: Option<i64>,
}

impl Restore<'_> {
    /// Restores everything or nothing: the directory appears when it is complete. Returns the
    /// members of the new cluster.
    pub fn run(&self) -> Result<Founders, Error> {
        self.place.check()?;
        let founders = Founders::new(self.cluster, self.token);
        let own = founders.named(self.name);
        let member_id = own.ok_or_else(|| Error::NotInCluster(self.name.to_owned()))?.id;
        let archive = Archive::open(self.snapshot, "open")?;
        if !self.skip_hash_check {
            archive.check_hash()?;
        }
        self.place.make(|db, wal| {
            let seed =
                Seed { db, wal, founders: &founders, member_id, bump_revision: self.bump_revision };
            let mut options = Options::new(Arc::new(SystemClock::new()));
            options.reserve_bytes = 0;
            Ok(seed.create(&archive.source(), options)?)
        })?;
        Ok(founders)
    }
}
