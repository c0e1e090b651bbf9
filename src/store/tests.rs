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
    let (first, last) = (Revision::new(-1, 0), Revision::new(i64::MAX, i64::MAX));
    store.scan(first, last, usize::MAX, usize::MAX).unwrap()
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

#[test]
fn readers_see_every_row_while_it_moves_from_the_tail_to_the_file() {
    let fixture = Fixture::new();
    let (store, _) =
        fixture.open(Options { commit_interval: Duration::from_millis(1), ..options() });
    let (applied, done) = (AtomicI64::new(1), AtomicBool::new(false));
    thread::scope(|scope| {
        for seed in 0..3 {
            let (store, applied, done) = (&store, &applied, &done);
            scope.spawn(move || {
                let clock = SystemClock::new();
                while !done.load(Ordering::Acquire) {
                    let newest = applied.load(Ordering::Acquire);
                    if newest < 2 {
                        continue;
                    }
                    let main = match seed {
                        0 => newest,
                        _ => 2 + (clock.random() % (newest - 1) as u64) as i64,
                    };
                    assert_eq!(store.get(rev(main)).unwrap(), Some(row(main, 300)));
                    let from = (main - 50).max(2);
                    let rows = store.scan(rev(from), rev(newest), 200, usize::MAX).unwrap();
                    assert_eq!(rows.len() as i64, (newest - from + 1).min(200));
                    let revs: Vec<Revision> = rows.iter().map(|row| row.rev).collect();
                    assert!(revs.iter().map(|rev| rev.main).eq(from..from + rows.len() as i64));
                    assert_eq!(store.get_many(&revs).unwrap(), rows);
                }
            });
        }
        for main in 2..4000 {
            apply(&store, main, 300);
            applied.store(main, Ordering::Release);
        }
        store.flush().unwrap();
        done.store(true, Ordering::Release);
    });
    assert_eq!(all(&store).len(), 3998);
}

#[test]
fn scans_keep_their_bounds_across_file_and_tail() {
    let fixture = Fixture::new();
    let (store, _) = fixture.open(lazy());
    for main in 2..12 {
        apply(&store, main, 100);
    }
    store.flush().unwrap();
    for main in 12..22 {
        apply(&store, main, 100);
    }
    let scan = |from, to, rows_max, bytes_max| {
        let rows = store.scan(rev(from), rev(to), rows_max, bytes_max).unwrap();
        (rows.first().map(|row| row.rev.main), rows.len())
    };
    assert_eq!(scan(2, 21, 100, usize::MAX), (Some(2), 20));
    assert_eq!(scan(5, 15, 100, usize::MAX), (Some(5), 11));
    assert_eq!(scan(9, 21, 5, usize::MAX), (Some(9), 5));
    assert_eq!(scan(9, 21, 100, 450), (Some(9), 5), "the row that reaches the limit is the last");
    assert_eq!(scan(14, 21, 3, usize::MAX), (Some(14), 3));
    assert_eq!(scan(22, 30, 3, usize::MAX), (None, 0));
    assert_eq!(scan(15, 4, 3, usize::MAX), (None, 0));
    let of_eleven = store.scan(rev(11), Revision::new(11, i64::MAX), 9, usize::MAX).unwrap();
    assert_eq!(of_eleven, [row(11, 100)]);
}

#[test]
fn a_commit_holds_whole_entries_only() {
    let fixture = Fixture::new();
    let commits = Arc::new(Mutex::new(Vec::new()));
    let (store, _) = fixture.open(Options { commit_interval: Duration::ZERO, ..options() });
    let (noted, shared) = (Arc::clone(&commits), Arc::clone(&store.shared));
    store.on_commit(move |index, _| {
        let env = shared.env();
        let reader = env.read().unwrap();
        let last = reader.last_rev().unwrap().unwrap();
        let value = reader.small(Bucket::Lease, b"entry").unwrap().unwrap();
        noted.lock().push((index, last, value));
    });
    for entry in 1_u64.. {
        if commits.lock().len() >= 5 {
            break;
        }
        let main = 1 + entry as i64;
        for sub in 0..20 {
            store.push_row(Row { rev: Revision::new(main, sub), ..row(main, 50) });
        }
        store.put(Bucket::Lease, b"entry".to_vec(), entry.to_be_bytes().to_vec());
        store.seal(entry, 1);
    }
    store.flush().unwrap();
    let commits = commits.lock();
    for (index, last, value) in commits.iter() {
        assert_eq!(*last, Revision::new(1 + *index as i64, 19));
        assert_eq!(*value, index.to_be_bytes());
    }
    drop(commits);
    store.shared.hooks.commit.lock().clear();
}

