//! The checks before a change of the members is proposed.

use super::*;
use crate::apply;

/// In etcd's order: the quorum, the URLs, the number of learners.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_may_not_be_added_is_refused_for_the_first_reason() {
    let dir = tempfile::tempdir().unwrap();
    let (node, clock) = start_bent(dir.path()).await;
    let nobody = Credentials::default();
    let add = async |host: &str, is_learner: bool| {
        // Without this, the same URLs within a second would give the same member id.
        clock.wall_seconds.fetch_add(1, Ordering::Relaxed);
        let urls = vec![format!("http://{host}:2380")];
        node.add_member(&nobody, urls, is_learner).await.map(drop)
    };
    assert_eq!(add("learner", true).await, Ok(()));
    assert_eq!(add("learner", true).await, Err(Error::Apply(apply::Error::PeerUrlExist)));
    assert_eq!(add("localhost", true).await, Err(Error::Apply(apply::Error::PeerUrlExist)));
    assert_eq!(add("another", true).await, Err(Error::TooManyLearners));
    assert_eq!(add("learner", false).await, Err(Error::Apply(apply::Error::PeerUrlExist)));
    assert_eq!(add("voter", false).await, Ok(()));
    // The new voter has not started: that is reported before anything else.
    assert_eq!(add("voter", false).await, Err(Error::Apply(apply::Error::MemberNotEnoughStarted)));
    assert_eq!(add("voter", true).await, Err(Error::Unhealthy));
    assert_eq!(add("another", true).await, Err(Error::Unhealthy));
    node.stop().await;
}

#[tokio::test]
async fn what_a_leader_knows_of_a_learner_is_looked_at_twice() {
    let pause = 2 * config(std::path::Path::new("")).heartbeat_interval;
    let clock = Bent::new();
    *clock.skips.lock() = Some(pause);
    for (answers, expected, sleeps) in
        [([true, false], true, 0), ([false, true], true, 1), ([false, false], false, 1)]
    {
        clock.skipped.store(0, Ordering::Relaxed);
        let looks = AtomicUsize::new(0);
        let look = || Ok(answers[looks.fetch_add(1, Ordering::Relaxed)]);
        let holds = crate::node::membership::holds_now_or_after(pause, &*clock, look).await;
        assert_eq!(holds, Ok(expected), "{answers:?}");
        assert_eq!(clock.skipped.load(Ordering::Relaxed), sleeps, "{answers:?}");
    }
}
