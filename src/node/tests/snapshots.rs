//! Snapshots to clients.

use super::*;
use crate::pb::{CompactionRequest, DeleteRangeRequest, LeaseGrantRequest};
use crate::store::{Building, Store};
use crate::transfer::{InstallError, Snapshot, SnapshotPiece, Source};

fn whole(store: &Store) -> Vec<u8> {
    let mut snapshot = Snapshot::new(store).unwrap();
    let mut file = Vec::new();
    while let Some(piece) = snapshot.next_piece().unwrap() {
        file.extend_from_slice(&piece);
    }
    assert_eq!(file.len() as u64, snapshot.file_bytes());
    file
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_holds_everything_and_a_damaged_one_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let node = start(dir.path()).await;
    for n in 0..300 {
        node.propose(&Credentials::default(), put(&format!("key {}", n % 70), &"x".repeat(n * 40)))
            .await
            .unwrap();
    }
    let grant = Op::LeaseGrant(LeaseGrantRequest { id: 7, ttl: 1000 });
    node.propose(&Credentials::default(), grant).await.unwrap();
    let delete = DeleteRangeRequest { key: "key 3".into(), ..Default::default() };
    node.propose(&Credentials::default(), Op::DeleteRange(delete)).await.unwrap();
    let compaction = Op::Compaction(CompactionRequest { revision: 100, physical: true });
    node.propose(&Credentials::default(), compaction).await.unwrap();
    node.0.machine.store.flush().unwrap();
    let file = whole(&node.0.machine.store);

    let path = dir.path().join("file");
    std::fs::write(&path, &file).unwrap();
    let restore = |path: &std::path::Path| {
        let db = tempfile::tempdir().unwrap();
        let options = store::Options::new(Arc::new(SystemClock::new()));
        let file = std::fs::File::open(path).unwrap();
        let mut building = Building::first(&db.path().join("db"))?;
        Source::File(&file).fill(&mut building)?;
        let (store, _) = building.finish(options)?;
        Ok::<_, InstallError>(whole(&store))
    };
    assert!(restore(&path).unwrap() == file, "read back and written again, it is the same file");
    for cut in [0, 5000, file.len() / 2, file.len() - 1] {
        std::fs::write(&path, &file[..cut]).unwrap();
        assert!(restore(&path).is_err(), "cut at {cut}");
    }
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancelled_snapshot_keeps_its_seat_while_it_is_measured() {
    use futures_util::FutureExt;

    let dir = tempfile::tempdir().unwrap();
    let node = start(dir.path()).await;
    // A commit that does not end makes every snapshot wait that has yet to be measured.
    let (release, released) = std::sync::mpsc::sync_channel::<()>(1);
    let released = Mutex::new(released);
    let (commits, committing) = std::sync::mpsc::sync_channel(1);
    node.0.machine.store.on_commit(move |_, _| {
        let _ = commits.try_send(());
        let _ = released.lock().recv();
    });
    for n in 0..2 {
        node.propose(&Credentials::default(), put("k", &n.to_string())).await.unwrap();
        // The first commit has begun, so the second put is not part of it.
        if n == 0 {
            committing.recv_timeout(Duration::from_secs(60)).expect("nothing is committed");
        }
    }
    let root = Credentials::default();
    for number in 0..limits::SNAPSHOTS_MAX {
        let call = node.snapshot(&root).now_or_never();
        assert!(call.is_none(), "snapshot {number} is measured already");
    }
    let refused = node.snapshot(&root).now_or_never().and_then(Result::err);
    assert_eq!(refused, Some(Error::TooManyRequests));
    drop(release);
    let end = crate::clock::instant() + Duration::from_secs(60);
    while let Err(error) = node.snapshot(&root).await {
        assert!(crate::clock::instant() < end, "no seat is given back: {error}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_that_nobody_reads_holds_four_pieces() {
    let dir = tempfile::tempdir().unwrap();
    let node = start(dir.path()).await;
    let (nobody, value) = (Credentials::default(), "v".repeat(100_000));
    for n in 0..60 {
        node.propose(&nobody, put(&format!("key {n}"), &value)).await.unwrap();
    }
    let mut unread = node.snapshot(&nobody).await.unwrap();
    assert!(unread.file_bytes > 6_000_000);
    let begun = tokio::time::Instant::now();
    while unread.read_ahead() < 4 {
        assert!(begun.elapsed() < Duration::from_secs(60), "{} pieces", unread.read_ahead());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    // No more pieces are made, however long the reader waits.
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(unread.read_ahead(), 4);
    for _ in 0..4 {
        let Some(Ok(SnapshotPiece::Bytes(piece))) = unread.next().await else { panic!("no piece") };
        assert!((256 << 10..1 << 20).contains(&piece.len()), "{}", piece.len());
    }
    drop(unread);
    node.stop().await;
}
