use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tempfile::TempDir;

use super::*;
use crate::clock::SystemClock;

fn options() -> Options {
    let mut options = Options::new(Arc::new(SystemClock::new()));
    options.reserve_bytes = 0;
    options
}

/// Commits only when told to.
fn lazy() -> Options {
    Options { commit_interval: Duration::from_secs(3600), ..options() }
}

struct Fixture {
    dir: TempDir,
}

impl Fixture {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    fn db(&self) -> PathBuf {
        self.dir.path().join("db")
    }

    fn file(&self, name: &str) -> PathBuf {
        self.db().join("gen-1").join(name)
    }

    fn open(&self, options: Options) -> (Store, Opened) {
        Store::open(&self.db(), options).unwrap()
    }

    fn refusal(&self) -> String {
        match Store::open(&self.db(), options()) {
            Ok(_) => panic!("the damage was not noticed"),
            Err(error) => error.to_string(),
        }
    }
}

fn rev(main: i64) -> Revision {
    Revision::new(main, 0)
}

fn row(main: i64, bytes: usize) -> Row {
    let mut kv = format!("row {main} ").into_bytes();
    kv.resize(bytes.max(kv.len()), (main % 251) as u8);
    Row { rev: rev(main), tombstone: main % 5 == 0, kv: Bytes::from(kv) }
}

/// Applies one entry of one row; entry and revision have the same number.
fn apply(store: &Store, main: i64, bytes: usize) {
    store.push_row(row(main, bytes));
    store.seal(main as u64, 1);
}

fn all(store: &Store) -> Vec<Row> {
    store.scan(rev(0), rev(i64::MAX), usize::MAX, usize::MAX).unwrap()
}

#[test]
fn rows_and_buckets_survive_a_restart() {
    let fixture = Fixture::new();
    let (store, opened) = fixture.open(options());
    assert!(opened.created);
    assert_eq!((opened.consistent_index, opened.last), (0, None));
    let sizes = [0, 100, 8192, 8193, 4000, 12_000, 1_500_000];
    for (main, bytes) in (2..).zip(sizes) {
        store.push_row(row(main, bytes));
    }
    store.put(Bucket::Lease, b"lease".to_vec(), b"60".to_vec());
    store.put(Bucket::AuthUsers, vec![b'u'; 600], b"user".to_vec());
    store.put(Bucket::Alarm, b"alarm".to_vec(), Vec::new());
    store.set_conf_state(b"voters".to_vec());
    store.seal(7, 3);
    store.close().unwrap();
    drop(store);

    let (store, opened) = fixture.open(options());
    assert!(!opened.created);
    assert_eq!((opened.consistent_index, opened.term, opened.last), (7, 3, Some(rev(8))));
    assert_eq!(opened.conf_state.as_deref(), Some(&b"voters"[..]));
    let expected: Vec<Row> = (2..).zip(sizes).map(|(main, bytes)| row(main, bytes)).collect();
    assert_eq!(all(&store), expected);
    let revs: Vec<Revision> = expected.iter().rev().map(|row| row.rev).collect();
    assert!(store.get_many(&revs).unwrap().iter().eq(expected.iter().rev()));
    assert_eq!(store.get(rev(5)).unwrap(), Some(row(5, 8193)));
    assert_eq!(store.get(rev(99)).unwrap(), None);
    assert!(matches!(store.get_many(&[rev(99)]), Err(Error::Missing(_))));
    let users = store.bucket_iter(Bucket::AuthUsers).unwrap();
    assert_eq!(users, [(vec![b'u'; 600], b"user".to_vec())]);
    assert_eq!(store.bucket_get(Bucket::Alarm, b"alarm").unwrap(), Some(Vec::new()));
    store.delete(Bucket::Lease, b"lease".to_vec());
    store.seal(8, 3);
    assert_eq!(store.flush().unwrap(), 8);
    assert_eq!(store.bucket_get(Bucket::Lease, b"lease").unwrap(), None);
    assert_eq!(store.durable(), (8, 3));
}

#[test]
fn a_crash_leaves_the_last_commit_and_nothing_of_an_unsealed_entry() {
    let fixture = Fixture::new();
    let (store, _) = fixture.open(lazy());
    apply(&store, 2, 10);
    store.push_row(row(3, 10));
    store.put(Bucket::Lease, b"half".to_vec(), b"an entry".to_vec());
    store.flush().unwrap();
    store.seal(3, 1);
    assert_eq!(all(&store).len(), 2, "readable before it is durable");
    drop(store);
    let (store, opened) = fixture.open(lazy());
    assert_eq!(opened.consistent_index, 2);
    assert_eq!(all(&store), [row(2, 10)]);
    assert_eq!(store.bucket_iter(Bucket::Lease).unwrap(), []);
}
