//! Ends reads whose caller has gone away or whose state is being replaced.
//!
//! A read of many keys runs on a thread of its own, so it goes on when its call is cancelled. It
//! also keeps its view, for which a replacement of the state waits. So each such read asks, every
//! bounded number of keys, whether its caller still waits and whether its view is still wanted. At
//! the same points, a read that takes turns at the processors lets the next one have its turn.

use std::cell::OnceCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::{Error, Mvcc, VIEWS_WAIT, View};
use crate::supervise::{ReadTurn, ReadTurns};

/// The read's side: tells whether the caller still waits. The default says so always.
#[derive(Debug, Default)]
pub struct ReadCheck {
    is_over: Arc<AtomicBool>,
    turn: OnceCell<ReadTurn>,
}

/// The caller's side. Dropping it tells the read that its caller has gone away.
#[derive(Debug, Default)]
pub struct CallerGuard(Arc<AtomicBool>);

impl CallerGuard {
    /// The side for the read.
    pub fn read_check(&self) -> ReadCheck {
        ReadCheck { is_over: Arc::clone(&self.0), turn: OnceCell::new() }
    }
}

impl Drop for CallerGuard {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl ReadCheck {
    /// Makes the read take turns at these processors from here on. Blocks until its first turn.
    pub fn take_turns(&self, turns: &Arc<ReadTurns>) -> Result<(), Error> {
        self.turn.get_or_init(|| ReadTurn::new(turns));
        self.check()
    }

    /// Called between two pieces of work: passes the turn on if it is over, and fails with
    /// `Unwanted` once the caller has gone away.
    pub fn check(&self) -> Result<(), Error> {
        self.yield_turn(|| false);
        self.or_unwanted()
    }

    fn or_unwanted(&self) -> Result<(), Error> {
        if self.is_over() { Err(Error::Unwanted) } else { Ok(()) }
    }

    fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Relaxed)
    }

    fn yield_turn(&self, is_to_end: impl Fn() -> bool) {
        if let Some(turn) = self.turn.get() {
            turn.yield_turn(&|| self.is_over() || is_to_end());
        }
    }
}

impl Mvcc {
    /// Calls `f` with a view, for a caller that may go away. If the state is replaced meanwhile,
    /// `f` is called again with a view of the new one. Blocks; not for threads that serve
    /// connections.
    pub fn read<T>(
        &self,
        wanted: &ReadCheck,
        mut f: impl FnMut(&View<'_>) -> Result<T, Error>,
    ) -> Result<T, Error> {
        loop {
            wanted.check()?;
            let outcome = f(&View { wanted: Some(wanted), ..self.view() });
            if !matches!(outcome, Err(Error::Replaced)) {
                return outcome;
            }
            while self.is_replacing() {
                wanted.check()?;
                std::thread::sleep(VIEWS_WAIT);
            }
        }
    }
}

impl View<'_> {
    /// Called between two pieces of a read. Fails, for reads through `Mvcc::read` only, if the
    /// caller has gone away or the state is being replaced.
    pub fn go_on(&self) -> Result<(), Error> {
        let Some(wanted) = self.wanted else { return Ok(()) };
        // A read whose state is being replaced must not wait in line for a processor: the
        // replacement waits for its view, and all others wait for the replacement.
        wanted.yield_turn(|| self.mvcc.is_replacing());
        wanted.or_unwanted()?;
        if self.mvcc.is_replacing() { Err(Error::Replaced) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::mpsc;
    use std::time::Duration;

    use parking_lot::{Condvar, Mutex};

    use super::*;
    use crate::clock::SystemClock;
    use crate::mvcc::txn::NoLeases;
    use crate::pb::{PutRequest, RangeRequest};
    use crate::store::{Faults, Options, Store};

    const PATIENCE: Duration = Duration::from_secs(60);

    /// Blocks reads of the store on the thread `slow`.
    #[derive(Default)]
    struct Slow {
        is_shut: Mutex<bool>,
        is_reached: Mutex<bool>,
        changed: Condvar,
    }

    impl Faults for Slow {
        fn read(&self) -> io::Result<()> {
            if std::thread::current().name() != Some("slow") {
                return Ok(());
            }
            *self.is_reached.lock() = true;
            let mut is_shut = self.is_shut.lock();
            while *is_shut {
                self.changed.wait(&mut is_shut);
            }
            Ok(())
        }
    }

    fn until(what: &str, is_so: impl Fn() -> bool) {
        let end = crate::clock::instant() + PATIENCE;
        while !is_so() {
            assert!(crate::clock::instant() < end, "not within a minute: {what}");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// A pass over history runs at low priority, so it may stand still for long.
    #[test]
    fn nobody_waits_for_a_slow_pass_while_the_state_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let slow = Arc::new(Slow::default());
        let mut options = Options::new(Arc::new(SystemClock::new()));
        options.faults = Some(Arc::clone(&slow) as _);
        let (store, _) = Store::open(&dir.path().join("db"), options).unwrap();
        let mvcc = Mvcc::new(Arc::new(store));
        let key = bytes::Bytes::from("a");
        for index in 1..=5 {
            let mut write = mvcc.begin();
            let put = PutRequest { key: key.clone(), ..Default::default() };
            write.put(&put, &mut NoLeases).unwrap();
            write.finish();
            mvcc.store.seal(index, 1);
        }
        mvcc.publish();
        mvcc.store.flush().unwrap();
        // The new state is over the same rows, and its index has none of them.
        let new = Mvcc::new(Arc::clone(&mvcc.store));
        let expected = new.hash_by_revision(0, &ReadCheck::default()).unwrap();
        assert_ne!(mvcc.hash_by_revision(0, &ReadCheck::default()).unwrap(), expected);
        let keys = |mvcc: &Mvcc| {
            let range = RangeRequest { key: key.clone(), ..Default::default() };
            mvcc.view().range(&range).unwrap().kvs.len()
        };

        *slow.is_shut.lock() = true;
        std::thread::scope(|scope| {
            let pass = std::thread::Builder::new().name("slow".into());
            let pass = pass.spawn_scoped(scope, || mvcc.hash_by_revision(0, &ReadCheck::default()));
            let pass = pass.unwrap();
            until("the pass is under way", || *slow.is_reached.lock());
            let install = scope.spawn(|| mvcc.install(&new, || Ok(())));
            until("the state is being replaced", || mvcc.is_replacing());
            let (done, read) = mpsc::sync_channel(10);
            let (mvcc, keys) = (&mvcc, &keys);
            scope.spawn(move || {
                for _ in 0..10 {
                    done.send(keys(mvcc)).unwrap();
                }
            });
            let read: Vec<_> = (0..10).map_while(|_| read.recv_timeout(PATIENCE).ok()).collect();
            let is_waiting = !install.is_finished();
            *slow.is_shut.lock() = false;
            slow.changed.notify_all();
            assert_eq!(read, [1; 10], "reads wait for the pass");
            assert!(is_waiting, "the state was replaced under the pass");
            install.join().unwrap().unwrap();
            assert_eq!(pass.join().unwrap().unwrap(), expected, "the pass has begun anew");
        });
        assert_eq!(keys(&mvcc), 0);
    }
}
