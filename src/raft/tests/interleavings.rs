//! Concurrent steps: apply behind the store, a snapshot and a configuration change in one turn, a
//! purge behind a snapshot.

use ::raft::eraftpb::{Snapshot, SnapshotMetadata};

use super::*;
use crate::limits;
use crate::raft::log::{self, Batch, LogPosition, Metadata, SnapshotRecord};

/// The reports of a log writer that makes all jobs durable at once.
fn persisted(effects: &[Effect]) -> Vec<Event> {
    let job = |effect: &Effect| match effect {
        Effect::Persist(job) => {
            let entries = job.batch.entries.iter();
            let place =
                |entry: &Entry| LogPosition { segment: 0, offset: entry.index as u32, crc: 0 };
            let places = entries.map(|entry| (entry.index, entry.term, place(entry))).collect();
            Some(Event::Persisted { number: job.number, places })
        }
        _ => None,
    };
    effects.iter().filter_map(job).collect()
}

/// Gives events to a core with a disk that syncs at once, and returns all effects.
fn give(core: &mut Core, events: impl IntoIterator<Item = Event>) -> Vec<Effect> {
    let mut events: Vec<Event> = events.into_iter().collect();
    let mut all = Vec::new();
    while !events.is_empty() {
        let effects = core.handle(std::mem::take(&mut events));
        events = persisted(&effects);
        all.extend(effects);
    }
    all
}

fn sent(effects: &[Effect]) -> Vec<&Message> {
    fn messages(effect: &Effect) -> &[Message] {
        match effect {
            Effect::Send(messages) => messages,
            Effect::Persist(job) => &job.messages,
            _ => &[],
        }
    }
    effects.iter().flat_map(messages).collect()
}

fn given(effects: &[Effect]) -> Vec<Committed> {
    let batch = |effect: &Effect| match effect {
        Effect::Commit(batch) => batch.clone(),
        _ => Vec::new(),
    };
    effects.iter().flat_map(batch).collect()
}

/// Entries from member 2, which leads, all of them committed.
fn append(after: u64, count: u64, bytes: usize) -> Event {
    let data = Bytes::from(vec![7; bytes]);
    let entry = |index| Entry { term: 2, index, data: data.clone(), ..Entry::default() };
    let entries = (after + 1..=after + count).map(entry).collect();
    let log_term = if after == 1 { 1 } else { 2 };
    let (index, commit) = (after, after + count);
    Event::Receive(Message {
        index,
        log_term,
        commit,
        entries,
        ..message(MessageType::MsgAppend, 2)
    })
}

fn removal(id: u64) -> ConfChange {
    ConfChange { change_type: 1, node_id: id, ..ConfChange::default() }
}

fn change_entry(index: u64, term: u64, change: &ConfChange) -> Entry {
    let data = Bytes::from(prost::Message::encode_to_vec(change));
    Entry { entry_type: 1, index, term, data, ..Entry::default() }
}

fn voters(ids: &[u64]) -> ConfState {
    ConfState { voters: ids.to_vec(), ..ConfState::default() }
}

#[test]
fn a_member_stands_for_election_while_its_store_is_ahead_of_what_apply_reported() {
    let follower = &mut core(1, &[1, 2, 3], 7);
    for turn in 0..20 {
        give(follower, [append(1 + turn * 1000, 1000, 24)]);
    }
    let conf_state = voters(&[1, 2, 3]);
    give(follower, [Event::Durable { index: 12_001, term: 2, conf_state }]);
    assert!(!follower.awaits_snapshot(), "none came");
    let asks = |effects: &[Effect]| {
        sent(effects).iter().any(|sent| sent.get_msg_type() == MessageType::MsgRequestPreVote)
    };
    assert!((0..30).any(|_| asks(&give(follower, [Event::Tick]))), "its leader is gone");
}

