use super::*;

/// A clock that the test sets.
#[derive(Default)]
struct Set(parking_lot::Mutex<Duration>);

impl Clock for Set {
    fn now(&self) -> Duration {
        *self.0.lock()
    }

    fn unix_nanos(&self) -> u64 {
        0
    }

    fn random(&self) -> u64 {
        0
    }
}

#[tokio::test]
async fn a_reader_that_takes_less_than_64_kib_a_second_gets_no_more() {
    let clock = Arc::new(Set::default());
    let (pieces, mut taken) = mpsc::channel(SNAPSHOT_PIECES_MAX);
    let seat = Seats::default().take(Duration::ZERO).unwrap();
    let (began, of) = (Duration::ZERO, Arc::clone(&clock));
    let reader = Reader { seat, pieces, began, clock: of };
    let mut takes = async |seconds: u64, kib: u64| {
        *clock.0.lock() = Duration::from_secs(seconds);
        let is_taken = reader.take(Ok(SnapshotPiece::Bytes(Bytes::new())), kib << 10).await;
        assert_eq!(taken.try_recv().is_ok(), is_taken);
        is_taken
    };
    assert!(takes(60, 0).await, "the first minute is for nothing");
    assert!(takes(160, 6400).await);
    assert!(!takes(160, 6399).await);
}
