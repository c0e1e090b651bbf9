//! The families that take several members, under the work that they count; `tests/server/metrics.rs`
//! has those of a single one.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use rusd::pb::cluster_client::ClusterClient;
use rusd::pb::{MemberAddRequest, MemberPromoteRequest};
use tokio::time::{sleep, timeout};

use super::fixture::{Cluster, PATIENCE, get, put};
use super::scrape::Scrape;

const STOP: i32 = 19;
const CONTINUE: i32 = 18;

/// The event, and the families that it moves on some member.
const DRIVEN: &[(&str, &[&str])] = &[
    (
        "three members meet",
        &[
            "etcd_network_active_peers",
            "etcd_network_peer_received_bytes_total",
            "etcd_network_peer_round_trip_time_seconds",
            "etcd_network_peer_sent_bytes_total",
        ],
    ),
    (
        "a member comes back by a snapshot",
        &[
            "etcd_network_disconnected_peers_total",
            "etcd_network_peer_sent_failures_total",
            "etcd_network_snapshot_receive_success",
            "etcd_network_snapshot_receive_total_duration_seconds",
            "etcd_network_snapshot_send_success",
            "etcd_network_snapshot_send_total_duration_seconds",
            "etcd_snap_db_fsync_duration_seconds",
            "etcd_snap_db_save_total_duration_seconds",
        ],
    ),
    ("a learner is there", &["etcd_server_learner_promote_failures", "etcd_server_is_learner"]),
    ("the learner votes", &["etcd_server_learner_promote_successes"]),
    ("the leader stands still", &["etcd_server_heartbeat_send_failures_total"]),
    (
        "the quorum is gone",
        &[
            "etcd_server_proposals_failed_total",
            "etcd_server_read_indexes_failed_total",
            "etcd_server_slow_read_indexes_total",
        ],
    ),
];

/// Notes which families have moved on some member since the event before.
struct Watcher {
    before: Vec<Scrape>,
}

impl Watcher {
    async fn look(cluster: &Cluster) -> Vec<Scrape> {
        let mut found = Vec::new();
        for member in &cluster.members {
            found.push(Scrape::of_async(member.client.trim_start_matches("http://")).await);
        }
        found
    }

    /// Waits until the families of the event have moved.
    async fn expect(&mut self, cluster: &Cluster, event: &str) {
        let families = DRIVEN.iter().find(|(name, _)| *name == event).unwrap().1;
        let mut missing: BTreeSet<&str> = families.iter().copied().collect();
        let begun = Instant::now();
        while !missing.is_empty() {
            let now = Self::look(cluster).await;
            let nothing = Scrape::default();
            missing.retain(|family| {
                let mut members = now.iter().enumerate();
                !members.any(|(at, scrape)| {
                    scrape.has_moved(self.before.get(at).unwrap_or(&nothing), family)
                })
            });
            let is_late = begun.elapsed() > PATIENCE;
            assert!(!is_late, "{event} does not move {missing:?}:\n{}", cluster.logs());
            sleep(Duration::from_millis(50)).await;
        }
    }

    /// What is shown from here on counts for the next event.
    async fn begin(&mut self, cluster: &Cluster) {
        self.before = Self::look(cluster).await;
    }
}

/// Adds a fourth member, which is refused as a voter until it has started.
async fn promote_a_learner(cluster: &mut Cluster, watcher: &mut Watcher, leader: usize) {
    watcher.begin(cluster).await;
    let learner = cluster.add();
    let peer_ur_ls = vec![cluster.members[learner].peer.clone()];
    let mut client = ClusterClient::new(cluster.channel(leader));
    let request = MemberAddRequest { peer_ur_ls, is_learner: true };
    let adding = async {
        loop {
            // Refused for some seconds after a member was away.
            if let Ok(added) = client.member_add(request.clone()).await {
                return added.into_inner().member.unwrap();
            }
            sleep(Duration::from_millis(100)).await;
        }
    };
    let added = timeout(PATIENCE, adding).await.unwrap();
    let promote = MemberPromoteRequest { id: added.id };
    client.member_promote(promote).await.unwrap_err();
    cluster.run(learner, "existing");
    watcher.expect(cluster, "a learner is there").await;

    watcher.begin(cluster).await;
    let promoted = async {
        while client.member_promote(promote).await.is_err() {
            sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(PATIENCE, promoted).await.unwrap();
    watcher.expect(cluster, "the learner votes").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_family_of_a_cluster_moves_under_the_work_that_it_counts() {
    let mut cluster = Cluster::start_with_short_logs().await;
    let mut watcher = Watcher { before: Vec::new() };
    watcher.expect(&cluster, "three members meet").await;

    let leader = cluster.leader().await;
    let away = (leader + 1) % 3;
    watcher.begin(&cluster).await;
    // A process that starts again counts from zero.
    watcher.before[away] = Scrape::default();
    cluster.kill(away);
    for at in 0..200 {
        put(cluster.channel(leader), &format!("k{at}"), "v").await.unwrap();
    }
    sleep(Duration::from_millis(300)).await;
    put(cluster.channel(leader), "last", "v").await.unwrap();
    cluster.run_with_short_log(away);
    cluster.ready(&[away]).await;
    watcher.expect(&cluster, "a member comes back by a snapshot").await;

    promote_a_learner(&mut cluster, &mut watcher, leader).await;

    let leader = cluster.leader().await;
    watcher.begin(&cluster).await;
    // Too short for an election, and longer than the leader may be late.
    cluster.signal(leader, STOP);
    sleep(Duration::from_millis(400)).await;
    cluster.signal(leader, CONTINUE);
    watcher.expect(&cluster, "the leader stands still").await;

    let leader = cluster.leader().await;
    cluster.ready(&[leader]).await;
    watcher.begin(&cluster).await;
    let others: Vec<usize> = (0..4).filter(|at| *at != leader).collect();
    for at in &others {
        cluster.signal(*at, STOP);
    }
    let (channel, other) = (cluster.channel(leader), cluster.channel(leader));
    let (written, read) = tokio::join!(put(channel, "nobody", "v"), get(other, "nobody"));
    assert!(written.is_err() && read.is_err());
    for at in &others {
        cluster.signal(*at, CONTINUE);
    }
    watcher.expect(&cluster, "the quorum is gone").await;
}
