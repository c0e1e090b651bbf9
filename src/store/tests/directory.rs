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