#[test]
fn a_member_that_applies_its_log_again_votes_for_others() {
    let mut table = Table::default();
    table.restart(1, 1);
    (2..=9).for_each(|index| table.append(entry(index, 1), None));
    let hard_state = HardState { term: 1, vote: 0, commit: 9 };
    let config = CoreConfig {
        id: 1,
        heartbeat_interval: Duration::from_millis(100),
        election_timeout: Duration::from_secs(1),
        pre_vote: true,
        applied: 1,
        snapshot_count: 10_000,
        catch_up_entries: 10,
        nonce: 7,
    };
    let store = Store::new(table, hard_state, voters(&[1, 2, 3]), None);
    let member = &mut Core::new(config, store).unwrap();
    give(member, [Event::Receive(message(MessageType::MsgHeartbeat, 1))]);
    assert_eq!(member.status().leader, 2);
    for _ in 0..30 {
        give(member, [Event::Tick]);
    }
    assert_eq!(member.status().role, Role::Follower, "it is not through with its log");
    let mut asks = message(MessageType::MsgRequestPreVote, 2);
    (asks.from, asks.index, asks.log_term) = (3, 9, 1);
    let effects = give(member, [Event::Receive(asks)]);
    let votes = sent(&effects).into_iter().filter(|sent| {
        sent.get_msg_type() == MessageType::MsgRequestPreVoteResponse && !sent.reject
    });
    assert_eq!(votes.count(), 1, "the leader has been silent for long");
}

/// The configuration change is in memory, behind entries that are on disk alone.
#[test]
fn a_change_that_is_not_applied_holds_up_an_election_wherever_it_is() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("wal");
    let change = ConfChange { node_id: 4, ..ConfChange::default() };
    let entries = (1..=100).map(|index| match index {
        90 => change_entry(90, 1, &change),
        _ => Entry { data: value(index), ..entry(index, 1) },
    });
    let store = stored(&dir, entries, 100, voters(&[1, 2, 3]), 50);
    let member = &mut Core::new(core_config(1, 6), store).unwrap();
    let batch = given(&give(member, [Event::Tick]));
    assert_eq!(batch.len(), 100);
    assert!(matches!(&batch[3], Committed::Normal { data, .. } if *data == value(4)));
    let take_over = || Event::Receive(message(MessageType::MsgTimeoutNow, 1));
    give(member, [take_over()]);
    assert_eq!(member.status().role, Role::Follower, "member 4 may have a vote");
    give(member, [Event::ConfChange { index: 90, change: Some(change) }, Event::Applied(100)]);
    give(member, [take_over()]);
    assert_eq!(member.status().role, Role::Candidate);
}

/// Member 4 votes in the snapshot, while apply reaches the older change that made it a learner.
#[test]
fn a_change_in_the_turn_of_a_snapshot_does_not_touch_its_configuration() {
    for is_snapshot_first in [true, false] {
        let follower = &mut core(1, &[1, 2, 3], 7);
        let change_type = ConfChangeType::AddLearnerNode as i32;
        let change = ConfChange { change_type, node_id: 4, ..ConfChange::default() };
        let entries = vec![entry(2, 2), change_entry(3, 2, &change)];
        let append = Message {
            index: 1,
            log_term: 1,
            commit: 3,
            entries,
            ..message(MessageType::MsgAppend, 2)
        };
        give(follower, [Event::Receive(append), Event::Applied(2)]);
        let conf_state = Some(voters(&[1, 2, 3, 4]));
        let metadata = Some(SnapshotMetadata { conf_state, index: 50, term: 2 });
        let snapshot = Some(Snapshot { metadata, ..Snapshot::default() });
        let snapshot = Message { snapshot, ..message(MessageType::MsgSnapshot, 2) };
        let snapshot = Event::ReceiveSnapshot(snapshot);
        let change = Event::ConfChange { index: 3, change: Some(change) };
        let events = if is_snapshot_first { [snapshot, change] } else { [change, snapshot] };
        let effects = give(follower, events);
        let told = effects.iter().find_map(|effect| match effect {
            Effect::ConfState { index: 3, outcome: Ok(conf_state) } => Some(conf_state.clone()),
            _ => None,
        });
        let mut told = told.unwrap();
        told.voters.sort_unstable();
        assert_eq!((told.voters, told.learners), (vec![1, 2, 3], vec![4]), "what entry 3 made");
        assert!(matches!(given(&effects).last(), Some(Committed::Snapshot { index: 50, .. })));
        give(follower, [Event::Applied(50)]);
        let mut conf_state = follower.conf_state();
        conf_state.voters.sort_unstable();
        assert_eq!(conf_state, voters(&[1, 2, 3, 4]), "snapshot first: {is_snapshot_first}");
    }
}

