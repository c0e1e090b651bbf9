use std::sync::Arc;

use bytes::Bytes;
use prost::Message;

use super::*;
use crate::clock::SystemClock;
use crate::pb::KeyValue;
use crate::store::{Options, Store};
use crate::transfer::Snapshot;

/// The snapshot file of a store.
fn file_of(store: &Store) -> Vec<u8> {
    let mut snapshot = Snapshot::new(store).unwrap();
    let mut file = Vec::new();
    while let Some(piece) = snapshot.next_piece().unwrap() {
        file.extend_from_slice(&piece);
    }
    file
}

#[test]
fn rows_are_built_8_mib_at_a_time() {
    let dir = tempfile::tempdir().unwrap();
    let row = |main: i64| {
        let (key, value) = (Bytes::from(format!("key {main}")), vec![b'v'; 1_000_000].into());
        let (create_revision, mod_revision) = (main, main);
        let kv = KeyValue { key, value, create_revision, mod_revision, version: 1, lease: 0 };
        Row { rev: Revision::new(main, 0), tombstone: false, kv: kv.encode_to_vec().into() }
    };
    let mut building = Building::first(&dir.path().join("db")).unwrap();
    building.rows(&(2..22).map(row).collect::<Vec<_>>()).unwrap();
    let (store, _) = building.finish(Options::new(Arc::new(SystemClock::new()))).unwrap();
    let path = dir.path().join("file");
    std::fs::write(&path, file_of(&store)).unwrap();
    let (batches, filled) = sync_channel(16);
    let (_spent, emptied) = sync_channel(1);
    read_rows(&File::open(&path).unwrap(), &batches, &emptied).unwrap();
    drop(batches);
    let bytes = |rows: Vec<Row>| rows.iter().map(|row| row.kv.len()).sum::<usize>();
    let bytes: Vec<usize> = filled.iter().map(bytes).collect();
    // Each batch ends with the row that reaches 8 MiB.
    assert_eq!(bytes.len(), 3, "{bytes:?}");
    assert!(bytes.iter().all(|bytes| *bytes < 10_000_000), "{bytes:?}");
}
