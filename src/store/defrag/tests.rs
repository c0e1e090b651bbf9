use std::sync::atomic::AtomicBool;

use bytes::Bytes;

use super::*;
use crate::clock::SystemClock;
use crate::store::{Options, Row};

fn options() -> Options {
    let mut options = Options::new(Arc::new(SystemClock::new()));
    options.reserve_bytes = 0;
    options.commit_interval = Duration::from_millis(1);
    options
}

fn rev(main: i64) -> Revision {
    Revision::new(main, 0)
}

fn row(main: i64) -> Row {
    let bytes = if main % 50 == 0 { 20_000 } else { 300 };
    let kv = Bytes::from(vec![u8::try_from(main % 251).unwrap(); bytes]);
    Row { rev: rev(main), tombstone: main % 7 == 0, kv }
}

fn name(number: i64) -> Vec<u8> {
    format!("name {number}").into_bytes()
}

/// Rows from 1 to `last`, of which a compaction has deleted three quarters.
fn thinned(db: &Path, last: i64) -> Store {
    let (store, _) = Store::open(db, options()).unwrap();
    for main in 1..=last {
        store.push_row(row(main));
        store.put(Bucket::Lease, name(main), name(main));
        store.seal(main.cast_unsigned(), 1);
    }
    store.put(Bucket::Members, vec![b'm'; 600], b"a long name".to_vec());
    store.seal(last.cast_unsigned() + 1, 1);
    let dead = (1..=last).filter(|main| is_dead(*main)).map(rev).collect();
    store.delete_rows(dead, Vec::new(), last).blocking_recv().unwrap();
    store
}

fn is_dead(main: i64) -> bool {
    main % 4 != 0
}

fn file_bytes(db: &Path) -> u64 {
    let generations = dir::generations(db).unwrap();
    let files = generations.iter().map(|generation| {
        fs::metadata(dir::generation_dir(db, *generation).join(DATA_FILE)).unwrap().len()
    });
    files.sum()
}

#[test]
fn nothing_is_lost_and_the_file_shrinks_while_reads_and_writes_go_on() {
    let root = tempfile::tempdir().unwrap();
    let db = root.path().join("db");
    let store = thinned(&db, 4000);
    let before = file_bytes(&db);
    let is_done = AtomicBool::new(false);
    let mut last = 4000;
    let done = std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let mut last = 4000;
            // More rows than these could, on a busy machine, take more space than is given back.
            while !is_done.load(Ordering::Acquire) && last < 5000 {
                last += 1;
                store.push_row(row(last));
                store.put(Bucket::Lease, name(last), b"granted".to_vec());
                store.delete(Bucket::Lease, name(last - 1000));
                store.seal(last.cast_unsigned() + 1, 2);
                std::thread::sleep(Duration::from_micros(50));
            }
            last
        });
        scope.spawn(|| {
            while !is_done.load(Ordering::Acquire) {
                assert_eq!(store.get(rev(4)).unwrap(), Some(row(4)));
                let rows = store.scan(rev(1), rev(3000), 100, 1 << 20).unwrap();
                assert_eq!(rows.len(), 100);
            }
        });
        let mut pieces = 0;
        let done = store.defragment(&mut |_| {
            pieces += 1;
            std::thread::sleep(Duration::from_millis(5));
        });
        is_done.store(true, Ordering::Release);
        last = writer.join().unwrap();
        assert!(pieces > 10);
        done.unwrap()
    });
    assert!(last > 4000, "nothing was written meanwhile");
    assert!(done.after.total < done.before.total * 3 / 4, "{done:?}");
    assert_eq!((store.generation(), dir::generations(&db).unwrap()), (2, vec![2]));
    store.flush().unwrap();
    assert!(file_bytes(&db) < before);
    let judge = |store: &Store| {
        for main in 1..=last {
            let expected = (main > 4000 || !is_dead(main)).then(|| row(main));
            assert_eq!(store.get(rev(main)).unwrap(), expected, "{main}");
            let lease = store.bucket_get(Bucket::Lease, &name(main)).unwrap();
            let is_gone = (3001..=last - 1000).contains(&main);
            assert_eq!(lease.is_some(), !is_gone, "lease {main}");
        }
        let long = store.bucket_get(Bucket::Members, &[b'm'; 600]).unwrap();
        assert_eq!(long.as_deref(), Some(&b"a long name"[..]));
    };
    judge(&store);
    store.close().unwrap();
    drop(store);
    let (store, opened) = Store::open(&db, options()).unwrap();
    assert_eq!((opened.consistent_index, opened.term), (last.cast_unsigned() + 1, 2));
    assert_eq!(opened.finished_compact, Some(rev(4000)));
    judge(&store);
}

/// A clock that stands still, so that a bounded wait never ends.
struct Stopped;

