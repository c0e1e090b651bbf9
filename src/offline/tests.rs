use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use prost::Message as _;
use sha2::{Digest, Sha256};
use tempfile::TempDir;

use super::*;
use crate::apply::{Command, Entry as Wanted};
use crate::clock::SystemClock;
use crate::members::{Change, Member, member_key};
use crate::mvcc::kv::Pair;
use crate::node;
use crate::pb::{InternalRaftRequest, PutRequest, Request};
use crate::raft::log::{Batch, SystemDisk};
use crate::raft::{self, ConfChange, Entry, log};
use crate::store::{Bucket, Building, Options, Row, Store, schema};
use crate::transfer::Snapshot;
use crate::types::Revision;

mod later;
mod take_in;

struct Case {
    dir: TempDir,
    cluster: Vec<(String, Vec<String>)>,
}

impl Case {
    /// A directory with a snapshot file of three keys.
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut options = Options::new(Arc::new(SystemClock::new()));
        options.reserve_bytes = 0;
        let (store, _) = Store::open(&dir.path().join("source"), options).unwrap();
        for main in 2..5 {
            let key = [b'a' + u8::try_from(main).unwrap()];
            let pair = Pair {
                key: &key,
                create_revision: main,
                mod_revision: main,
                version: 1,
                value: b"value",
                lease: 0,
            };
            store.push_row(Row {
                rev: Revision::new(main, 0),
                tombstone: false,
                kv: pair.encode(),
            });
        }
        store.put(Bucket::Meta, schema::STORAGE_VERSION.to_vec(), b"3.7.0".to_vec());
        store.seal(9, 2);
        store.flush().unwrap();
        let mut snapshot = Snapshot::new(&store).unwrap();
        let (mut file, mut hasher) = (Vec::new(), Sha256::new());
        while let Some(piece) = snapshot.next_piece().unwrap() {
            hasher.update(&piece);
            file.extend_from_slice(&piece);
        }
        file.extend_from_slice(&hasher.finalize());
        fs::write(dir.path().join("s.db"), file).unwrap();
        let cluster = vec![("m1".to_owned(), vec!["http://127.0.0.1:1".to_owned()])];
        Self { dir, cluster }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn restore(&self, file: &Path, wal_dir: Option<&Path>) -> Result<(), Error> {
        let restore = Restore {
            snapshot: file,
            place: TargetDirs { data_dir: &self.path("data"), wal_dir },
            name: "m1",
            cluster: &self.cluster,
            token: "t",
            skip_hash_check: false,
            bump_revision: None,
        };
        restore.run().map(drop)
    }

    /// HashKV of the restored directory.
    fn hash(&self) -> u32 {
        let (data_dir, wal) = (self.path("data"), self.path("wal"));
        let archive = match wal.exists() {
            true => Archive::open_member(&data_dir, Some(&wal)).unwrap(),
            false => Archive::open(&data_dir.join("member/snap/db"), "stat").unwrap(),
        };
        archive.hash_kv(0).unwrap().hash
    }

    fn file_hash(&self) -> u32 {
        Archive::open(&self.path("s.db"), "stat").unwrap().hash_kv(0).unwrap().hash
    }
}

#[test]
fn a_damaged_snapshot_leaves_nothing_behind() {
    let case = Case::new();
    let whole = fs::read(case.path("s.db")).unwrap();
    let bad = case.path("bad.db");
    let flips = (0..whole.len()).step_by(whole.len() / 50).map(|at| {
        let mut bytes = whole.clone();
        bytes[at] ^= 1;
        bytes
    });
    let cuts = [0, 31, 32, 512, 4096, 8192 + 32, whole.len() - 512, whole.len() - 32];
    for bytes in flips.chain(cuts.map(|len| whole[..len].to_vec())) {
        fs::write(&bad, &bytes).unwrap();
        assert!(case.restore(&bad, Some(&case.path("wal"))).is_err());
        assert!(!case.path("data").exists() && !case.path("wal").exists());
    }
    case.restore(&case.path("s.db"), Some(&case.path("wal"))).unwrap();
    assert_eq!(case.hash(), case.file_hash());
}

