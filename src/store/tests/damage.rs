//! Files that are damaged, missing or of another format.

use super::*;

/// A closed store of `rows` rows, some in chunks, with free pages.
fn filled(rows: i64) -> Fixture {
    let fixture = Fixture::new();
    let (store, _) = fixture.open(Options { commit_interval: Duration::ZERO, ..options() });
    for main in 2..rows + 2 {
        apply(&store, main, if main % 40 == 0 { 20_000 } else { 300 });
    }
    store.put(Bucket::Lease, b"lease".to_vec(), b"60".to_vec());
    store.seal(rows as u64 + 2, 1);
    let dead = (2..rows / 3).map(rev).collect();
    wait(store.delete_rows(dead, Vec::new(), rows / 3));
    store.close().unwrap();
    drop(store);
    fixture
}

#[test]
fn damaged_files_are_named() {
    let fixture = filled(1000);
    let (data, current) = (fixture.file("data.mdb"), fixture.db().join("CURRENT"));
    let whole = fs::read(&data).unwrap();
    let line = fs::read(&current).unwrap();
    let refused = |file: &str, what: &str| {
        let refusal = fixture.refusal();
        assert!(refusal.contains(file) && refusal.contains(what), "{what}: {refusal}");
    };
    fs::remove_file(&data).unwrap();
    refused("data.mdb", "the file is missing");
    for (bytes, what) in [
        (&b""[..], "ends within a meta page"),
        (&whole[..100], "ends within a meta page"),
        (&whole[..5000], "it was truncated"),
        (&whole[..whole.len() / 2], "it was truncated"),
        (&[b"SQLite format 3".as_slice(); 1000].concat(), "not an LMDB file"),
        (&[0; 10_000], "not an LMDB file"),
    ] {
        fs::write(&data, bytes).unwrap();
        refused("data.mdb", what);
    }
    fs::write(&data, &whole).unwrap();
    for bytes in [&b""[..], b"gen-1", b"gen-2 00000000\n", b"\xff\xff", &line[..line.len() - 1]] {
        fs::write(&current, bytes).unwrap();
        refused("CURRENT", "not the name of a generation");
    }
    fs::remove_file(&current).unwrap();
    refused("CURRENT", "missing, though the store is not empty");
    fs::write(&current, &line).unwrap();
    let (store, opened) = fixture.open(options());
    assert_eq!((opened.consistent_index, all(&store).len()), (1002, 669));
    drop(store);
    fs::rename(fixture.db().join("gen-1"), fixture.db().join("gen-3")).unwrap();
    refused("gen-1", "the file is missing");
}

#[test]
fn a_newer_format_is_refused() {
    let fixture = filled(10);
    let env = Env::open(&fixture.db().join("gen-1")).unwrap();
    let mut writer = env.write().unwrap();
    writer.put_own(schema::FORMAT, Some(&2_u32.to_le_bytes())).unwrap();
    writer.commit().unwrap();
    drop(env);
    assert!(fixture.refusal().contains("format 2"));
}

/// Any damage is either refused, or harmless, or noticed when the row is read: what is served is
/// what was written.
#[test]
fn flipped_bits_are_never_served() {
    let fixture = filled(600);
    let data = fixture.file("data.mdb");
    let whole = fs::read(&data).unwrap();
    let (store, _) = fixture.open(lazy());
    let expected = all(&store);
    drop(store);
    let clock = SystemClock::new();
    let (mut refused, mut noticed) = (0, 0);
    for round in 0..400 {
        let mut damaged = whole.clone();
        let pages = damaged.len() / 4096;
        // Headers and entries of pages are hit more often than their share of the file: most bits
        // belong to values, whose damage only their checksum can show.
        let at = match round % 3 {
            0 => (clock.random() as usize % pages) * 4096 + clock.random() as usize % 64,
            1 => clock.random() as usize % (2 * 4096),
            _ => clock.random() as usize % damaged.len(),
        };
        damaged[at] ^= 1 << (clock.random() % 8);
        fs::write(&data, &damaged).unwrap();
        let Ok((store, opened)) = Store::open(&fixture.db(), lazy()) else {
            refused += 1;
            continue;
        };
        // A flipped transaction number can bring back the state before the last commit, which the
        // log replays.
        assert!(opened.consistent_index <= 602, "byte {at}");
        for row in &expected {
            match store.get_many(&[row.rev]) {
                Ok(found) => assert_eq!(&found[0], row, "byte {at}"),
                Err(error) => {
                    noticed += 1;
                    assert!(error.to_string().contains(&row.rev.to_string()), "{error}");
                }
            }
        }
    }
    assert!(refused > 20 && noticed > 20, "{refused} {noticed}");
}

#[test]
fn more_pages_than_can_be_are_refused() {
    let fixture = filled(10);
    let data = fixture.file("data.mdb");
    let mut bytes = fs::read(&data).unwrap();
    for meta in [0, 4096] {
        bytes[meta + 136 + 7] ^= 0x40;
    }
    fs::write(&data, &bytes).unwrap();
    assert!(fixture.refusal().contains("more pages than there can be"));
}

#[test]
fn garbage_pages_are_never_served() {
    let fixture = filled(600);
    let data = fixture.file("data.mdb");
    let whole = fs::read(&data).unwrap();
    let (store, _) = fixture.open(lazy());
    let expected = all(&store);
    drop(store);
    let clock = SystemClock::new();
    for page in 0..whole.len() / 4096 {
        let mut damaged = whole.clone();
        for byte in &mut damaged[page * 4096..][..4096] {
            *byte = clock.random() as u8;
        }
        fs::write(&data, &damaged).unwrap();
        if let Ok((store, _)) = Store::open(&fixture.db(), lazy()) {
            for row in &expected {
                if let Ok(found) = store.get_many(&[row.rev]) {
                    assert_eq!(&found[0], row, "page {page}");
                }
            }
        }
    }
}
