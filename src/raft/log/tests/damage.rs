//! An interrupted write is undone; everything else is damage, and is named.

use super::*;

#[test]
fn a_flipped_bit_is_damage() {
    let fixture = Fixture::filled(1000);
    fixture.edit(1, |bytes| bytes[20_000] ^= 4);
    assert!(fixture.damage().contains("0000000000000001-"));

    let fixture = Fixture::filled(20);
    fixture.edit(0, |bytes| bytes[1000] ^= 4);
    let message = fixture.damage();
    assert!(message.contains("checksum"), "{message}");
    assert!(message.contains("at byte "), "{message}");
}

/// Each entry is read alone: its own checksum has to show the damage.
#[test]
fn an_entry_that_is_read_back_is_checked_each_time() {
    const INDEX: u64 = 15;
    let fixture = Fixture::filled(30);
    let (mut writer, mut reader, recovered) = fixture.open().unwrap();
    let mut table = recovered.table;
    let appended = batch(31..=40, 2);
    let places = writer.append(&appended).unwrap();
    writer.write().unwrap();
    for (entry, (.., place)) in appended.entries.iter().zip(places) {
        table.append(entry.clone(), Some(place));
    }
    let mut read = |index: u64| {
        let wanted = std::iter::once((index, 2, table.place(index).unwrap()));
        reader.read(wanted, u64::MAX)
    };
    for index in 1..=40 {
        assert_eq!(read(index).unwrap(), [entry(index, 2)]);
    }
    let path = &fixture.segments()[0];
    let [from, to] = [INDEX, INDEX + 1].map(|at| table.place(at).unwrap().offset as usize);
    let whole = fs::read(path).unwrap();
    // Beside its data the record has its length, where damage shows otherwise, and padding, which
    // is not checked.
    let data = entry(INDEX, 2).data;
    let at = whole[from..to].windows(data.len()).position(|bytes| bytes == data).unwrap();
    for at in [at, at + data.len() / 2, at + data.len() - 1] {
        let mut bytes = whole.clone();
        bytes[from + at] ^= 0x04;
        fs::write(path, bytes).unwrap();
        let error = read(INDEX).unwrap_err();
        assert!(matches!(error, Error::Damage { .. }), "{error}");
        assert!(error.to_string().contains(".wal at byte "), "{error}");
        assert_eq!(read(INDEX + 1).unwrap(), [entry(INDEX + 1, 2)]);
    }
}

#[test]
fn a_segment_that_is_missing_cut_or_foreign_is_damage() {
    let fixture = Fixture::filled(1000);
    fs::remove_file(&fixture.segments()[1]).unwrap();
    assert!(fixture.damage().contains("segment 1 before it is missing"));

    let fixture = Fixture::filled(1000);
    fixture.edit(1, |bytes| bytes.truncate(30_001));
    assert!(fixture.damage().contains("the file ends in a record"));

    let fixture = Fixture::filled(1000);
    fixture.edit(1, |bytes| bytes[30_000..].fill(0));
    fixture.damage();

    let fixture = Fixture::filled(20);
    let other = Metadata { node_id: 9, cluster_id: 9 };
    let dir = fixture.dir.with_file_name("other");
    create(&SystemDisk, &dir, other, &Batch::default(), SMALL).unwrap();
    let name = "0000000000000000-0000000000000000.wal";
    let stray = fixture.dir.join("0000000000000001-0000000000000015.wal");
    fs::copy(dir.join(name), &stray).unwrap();
    assert!(fixture.damage().contains("does not continue"));
    fs::rename(stray, fixture.dir.join("1.wal")).unwrap();
    assert!(fixture.damage().contains("name"));
    fs::rename(fixture.dir.join("1.wal"), fixture.dir.join("notes.txt")).unwrap();
    assert!(fixture.open().is_ok(), "what is not a segment is left alone");
}

#[test]
fn a_write_torn_at_any_sector_is_undone() {
    let whole = Fixture::filled(20);
    let full = fs::read(&whole.segments()[0]).unwrap();
    let start = {
        let (.., recovered) = whole.open().unwrap();
        u64::from(recovered.table.place(11).unwrap().offset) as usize
    };
    let end = full.len() - full.iter().rev().take_while(|byte| **byte == 0).count();
    for sector in (start / SECTOR_BYTES)..=(end / SECTOR_BYTES) {
        let from = (sector * SECTOR_BYTES).max(start);
        let to = ((sector + 1) * SECTOR_BYTES).min(full.len());
        // Everything after the sector is lost too, or the sector alone.
        for until in [full.len(), to] {
            let fixture = Fixture::new();
            let path = &fixture.segments()[0];
            let mut bytes = full.clone();
            bytes[from..until].fill(0);
            fs::write(path, &bytes).unwrap();
            let (mut writer, _, recovered) = fixture.open().unwrap();
            let last = recovered.table.last_index();
            assert!((10..=20).contains(&last), "{sector}: {last}");
            if let Some(repair) = &recovered.repair {
                assert_eq!(fs::read(&repair.kept).unwrap(), bytes, "the original is kept");
            }
            // The log is whole again.
            writer.append(&batch(last + 1..=last + 2, 5)).unwrap();
            writer.write().unwrap();
            drop(writer);
            let (.., again) = fixture.open().unwrap();
            assert_eq!((again.table.last_index(), again.repair), (last + 2, None));
        }
    }
}

#[test]
fn a_file_that_ends_in_a_record_is_torn_only_at_the_end_of_the_log() {
    let fixture = Fixture::filled(20);
    let end = {
        let (.., recovered) = fixture.open().unwrap();
        recovered.table.place(20).unwrap().offset as usize
    };
    for cut in [end + 3, end + 8, end + 100] {
        let fixture = Fixture::filled(20);
        fixture.edit(0, |bytes| bytes.truncate(cut));
        let (.., recovered) = fixture.open().unwrap();
        assert_eq!(recovered.table.last_index(), 19);
        assert!(recovered.repair.is_some());
    }
}

#[test]
fn numbers_that_leave_no_room_are_damage() {
    let too_much = limits::RAFT_NUMBER_MAX + 1;
    let snapshot = |index, term| SnapshotRecord { index, term, conf_state: None };
    let state = HardState { term: too_much, ..HardState::default() };
    for batch in [
        Batch { snapshot: Some(snapshot(u64::MAX, 2)), ..Batch::default() },
        Batch { snapshot: Some(snapshot(5, too_much)), ..Batch::default() },
        Batch { entries: vec![entry(1, too_much)], ..Batch::default() },
        Batch { hard_state: Some(state), ..Batch::default() },
    ] {
        let fixture = Fixture::new();
        let (mut writer, ..) = fixture.open().unwrap();
        writer.append(&batch).unwrap();
        writer.write().unwrap();
        assert!(fixture.damage().contains("out of range"), "{batch:?}");
    }
}

#[test]
fn a_log_that_lost_what_was_committed_is_damage() {
    let fixture = Fixture::new();
    let (mut writer, ..) = fixture.open().unwrap();
    let hard_state = Some(HardState { term: 1, vote: 7, commit: 4 });
    writer.append(&Batch { hard_state, ..batch(1..=3, 1) }).unwrap();
    writer.write().unwrap();
    drop(writer);
    assert!(fixture.damage().contains("4 was committed"));
}
