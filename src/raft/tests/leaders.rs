//! Three cores elect leaders: the fate of proposals and reads at each change.

use super::*;

/// Reads of a member without a leader are bounded, and end.
#[test]
fn reads_without_a_leader_are_bounded_and_end() {
    let dir = tempfile::tempdir().unwrap();
    let members = (1..=3).map(|id| (id, Bytes::from_static(b"{}"))).collect();
    let bootstrap = Bootstrap { members };
    let member =
        try_start(config(dir.path(), (0, 0), ConfState::default()), Some(&bootstrap)).unwrap();
    let outcomes = Arc::new(Mutex::new(Vec::new()));
    let count = crate::limits::RAFT_READS_MAX + 5000;
    for number in 0..count {
        let outcomes = Arc::clone(&outcomes);
        member.handle.read_index(move |outcome| outcomes.lock().push(outcome));
        if number % 1000 == 0 {
            // Lets the loop take them out of the inbox, which has a bound of its own.
            std::thread::sleep(Duration::from_millis(20));
        }
    }
    let clock = SystemClock::new();
    while outcomes.lock().len() < count {
        let waited = crate::clock::Clock::now(&clock);
        assert!(waited < Duration::from_secs(60), "{} have ended", outcomes.lock().len());
        std::thread::sleep(Duration::from_millis(20));
    }
    let outcomes = outcomes.lock();
    let is = |outcome: &Result<u64, Error>, late: bool| match outcome {
        Err(Error::Late) => late,
        Err(Error::Busy) => !late,
        other => panic!("{other:?}"),
    };
    assert!(outcomes.iter().any(|outcome| is(outcome, true)));
    assert!(outcomes.iter().any(|outcome| is(outcome, false)), "as many wait as come");
}

#[test]
fn three_members_elect_commit_and_fail_over() {
    for seed in 0..20 {
        let mut cluster = Cluster::new(seed * 100);
        let first = cluster.elect(None);
        cluster.propose(first, 1);
        let follower = first % 3 + 1;
        cluster.propose(follower, 2);
        cluster.settle(None);
        cluster.give(follower, Event::Read(77));
        cluster.settle(None);
        let (token, index) = cluster.reads.pop().unwrap();
        let last = cluster.committed[&first].last().unwrap().index();
        assert_eq!((token, index), (77, last));

        // The leader is cut off; the others elect another one and commit further entries.
        let second = cluster.elect(Some(first));
        assert_ne!(first, second);
        cluster.propose(first, 3);
        cluster.give(first, Event::Read(78));
        cluster.propose(second, 4);
        cluster.settle(Some(first));
        assert!(cluster.reads.is_empty(), "a leader without a quorum answers no read");
        for _ in 0..30 {
            cluster.tick(None);
        }
        let expected = [1, 2, 4].map(value);
        for id in [1, 2, 3] {
            assert_eq!(cluster.values(id), expected, "seed {seed}, member {id}");
        }
        assert_eq!(cluster.reads.pop().map(|(token, _)| token), Some(78), "seed {seed}");
    }
}

#[test]
fn a_leader_whose_disk_stalls_gives_up() {
    for is_transfer_lost in [false, true] {
        let mut cluster = Cluster::new(3);
        let old = cluster.elect(None);
        cluster.propose(old, 1);
        cluster.settle(None);
        (cluster.stalled, cluster.is_transfer_lost) = (Some(old), is_transfer_lost);
        cluster.propose(old, 2);
        cluster.settle(None);
        for _ in 0..10 {
            cluster.tick(None);
        }
        assert_eq!(cluster.cores[&old].status().role, Role::Leader, "before an election timeout");
        for _ in 0..15 {
            cluster.tick(None);
        }
        assert_ne!(cluster.cores[&old].status().role, Role::Leader);
        let new = cluster.elect(None);
        assert_ne!(new, old, "a member that cannot write does not stand for election");
        cluster.propose(new, 3);
        cluster.settle(None);
        // Two members had the entry, so it was committed without the old leader's disk.
        assert_eq!(cluster.values(new), [value(1), value(2), value(3)]);
    }
}

#[test]
fn a_simulated_election_repeats() {
    let run = |seed| {
        let mut cluster = Cluster::new(seed);
        let mut ticks = 0;
        while cluster.cores.values().all(|core| core.status().role != Role::Leader) {
            cluster.tick(None);
            ticks += 1;
        }
        (ticks, cluster.elect(None))
    };
    for seed in 0..20 {
        assert_eq!(run(seed), run(seed));
    }
}

#[test]
fn proposals_without_a_leader_come_back() {
    let mut cluster = Cluster::new(1);
    cluster.propose(1, 5);
    cluster.propose(1, 6);
    assert_eq!(cluster.dropped, [5, 6]);
    assert_eq!(cluster.cores[&1].status().proposals_dropped, 2);
}

#[test]
fn what_a_leader_alone_may_propose_goes_with_its_term() {
    let mut cluster = Cluster::new(5);
    let old = cluster.elect(None);
    let term = cluster.cores[&old].status().term;
    let propose = |ticket, term| {
        let data = value(ticket);
        Event::Propose(vec![Proposal { ticket, data, via: Via::OwnTerm(term) }])
    };
    cluster.give(old, propose(1, term));
    cluster.give(old % 3 + 1, propose(2, term));
    cluster.give(old, propose(3, term - 1));
    cluster.settle(None);
    assert_eq!(cluster.dropped, [2, 3]);
    let new = cluster.elect(Some(old));
    for _ in 0..30 {
        cluster.tick(None);
    }
    cluster.dropped.clear();
    // A follower does not forward it to the new leader.
    cluster.give(old, propose(4, term));
    cluster.settle(None);
    assert_eq!(cluster.dropped, [4]);
    assert_eq!(cluster.values(new), [value(1)]);
}

#[test]
fn a_forwarded_change_that_finds_no_room_is_counted() {
    let mut cluster = Cluster::new(5);
    let leader = cluster.elect(None);
    let change = |node_id| ConfChange { node_id, change_type: 2, ..ConfChange::default() };
    // It is not committed, so all others wait.
    cluster.give(leader, Event::ProposeConfChange { ticket: 1, change: change(4) });
    let entries = (0..=crate::limits::CONF_CHANGES_WAITING_MAX as u64).map(|number| {
        let data = prost::Message::encode_to_vec(&change(10 + number)).into();
        Entry { entry_type: 1, data, ..Entry::default() }
    });
    let (to, from) = (leader, leader % 3 + 1);
    let mut message = Message { to, from, entries: entries.collect(), ..Message::default() };
    message.set_msg_type(MessageType::MsgPropose);
    cluster.give(leader, Event::Receive(message));
    assert_eq!(cluster.cores[&leader].status().proposals_dropped, 1);
}
