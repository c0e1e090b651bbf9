//! Members that die, and what the others make of it.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio::time::sleep;

use super::fixture::{Cluster, Oracle, PATIENCE, count_up, get, put};

const WRITERS: usize = 6;

fn rounds() -> usize {
    std::env::var("RUSD_CLUSTER_ROUNDS").ok().and_then(|n| n.parse().ok()).unwrap_or(4)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_members_lose_nothing() {
    let mut cluster = Cluster::start(3);
    let all = [0, 1, 2];
    cluster.ready(&all).await;
    let load = Load::start(&cluster, &all);
    for round in 0..rounds() {
        let leader = cluster.leader().await;
        let victim = if round % 2 == 0 { leader } else { (leader + 1) % 3 };
        sleep(Duration::from_millis(200)).await;
        cluster.kill(victim);
        // Two of three go on.
        load.goes_on(&cluster).await;
        cluster.run(victim, "new");
        cluster.ready(&all).await;
    }
    load.end(&cluster, &all).await;
}

/// Writers that run until they are told to end.
struct Load {
    oracle: Arc<Oracle>,
    writers: Vec<tokio::task::JoinHandle<()>>,
}

impl Load {
    fn start(cluster: &Cluster, members: &[usize]) -> Self {
        let oracle = Arc::new(Oracle::default());
        let channels: Vec<_> = members.iter().map(|at| cluster.channel(*at)).collect();
        let writer = |writer| tokio::spawn(count_up(Arc::clone(&oracle), channels.clone(), writer));
        let writers = (0..WRITERS).map(writer).collect();
        Self { oracle, writers }
    }

    /// Waits until so many more writes are acknowledged.
    async fn goes_on(&self, cluster: &Cluster) {
        let before = self.oracle.acknowledged.load(Ordering::Relaxed);
        let begun = Instant::now();
        while self.oracle.acknowledged.load(Ordering::Relaxed) < before + 20 {
            assert!(begun.elapsed() < PATIENCE, "nothing is written:\n{}", cluster.logs());
            sleep(Duration::from_millis(10)).await;
        }
    }

    async fn end(self, cluster: &Cluster, members: &[usize]) {
        self.oracle.end();
        for writer in self.writers {
            writer.await.unwrap();
        }
        self.oracle.verify(cluster, members).await;
        cluster.compare_hashes(members).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stopped_and_separated_members_mislead_nobody() {
    let cluster = Cluster::start_apart(3).await;
    let all = [0, 1, 2];
    let load = Load::start(&cluster, &all);
    for round in 0..rounds() {
        let leader = cluster.leader().await;
        let victim = if round % 2 == 0 { leader } else { (leader + 1) % 3 };
        let network = cluster.network.as_ref().unwrap();
        if round % 4 < 2 {
            let others: Vec<usize> = all.iter().copied().filter(|at| *at != victim).collect();
            network.split(&[&[victim], &others]);
            load.goes_on(&cluster).await;
            // A linearizable read finds no quorum there, and so never an old value.
            let alone = get(cluster.channel(victim), "writer/0/0");
            let alone = tokio::time::timeout(Duration::from_secs(2), alone).await;
            assert!(!matches!(alone, Ok(Ok(_))), "a separated member answers");
            network.heal();
        } else {
            cluster.signal(victim, libc::SIGSTOP);
            load.goes_on(&cluster).await;
            sleep(Duration::from_millis(500)).await;
            cluster.signal(victim, libc::SIGCONT);
        }
        cluster.ready(&all).await;
    }
    load.end(&cluster, &all).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_members_go_on_without_two_and_are_restarted_one_by_one() {
    let mut cluster = Cluster::start(5);
    let all = [0, 1, 2, 3, 4];
    cluster.ready(&all).await;
    let load = Load::start(&cluster, &all);
    let leader = cluster.leader().await;
    let other = (leader + 2) % 5;
    cluster.kill(leader);
    cluster.kill(other);
    load.goes_on(&cluster).await;
    cluster.run(leader, "new");
    cluster.run(other, "new");
    cluster.ready(&all).await;
    for at in all {
        cluster.signal(at, libc::SIGTERM);
        cluster.wait(at);
        load.goes_on(&cluster).await;
        cluster.run(at, "new");
        cluster.ready(&[at]).await;
    }
    load.end(&cluster, &all).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_member_writes_and_reads_the_latest() {
    let cluster = Cluster::start(3);
    cluster.ready(&[0, 1, 2]).await;
    for count in 0..30 {
        let value = count.to_string();
        put(cluster.channel(count % 3), "k", &value).await.unwrap();
        for at in 0..3 {
            let found = get(cluster.channel(at), "k").await.unwrap();
            assert_eq!(found.as_deref(), Some(value.as_bytes()));
        }
    }
    cluster.compare_hashes(&[0, 1, 2]).await;
}
