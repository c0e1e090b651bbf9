//! What opening a log reads, and what of it stays in memory.

use super::failures::{Failing, FailingDisk};
use super::*;

const LARGE: Options = Options { segment_bytes: 20 << 20, fill_ahead: false };

#[test]
fn the_unwritten_part_of_a_segment_is_not_read() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("wal");
    let counter = Arc::<Failing>::default();
    let disk: Arc<dyn Disk> = Arc::new(FailingDisk(Arc::clone(&counter)));
    create(disk.as_ref(), &dir, METADATA, &batch(1..=3, 1), LARGE).unwrap();
    let (.., recovered) = open(&disk, &dir, LARGE).unwrap();
    assert_eq!(recovered.table.last_index(), 3);
    let read = counter.read.load(Ordering::Relaxed);
    assert!(read <= 2 << 20, "{read} bytes of a segment with three entries");
}

#[test]
fn data_far_behind_the_last_record_is_found_and_zeroed() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("wal");
    let disk: Arc<dyn Disk> = Arc::new(SystemDisk);
    create(disk.as_ref(), &dir, METADATA, &batch(1..=3, 1), LARGE).unwrap();
    let path = dir.join("0000000000000000-0000000000000000.wal");
    for offset in [5 << 20, (20 << 20) - 1] {
        disk.open(&path).unwrap().write_at(&[7], offset).unwrap();
        let (.., recovered) = open(&disk, &dir, LARGE).unwrap();
        let repair = recovered.repair.expect("the byte is not found");
        assert_eq!(repair.what, "a record's length is zero and data follows");
        let mut byte = [1];
        disk.open(&path).unwrap().read_at(&mut byte, offset).unwrap();
        assert_eq!(byte, [0]);
        assert!(open(&disk, &dir, LARGE).unwrap().2.repair.is_none());
    }
}

#[test]
fn entries_of_all_sizes_are_read_in_pieces() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("wal");
    let disk: Arc<dyn Disk> = Arc::new(SystemDisk);
    create(disk.as_ref(), &dir, METADATA, &Batch::default(), LARGE).unwrap();
    let (mut writer, ..) = open(&disk, &dir, LARGE).unwrap();
    let sizes = [1, 700 << 10, 500 << 10, (1 << 20) - 60, 1 << 20, 3 << 20, 0, 200 << 10];
    let entries: Vec<Entry> = (1..)
        .zip(sizes)
        .map(|(index, size)| Entry {
            index,
            term: 1,
            data: Bytes::from(vec![index as u8; size]),
            ..Entry::default()
        })
        .collect();
    writer.append(&Batch { entries: entries.clone(), ..Batch::default() }).unwrap();
    writer.write().unwrap();
    writer.sync().unwrap();
    drop(writer);
    let (.., recovered) = open(&disk, &dir, LARGE).unwrap();
    assert!(recovered.repair.is_none());
    let read: Vec<Entry> = recovered.table.recent(1).unwrap().cloned().collect();
    assert!(read == entries);
}

#[test]
fn entries_that_are_applied_do_not_stay_in_memory() {
    let fixture = Fixture::filled(20);
    let (_, mut reader, recovered) = open_applied(&fixture.disk, &fixture.dir, SMALL, 15).unwrap();
    let table = recovered.table;
    assert_eq!((table.recent_first(), table.last_index()), (16, 20));
    let wanted = (14..=20).map(|index| (index, 2, table.place(index).unwrap()));
    let read = reader.read(wanted, u64::MAX).unwrap();
    assert_eq!(read, batch(14..=20, 2).entries);
    assert!(table.recent(16).unwrap().eq(&read[2..]));
}