#[test]
fn what_is_found_in_the_way_under_the_lock_leaves_nothing_behind() {
    let dir = tempfile::tempdir().unwrap();
    let (data_dir, wal_dir) = (dir.path().join("data"), dir.path().join("wal"));
    fs::create_dir(&wal_dir).unwrap();
    let place = TargetDirs { data_dir: &data_dir, wal_dir: Some(&wal_dir) };
    let make = || place.make(|_, _| -> Result<(), Error> { unreachable!() });
    assert!(matches!(make(), Err(Error::WalExists { .. })));
    assert!(!data_dir.exists() && wal_dir.exists());
    // What another attempt has made meanwhile stays.
    fs::create_dir_all(data_dir.join("member")).unwrap();
    assert!(matches!(make(), Err(Error::NotEmpty { .. })));
    assert!(data_dir.join("rusd.lock").exists());
}

#[test]
fn what_a_killed_restore_left_is_in_nobodys_way() {
    let case = Case::new();
    let wal = case.path("wal");
    let work = case.path("data/restoring");
    fs::create_dir_all(work.join("db/gen-1")).unwrap();
    fs::create_dir_all(case.path("data/proxy")).unwrap();
    fs::create_dir(&wal).unwrap();
    assert!(matches!(case.restore(&case.path("s.db"), Some(&wal)), Err(Error::WalExists { .. })));
    File::create(work.join("wal-dir"))
        .unwrap()
        .write_all(wal.as_os_str().as_encoded_bytes())
        .unwrap();
    let lock = crate::store::lock(&case.path("data")).unwrap();
    assert!(case.restore(&case.path("s.db"), Some(&wal)).is_err());
    assert!(wal.exists(), "who has made it may be at work still");
    drop(lock);
    case.restore(&case.path("s.db"), Some(&wal)).unwrap();
    assert_eq!(case.hash(), case.file_hash());
    assert!(!work.exists() && !case.path("data/member/wal-dir").exists());
    let again = case.restore(&case.path("s.db"), None);
    assert!(matches!(again, Err(Error::NotEmpty { .. })));
    assert_eq!(case.hash(), case.file_hash(), "what was there is untouched");
}

#[test]
fn a_log_may_be_named_within_the_data_directory() {
    let case = Case::new();
    let data = case.path("data");
    let names = ["member/wal", "../data/member/wal", "member/log/of/it", "wal", "log/wal"];
    for name in names {
        let wal = data.join(name);
        // A failed attempt leaves nothing that would stop the next one.
        fs::write(case.path("bad.db"), [0; 9000]).unwrap();
        assert!(case.restore(&case.path("bad.db"), Some(&wal)).is_err());
        assert!(!data.exists(), "{name}");
        case.restore(&case.path("s.db"), Some(&wal)).unwrap();
        let archive = Archive::open_member(&data, Some(&wal)).unwrap();
        assert_eq!(archive.hash_kv(0).unwrap().hash, case.file_hash(), "{name}");
        drop(archive);
        fs::remove_dir_all(&data).unwrap();
    }
    // The same after an attempt that was killed.
    for made in ["log", "log/wal"] {
        fs::create_dir_all(data.join("restoring")).unwrap();
        fs::create_dir_all(data.join(made)).unwrap();
        let note = fs::canonicalize(&data).unwrap().join("log/wal");
        fs::write(data.join("restoring/wal-dir"), note.as_os_str().as_encoded_bytes()).unwrap();
        case.restore(&case.path("s.db"), Some(&data.join("log/wal"))).unwrap();
        fs::remove_dir_all(&data).unwrap();
    }
}

#[test]
fn a_log_that_would_hold_the_store_or_lie_in_it_is_refused_before_anything_is_made() {
    let case = Case::new();
    let data = case.path("data");
    for name in ["", ".", "..", "member", "member/db", "member/db/gen-1", "restoring/wal"] {
        let refused = case.restore(&case.path("s.db"), Some(&data.join(name)));
        assert!(matches!(refused, Err(Error::WalPlace { .. })), "{name}: {refused:?}");
        assert!(!data.exists(), "{name}");
    }
    case.restore(&case.path("s.db"), None).unwrap();
}

