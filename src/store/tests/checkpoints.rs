//! Checkpoints of the index: which state one serves, and when it counts.

use super::*;

/// A store with a checkpoint of entry 9 at revision 8, compacted at 3.
fn with_checkpoint(payload: &[u8]) -> (Fixture, Store, Opened) {
    let fixture = Fixture::new();
    let (store, opened) = fixture.open(options());
    let mut writer = store.begin_checkpoint().unwrap();
    writer.write(payload).unwrap();
    writer.publish(9, 8, 3).unwrap();
    let compacted = Some(rev(3));
    let opened = Opened {
        consistent_index: 9,
        scheduled_compact: compacted,
        finished_compact: compacted,
        ..opened
    };
    (fixture, store, opened)
}

#[test]
fn a_checkpoint_serves_its_own_store_from_then_on() {
    let payload: Vec<u8> = (0..3_000_000_u32).map(|i| (i % 253) as u8).collect();
    let (_fixture, store, opened) = with_checkpoint(&payload);
    let mut read = Vec::new();
    store.read_checkpoint(&opened).unwrap().read_to_end(&mut read).unwrap();
    assert!(read == payload);
    let at = |scheduled, finished| Opened {
        consistent_index: 20,
        scheduled_compact: Some(rev(scheduled)),
        finished_compact: Some(rev(finished)),
        ..opened.clone()
    };
    for served in [at(3, 3), at(5, 3), at(8, 8), at(8, 5)] {
        assert!(store.read_checkpoint(&served).is_ok(), "{served:?}");
    }
    for other in [
        Opened { id: opened.id ^ 1, ..opened.clone() },
        Opened { generation: 2, ..opened.clone() },
        Opened { consistent_index: 8, ..opened.clone() },
        Opened { finished_compact: None, ..opened.clone() },
        at(2, 2),
        at(9, 3),
        at(9, 9),
        at(9, 5),
    ] {
        let refused = store.read_checkpoint(&other);
        assert!(matches!(refused, Err(Unusable::OtherState(_))), "{other:?}");
    }
}

#[test]
fn a_checkpoint_counts_once_it_is_published() {
    let (fixture, store, opened) = with_checkpoint(b"old");
    let mut writer = store.begin_checkpoint().unwrap();
    writer.write(b"new").unwrap();
    assert!(fixture.file("index.tmp").exists());
    drop(writer);
    assert!(!fixture.file("index.tmp").exists());
    let mut read = Vec::new();
    store.read_checkpoint(&opened).unwrap().read_to_end(&mut read).unwrap();
    assert_eq!(read, b"old");
    fs::remove_file(fixture.file("index")).unwrap();
    assert!(matches!(store.read_checkpoint(&opened), Err(Unusable::Absent)));
}

#[test]
fn a_damaged_checkpoint_is_never_read_to_its_end() {
    let (fixture, store, opened) = with_checkpoint(&[7; 300]);
    let path = fixture.file("index");
    let whole = fs::read(&path).unwrap();
    let is_read = |bytes: &[u8]| {
        fs::write(&path, bytes).unwrap();
        let reader = store.read_checkpoint(&opened);
        reader.is_ok_and(|mut reader| reader.read_to_end(&mut Vec::new()).is_ok())
    };
    assert!(is_read(&whole));
    for cut in 0..whole.len() {
        assert!(!is_read(&whole[..cut]), "cut at {cut}");
    }
    for bit in 0..whole.len() * 8 {
        let mut flipped = whole.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        assert!(!is_read(&flipped), "bit {bit}");
    }
    assert!(!is_read(&[&whole[..], b"x"].concat()));
    assert!(!is_read(b"something else"));
}
