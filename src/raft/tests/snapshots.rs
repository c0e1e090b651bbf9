//! Snapshots that are sent to a running member.

use super::*;

#[test]
fn a_snapshot_is_awaited_from_its_arrival_until_it_is_applied() {
    let temp = tempfile::tempdir().unwrap();
    let joins = Bootstrap::default();
    let member =
        try_start(config(temp.path(), (0, 0), ConfState::default()), Some(&joins)).unwrap();
    assert!(!member.handle.awaits_snapshot());
    let mut message = Message { to: ID, from: 1, term: 2, ..Message::default() };
    message.set_msg_type(MessageType::MsgSnapshot);
    let metadata = message.mut_snapshot().mut_metadata();
    (metadata.index, metadata.term) = (5, 2);
    metadata.mut_conf_state().voters = vec![1, ID];
    member.handle.step_snapshot(message.clone()).unwrap();
    assert!(member.handle.awaits_snapshot(), "before raft has seen it");
    let batch = member.committed.recv_timeout(Duration::from_secs(20)).unwrap();
    assert!(matches!(batch[..], [Committed::Snapshot { index: 5, .. }]));
    // A later snapshot would replace the data that is about to be applied.
    message.mut_snapshot().mut_metadata().index = 9;
    assert!(announced(&message, &member.handle).is_err());
    member.handle.applied(5);
    while member.handle.awaits_snapshot() {
        std::thread::yield_now();
    }
    assert!(announced(&message, &member.handle).is_ok());
}

#[derive(Default)]
struct Sent(Mutex<Vec<Message>>);

impl Transport for Sent {
    fn send(&self, messages: Vec<Message>) {
        self.0.lock().extend(messages);
    }
}

/// A new leader does not know how far a follower's log goes, and its own may begin behind that.
#[test]
fn a_leader_that_sends_an_older_snapshot_is_told_what_is_here() {
    let temp = tempfile::tempdir().unwrap();
    let sent = Arc::new(Sent::default());
    let config = config(temp.path(), (0, 0), ConfState::default());
    let mut member =
        try_start_with(config, Some(&alone()), sent.clone(), Arc::new(SystemDisk)).unwrap();
    while member.handle.status().committed < 2 {
        member.apply_once();
    }
    let status = member.handle.status();
    let mut message = Message { to: ID, from: 1, term: status.term + 1, ..Message::default() };
    message.set_msg_type(MessageType::MsgSnapshot);
    let metadata = message.mut_snapshot().mut_metadata();
    (metadata.index, metadata.term) = (1, 1);
    metadata.mut_conf_state().voters = vec![1, ID];
    assert!(announced(&message, &member.handle).is_err());
    let begun = crate::clock::instant();
    let is_answer = |message: &Message| {
        message.get_msg_type() == MessageType::MsgAppendResponse
            && (message.to, message.index, message.reject) == (1, status.committed, false)
    };
    while !sent.0.lock().iter().any(is_answer) {
        assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", sent.0.lock());
        std::thread::sleep(Duration::from_millis(5));
    }
}
