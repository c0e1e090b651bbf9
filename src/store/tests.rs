//! Helpers of this room's tests: a store in a directory of its own, and rows to put in.

mod checkpoints;
mod commits;
mod damage;
mod directory;
mod full;
mod rows;

use std::fs;
use std::io::Read;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use tempfile::TempDir;

use super::*;
use crate::clock::{Clock, SystemClock};

fn options() -> Options {
    let mut options = Options::new(Arc::new(SystemClock::new()));
    options.reserve_bytes = 0;
    options
}

/// Options of a store that commits only on a flush.
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
    let (first, last) = (Revision::new(-1, 0), Revision::new(i64::MAX, i64::MAX));
    store.scan(first, last, usize::MAX, usize::MAX).unwrap()
}

fn wait(receiver: oneshot::Receiver<()>) {
    receiver.blocking_recv().unwrap();
}
