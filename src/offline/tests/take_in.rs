//! A directory of etcd's that is made one of ours where it is.

use super::*;
use crate::files;

/// The states in which an attempt to take a directory in may have been killed.
#[test]
fn a_directory_is_taken_in_wherever_an_attempt_was_killed() {
    fn exchange(data: &Path) {
        let away = data.join("away");
        fs::rename(data.join("member"), &away).unwrap();
        fs::rename(data.join("importing/member"), data.join("member")).unwrap();
        fs::rename(&away, data.join("importing/member")).unwrap();
    }
    type State = (&'static str, fn(&Path));
    let states: [State; 5] = [
        ("untouched", |_| ()),
        ("half built", |data| fs::create_dir_all(data.join("importing/restoring/db")).unwrap()),
        ("built", |data| {
            let place = TargetDirs { data_dir: &data.join("importing"), wal_dir: None };
            Import { from: data, from_wal: None, place }.run().unwrap();
        }),
        ("exchanged", |data| {
            let place = TargetDirs { data_dir: &data.join("importing"), wal_dir: None };
            Import { from: data, from_wal: None, place }.run().unwrap();
            exchange(data);
        }),
        ("kept", |data| {
            take_in(data).unwrap().unwrap();
            fs::create_dir_all(data.join("importing/proxy")).unwrap();
        }),
    ];
    for (state, make) in states {
        let case = Case::new();
        let etcd = etcd_directory(&case);
        let before = fs::read(etcd.join("member/snap/db")).unwrap();
        make(&etcd);
        drop(take_in(&etcd).unwrap());
        let kept = fs::read(etcd.join("member.etcd/snap/db")).unwrap();
        assert!(kept == before, "{state}: etcd's file is not as it was");
        let archive = Archive::open(&etcd, "stat").unwrap();
        assert_eq!(archive.hash_kv(0).unwrap().revision, 4, "{state}");
        drop(archive);
        assert!(take_in(&etcd).unwrap().is_none(), "{state}: it was taken in twice");
        // Another restore by etcd's tools into the same directory.
        fs::rename(etcd.join("member"), case.path("ours")).unwrap();
        copy_dir(&etcd.join("member.etcd"), &etcd.join("member"));
        let again = take_in(&etcd).unwrap().unwrap();
        assert_eq!(again.kept, etcd.join("member.etcd-2"), "{state}");
    }
}

#[test]
fn what_cannot_be_taken_in_stays_as_it_was() {
    let case = Case::new();
    assert!(take_in(&case.path("nowhere")).unwrap().is_none());
    assert!(!case.path("nowhere").exists());
    let etcd = etcd_directory(&case);
    let db = etcd.join("member/snap/db");
    let file = files::open(&db).unwrap();
    rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive).unwrap();
    assert!(take_in(&etcd).err().unwrap().is_in_use(), "etcd runs");
    drop(file);
    fs::write(&db, "no file of etcd's").unwrap();
    assert!(take_in(&etcd).is_err());
    assert_eq!(fs::read(&db).unwrap(), b"no file of etcd's");
    assert!(!etcd.join("member/db").exists() && !etcd.join("importing").exists());
}
