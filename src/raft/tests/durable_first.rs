//! What may be sent or applied only after it is on disk.

use super::*;

#[test]
fn what_waits_for_a_configuration_change_also_waits_for_the_disk() {
    let mut follower = core(1, &[1, 2, 3], 7);
    let append = |index, log_term, entry: Entry, commit| {
        let entries = vec![entry];
        let mut message = Message {
            to: 1,
            from: 2,
            term: 2,
            index,
            log_term,
            entries,
            commit,
            ..Message::default()
        };
        message.set_msg_type(MessageType::MsgAppend);
        Event::Receive(message)
    };
    let change = ConfChange { node_id: 4, ..ConfChange::default() };
    let data = Bytes::from(prost::Message::encode_to_vec(&change));
    let entry = Entry { entry_type: 1, term: 2, index: 2, data, ..Entry::default() };
    let job = |effects: &[Effect]| {
        effects.iter().find_map(|effect| match effect {
            Effect::Persist(job) => Some(job.number),
            _ => None,
        })
    };
    let sends = |effects: &[Effect]| {
        effects
            .iter()
            .any(|effect| matches!(effect, Effect::Send(messages) if !messages.is_empty()))
    };
    let first = job(&follower.handle([append(1, 1, entry, 1)])).unwrap();
    follower.handle([Event::Persisted { number: first, places: Vec::new() }]);
    let entry = Entry { term: 2, index: 3, data: Bytes::from_static(b"x"), ..Entry::default() };
    let effects = follower.handle([append(2, 2, entry, 2)]);
    let second = job(&effects).unwrap();
    assert!(!sends(&effects));
    let effects =
        follower.handle([Event::ConfChange { index: 2, change: Some(change) }, Event::Applied(2)]);
    assert!(!sends(&effects), "entry 3 is acknowledged before it is durable");
    let effects = follower.handle([Event::Persisted { number: second, places: Vec::new() }]);
    assert!(sends(&effects));
}

#[test]
fn nothing_is_committed_or_sent_before_it_is_durable() {
    let mut core = core(1, &[1], 0);
    let effects = core.handle([Event::Tick]);
    let jobs = |effects: Vec<Effect>| -> Vec<Job> {
        effects
            .into_iter()
            .filter_map(|effect| match effect {
                Effect::Persist(job) => Some(job),
                Effect::Commit(_) => panic!("committed before it was durable"),
                _ => None,
            })
            .collect()
    };
    let elected = jobs(effects);
    assert_eq!(elected.len(), 1);
    assert!(elected[0].sync);
    assert_eq!(core.status().role, Role::Leader);
    let first = core.handle([Event::Propose(vec![Proposal {
        ticket: 0,
        data: value(0),
        ..Proposal::default()
    }])]);
    let first = jobs(first);
    let second = core.handle([Event::Propose(vec![Proposal {
        ticket: 1,
        data: value(1),
        ..Proposal::default()
    }])]);
    let second = jobs(second);
    let persisted = |job: &Job| Event::Persisted { number: job.number, places: Vec::new() };
    let indexes = |effects: Vec<Effect>| -> Vec<u64> {
        let commits = effects.into_iter().filter_map(|effect| match effect {
            Effect::Commit(entries) => Some(entries),
            _ => None,
        });
        commits.flatten().map(|committed| committed.index()).collect()
    };
    assert_eq!(indexes(core.handle([persisted(&first[0])])), [2, 3]);
    assert_eq!(indexes(core.handle([persisted(&second[0])])), [4]);
}

/// A removed member ends once it hears of the commit. Members that then lost the commit in a power
/// cut would need its vote.
#[test]
fn the_commit_of_a_removal_is_durable_before_it_is_told() {
    let mut cluster = Cluster::new(5);
    let leader = cluster.elect(None);
    let change = ConfChange { node_id: leader % 3 + 1, change_type: 1, ..ConfChange::default() };
    cluster.give(leader, Event::ProposeConfChange { ticket: 1, change: change.clone() });
    let index = cluster.cores[&leader].status().last_index;
    let (mut synced, mut told) = (Vec::new(), 0);
    while let Some(message) = cluster.network.pop() {
        let to = message.to;
        let mut events = vec![Event::Receive(message)];
        while !events.is_empty() {
            let core = cluster.cores.get_mut(&to).unwrap();
            for effect in core.handle(std::mem::take(&mut events)) {
                match effect {
                    Effect::Persist(job) => {
                        let state = job.batch.hard_state.as_ref();
                        if job.sync && state.is_some_and(|state| state.commit >= index) {
                            synced.push(to);
                        }
                        cluster.network.extend(job.messages);
                        let (number, places) = (job.number, Vec::new());
                        events.push(Event::Persisted { number, places });
                    }
                    Effect::Send(messages) => {
                        for message in &messages {
                            assert!(message.commit < index || synced.contains(&to), "{message:?}");
                        }
                        cluster.network.extend(messages);
                    }
                    Effect::Commit(entries) => {
                        assert_eq!(entries.last().unwrap().index(), index);
                        told += 1;
                        let change = Some(change.clone());
                        events.extend([Event::ConfChange { index, change }, Event::Applied(index)]);
                    }
                    _ => {}
                }
            }
        }
    }
    assert_eq!((told, synced.len()), (3, 3), "everybody hears of it");
}