#[test]
fn a_bump_continues_history_later_and_compacts_what_was_before() {
    let case = Case::new();
    let restore = Restore {
        snapshot: &case.path("s.db"),
        place: TargetDirs { data_dir: &case.path("data"), wal_dir: None },
        name: "m1",
        cluster: &case.cluster,
        token: "t",
        skip_hash_check: false,
        bump_revision: Some(1000),
    };
    restore.run().unwrap();
    let archive = Archive::open(&case.path("data"), "stat").unwrap();
    let hash = archive.hash_kv(0).unwrap();
    assert_eq!((hash.revision, hash.compact_revision), (1004, 1004));
    let mut rows = Vec::new();
    let walked = archive.source().rows(|row| {
        rows.push((row.rev.main, row.kv));
        Ok(())
    });
    walked.unwrap();
    assert_eq!(rows.last(), Some(&(1004, Bytes::new())));
    drop(archive);
    assert!(matches!(
        Archive::open(&case.path("data"), "stat").unwrap().hash_kv(1003),
        Err(InstallError::Mvcc(crate::mvcc::Error::Compacted))
    ));
}

#[test]
fn a_storage_version_is_changed_and_taken_away() {
    let case = Case::new();
    case.restore(&case.path("s.db"), None).unwrap();
    let data = case.path("data");
    assert_eq!(storage_version(&data).unwrap().as_deref(), Some("3.7.0"));
    migrate(&data, Some("3.6.0")).unwrap();
    assert_eq!(storage_version(&data).unwrap().as_deref(), Some("3.6.0"));
    migrate(&data, None).unwrap();
    assert_eq!(storage_version(&data).unwrap().as_deref(), Some("3.5.0"));
    // A storage version of a future release can be changed back.
    for version in ["3.8.0", "3.9.0"] {
        migrate(&data, Some(version)).unwrap();
        assert_eq!(storage_version(&data).unwrap().as_deref(), Some(version));
    }
    migrate(&data, Some("3.7.0")).unwrap();
    assert_eq!(storage_version(&data).unwrap().as_deref(), Some("3.7.0"));
    assert_eq!(case.hash(), case.file_hash());
}

