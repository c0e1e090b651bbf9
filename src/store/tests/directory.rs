//! The lock of a data directory, and what is refused there.

use super::*;

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

/// A restore that fails removes the lock file that it has made, while others wait at it.
#[test]
fn a_lock_is_on_the_file_that_others_find() {
    let dir = tempfile::tempdir().unwrap();
    let holders = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let mut held = 0;
                while held < 2000 {
                    let at_rest = held % 2 == 0 && dir.path().join("rusd.lock").exists();
                    let lock = match at_rest {
                        true => lock_at_rest(dir.path()).map(|lock| lock.map(drop)),
                        false => lock(dir.path()).map(|lock| {
                            assert_eq!(holders.fetch_add(1, Ordering::SeqCst), 0, "two hold it");
                            holders.fetch_sub(1, Ordering::SeqCst);
                            fs::remove_file(dir.path().join("rusd.lock")).unwrap();
                            drop(lock);
                            None
                        }),
                    };
                    match lock {
                        Ok(_) | Err(Error::Locked { .. }) => held += 1,
                        Err(error) => panic!("{error}"),
                    }
                }
            });
        }
    });
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
