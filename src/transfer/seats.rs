//! The bound on snapshots that go to clients at once.

use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::limits::{SNAPSHOT_FAIR_WAIT, SNAPSHOTS_MAX};

/// The seats of snapshots on their way to clients. A snapshot lasts as long as its reader takes, so
/// a client does not wait for a seat: if all are taken, it gets the seat whose reader has taken
/// nothing for the longest time, `SNAPSHOT_FAIR_WAIT` at least.
#[derive(Default)]
pub(super) struct Seats(Mutex<Vec<Weak<Seat>>>);

pub(super) struct Seat {
    /// Since when its reader has taken nothing; None while a piece is being made.
    waits_since: Mutex<Option<Duration>>,
    /// Notified when the seat is given to another client.
    given_away: Notify,
}

impl Seats {
    #[cfg(test)]
    pub(super) fn taken(&self) -> usize {
        self.0.lock().iter().filter(|seat| seat.strong_count() > 0).count()
    }

    /// Takes a seat. None if all are taken and none has waited for its reader for
    /// `SNAPSHOT_FAIR_WAIT`.
    pub(super) fn take(&self, now: Duration) -> Option<Arc<Seat>> {
        let mut seats = self.0.lock();
        seats.retain(|seat| seat.strong_count() > 0);
        if seats.len() >= SNAPSHOTS_MAX {
            let waits = |seat: &Weak<Seat>| *seat.upgrade()?.waits_since.lock();
            let slowest = (0..seats.len()).filter_map(|at| Some((waits(&seats[at])?, at))).min();
            let (_, at) = slowest.filter(|(since, _)| *since + SNAPSHOT_FAIR_WAIT <= now)?;
            if let Some(seat) = seats.swap_remove(at).upgrade() {
                seat.given_away.notify_one();
            }
        }
        let seat = Arc::new(Seat { waits_since: Mutex::default(), given_away: Notify::new() });
        seats.push(Arc::downgrade(&seat));
        Some(seat)
    }
}

impl Seat {
    /// Completes when the seat is given to another client.
    pub(super) async fn given_away(&self) {
        self.given_away.notified().await;
    }

    /// Notes since when the reader is waited for; None if it has taken a piece.
    pub(super) fn waits_since(&self, since: Option<Duration>) {
        *self.waits_since.lock() = since;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_seat_of_a_reader_that_stands_still_is_given_away() {
        let (seats, second) = (Seats::default(), Duration::from_secs(1));
        let taken: Vec<_> = (0..SNAPSHOTS_MAX).map(|_| seats.take(second).unwrap()).collect();
        assert_eq!(seats.take(100 * second).map(drop), None);
        taken[3].waits_since(Some(10 * second));
        taken[5].waits_since(Some(9 * second));
        assert_eq!(seats.take(10 * second).map(drop), None);
        let _new = seats.take(9 * second + SNAPSHOT_FAIR_WAIT).unwrap();
        taken[5].given_away().await;
        drop(taken);
        assert!(seats.take(second).is_some());
    }

    #[test]
    fn as_many_seats_are_there_as_is_promised() {
        let seats = Seats::default();
        let taken: Vec<_> = (0..8).map(|_| seats.take(Duration::ZERO)).collect();
        assert!(taken.iter().all(Option::is_some));
        assert!(seats.take(Duration::ZERO).is_none());
    }
}
