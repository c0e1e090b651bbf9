//! Everything that waits within the core is bounded.

use super::*;

#[test]
fn a_writer_that_hangs_gets_256_jobs_and_no_proposal_after_them() {
    let mut core = core(1, &[1], 0);
    let jobs = |effects: Vec<Effect>| {
        effects.iter().filter(|effect| matches!(effect, Effect::Persist(_))).count()
    };
    let mut count = jobs(core.handle([Event::Tick]));
    let mut number = 0;
    while core.has_room() {
        assert!(number < 1000, "no bound: {count} jobs");
        let proposals =
            vec![Proposal { ticket: number, data: value(number), ..Proposal::default() }];
        count += jobs(core.handle([Event::Propose(proposals)]));
        number += 1;
    }
    assert_eq!(count, 256);
    assert_eq!(core.proposals_min(), usize::MAX, "proposals wait in the inbox");
}

#[test]
fn a_follower_that_does_not_answer_gets_32_appends() {
    let mut cluster = Cluster::new(7);
    let leader = cluster.elect(None);
    cluster.propose(leader, 0);
    cluster.settle(None);
    let silent = leader % 3 + 1;
    let mut appends = 0;
    for number in 1..200 {
        cluster.propose(leader, number);
        let is_append = |message: &&Message| {
            message.to == silent
                && message.get_msg_type() == MessageType::MsgAppend
                && !message.entries.is_empty()
        };
        appends += cluster.network.iter().filter(is_append).count();
        cluster.settle(Some(silent));
    }
    assert_eq!(appends, 32);
    assert_eq!(cluster.values(leader).len(), 200, "the others go on");
}
