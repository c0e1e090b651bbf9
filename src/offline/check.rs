//! Reads a data directory from end to end: does every byte fit its checksum, and do store and log
//! agree?
//!
//! Nothing is changed, repaired or mapped into memory. Files are read one after the other, and
//! damage to one does not keep the next from being read.

use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasher, RandomState};
use std::path::{Path, PathBuf};

use prost::Message;
use serde::{Deserialize, Serialize};

use super::Error;
use crate::limits::CHECK_KEYS_MAX;
use crate::members::{Downgrade, Member};
use crate::node;
use crate::pb::authpb::{Role, User};
use crate::pb::{AlarmMember, KeyValue, leasepb};
use crate::raft::log::Error as LogError;
use crate::raft::{self, AtRest};
use crate::store::{self, Bucket, DirLock, Examined, Row, Unusable, schema};
use crate::transfer;
use crate::types::{Revision, SignedHex, Version};

/// Severity of a finding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The member must not be started with this file.
    Damage,
    /// Damage to a file that a start can do without.
    Spare,
    /// No damage, but worth knowing.
    Note,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    pub severity: Severity,
    pub file: PathBuf,
    /// The offset, page, key or revision.
    pub place: String,
    pub what: String,
    pub advice: String,
}

/// What was read, and all findings.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    pub findings: Vec<Finding>,
    /// Number of damaged places that are not in `findings`.
    pub unnamed: u64,
    pub member_id: u64,
    pub cluster_id: u64,
    pub store_bytes: u64,
    pub pages: u64,
    pub rows: u64,
    pub revision: i64,
    pub compact_revision: i64,
    /// Index of the last entry that the store has applied.
    pub applied: u64,
    /// Index of the first entry of the log; `log_last` is that of the last one.
    pub log_first: u64,
    pub log_last: u64,
    /// None if the store could not be read.
    pub auth: Option<Users>,
}

/// Whether users must log in, and whether the one who may do everything can.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Users {
    pub is_on: bool,
    pub count: usize,
    pub has_root: bool,
    pub root_has_role: bool,
    /// Without one, root needs a certificate with that name.
    pub root_has_password: bool,
}

impl Users {
    fn of(examined: &Examined) -> Self {
        let root = examined.get(Bucket::AuthUsers, b"root");
        let root = root.and_then(|bytes| User::decode(bytes).ok());
        let roles = root.iter().flat_map(|root| &root.roles);
        Self {
            is_on: examined
                .get(Bucket::Auth, schema::AUTH_ENABLED)
                .is_some_and(|value| value == [1]),
            count: examined.pairs(Bucket::AuthUsers).count(),
            has_root: root.is_some(),
            root_has_role: roles.into_iter().any(|role| role == "root"),
            root_has_password: root.is_some_and(|root| !root.password.is_empty()),
        }
    }
}

impl Report {
    /// Whether nothing is damaged.
    pub fn is_sound(&self) -> bool {
        self.findings.iter().all(|finding| finding.severity == Severity::Note)
    }
}

pub const REBUILD: &str = "do not start it; rebuild this member from its peers with `rusd rebuild`, or \
                           restore a backup if it has none";
const SPARE: &str = "nothing is lost: the next start reads all rows instead and writes it anew";

/// The member to check.
pub struct Check<'a> {
    pub data_dir: &'a Path,
    pub wal_dir: Option<&'a Path>,
}

impl Check<'_> {
    /// Locks the directory, so that the member cannot start during the check.
    pub fn lock(&self) -> Result<Option<DirLock>, Error> {
        let db = self.data_dir.join("member/db");
        let path = self.data_dir.join("member");
        if !path.is_dir() {
            return Err(Error::Missing { path: db });
        }
        Ok(store::lock_at_rest(self.data_dir)?)
    }

    /// Reads all files. `begin` is called with each part before it is read, `seen` with the bytes of
    /// each row.
    pub fn run(&self, begin: &mut dyn FnMut(&Path), seen: &mut dyn FnMut(u64)) -> Report {
        let mut report = Report::default();
        let (db, wal) = (self.data_dir.join("member/db"), self.wal());
        begin(&db);
        let examined = report.store(&db, seen);
        begin(&wal);
        report.log(&wal, &db, examined.as_ref());
        report
    }

    fn wal(&self) -> PathBuf {
        self.wal_dir.map_or_else(|| self.data_dir.join("member/wal"), Path::to_path_buf)
    }
}

