//! A leader that is removed.

use super::*;

#[test]
fn a_leader_that_is_to_remove_itself_hands_over_first() {
    for is_forwarded in [false, true] {
        let mut cluster = Cluster::new(5);
        let old = cluster.elect(None);
        let change = ConfChange { node_id: old, change_type: 1, ..ConfChange::default() };
        let asked = if is_forwarded { old % 3 + 1 } else { old };
        cluster.give(asked, Event::ProposeConfChange { ticket: 1, change });
        cluster.settle(None);
        let new = cluster.elect(None);
        assert_ne!(new, old);
        cluster.settle(None);
        let removed = cluster.committed[&new].iter().any(|committed| {
            matches!(committed, Committed::ConfChange { change, .. } if change.node_id == old)
        });
        assert!(removed, "the new leader gets the change");
        assert!(cluster.dropped.is_empty());
    }
}

#[test]
fn a_leader_that_is_no_member_any_more_does_not_panic() {
    let mut cluster = Cluster::new(5);
    let old = cluster.elect(None);
    let change = ConfChange { node_id: old, change_type: 1, ..ConfChange::default() };
    let index = cluster.cores[&old].status().last_index;
    cluster.stalled = Some(old);
    cluster.propose(old, 1);
    cluster.give(old, Event::ConfChange { index, change: Some(change) });
    assert_eq!(cluster.cores[&old].status().role, Role::Leader, "the others have to hear of it");
    // Raft would panic if the member still led at this report.
    cluster.give(old, Event::Persisted { number: 1000, places: Vec::new() });
    assert_eq!(cluster.cores[&old].status().role, Role::Follower);
}

#[test]
fn a_removed_leader_leaves_when_one_that_stays_knows() {
    let mut cluster = Cluster::new(5);
    let leader = cluster.elect(None);
    cluster.propose(leader, 1);
    cluster.settle(None);
    let core = &cluster.cores[&leader];
    assert!(core.may_leave(), "it is a member");
    let index = core.status().committed;
    let change = ConfChange { node_id: leader, change_type: 1, ..ConfChange::default() };
    cluster.give(leader, Event::ConfChange { index, change: Some(change) });
    for _ in 0..50 {
        cluster.tick(Some(leader));
        assert!(!cluster.cores[&leader].may_leave(), "nobody has said that he knows");
    }
    for _ in 0..50 {
        cluster.tick(None);
    }
    assert!(cluster.cores[&leader].may_leave());
}