/// A member that was killed: entries are in its log and not in its store.
#[test]
fn what_only_the_log_holds_is_exported() {
    let case = Case::new();
    case.restore(&case.path("s.db"), None).unwrap();
    let data = case.path("data");
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let copy = case.path("copy");
    runtime.block_on(async {
        let clock = Arc::new(SystemClock::new());
        // No commit of the store happens before the test ends.
        let mut config = node::Config::of(&data);
        config.commit_interval = std::time::Duration::from_secs(3600);
        let node = node::Node::start(config, clock).unwrap();
        let put = crate::pb::PutRequest { key: "late".into(), ..Default::default() };
        let nobody = crate::auth::Credentials::default();
        while node.propose(&nobody, node::Op::Put(put.clone())).await.is_err() {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        copy_dir(&data, &copy);
        node.stop().await;
    });
    let to = case.path("out.db");
    export(&copy, None, &to).unwrap();
    let archive = Archive::open(&to, "open").unwrap();
    archive.check_hash().unwrap();
    let mut last = Bytes::new();
    let walked = archive.source().rows(|row| {
        last = row.kv;
        Ok(())
    });
    walked.unwrap();
    assert_eq!(Pair::parse(&last).unwrap().key, b"late");
    assert!(export(&copy, None, &to).is_err(), "nothing is overwritten");
}

fn copy_dir(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy_dir(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// An etcd directory as `etcdutl snapshot restore` leaves it, from a snapshot of another cluster.
fn etcd_directory(case: &Case) -> PathBuf {
    etcd_directory_with(case, &[])
}

/// The same with further pairs in its file.
fn etcd_directory_with(case: &Case, noted: &[(Bucket, &[u8], &str)]) -> PathBuf {
    case.restore(&case.path("s.db"), None).unwrap();
    let data = case.path("data");
    let mut options = Options::new(Arc::new(SystemClock::new()));
    options.reserve_bytes = 0;
    let mut building = Building::first(&case.path("other")).unwrap();
    let archive = Archive::open(&data, "stat").unwrap();
    archive.source().fill(&mut building).unwrap();
    drop(archive);
    let foreign = br#"{"voters":[99],"auto_leave":false}"#.to_vec();
    building.pairs(Bucket::Meta, &[(schema::CONF_STATE.to_vec(), foreign)]).unwrap();
    for (bucket, key, value) in noted {
        building.pairs(*bucket, &[(key.to_vec(), value.as_bytes().to_vec())]).unwrap();
    }
    let (store, _) = building.finish(options).unwrap();
    let etcd = case.path("etcd");
    fs::create_dir_all(etcd.join("member/snap")).unwrap();
    copy_dir(&data.join("member/wal"), &etcd.join("member/wal"));
    let mut snapshot = Snapshot::new(&store).unwrap();
    let mut file = Vec::new();
    while let Some(piece) = snapshot.next_piece().unwrap() {
        file.extend_from_slice(&piece);
    }
    fs::write(etcd.join("member/snap/db"), file).unwrap();
    etcd
}

#[test]
fn an_imported_member_votes_although_the_file_names_other_voters() {
    let case = Case::new();
    let etcd = etcd_directory(&case);
    let imported = case.path("imported");
    let place = TargetDirs { data_dir: &imported, wal_dir: None };
    let found = Import { from: &etcd, from_wal: None, place }.run().unwrap();
    assert_eq!(found.revision, 4);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let config = node::Config::of(&imported);
        let node = node::Node::start(config, Arc::new(SystemClock::new())).unwrap();
        let put = crate::pb::PutRequest { key: "k".into(), ..Default::default() };
        let nobody = crate::auth::Credentials::default();
        let served = node.hash_kv(&nobody, found.revision).await.unwrap();
        assert_eq!((served.hash, served.hash_revision), (found.hash, found.revision));
        let written = async {
            while node.propose(&nobody, node::Op::Put(put.clone())).await.is_err() {
                tokio::time::sleep(std::time::Duration::from_millis(10)).await;
            }
        };
        let patience = std::time::Duration::from_secs(60);
        assert!(tokio::time::timeout(patience, written).await.is_ok(), "it never leads");
        node.stop().await;
    });
}

#[test]
fn a_directory_of_before_35_is_refused_with_the_way_out() {
    let case = Case::new();
    let etcd = etcd_directory(&case);
    let path = etcd.join("member/snap/db");
    let mut file = fs::read(&path).unwrap();
    let (from, to) = (b"term", b"tern");
    let places: Vec<_> = (0..file.len() - 4).filter(|at| file[*at..].starts_with(from)).collect();
    for at in places {
        file[at..at + to.len()].copy_from_slice(to);
    }
    fs::write(&path, file).unwrap();
    let imported = case.path("imported");
    let place = TargetDirs { data_dir: &imported, wal_dir: None };
    let error = Import { from: &etcd, from_wal: None, place }.run().unwrap_err().to_string();
    assert!(error.contains("before 3.5; save a snapshot and restore it"), "{error}");
    assert!(!imported.exists());
}

/// Appends entries of the last term to a log, and commits the first `committed` of them.
fn append(wal: &Path, contents: &[(i32, Vec<u8>)], committed: usize) -> u64 {
    let disk: Arc<dyn log::Disk> = Arc::new(SystemDisk);
    let (mut writer, _reader, recovered) = log::open(&disk, wal, log::Options::default()).unwrap();
    let (last, term) = (recovered.table.last_index(), recovered.table.last_term());
    let entry = |(number, (kind, data)): (usize, &(i32, Vec<u8>))| Entry {
        index: last + 1 + number as u64,
        term,
        entry_type: *kind,
        data: data.clone().into(),
        ..Entry::default()
    };
    let entries: Vec<Entry> = contents.iter().enumerate().map(entry).collect();
    let mut hard_state = recovered.hard_state;
    (hard_state.commit, hard_state.term) = (last + committed as u64, hard_state.term.max(term));
    let batch = Batch { entries, hard_state: Some(hard_state), ..Batch::default() };
    writer.append(&batch).unwrap();
    writer.write().unwrap();
    writer.sync().unwrap();
    last
}

fn put(key: &'static str) -> (i32, Vec<u8>) {
    let put = PutRequest { key: key.into(), ..PutRequest::default() };
    let entry = Wanted { header: Default::default(), command: Command::Put(put) };
    (0, entry.encode().to_vec())
}

fn v2(path: &'static str, val: &'static str) -> Request {
    let (method, path, val) = ("PUT".into(), path.into(), val.into());
    Request { id: 1, method, path, val, ..Request::default() }
}

#[test]
fn an_import_reads_what_it_leaves_to_the_first_start() {
    let case = Case::new();
    let etcd = etcd_directory(&case);
    let wal = etcd.join("member/wal");
    let id = case.member().id;
    let path: &'static str = format!("/0/members/{id:x}/attributes").leak();
    let said = v2(path, r#"{"name":"called","clientURLs":["http://c:1"]}"#);
    let version = InternalRaftRequest { v2: Some(v2("/0/version", "3.5.0")), ..Default::default() };
    let contents = [said.encode_to_vec(), version.encode_to_vec(), v2("/1/k", "v").encode_to_vec()];
    append(&wal, &contents.map(|data| (0, data)), 3);
    let imported = case.path("imported");
    let place = TargetDirs { data_dir: &imported, wal_dir: None };
    let found = Import { from: &etcd, from_wal: None, place }.run().unwrap();
    assert_eq!((found.last - found.applied, found.ignored), (3, 1));
    let archive = Archive::open(&imported, "stat").unwrap();
    let stored = archive.source().get(Bucket::Members, &member_key(id)).unwrap().unwrap();
    let member = Member::from_json(&stored).unwrap();
    assert_eq!(
        (member.name.as_str(), &member.client_urls[..]),
        ("called", &["http://c:1".into()][..])
    );
    let set = archive.source().get(Bucket::Cluster, schema::CLUSTER_VERSION).unwrap();
    assert_eq!(set.as_deref(), Some(&b"3.5.0"[..]));
    drop(archive);

    // An entry that this release cannot apply is reported before anything is made.
    let unknown = vec![0xe2, 0x3f, 0];
    let newer = InternalRaftRequest { v2: Some(v2("/0/version", "3.9.0")), ..Default::default() };
    for (data, says) in [(unknown, "request 1020"), (newer.encode_to_vec(), "3.9.0")] {
        let (etcd, into) = (case.path("etcd-of-another"), case.path("not-imported"));
        copy_dir(&case.path("etcd"), &etcd);
        let last = append(&etcd.join("member/wal"), &[put("before"), (0, data)], 0);
        let place = TargetDirs { data_dir: &into, wal_dir: None };
        let error = Import { from: &etcd, from_wal: None, place }.run().unwrap_err().to_string();
        assert!(error.contains(&format!("entry {}", last + 2)), "{error}");
        assert!(error.contains(says), "{error}");
        assert!(!into.exists());
        fs::remove_dir_all(etcd).unwrap();
    }
}

/// etcd creates its file before it applies anything, and may be killed in between.
#[test]
fn a_first_start_that_was_cut_short_is_imported() {
    let case = Case::new();
    let etcd = etcd_directory(&case);
    let mut options = Options::new(Arc::new(SystemClock::new()));
    options.reserve_bytes = 0;
    let (empty, _) = Store::open(&case.path("empty"), options).unwrap();
    let (mut snapshot, mut file) = (Snapshot::new(&empty).unwrap(), Vec::new());
    while let Some(piece) = snapshot.next_piece().unwrap() {
        file.extend_from_slice(&piece);
    }
    fs::write(etcd.join("member/snap/db"), file).unwrap();
    append(&etcd.join("member/wal"), &[put("k")], 1);
    let imported = case.path("imported");
    let place = TargetDirs { data_dir: &imported, wal_dir: None };
    let found = Import { from: &etcd, from_wal: None, place }.run().unwrap();
    assert_eq!(found.applied, 0);
    let archive = Archive::open(&imported, "stat").unwrap();
    assert_eq!(archive.hash_kv(0).unwrap().revision, 2, "the put is there");
}

impl Case {
    fn member(&self) -> Member {
        crate::members::Founders::new(&self.cluster, "t").named("m1").unwrap().clone()
    }
}

fn other() -> Member {
    Member { id: 77, peer_urls: vec!["http://127.0.0.1:2".to_owned()], ..Member::default() }
}

/// The key of the last row of a directory.
fn last_key(data_dir: &Path) -> Bytes {
    let archive = Archive::open(data_dir, "stat").unwrap();
    let mut last = Bytes::new();
    let walked = archive.source().rows(|row| {
        last = Bytes::copy_from_slice(Pair::parse(&row.kv).unwrap().key);
        Ok(())
    });
    walked.unwrap();
    last
}

#[test]
fn a_learner_that_was_killed_is_read_as_far_as_it_knows_what_is_committed() {
    let case = Case::new();
    case.restore(&case.path("s.db"), None).unwrap();
    let (data, own) = (case.path("data"), case.member());
    let db = data.join("member/db");
    for member in [Member { is_learner: true, ..own.clone() }, other()] {
        let (key, json) = (member_key(member.id), member.to_json());
        store::amend(&db, Bucket::Members, &key, Some(&json)).unwrap();
    }
    let state = format!(r#"{{"voters":[77],"learners":[{}],"auto_leave":false}}"#, own.id);
    store::amend(&db, Bucket::Meta, schema::CONF_STATE, Some(state.as_bytes())).unwrap();
    append(&data.join("member/wal"), &[put("committed"), put("perhaps not")], 1);
    assert_eq!(last_key(&data), "committed");
    assert_eq!(last_key(&data), "committed", "a second look finds the same");
    assert_eq!(storage_version(&data).unwrap().as_deref(), Some("3.7.0"));
    export(&data, None, &case.path("out.db")).unwrap();
}

#[test]
fn a_removed_member_is_read_as_far_as_it_knows_what_is_committed() {
    let case = Case::new();
    case.restore(&case.path("s.db"), None).unwrap();
    let (data, own) = (case.path("data"), case.member());
    let change = |change: &Change, kind: i32| {
        let (node_id, context) = (change.id(), change.context().into());
        (1, ConfChange { id: 0, change_type: kind, node_id, context }.encode_to_vec())
    };
    let contents = [
        change(&Change::Add(other()), 0),
        put("with both"),
        change(&Change::Remove(own.id), 1),
        put("perhaps not"),
    ];
    append(&data.join("member/wal"), &contents, 3);
    assert_eq!(last_key(&data), "with both");
    assert_eq!(last_key(&data), "with both", "a second look finds the same");
    export(&data, None, &case.path("out.db")).unwrap();
}

#[test]
fn a_look_at_a_directory_adds_nothing_to_its_log() {
    let case = Case::new();
    case.restore(&case.path("s.db"), None).unwrap();
    let data = case.path("data");
    let last = || raft::AtRest::read(&data.join("member/wal")).unwrap().last;
    append(&data.join("member/wal"), &[put("k")], 1);
    assert_eq!(last_key(&data), "k");
    let settled = last();
    assert_eq!(last_key(&data), "k");
    storage_version(&data).unwrap();
    assert_eq!(last(), settled);
}

#[test]
fn a_directory_in_use_is_told_from_a_damaged_one_by_every_reader() {
    let case = Case::new();
    case.restore(&case.path("s.db"), None).unwrap();
    let data = case.path("data");
    let lock = store::lock(&data).unwrap();
    let restore = |to: &Path| {
        let cluster = &case.cluster;
        let place = TargetDirs { data_dir: to, wal_dir: None };
        let (name, token) = ("m1", "t");
        let skip = (true, None);
        let restore = Restore {
            snapshot: &data,
            place,
            name,
            cluster,
            token,
            skip_hash_check: skip.0,
            bump_revision: skip.1,
        };
        restore.run().map(drop)
    };
    let attempts = [
        Archive::open(&data, "stat").map(drop),
        export(&data, None, &case.path("out.db")).map(drop),
        storage_version(&data).map(drop),
        migrate(&data, None),
        defragment(&data).map(drop),
        restore(&case.path("again")),
    ];
    for (number, attempt) in attempts.into_iter().enumerate() {
        let error = attempt.unwrap_err();
        assert!(error.is_in_use(), "{number}: {error}");
    }
    drop(lock);
    restore(&case.path("again")).unwrap();
    fs::write(case.path("data/member/db/CURRENT"), "x").unwrap();
    let error = Archive::open(&data, "stat").map(drop).unwrap_err();
    assert!(!error.is_in_use(), "{error}");
}
