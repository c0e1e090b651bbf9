use std::path::Path;
use std::sync::mpsc::sync_channel;
use std::time::Duration;

use super::*;
use crate::clock::SystemClock;
use crate::planted::{self, Bug};

fn start_in(dir: &Path) -> Result<Node, StartError> {
    let config = Config {
        initial_cluster: vec![("default".into(), vec!["http://localhost:2380".into()])],
        peer_urls: vec!["http://localhost:2380".into()],
        ..Config::of(dir)
    };
    Node::start(config, Arc::new(SystemClock::new()))
}

/// The start fails with the name of the thread, and leaves the directory unlocked and sound.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_gets_a_thread_too_few_does_not_start() {
    let dir = tempfile::tempdir().unwrap();
    for name in
        ["committer", "bcrypt-prompt", "bcrypt", "load", "raft-log", "raft", "apply", "sweeper"]
    {
        let (done, outcome) = sync_channel(1);
        let (runtime, path) = (tokio::runtime::Handle::current(), dir.path().to_path_buf());
        std::thread::spawn(move || {
            let _inside = runtime.enter();
            planted::plant(Some(Bug::NoThread(name)));
            let _ = done.send(start_in(&path).map(drop).map_err(|error| error.to_string()));
        });
        let waiting = tokio::task::spawn_blocking(move || {
            outcome.recv_timeout(Duration::from_secs(60)).expect("the start hangs")
        });
        let error = waiting.await.unwrap().unwrap_err();
        assert!(error.contains(&format!("cannot start the thread {name}: ")), "{error}");
    }
    let node = start_in(dir.path()).unwrap();
    node.ready().wait_for(|ready| *ready).await.unwrap();
    node.stop().await;
}
