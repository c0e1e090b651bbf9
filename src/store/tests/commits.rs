//! When a commit comes and what it holds.

use super::*;

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
fn batches_are_as_large_as_they_may_be() {
    let fixture = Fixture::new();
    // No commit comes by its time.
    let (store, _) = fixture.open(Options { commit_ops_max: 3, ..lazy() });
    let (committed, commits) = std::sync::mpsc::sync_channel(10);
    store.on_commit(move |index, _| committed.send(index).unwrap());
    (1..=3).for_each(|main| apply(&store, main, 10));
    assert_eq!(commits.recv_timeout(Duration::from_secs(60)), Ok(3));
    apply(&store, 4, 10);
    store.flush().unwrap();
    drop(store);

    let options = Options { compaction_rows_max: 3, committer: false, ..options() };
    let (store, _) = fixture.open(options);
    (5..=10).for_each(|main| apply(&store, main, 10));
    store.flush().unwrap();
    let done = store.delete_rows((1..=7).map(rev).collect(), Vec::new(), 10);
    for left in [7, 4, 3] {
        assert!(store.commit_turn().unwrap());
        assert_eq!(all(&store).len(), left);
    }
    assert!(!store.commit_turn().unwrap());
    wait(done);
}

#[test]
fn a_full_tail_makes_apply_wait_until_it_is_committed() {
    let fixture = Fixture::new();
    let (store, _) = fixture.open(Options { commit_interval: Duration::ZERO, ..options() });
    // One entry larger than the tail's bound is admitted, and its seal returns only when it is
    // durable.
    for main in 2..52 {
        store.push_row(row(main, 1_500_000));
    }
    store.seal(51, 1);
    assert_eq!(store.durable(), (51, 1));
    assert_eq!(store.shared.queue.lock().bytes, 0);
    assert_eq!(store.get_many(&[rev(2), rev(51)]).unwrap().len(), 2);
    // Once the store stops, no seal is left waiting.
    store.close().unwrap();
    for main in 52..102 {
        store.push_row(row(main, 1_500_000));
    }
    store.seal(101, 1);
    assert!(matches!(store.flush(), Err(Error::Stopped(_))));
}

#[test]
fn an_entry_is_counted_as_pushed_from_its_first_change_on() {
    let fixture = Fixture::new();
    let (store, _) = fixture.open(lazy());
    // Entries whose changes are visible in the index and which are not sealed yet count, too.
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
            let counted = store.seal_of_pushed();
            assert!(
                seen.cast_unsigned() <= counted,
                "entry {seen} is visible, {counted} are counted"
            );
        }
    });
}

/// The commit interval of these stores is an hour, so an earlier commit is one that became large.
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
