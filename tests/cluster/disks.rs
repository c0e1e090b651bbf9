//! Disks that fail or stall under the log.

use super::fixture::Cluster;
use super::oracle::Load;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_whose_log_cannot_be_written_ends_and_the_others_go_on() {
    let mut cluster = Cluster::start_on_bad_disks(3);
    let all = [0, 1, 2];
    cluster.ready(&all).await;
    let load = Load::start(&cluster, &all);
    for fault in ["badsync", "badwrite"] {
        let victim = cluster.leader().await;
        cluster.spoil_disk(victim, fault);
        // Not tried again: what a disk lost once it may claim to have the next time.
        assert_ne!(cluster.wait(victim), Some(0), "{fault}");
        load.goes_on(&cluster).await;
        cluster.repair_disk(victim, fault);
        cluster.run(victim, "new");
        cluster.ready(&all).await;
    }
    load.end(&cluster, &all).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_whose_disk_stalls_gives_up_leadership() {
    let cluster = Cluster::start_on_bad_disks(3);
    let all = [0, 1, 2];
    cluster.ready(&all).await;
    let load = Load::start(&cluster, &all);
    let stalled = cluster.leader().await;
    cluster.spoil_disk(stalled, "stall");
    cluster.leader_but(stalled).await;
    load.goes_on(&cluster).await;
    cluster.repair_disk(stalled, "stall");
    cluster.ready(&all).await;
    load.end(&cluster, &all).await;
}
