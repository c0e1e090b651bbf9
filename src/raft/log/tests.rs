//! Shared by the tests of the log: a log in a directory of its own, to be filled and damaged.

mod damage;
mod failures;
mod segments;
mod start;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use raft::eraftpb::{ConfState, Entry, HardState};

use super::format::SECTOR_BYTES;
use super::*;
use crate::supervise::Supervisor;

const METADATA: Metadata = Metadata { node_id: 7, cluster_id: 8 };
const SMALL: Options = Options { segment_bytes: 64 << 10, fill_ahead: false };

fn entry(index: u64, term: u64) -> Entry {
    let data = format!("entry {index} of term {term} ").repeat(9);
    Entry { index, term, data: Bytes::from(data), ..Entry::default() }
}

fn batch(indexes: std::ops::RangeInclusive<u64>, term: u64) -> Batch {
    let commit = indexes.start() - 1;
    Batch {
        entries: indexes.map(|index| entry(index, term)).collect(),
        hard_state: Some(HardState { term, vote: 7, commit }),
        ..Batch::default()
    }
}

struct Fixture {
    _temp: tempfile::TempDir,
    dir: PathBuf,
    disk: Arc<dyn Disk>,
}

impl Fixture {
    fn new() -> Self {
        let temp = tempfile::tempdir().unwrap();
        let dir = temp.path().join("wal");
        let disk: Arc<dyn Disk> = Arc::new(SystemDisk);
        create(disk.as_ref(), &dir, METADATA, &Batch::default(), SMALL).unwrap();
        Self { _temp: temp, dir, disk }
    }

    fn open(&self) -> Result<(Writer, Reader, Recovered), Error> {
        open(&self.disk, &self.dir, SMALL)
    }

    /// Writes batches of ten entries up to `last`.
    fn filled(last: u64) -> Self {
        let fixture = Self::new();
        let (mut writer, ..) = fixture.open().unwrap();
        for first in (1..=last).step_by(10) {
            writer.append(&batch(first..=(first + 9).min(last), 2)).unwrap();
            writer.write().unwrap();
        }
        writer.sync().unwrap();
        fixture
    }

    fn segments(&self) -> Vec<PathBuf> {
        let mut paths: Vec<_> = fs::read_dir(&self.dir)
            .unwrap()
            .map(|item| item.unwrap().path())
            .filter(|path| path.extension().is_some_and(|extension| extension == "wal"))
            .collect();
        paths.sort();
        paths
    }

    fn edit(&self, segment: usize, change: impl FnOnce(&mut Vec<u8>)) {
        let path = &self.segments()[segment];
        let mut bytes = fs::read(path).unwrap();
        change(&mut bytes);
        fs::write(path, bytes).unwrap();
    }

    fn damage(&self) -> String {
        match self.open() {
            Err(error @ Error::Damage { .. }) => error.to_string(),
            Err(error) => panic!("another error: {error}"),
            Ok((.., recovered)) => panic!("opened up to {}", recovered.table.last_index()),
        }
    }
}