#[test]
fn a_leader_that_has_applied_its_removal_answers_no_reads() {
    let mut cluster = Cluster::new(5);
    let leader = cluster.elect(None);
    cluster.propose(leader, 1);
    cluster.settle(None);
    let (stays, goes) = (leader % 3 + 1, (leader + 1) % 3 + 1);
    let index = cluster.cores[&leader].status().committed;
    for id in [goes, leader] {
        cluster.give(leader, Event::ConfChange { index, change: Some(removal(id)) });
    }
    let core = cluster.cores.get_mut(&leader).unwrap();
    assert_eq!(core.status().role, Role::Leader, "the other has to hear of it");
    let entries = vec![Entry { data: value(1), ..Entry::default() }];
    let mut forwarded = Message { entries, ..message(MessageType::MsgReadIndex, 0) };
    (forwarded.to, forwarded.from) = (leader, stays);
    // The remaining member may have elected itself and committed more.
    let effects = give(core, [Event::Read(7), Event::Receive(forwarded)]);
    let answers = |effect: &Effect| matches!(effect, Effect::ReadIndex { .. });
    assert!(!effects.iter().any(answers), "{effects:?}");
    let answers = |sent: &&Message| sent.get_msg_type() == MessageType::MsgReadIndexResp;
    assert!(!sent(&effects).iter().any(answers), "{effects:?}");
    assert!(!core.answers_reads_alone());
}

#[test]
fn apply_holds_a_bounded_part_of_what_is_committed() {
    const ENTRIES: u64 = 50;
    let follower = &mut core(1, &[1, 2, 3], 7);
    let mut batches = Vec::new();
    for after in 1..=ENTRIES {
        batches.extend(given(&give(follower, [append(after, 1, 1 << 20)])));
    }
    assert_eq!(follower.status().committed, ENTRIES + 1);
    let bytes = |batch: &[Committed]| -> u64 {
        let data = batch.iter().map(|committed| match committed {
            Committed::Normal { data, .. } => data.len() as u64,
            _ => 0,
        });
        data.sum()
    };
    assert!(bytes(&batches) <= limits::APPLY_HELD_BYTES_MAX + limits::APPLY_BATCH_BYTES_MAX);
    let mut applied = 1;
    while applied <= ENTRIES {
        let committed = batches.remove(0);
        assert_eq!(committed.index(), applied + 1);
        applied = committed.index();
        batches.extend(given(&give(follower, [Event::Applied(applied)])));
    }
    assert_eq!(follower.status().applied, ENTRIES + 1);
}

/// Entries that apply has no room for are read from the log, also after they have left memory.
#[test]
fn a_member_whose_apply_waits_goes_on_where_it_was() {
    const COUNT: u64 = 90;
    let temp = tempfile::tempdir().unwrap();
    let mut member = bootstrapped(&temp.path().join("wal"));
    member.lead();
    let data = |number: u64| Bytes::from(vec![number as u8; 1 << 20]);
    for number in 0..COUNT {
        member.handle.propose(number, data(number)).unwrap();
    }
    while member.handle.status().committed < COUNT + 2 {
        let fatal = member.recorder.fatal.lock().clone();
        assert!(fatal.is_empty(), "{fatal:?}");
        std::thread::yield_now();
    }
    member.apply_until(COUNT as usize);
    assert!(member.applied.iter().zip(0..).all(|(found, number)| *found == data(number)));
    member.stop();
}

