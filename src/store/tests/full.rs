//! A disk that is full, and the reserve that is kept for it.

use super::*;

/// A disk that, while it is told to, takes only few pages in one commit, or none.
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
    // Not even a small part of the compaction fits; applied entries are stored all the same.
    let done = store.delete_rows(dead, survivors, 300);
    apply(&store, 301, 100);
    assert_eq!(store.flush().unwrap(), 301);
    tight.rows_max.store(100, Ordering::SeqCst);
    done.blocking_recv().unwrap();
    let left: Vec<i64> = all(&store).iter().map(|row| row.rev.main).collect();
    assert_eq!(left, (1..=301).filter(|main| main % 3 == 0 || *main > 300).collect::<Vec<_>>());
}

/// A disk without room for a compaction, which says so only when it is told to.
struct Slow {
    asked: std::sync::mpsc::SyncSender<()>,
    says: Mutex<std::sync::mpsc::Receiver<()>>,
}

impl Faults for Slow {
    fn compaction(&self, _: usize) -> std::io::Result<()> {
        let _ = self.asked.try_send(());
        let _ = self.says.lock().recv();
        Err(rustix::io::Errno::NOSPC.into())
    }
}

/// With few rows to delete, nothing else is tried, and nothing but this commit ends the wait.
#[test]
fn a_snapshot_begins_once_a_compaction_has_found_the_disk_full() {
    let fixture = Fixture::new();
    let (asked, is_asked) = std::sync::mpsc::sync_channel(1);
    let (say, says) = std::sync::mpsc::sync_channel(0);
    let faults = Some(Arc::new(Slow { asked, says: Mutex::new(says) }) as Arc<dyn Faults>);
    let (store, _) = fixture.open(Options { faults, ..options() });
    for main in 1..=30 {
        apply(&store, main, 100);
    }
    store.flush().unwrap();
    let _done = store.delete_rows((1..=20).map(rev).collect(), Vec::new(), 20);
    is_asked.recv_timeout(Duration::from_secs(60)).unwrap();
    let (frozen, is_frozen) = std::sync::mpsc::sync_channel(1);
    std::thread::scope(|threads| {
        threads.spawn(|| frozen.send(store.freeze().is_ok()));
        let holds = || Arc::strong_count(&store.shared.queue.lock().holds);
        let begun = crate::clock::instant();
        while holds() == 1 && begun.elapsed() < Duration::from_secs(60) {
            std::thread::yield_now();
        }
        say.send(()).unwrap();
        let outcome = is_frozen.recv_timeout(Duration::from_secs(20));
        // Ends the wait of a store that has lost the wake-up.
        drop(say);
        store.shared.done.notify_all();
        assert_eq!(outcome, Ok(true));
    });
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
fn what_a_failed_commit_has_added_to_the_file_is_given_back() {
    let fixture = Fixture::new();
    let tight = Arc::new(Tight::default());
    let (store, _) = fixture.open(Options { faults: Some(tight.clone()), ..options() });
    apply(&store, 1, 100);
    store.flush().unwrap();
    let file = store.shared.env().file().to_owned();
    let before = std::fs::metadata(&file).unwrap().len();
    // LMDB writes pages behind the last one in use until it finds no room.
    std::fs::OpenOptions::new().write(true).open(&file).unwrap().set_len(1 << 22).unwrap();
    tight.is_full.store(true, Ordering::SeqCst);
    apply(&store, 2, 100);
    assert!(matches!(store.flush(), Err(Error::NoSpace { .. })));
    assert!(std::fs::metadata(&file).unwrap().len() <= before.max(store.sizes().total));
    tight.is_full.store(false, Ordering::SeqCst);
    let begun = crate::clock::instant();
    while store.flush().is_err() {
        assert!(begun.elapsed() < Duration::from_secs(60), "the commit is tried again");
        thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(all(&store).len(), 2);
}

#[test]
fn a_copy_of_the_store_keeps_the_reserve_that_it_was_given() {
    let fixture = Fixture::new();
    let reserve = 1 << 20;
    let (store, _) = fixture.open(Options { reserve_bytes: reserve, ..options() });
    assert_eq!(store.room().reserve, reserve);
    *store.shared.changed.lock() = Some(committer::Changed::new());
    store.shared.reserve.release(store.shared.options.clock.now());
    thread::sleep(crate::limits::RESERVE_RETAKE_REST * 2);
    apply(&store, 1, 100);
    store.flush().unwrap();
    store.look_for_room(false);
    assert_eq!(store.room().reserve, 0);
    *store.shared.changed.lock() = None;
    store.look_for_room(false);
    assert_eq!(store.room().reserve, reserve);
}

/// The log cannot use what compaction has freed within the store's file, but it can use the
/// reserve.
#[test]
fn the_reserve_is_lent_while_the_store_does_without() {
    let fixture = Fixture::new();
    let reserve = 1 << 20;
    let (store, _) = fixture.open(Options { reserve_bytes: reserve, ..options() });
    let held = || store.room().reserve;
    assert!(!store.look_for_room(true), "there is nothing free within the file");
    assert_eq!(held(), reserve);
    for main in 1..=40 {
        apply(&store, main, 100_000);
    }
    store.flush().unwrap();
    let done = store.delete_rows((1..=39).map(rev).collect(), vec![rev(40)], 40);
    store.flush().unwrap();
    done.blocking_recv().unwrap();
    store.look_for_room(false);
    assert!(store.room().within >= 2 * reserve, "{:?}", store.room());
    *store.shared.changed.lock() = Some(committer::Changed::new());
    assert!(!store.look_for_room(true), "a copy of the store needs it");
    *store.shared.changed.lock() = None;
    store.shared.room.set_short(true);
    assert!(!store.look_for_room(true), "a commit needs it");
    store.shared.room.set_short(false);
    assert!(store.look_for_room(true));
    assert_eq!(held(), 0);
    thread::sleep(crate::limits::RESERVE_RETAKE_REST * 2);
    assert!(store.look_for_room(true));
    assert_eq!(held(), 0, "it is taken from the log");
    assert!(!store.look_for_room(false));
    assert_eq!(held(), reserve);
}
