//! Rows and buckets as readers see them: across a restart, and from the tail to the file.

use super::*;

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
    // Rows that are deleted already are no error when a sweep starts over.
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