/// The log writer carries out a job before a purge that was queued earlier.
#[test]
fn a_purge_behind_a_snapshot_does_not_speak_for_it() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("wal");
    let disk: Arc<dyn Disk> = Arc::new(SystemDisk);
    let options = Options { segment_bytes: 8192, fill_ahead: false };
    let metadata = Metadata { node_id: 1, cluster_id: 2 };
    log::create(&*disk, &dir, metadata, &Batch::default(), options).unwrap();
    let record = |index| {
        let conf_state = Some(voters(&[1, 2, 3]));
        SnapshotRecord { index, term: 1, conf_state }
    };
    let state = |commit| Some(HardState { term: 1, vote: 0, commit });
    let (mut writer, ..) = log::open(&disk, &dir, options).unwrap();
    for index in 1..=600 {
        let entries = vec![Entry { data: vec![7; 64].into(), ..entry(index, 1) }];
        writer.append(&Batch { snapshot: None, entries, hard_state: state(index) }).unwrap();
        writer.write().unwrap();
    }
    let snapshot = Some(record(1000));
    writer.append(&Batch { snapshot, entries: Vec::new(), hard_state: state(1000) }).unwrap();
    writer.write().unwrap();
    writer.sync().unwrap();
    writer.purge(400, &record(550)).unwrap();
    drop(writer);
    // After a crash before the snapshot is installed, the start has to find its generation.
    let latest = || last_snapshot(&disk, &dir, options).unwrap().map(|record| record.index);
    assert_eq!(latest(), Some(1000));
    let (mut writer, _, recovered) = log::open(&disk, &dir, options).unwrap();
    assert!(recovered.table.first_index() > 550, "what is there belongs to the snapshot");
    // A log with a later record of an older state.
    let snapshot = Some(record(560));
    writer.append(&Batch { snapshot, entries: Vec::new(), hard_state: None }).unwrap();
    writer.write().unwrap();
    drop(writer);
    assert_eq!(latest(), Some(1000));
}

/// Two voters. The removal of this one is in its log, and apply's rules refuse it or not.
#[test]
fn a_member_whose_removal_was_refused_can_be_made_a_cluster_of_its_own() {
    for is_refused in [true, false] {
        let temp = tempfile::tempdir().unwrap();
        let dir = temp.path().join("wal");
        let disk: Arc<dyn Disk> = Arc::new(SystemDisk);
        let change = removal(ID);
        let entries = vec![entry(1, 1), change_entry(2, 1, &change)];
        let hard_state = Some(HardState { term: 1, vote: 0, commit: 1 });
        let config = config(&dir, (0, 0), voters(&[ID, 5]));
        let metadata = Metadata { node_id: ID, cluster_id: 1 };
        let batch = Batch { snapshot: None, entries, hard_state };
        log::create(&*disk, &dir, metadata, &batch, config.log).unwrap();
        let outcome = force_alone(&config, &disk, |found| {
            assert_eq!(*found, change);
            Ok(!is_refused)
        });
        match is_refused {
            true => assert_eq!(outcome.unwrap(), [5]),
            false => assert!(matches!(outcome, Err(Error::NoVote(ID)))),
        }
    }
}

/// A full inbox refuses what its caller can repeat. Apply cannot: its entry would stay unapplied.
#[test]
fn a_configuration_change_is_applied_though_the_inbox_is_full() {
    let temp = tempfile::tempdir().unwrap();
    let (applier, committed) = sync_channel(limits::APPLY_QUEUE_BATCHES_MAX);
    let surroundings = Surroundings {
        clock: Arc::new(SystemClock::new()),
        disk: Arc::new(SystemDisk),
        transport: Arc::new(NoTransport),
        observer: Arc::new(Recorder::default()),
        applier,
        supervisor: Supervisor::default(),
    };
    let config = config(&temp.path().join("wal"), (0, 0), ConfState::default());
    let (handle, _raft, turns) = start_stepped(config, surroundings, Some(&alone())).unwrap();
    let batch = loop {
        turns.raft().unwrap();
        turns.log().unwrap();
        if let Ok(batch) = committed.try_recv() {
            break batch;
        }
    };
    let Some(Committed::ConfChange { index, change, .. }) = batch.into_iter().next() else {
        panic!("another entry");
    };
    let refused = (0..2 * limits::RAFT_EVENTS_MAX).find_map(|_| handle.transfer_leader(9).err());
    assert!(matches!(refused, Some(Error::Busy)));
    let conf_state = handle.apply_conf_change(index, Some(change)).unwrap();
    assert_eq!(conf_state.voters, [ID]);
}
