//! A system that gives no more threads.

use super::*;
use crate::planted::{self, Bug};

#[test]
fn a_thread_that_is_missing_ends_the_start() {
    for name in ["raft-log", "raft"] {
        let (done, outcome) = sync_channel(1);
        std::thread::spawn(move || {
            planted::plant(Some(Bug::NoThread(name)));
            let temp = tempfile::tempdir().unwrap();
            let config = config(&temp.path().join("wal"), (0, 0), ConfState::default());
            let started = try_start(config, Some(&alone()));
            let _ = done.send(started.map(|_| ()).map_err(|error| error.to_string()));
        });
        let outcome = outcome.recv_timeout(Duration::from_secs(60)).expect("the start hangs");
        let error = outcome.unwrap_err();
        assert!(error.starts_with(&format!("cannot start the thread {name}: ")), "{error}");
    }
}
