//! States that a later etcd has written: 3.8 is understood, and what is later is refused.

use super::*;
use crate::pb::membershippb::ClusterVersionSetRequest;

const CLUSTER: (Bucket, &[u8]) = (Bucket::Cluster, schema::CLUSTER_VERSION);
const STORAGE: (Bucket, &[u8]) = (Bucket::Meta, schema::STORAGE_VERSION);

/// A directory of etcd with these versions in its file. In its log, not yet applied, the cluster gets
/// `logged`, and a key is put.
fn directory(case: &Case, cluster: &str, storage: &str, logged: &str) -> PathBuf {
    let noted = [(CLUSTER.0, CLUSTER.1, cluster), (STORAGE.0, STORAGE.1, storage)];
    let etcd = etcd_directory_with(case, &noted);
    let set = ClusterVersionSetRequest { ver: logged.into() };
    let set = Wanted { header: Default::default(), command: Command::ClusterVersionSet(set) };
    append(&etcd.join("member/wal"), &[(0, set.encode().to_vec()), put("late")], 2);
    etcd
}

fn import(case: &Case, etcd: &Path) -> Result<(PathBuf, Imported), Error> {
    let imported = case.path("imported");
    let place = TargetDirs { data_dir: &imported, wal_dir: None };
    let found = Import { from: etcd, from_wal: None, place }.run()?;
    Ok((imported, found))
}

/// What a directory, to which its log is applied, holds under these keys.
fn versions(data: &Path) -> [String; 2] {
    let archive = Archive::open(data, "stat").unwrap();
    [CLUSTER, STORAGE].map(|(bucket, key)| {
        let found = archive.source().get(bucket, key).unwrap().unwrap_or_default();
        String::from_utf8(found).unwrap()
    })
}

#[test]
fn a_directory_of_38_is_imported_as_one_of_this_release() {
    let case = Case::new();
    let etcd = directory(&case, "3.8.0", "3.8.0", "3.8.0");
    let (imported, found) = import(&case, &etcd).unwrap();
    assert_eq!((found.last - found.applied, found.revision), (2, 4));
    assert_eq!(versions(&imported), ["3.7.0", "3.7.0"]);
    assert_eq!(storage_version(&imported).unwrap().as_deref(), Some("3.7.0"));
    let archive = Archive::open(&imported, "stat").unwrap();
    assert_eq!(archive.hash_kv(0).unwrap().revision, 5, "the log is applied to its end");
}

#[test]
fn a_log_that_raises_the_version_further_than_it_is_understood_is_refused() {
    for (cluster, storage, logged) in
        [("3.9.0", "3.8.0", "3.8.0"), ("3.8.0", "3.9.0", "3.8.0"), ("3.8.0", "3.8.0", "3.9.0")]
    {
        let case = Case::new();
        let etcd = directory(&case, cluster, storage, logged);
        let error = import(&case, &etcd).err().unwrap().to_string();
        assert!(error.contains("3.9.0"), "{cluster} {storage} {logged}: {error}");
        assert!(!case.path("imported").exists());
    }
}

#[test]
fn a_snapshot_of_38_is_restored_as_one_of_this_release() {
    let case = Case::new();
    let etcd = directory(&case, "3.8.0", "3.8.0", "3.8.0");
    let restored = case.path("restored");
    let restore = Restore {
        snapshot: &etcd.join("member/snap/db"),
        place: TargetDirs { data_dir: &restored, wal_dir: None },
        name: "m1",
        cluster: &case.cluster,
        token: "t",
        skip_hash_check: true,
        bump_revision: None,
    };
    restore.run().unwrap();
    assert_eq!(versions(&restored), ["3.7.0", "3.7.0"]);
}

/// The next start gives the store the storage version of its cluster.
#[test]
fn a_storage_version_that_was_set_by_hand_follows_the_cluster_again() {
    for set in [Some("3.8.0"), Some("3.6.0"), None] {
        let case = Case::new();
        let etcd = directory(&case, "3.7.0", "3.7.0", "3.7.0");
        let (data, _) = import(&case, &etcd).unwrap();
        assert_eq!(versions(&data), ["3.7.0", "3.7.0"]);
        migrate(&data, set).unwrap();
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let clock = Arc::new(SystemClock::new());
            node::Node::start(node::Config::of(&data), clock).unwrap().stop().await;
        });
        assert_eq!(versions(&data), ["3.7.0", "3.7.0"], "{set:?}");
    }
}

/// A cluster whose members run a later release is no directory to be taken over.
#[test]
fn a_member_does_not_start_where_its_cluster_has_a_later_version() {
    let case = Case::new();
    let etcd = directory(&case, "3.7.0", "3.7.0", "3.7.0");
    let (data, _) = import(&case, &etcd).unwrap();
    crate::store::amend(&data.join("member/db"), CLUSTER.0, CLUSTER.1, Some(b"3.8.0")).unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let _entered = runtime.enter();
    let started = node::Node::start(node::Config::of(&data), Arc::new(SystemClock::new()));
    let error = started.err().unwrap().to_string();
    assert!(error.contains("server version 3.7.0, cluster version 3.8.0"), "{error}");
}