#[test]
fn a_full_tail_makes_apply_wait_until_it_is_committed() {
    let fixture = Fixture::new();
    let (store, _) = fixture.open(Options { commit_interval: Duration::ZERO, ..options() });
    // One oversize entry is admitted, and its seal returns only when it is durable.
    for main in 2..52 {
        store.push_row(row(main, 1_500_000));
    }
    store.seal(51, 1);
    assert_eq!(store.durable(), (51, 1));
    assert_eq!(store.shared.queue.lock().bytes, 0);
    assert_eq!(store.get_many(&[rev(2), rev(51)]).unwrap().len(), 2);
    // Once the store stops, nobody is left waiting.
    store.close().unwrap();
    for main in 52..102 {
        store.push_row(row(main, 1_500_000));
    }
    store.seal(101, 1);
    assert!(matches!(store.flush(), Err(Error::Stopped(_))));
}

fn wait(receiver: oneshot::Receiver<()>) {
    receiver.blocking_recv().unwrap();
}

#[test]
fn compaction_deletes_in_parts_and_keeps_the_survivors() {
    let fixture = Fixture::new();
    let (store, _) = fixture.open(Options { commit_interval: Duration::ZERO, ..options() });
    let sized = |main: i64| row(main, if main % 100 == 0 { 20_000 } else { 300 });
    for main in 2..6000 {
        store.push_row(sized(main));
        store.seal(main as u64, 1);
    }
    store.flush().unwrap();
    let before = store.sizes();
    let (dead, survivors): (Vec<_>, Vec<_>) = (2..5000).map(rev).partition(|r| r.main % 7 != 0);
    wait(store.delete_rows(dead, survivors, 5000));
    let kept = || (2..6000).filter(|main| *main >= 5000 || main % 7 == 0).map(sized);
    assert!(all(&store).into_iter().eq(kept()));
    assert!(store.sizes().in_use < before.in_use / 2, "{:?} {before:?}", store.sizes());
    drop(store);
    let (store, opened) = fixture.open(options());
    assert_eq!(opened.finished_compact, Some(rev(5000)));
    // What was deleted already is no error when the work is resumed.
    wait(store.delete_rows(vec![rev(2), rev(5001)], Vec::new(), 5500));
    drop(store);
    let (store, opened) = fixture.open(options());
    assert_eq!(opened.finished_compact, Some(rev(5500)));
    assert!(all(&store).into_iter().eq(kept().filter(|row| row.rev.main != 5001)));
}

#[test]
fn a_compaction_is_not_durable_before_the_entry_that_asks_for_it() {
    let fixture = Fixture::new();
    let (store, _) = fixture.open(Options { commit_interval: Duration::ZERO, ..options() });
    apply(&store, 2, 10);
    apply(&store, 3, 10);
    store.put(Bucket::Meta, schema::SCHEDULED_COMPACT.to_vec(), b"...".to_vec());
    let mut done = store.delete_rows(vec![rev(2)], Vec::new(), 3);
    store.flush().unwrap();
    assert!(done.try_recv().is_err());
    assert!(store.get(rev(2)).unwrap().is_some());
    store.seal(4, 1);
    wait(done);
    assert_eq!(store.durable(), (4, 1));
    assert_eq!(store.get(rev(2)).unwrap(), None);
}

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
        // Headers and entries of pages draw more than their share: values alone would be dull.
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
        // A flipped transaction number can bring back the commit before: the log replays it.
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

#[test]
fn a_data_directory_is_ours_alone() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("a").join("b");
    let held = lock(&data).unwrap();
    lay_out(&data).unwrap();
    assert!(data.join("member").is_dir() && data.join("proxy").is_dir());
    let refusal = lock(&data).unwrap_err().to_string();
    let pid = format!("(pid {})", std::process::id());
    assert!(refusal.contains("rusd.lock") && refusal.contains(&pid), "{refusal}");
    drop(held);
    drop(lock(&data).unwrap());
}

#[test]
fn etcds_data_directory_is_refused_and_left_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir_all(dir.path().join("member/snap")).unwrap();
    fs::write(dir.path().join("member/snap/db"), b"etcd").unwrap();
    for result in [lock(dir.path()).map(|_| ()), lay_out(dir.path())] {
        assert!(matches!(&result, Err(Error::Etcd { .. })), "{result:?}");
    }
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[test]
fn an_entry_is_counted_as_pushed_from_its_first_change_on() {
    let fixture = Fixture::new();
    let (store, _) = fixture.open(lazy());
    // What the entries so far have made visible, as the index shows it before they are sealed.
    let (visible, done) = (AtomicI64::new(0), AtomicBool::new(false));
    thread::scope(|scope| {
        scope.spawn(|| {
            for entry in 1..=200_000 {
                store.put(Bucket::Lease, b"lease".to_vec(), b"60".to_vec());
                visible.store(entry, Ordering::Release);
                store.seal(entry.cast_unsigned(), 1);
            }
            done.store(true, Ordering::Release);
        });
        while !done.load(Ordering::Acquire) {
            let seen = visible.load(Ordering::Acquire);
            let pushed = store.pushed();
            assert!(
                seen.cast_unsigned() <= pushed,
                "entry {seen} is visible, {pushed} are counted"
            );
        }
    });
}