impl crate::clock::Clock for Stopped {
    fn now(&self) -> Duration {
        Duration::ZERO
    }

    fn unix_nanos(&self) -> u64 {
        0
    }

    fn random(&self) -> u64 {
        1
    }
}

#[test]
fn deletions_do_not_wait_for_readers_of_the_file_from_before() {
    let root = tempfile::tempdir().unwrap();
    let db = root.path().join("db");
    let options = Options { clock: Arc::new(Stopped), committer: false, ..options() };
    let (store, _) = Store::open(&db, options).unwrap();
    for main in [2, 3] {
        store.push_row(row(main));
    }
    store.seal(5, 1);
    store.flush().unwrap();
    let frozen = store.freeze().unwrap();
    let mut deleted = store.delete_rows(vec![rev(2)], Vec::new(), 2);
    assert!(!store.commit_turn().unwrap(), "it waits for the reader");
    store.defragment(&mut |_| {}).unwrap();
    assert!(store.commit_turn().unwrap(), "it waits for a reader of another file");
    deleted.try_recv().unwrap();
    assert_eq!(store.get(rev(2)).unwrap(), None);
    assert_eq!(frozen.rows(Revision::default()).unwrap(), [row(2), row(3)]);
}

#[test]
fn the_checkpoint_serves_the_copy() {
    let root = tempfile::tempdir().unwrap();
    let db = root.path().join("db");
    let store = thinned(&db, 100);
    store.flush().unwrap();
    let mut checkpoint = store.begin_checkpoint().unwrap();
    checkpoint.write(b"what the index is").unwrap();
    checkpoint.publish(101, 100, 100).unwrap();
    store.defragment(&mut |_| {}).unwrap();
    store.close().unwrap();
    drop(store);
    let (store, mut opened) = Store::open(&db, options()).unwrap();
    opened.scheduled_compact = opened.finished_compact;
    let mut read = Vec::new();
    let mut reader = store.read_checkpoint(&opened).unwrap();
    std::io::Read::read_to_end(&mut reader, &mut read).unwrap();
    assert_eq!(read, b"what the index is");
}

#[test]
fn what_cannot_be_finished_leaves_the_store_as_it_was() {
    let root = tempfile::tempdir().unwrap();
    let db = root.path().join("db");
    let store = thinned(&db, 2000);
    // Another thread begins to install a snapshot.
    let mut building = None;
    let error = std::thread::scope(|scope| {
        let mut waiting = None;
        store
            .defragment(&mut |_| {
                let begin = || store.begin_building().unwrap();
                waiting.get_or_insert_with(|| scope.spawn(begin));
                while store.shared.defrag.unwanted.load(Ordering::Acquire) == 0 {
                    std::thread::yield_now();
                }
                building = None;
            })
            .inspect_err(|_| building = waiting.take().map(|thread| thread.join().unwrap()))
            .unwrap_err()
    });
    assert!(matches!(error, Error::GivenUp(_)), "{error}");
    assert!(building.is_some());
    drop(building);
    // A crash has left a half-made copy.
    let litter = dir::generation_dir(&db, 7);
    fs::create_dir(&litter).unwrap();
    fs::write(litter.join(MARK), b"").unwrap();
    assert_eq!(store.generation(), 1);
    assert_eq!(store.get(rev(4)).unwrap(), Some(row(4)));
    store.defragment(&mut |_| {}).unwrap();
    assert!(!litter.exists());
    assert_eq!(store.get(rev(4)).unwrap(), Some(row(4)));
    // Damage is named and not copied.
    let generation = dir::generation_dir(&db, store.generation());
    store.close().unwrap();
    drop(store);
    let file = generation.join(DATA_FILE);
    let mut bytes = fs::read(&file).unwrap();
    let at = bytes.windows(40).position(|bytes| bytes == [44; 40]).unwrap();
    bytes[at] ^= 1;
    fs::write(&file, bytes).unwrap();
    let (store, _) = Store::open(&db, options()).unwrap();
    let error = store.defragment(&mut |_| {}).unwrap_err();
    assert!(error.to_string().contains("damaged at revision 44"), "{error}");
    assert_eq!(store.get(rev(48)).unwrap(), Some(row(48)));
}

/// On a disk without room for the log's next segment, only a small copy gives space back.
#[test]
fn a_small_copy_is_made_on_a_disk_that_is_nearly_full() {
    const MIB: u64 = 1 << 20;
    assert_eq!(kept_beside(10 * MIB, 6 * MIB, 16 * MIB), Some(6 * MIB));
    assert_eq!(kept_beside(10 * MIB, 6 * MIB, 15 * MIB), None, "too much would be taken");
    assert_eq!(kept_beside(MIB / 2, 6 * MIB, 2 * MIB), Some(MIB / 4 * 3));
    assert_eq!(kept_beside(2 * MIB, 6 * MIB, MIB), None);
}