impl Report {
    pub fn add(
        &mut self,
        severity: Severity,
        file: &Path,
        place: impl Into<String>,
        what: impl Into<String>,
        advice: &str,
    ) {
        let (place, what, advice) = (place.into(), what.into(), advice.to_owned());
        self.findings.push(Finding { severity, file: file.to_path_buf(), place, what, advice });
    }

    fn damage(&mut self, file: &Path, place: impl Into<String>, what: impl Into<String>) {
        self.add(Severity::Damage, file, place, what, REBUILD);
    }

    fn store(&mut self, db: &Path, seen: &mut dyn FnMut(u64)) -> Option<Examined> {
        let mut history = History::default();
        let examined = store::examine(db, &mut |row| {
            seen(row.kv.len() as u64);
            history.row(row)
        });
        let examined = match examined {
            Ok(examined) => examined,
            Err(store::Error::Damage { file, at, what }) => {
                self.damage(&file, at, what);
                return None;
            }
            Err(error) => {
                self.damage(db, "the store", error.to_string());
                return None;
            }
        };
        for error in &examined.damages {
            match error {
                store::Error::Damage { file, at, what } => self.damage(file, at, what),
                error => self.damage(&examined.file, "the store", error.to_string()),
            }
        }
        self.unnamed = examined.damages_unnamed;
        let opened = &examined.opened;
        let main = |revision: Option<Revision>| revision.map_or(-1, |revision| revision.main);
        let compacted = main(opened.scheduled_compact).max(main(opened.finished_compact));
        (self.store_bytes, self.pages) = (examined.file_bytes, examined.pages);
        (self.rows, self.applied) = (examined.rows, opened.consistent_index);
        self.revision = main(opened.last).max(compacted).max(1);
        self.compact_revision = compacted;
        if examined.damages.is_empty() {
            history.gaps(compacted).into_iter().for_each(|(place, what)| {
                self.damage(&examined.file, place, what);
            });
            self.buckets(&examined);
            self.auth = Some(Users::of(&examined));
        }
        self.note_other_files(&examined);
        Some(examined)
    }

    fn note_other_files(&mut self, examined: &Examined) {
        let file = &examined.checkpoint_file;
        match &examined.checkpoint {
            None => {}
            Some(why @ (Unusable::Absent | Unusable::OtherState(_))) => {
                let advice = "the next start reads all rows instead";
                self.add(Severity::Note, file, "the index checkpoint", why.to_string(), advice);
            }
            Some(why) => {
                self.add(Severity::Spare, file, "the index checkpoint", why.to_string(), SPARE);
            }
        }
        if let Some(noted) = &examined.noted {
            let what = format!("the member found damage while it was running: {noted}");
            let advice = "the next start reads the whole store, and refuses if it is damaged";
            self.add(Severity::Note, &examined.file, "the store", what, advice);
        }
        for other in &examined.others {
            let advice = "the next start completes the installation or removes it";
            let what = "a generation that was being built when the member stopped";
            self.add(Severity::Note, other, "the directory", what, advice);
        }
    }

    /// Checks that the values of the small tables can be decoded.
    fn buckets(&mut self, examined: &Examined) {
        for bucket in Bucket::ALL {
            for (key, value) in examined.pairs(bucket) {
                if let Err(what) = decode(bucket, key, value) {
                    let place = format!("table {}, key {}", bucket.name(), key.escape_ascii());
                    self.damage(&examined.file, place, what);
                }
            }
        }
        let Some(json) = &examined.opened.conf_state else { return };
        let place = "table meta, key confState";
        match transfer::ids_of_conf_state(json) {
            Err(error) => self.damage(&examined.file, place, error.to_string()),
            Ok(ids) => {
                let keys = examined.pairs(Bucket::Members).map(|(key, _)| key);
                let hex =
                    |key: &Vec<u8>| u64::from_str_radix(std::str::from_utf8(key).ok()?, 16).ok();
                let mut members: Vec<u64> = keys.filter_map(hex).collect();
                members.sort_unstable();
                if members != ids {
                    let what = format!(
                        "raft's members {ids:x?} are not those of table members {members:x?}"
                    );
                    self.damage(&examined.file, place, what);
                }
            }
        }
    }

