//! A log that cannot be read while it is in use: the member stops with the name of the file,
//! whatever the entries are for, and does nothing more.

use super::*;
use crate::raft::log;

const ENTRIES: u64 = 100;

/// A member with a log of 100 entries of term 1, which are on disk alone, and a disk that has lost
/// them.
fn member(dir: &Path, voters: &[u64], commit: u64) -> Core {
    let dir = dir.join("wal");
    let entries = (1..=ENTRIES).map(|index| Entry { data: value(index), ..entry(index, 1) });
    let conf_state = ConfState { voters: voters.to_vec(), ..ConfState::default() };
    let store = stored(&dir, entries, commit, conf_state, ENTRIES);
    for file in fs::read_dir(&dir).unwrap() {
        fs::remove_file(file.unwrap().path()).unwrap();
    }
    Core::new(core_config(1, 6), store).unwrap()
}

/// Gives an event to a member with a disk that syncs at once, and returns the effects of the last
/// turn.
fn last_turn(core: &mut Core, event: Event) -> Vec<Effect> {
    let mut events = vec![event];
    loop {
        let effects = core.handle(std::mem::take(&mut events));
        for effect in &effects {
            if let Effect::Persist(job) = effect {
                events.push(Event::Persisted { number: job.number, places: Vec::new() });
            }
        }
        if events.is_empty() {
            return effects;
        }
    }
}

/// The member names the file that it cannot read, and does nothing else in this turn or later.
fn check_end(core: &mut Core, effects: &[Effect]) {
    let [Effect::Fatal(error)] = effects else { panic!("{effects:?}") };
    assert!(matches!(error, Error::Log(log::Error::Io { .. })), "{error:?}");
    assert!(error.to_string().contains(".wal: No such file"), "{error}");
    let proposal = Proposal { ticket: 1, data: value(1), ..Proposal::default() };
    let later = core.handle([Event::Tick, Event::Propose(vec![proposal]), Event::Read(1)]);
    assert!(later.is_empty(), "{later:?}");
}

#[test]
fn a_leader_that_cannot_read_what_a_follower_needs_ends_by_name() {
    let temp = tempfile::tempdir().unwrap();
    let core = &mut member(temp.path(), &[1, 2, 3], 0);
    last_turn(core, Event::Receive(message(MessageType::MsgTimeoutNow, 1)));
    let vote = Message { index: 0, ..message(MessageType::MsgRequestVoteResponse, 2) };
    last_turn(core, Event::Receive(vote));
    assert_eq!(core.status().role, Role::Leader);
    // The follower has ten entries.
    let lacks = Message {
        reject: true,
        index: ENTRIES,
        reject_hint: 10,
        log_term: 1,
        ..message(MessageType::MsgAppendResponse, 2)
    };
    let effects = last_turn(core, Event::Receive(lacks));
    check_end(core, &effects);
}

#[test]
fn a_leader_that_cannot_read_what_it_commits_ends_by_name() {
    let temp = tempfile::tempdir().unwrap();
    let core = &mut member(temp.path(), &[1], 0);
    let effects = last_turn(core, Event::Tick);
    check_end(core, &effects);
}

#[test]
fn a_follower_that_cannot_read_what_it_applies_answers_nobody() {
    let temp = tempfile::tempdir().unwrap();
    let core = &mut member(temp.path(), &[1, 2, 3], ENTRIES);
    let effects = last_turn(core, Event::Receive(message(MessageType::MsgHeartbeat, 1)));
    check_end(core, &effects);
}