/// The interval of these stores is an hour: what is committed earlier was so much.
#[test]
fn a_commit_comes_at_so_many_operations_or_bytes() {
    for (rows, bytes) in [(10_001, 10), (17, 1 << 20)] {
        let fixture = Fixture::new();
        let (store, _) = fixture.open(lazy());
        for main in 2..rows + 2 {
            store.push_row(row(main, bytes));
            store.seal(main as u64, 1);
        }
        let begun = crate::clock::instant();
        while store.durable().0 == 0 {
            assert!(begun.elapsed() < Duration::from_secs(60), "{rows} rows of {bytes} bytes wait");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// A disk that takes few pages in one commit, or none, while it is told to.
#[derive(Default)]
struct Tight {
    rows_max: AtomicI64,
    is_full: AtomicBool,
}

impl Faults for Tight {
    fn commit(&self) -> std::io::Result<()> {
        if self.is_full.load(Ordering::SeqCst) {
            return Err(rustix::io::Errno::NOSPC.into());
        }
        Ok(())
    }

    fn compaction(&self, rows: usize) -> std::io::Result<()> {
        if rows as i64 > self.rows_max.load(Ordering::SeqCst) {
            return Err(rustix::io::Errno::NOSPC.into());
        }
        Ok(())
    }
}

#[test]
fn a_compaction_that_finds_the_disk_full_does_less_at_a_time_and_holds_up_nothing() {
    let fixture = Fixture::new();
    let tight = Arc::new(Tight::default());
    let (store, _) = fixture.open(Options { faults: Some(tight.clone()), ..options() });
    for main in 1..=300 {
        apply(&store, main, 100);
    }
    store.flush().unwrap();
    let dead = (1..=300).filter(|main| main % 3 != 0).map(rev).collect();
    let survivors = (1..=300).filter(|main| main % 3 == 0).map(rev).collect();
    // Not even a little of it fits: what is applied is stored all the same.
    let done = store.delete_rows(dead, survivors, 300);
    apply(&store, 301, 100);
    assert_eq!(store.flush().unwrap(), 301);
    tight.rows_max.store(100, Ordering::SeqCst);
    done.blocking_recv().unwrap();
    let left: Vec<i64> = all(&store).iter().map(|row| row.rev.main).collect();
    assert_eq!(left, (1..=301).filter(|main| main % 3 == 0 || *main > 300).collect::<Vec<_>>());
}

#[test]
fn a_reserve_that_was_given_up_is_taken_again_though_nothing_is_written() {
    let fixture = Fixture::new();
    let tight = Arc::new(Tight::default());
    let reserve = 1 << 20;
    let faults = Some(tight.clone() as Arc<dyn Faults>);
    let (store, _) = fixture.open(Options { faults, reserve_bytes: reserve, ..options() });
    apply(&store, 1, 100);
    store.flush().unwrap();
    assert_eq!(store.room().reserve, reserve);
    tight.is_full.store(true, Ordering::SeqCst);
    apply(&store, 2, 100);
    assert!(matches!(store.flush(), Err(Error::NoSpace { .. })));
    assert_eq!(store.room().reserve, 0);
    tight.is_full.store(false, Ordering::SeqCst);
    let begun = crate::clock::instant();
    while store.room().reserve < reserve {
        assert!(begun.elapsed() < Duration::from_secs(60), "others can take its space");
        thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_copy_of_the_store_keeps_the_reserve_that_it_was_given() {
    let fixture = Fixture::new();
    let reserve = 1 << 20;
    let (store, _) = fixture.open(Options { reserve_bytes: reserve, ..options() });
    assert_eq!(store.room().reserve, reserve);
    *store.shared.changed.lock() = Some(committer::Changed::new());
    store.shared.reserve.lend(store.shared.options.clock.now());
    thread::sleep(crate::limits::RESERVE_RETAKE_REST * 2);
    apply(&store, 1, 100);
    store.flush().unwrap();
    store.look_for_room();
    assert_eq!(store.room().reserve, 0);
    *store.shared.changed.lock() = None;
    store.look_for_room();
    assert_eq!(store.room().reserve, reserve);
}
