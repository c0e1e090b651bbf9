//! Messages that are refused before the `raft` crate sees them.

use super::*;
use crate::limits;

#[test]
fn messages_at_which_raft_panics_are_refused() {
    use MessageType::*;
    let follower = &mut core(1, &[1, 2, 3], 0);
    for kind in [0, 1, 10, 11, 12, 19, 20, 21, 22, 23, 99, -1] {
        let message = Message { msg_type: kind, ..message(MsgHeartbeat, 1) };
        assert_eq!(refusal(follower, message), Some(Refusal::Type), "{kind}");
    }
    for (from, to) in [(2, 3), (1, 1), (0, 1)] {
        let message = Message { from, to, ..message(MsgHeartbeat, 1) };
        assert_eq!(refusal(follower, message), Some(Refusal::Address));
    }
    for kind in [MsgAppend, MsgHeartbeat, MsgAppendResponse, MsgRequestVote, MsgTransferLeader] {
        assert_eq!(refusal(follower, message(kind, 0)), Some(Refusal::Term), "{kind:?}");
    }
    // Terms behind which there would be none for the next election.
    for term in [limits::RAFT_TERM_HIGH + limits::RAFT_TERM_RISE_MAX, i64::MAX as u64, u64::MAX] {
        assert_eq!(refusal(follower, message(MsgRequestVote, term)), Some(Refusal::Term), "{term}");
    }
    for kind in [MsgPropose, MsgReadIndex] {
        let with_entry = Message { entries: vec![entry(0, 0)], ..message(kind, 1) };
        assert_eq!(refusal(follower, with_entry), Some(Refusal::Term), "{kind:?}");
    }
    for (kind, term) in [(MsgPropose, 0), (MsgReadIndex, 0), (MsgReadIndexResp, 1)] {
        assert_eq!(refusal(follower, message(kind, term)), Some(Refusal::EntryCount), "{kind:?}");
    }
    let append =
        |index, log_term, entries| Message { index, log_term, entries, ..message(MsgAppend, 3) };
    for bad in [
        append(1, 1, vec![entry(3, 3)]),
        append(1, 1, vec![entry(2, 3), entry(4, 3)]),
        append(1, 1, vec![entry(2, 3), entry(3, 2)]),
        append(1, 1, vec![entry(2, 4)]),
        append(9, 0, vec![entry(10, 3)]),
        append(u64::MAX, 1, vec![entry(0, 3)]),
    ] {
        assert_eq!(refusal(follower, bad), Some(Refusal::EntryOrder));
    }
    let typed = |kind| Entry { entry_type: kind, data: value(1), ..entry(2, 3) };
    for kind in [1, 2, 3, -1] {
        let bad = append(1, 1, vec![typed(kind)]);
        assert_eq!(refusal(follower, bad), Some(Refusal::EntryType), "{kind}");
    }
    let far = Message { commit: 2, ..message(MsgHeartbeat, 1) };
    assert_eq!(refusal(follower, far), Some(Refusal::Index));
    assert_eq!(refusal(follower, message(MsgSnapshot, 1)), Some(Refusal::Snapshot));
    assert_eq!(refusal(follower, message(MsgTransferLeader, 1)), Some(Refusal::Election));
    assert_eq!(follower.status().messages_refused, 41);
    assert_eq!(refusal(follower, append(1, 1, vec![entry(2, 3)])), None);
    assert_eq!(follower.status().last_index, 2);

    let sole = &mut core(1, &[1], 0);
    assert_eq!(refusal(sole, message(MsgTimeoutNow, 5)), Some(Refusal::Election));
    assert_eq!(sole.status().role, Role::Leader);
    assert_eq!(refusal(sole, message(MsgRequestVote, 5)), Some(Refusal::NotMember));
}

#[test]
fn a_leader_refuses_what_it_cannot_have_caused() {
    use MessageType::*;
    let mut cluster = Cluster::new(3);
    let leader = cluster.elect(None);
    let other = leader % 3 + 1;
    let core = cluster.cores.get_mut(&leader).unwrap();
    let term = core.status().term;
    let message = |kind| Message { to: leader, from: other, ..message(kind, term) };
    let beyond = Message { index: 1000, ..message(MsgAppendResponse) };
    assert_eq!(refusal(core, beyond), Some(Refusal::Index));
    let beyond = Message { reject: true, reject_hint: u64::MAX, ..message(MsgAppendResponse) };
    assert_eq!(refusal(core, beyond), Some(Refusal::Index));
    let stranger = Message { from: 9, ..message(MsgHeartbeatResponse) };
    assert_eq!(refusal(core, stranger), Some(Refusal::NotMember));
    let committed =
        Message { index: 1, log_term: 1, entries: vec![entry(2, 1)], ..message(MsgAppend) };
    assert_eq!(refusal(core, committed), Some(Refusal::Committed));

    // Raft would replace a second change by an empty entry, so it waits for the first.
    let data = prost::Message::encode_to_vec(&ConfChange { node_id: 4, ..ConfChange::default() });
    let change = Entry { entry_type: 1, data: data.into(), ..Entry::default() };
    let propose = || Message { term: 0, entries: vec![change.clone()], ..message(MsgPropose) };
    assert_eq!(refusal(core, propose()), None);
    let last_index = core.status().last_index;
    assert_eq!(refusal(core, propose()), None);
    assert_eq!(core.status().last_index, last_index);
}
