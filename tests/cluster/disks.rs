//! Disks that fail or stall under the log.

use std::time::{Duration, Instant};

use rusd::pb::kv_client::KvClient;
use rusd::pb::maintenance_client::MaintenanceClient;
use rusd::pb::{RangeRequest, StatusRequest};
use tokio::time::{sleep, timeout};

use super::fixture::{Cluster, PATIENCE, get, put};
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_the_logs_of_a_quorum_serializable_reads_alone_are_answered() {
    let cluster = Cluster::start_on_bad_disks(3);
    let all = [0, 1, 2];
    cluster.ready(&all).await;
    put(cluster.channel(0), "k", "v").await.unwrap();
    let leader = cluster.leader().await;
    let stalled = [leader, (leader + 1) % 3];
    stalled.iter().for_each(|at| cluster.spoil_disk(*at, "stall"));
    // What is proposed waits for the disks, which is how they are noticed.
    let writer = tokio::spawn(put(cluster.channel(leader), "k", "w"));
    let begun = Instant::now();
    // The others' raft may be within a write that does not end.
    for at in all.into_iter().filter(|at| !stalled.contains(at)) {
        let mut client = MaintenanceClient::new(cluster.channel(at));
        while client.status(StatusRequest {}).await.unwrap().into_inner().leader != 0 {
            assert!(begun.elapsed() < PATIENCE, "member {at} has a leader:\n{}", cluster.logs());
            sleep(Duration::from_millis(20)).await;
        }
    }
    for at in all {
        let read = RangeRequest { key: "k".into(), serializable: true, ..Default::default() };
        let mut client = KvClient::new(cluster.channel(at));
        assert_eq!(client.range(read).await.unwrap().into_inner().count, 1, "member {at}");
        let read = timeout(Duration::from_secs(1), get(cluster.channel(at), "k")).await;
        assert!(!matches!(read, Ok(Ok(_))), "member {at}: {read:?}");
    }
    stalled.iter().for_each(|at| cluster.repair_disk(*at, "stall"));
    cluster.ready(&all).await;
    drop(writer.await.unwrap());
    cluster.compare_hashes(&all).await;
}