    fn log(&mut self, wal: &Path, db: &Path, examined: Option<&Examined>) {
        if !wal.is_dir() {
            let advice = format!(
                "if the member is started with --wal-dir, give the same here; if its log is lost, \
                 {REBUILD}"
            );
            self.add(Severity::Damage, wal, "the directory", "the log is missing", &advice);
            return;
        }
        let log = match AtRest::read(wal) {
            Ok(log) => log,
            Err(raft::Error::Log(LogError::Damage { file, offset, what })) => {
                self.damage(&file, format!("offset {offset}"), what);
                return;
            }
            Err(error) => {
                self.damage(wal, "the log", error.to_string());
                return;
            }
        };
        (self.member_id, self.cluster_id) = (log.metadata.node_id, log.metadata.cluster_id);
        (self.log_first, self.log_last) = (log.first, log.last);
        if let Some(repair) = &log.repair {
            let place = format!("offset {}", repair.offset);
            let what = format!("a write was interrupted here: {}", repair.what);
            let advice = "nothing that was acknowledged is lost; the next start undoes it";
            self.add(Severity::Note, &repair.file, place, what, advice);
        }
        let Some(examined) = examined.filter(|examined| examined.damages.is_empty()) else {
            return;
        };
        let opened = &examined.opened;
        if let Err(error) = log.check_applied(opened.consistent_index, opened.term) {
            let what =
                format!("the store in {} and the log do not go together: {error}", db.display());
            self.damage(wal, format!("entry {}", opened.consistent_index), what);
        }
        let unapplied =
            log.unapplied(opened.consistent_index, |entry| node::check_entry(entry).map(drop));
        if let Err(error) = unapplied {
            self.damage(
                wal,
                format!("the entries after {}", opened.consistent_index),
                error.to_string(),
            );
        }
        let own = crate::members::member_key(self.member_id);
        let is_gone = examined.get(Bucket::MembersRemoved, &own).is_some();
        if is_gone {
            let what = format!("this member, {:x}, was removed from its cluster", self.member_id);
            self.add(
                Severity::Note,
                &examined.file,
                "table members_removed",
                what,
                "it cannot start again",
            );
        }
    }
}

fn decode(bucket: Bucket, key: &[u8], value: &[u8]) -> Result<(), String> {
    let text =
        |bytes: &[u8]| std::str::from_utf8(bytes).map(str::to_owned).map_err(|e| e.to_string());
    let id = |key: &[u8]| u64::from_str_radix(&text(key)?, 16).map_err(|error| error.to_string());
    let message = |decoded: Result<(), prost::DecodeError>| decoded.map_err(|e| e.to_string());
    match bucket {
        Bucket::Meta => Ok(()),
        Bucket::Lease => {
            let lease = leasepb::Lease::decode(value).map_err(|error| error.to_string())?;
            let is_own = key == lease.id.to_be_bytes();
            if is_own { Ok(()) } else { Err(format!("it holds lease {:x}", SignedHex(lease.id))) }
        }
        Bucket::Alarm => message(AlarmMember::decode(key).map(drop)),
        Bucket::Cluster if key == schema::CLUSTER_VERSION => {
            let text = text(value)?;
            Version::parse(&text).map(drop).ok_or_else(|| format!("{text:?} is no version"))
        }
        Bucket::Cluster if key == schema::DOWNGRADE => {
            Downgrade::from_json(value).map(drop).map_err(|error| error.to_string())
        }
        Bucket::Cluster => Ok(()),
        Bucket::Members => {
            let member = Member::from_json(value).map_err(|error| error.to_string())?;
            let is_own = id(key)? == member.id;
            if is_own { Ok(()) } else { Err(format!("it holds member {:x}", member.id)) }
        }
        Bucket::MembersRemoved => id(key).map(drop),
        Bucket::Auth if key == schema::AUTH_REVISION && value.len() != 8 => {
            Err("the value has the wrong size".to_owned())
        }
        Bucket::Auth => Ok(()),
        Bucket::AuthUsers => message(User::decode(value).map(drop)),
        Bucket::AuthRoles => message(Role::decode(value).map(drop)),
    }
}

/// The latest row of a key.
#[derive(Clone, Copy)]
struct Newest {
    rev: Revision,
    version: i64,
    created: i64,
}

/// Follows the rows in the order of their revisions, to find missing ones.
#[derive(Default)]
struct History {
    /// The latest row of each key, by two hashes of the key: whole keys would take more memory.
    keys: HashMap<(u64, u64), Newest>,
    hashers: (RandomState, RandomState),
    last: Option<Revision>,
    /// Neighbouring rows between which revisions are missing. A compaction explains those up to its
    /// revision; above it, rows were lost.
    revision_gaps: Vec<(Revision, Revision)>,
    /// What is wrong with neighbouring rows of a key whose versions do not follow each other, by the
    /// revision of the earlier one. The same holds for these.
    versions: BTreeMap<Revision, String>,
}

/// Number of gaps that are remembered. One is enough for a verdict.
const GAPS_MAX: usize = 100;

impl History {
    fn row(&mut self, row: &Row) -> Result<(), String> {
        let kv =
            KeyValue::decode(row.kv.clone()).map_err(|error| format!("not a pair: {error}"))?;
        let last = self.last.replace(row.rev).unwrap_or(Revision::new(1, 0));
        let follows = if row.rev.main == last.main {
            row.rev.sub == last.sub + 1
        } else {
            row.rev.main == last.main + 1 && row.rev.sub == 0
        };
        if !follows && self.revision_gaps.len() < GAPS_MAX {
            // The newest gaps are kept, since only those above the compact revision count.
            self.revision_gaps.push((last, row.rev));
        } else if !follows {
            self.revision_gaps.rotate_left(1);
            self.revision_gaps[GAPS_MAX - 1] = (last, row.rev);
        }
        if row.tombstone {
            self.keys.remove(&self.key(&kv.key));
            return Ok(());
        }
        let (created, version, modified) = (kv.create_revision, kv.version, kv.mod_revision);
        if modified != row.rev.main || created < 1 || created > modified || version < 1 {
            return Err(format!(
                "a pair of create revision {created}, mod revision {modified}, version {version}"
            ));
        }
        self.follow(&kv, Newest { rev: row.rev, version, created });
        Ok(())
    }

    fn key(&self, key: &[u8]) -> (u64, u64) {
        (self.hashers.0.hash_one(key), self.hashers.1.hash_one(key))
    }

    fn follow(&mut self, kv: &KeyValue, newest: Newest) {
        let key = self.key(&kv.key);
        if self.keys.len() >= CHECK_KEYS_MAX && !self.keys.contains_key(&key) {
            return;
        }
        let Some(before) = self.keys.insert(key, newest) else { return };
        let is_next = newest.version == before.version + 1 && newest.created == before.created;
        if !is_next {
            let what = format!(
                "version {} created at {}, where version {} created at {} stands at revision {}",
                newest.version, newest.created, before.version, before.created, before.rev
            );
            self.versions.insert(before.rev, what);
            if self.versions.len() > GAPS_MAX {
                // The newest gaps are kept here, too.
                self.versions.pop_first();
            }
        }
    }

    /// The gaps above the compact revision, as place and text.
    fn gaps(self, compacted: i64) -> Vec<(String, String)> {
        let first = Revision::new(compacted + 1, 0);
        let revision_gaps = self.revision_gaps.into_iter().filter(|(before, after)| {
            after.main > compacted && (before.main > compacted || *after != first)
        });
        let missing = revision_gaps.map(|(before, after)| {
            let from =
                if before.main < compacted { format!("{compacted}") } else { before.to_string() };
            (format!("revision {after}"), format!("it follows revision {from}: rows are missing"))
        });
        let versions = self.versions.into_iter().filter(|(before, _)| before.main > compacted);
        missing
            .chain(versions.map(|(before, what)| (format!("after revision {before}"), what)))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_that_a_compaction_explains_do_not_crowd_out_a_real_one() {
        let mut history = History::default();
        let mut row = |key: &'static str, main: i64, version: i64| {
            let kv = KeyValue { key: key.into(), version, ..KeyValue::default() };
            history.follow(&kv, Newest { rev: Revision::new(main, 0), version, created: 1 });
        };
        let explained = 2 * GAPS_MAX as i64;
        (1..=explained).for_each(|main| row("a", main, 2 * main));
        row("b", explained + 1, 1);
        row("b", explained + 2, 3);
        // Those that come later and are explained count less, too.
        let last = 1000;
        for main in 1..=GAPS_MAX as i64 {
            let key: &'static str = Box::leak(format!("c{main}").into_boxed_str());
            row(key, main, 1);
            row(key, last + main, 3);
        }
        let found = history.gaps(explained);
        let place = format!("after revision {}", Revision::new(explained + 1, 0));
        assert_eq!(found.iter().map(|(place, _)| place).collect::<Vec<_>>(), [&place]);
    }
}
