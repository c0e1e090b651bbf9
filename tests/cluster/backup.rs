//! A snapshot saved from one cluster becomes another one.

use std::path::Path;

use rusd::pb::kv_client::KvClient;
use rusd::pb::lease_client::LeaseClient;
use rusd::pb::{
    CompactionRequest, DeleteRangeRequest, LeaseGrantRequest, LeaseTimeToLiveRequest, PutRequest,
};

use super::fixture::{Cluster, get, put};

pub fn rusd(arguments: &[&str]) {
    let done = crate::child::command(crate::child::RUSD).args(arguments).output().unwrap();
    assert!(done.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&done.stderr));
}

pub fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_saved_snapshot_becomes_a_new_cluster_of_three() {
    let old = Cluster::start(1);
    old.ready(&[0]).await;
    let channel = old.channel(0);
    for at in 0..50 {
        put(channel.clone(), &format!("k{}", at % 20), &format!("v{at}")).await.unwrap();
    }
    let large = "x".repeat(1_400_000);
    put(channel.clone(), "large", &large).await.unwrap();
    let delete = DeleteRangeRequest { key: "k3".into(), ..Default::default() };
    KvClient::new(channel.clone()).delete_range(delete).await.unwrap();
    let grant = LeaseGrantRequest { id: 7, ttl: 5000 };
    LeaseClient::new(channel.clone()).lease_grant(grant).await.unwrap();
    let leased =
        PutRequest { key: "leased".into(), value: "l".into(), lease: 7, ..Default::default() };
    KvClient::new(channel.clone()).put(leased).await.unwrap();
    let compaction = CompactionRequest { revision: 30, physical: true };
    KvClient::new(channel.clone()).compact(compaction).await.unwrap();

    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("s.db");
    rusd(&["snapshot", "save", text(&file), "--endpoints", &old.members[0].client]);
    let mut new = Cluster::empty();
    for _ in 0..3 {
        new.add();
    }
    let all: Vec<String> =
        new.members.iter().map(|member| format!("{}={}", member.name, member.peer)).collect();
    for (at, member) in new.members.iter().enumerate() {
        let data_dir = new.dir(at);
        rusd(&[
            "snapshot",
            "restore",
            text(&file),
            "--data-dir",
            text(&data_dir),
            "--name",
            &member.name,
            "--initial-cluster",
            &all.join(","),
            "--initial-advertise-peer-urls",
            &member.peer,
        ]);
    }
    for at in 0..3 {
        new.run(at, "new");
    }
    new.ready(&[0, 1, 2]).await;
    let (one, other) = (old.channel(0), new.channel(2));
    for key in ["k0", "k3", "k19", "large", "leased"] {
        let (was, is) = (get(one.clone(), key).await.unwrap(), get(other.clone(), key).await);
        assert_eq!(is.unwrap(), was, "{key}");
    }
    let question = LeaseTimeToLiveRequest { id: 7, keys: true };
    let lease = LeaseClient::new(other.clone()).lease_time_to_live(question).await.unwrap();
    assert_eq!(lease.into_inner().keys, ["leased"]);
    // Both histories go on alike from here.
    put(one, "k1", "after").await.unwrap();
    put(other, "k1", "after").await.unwrap();
    new.compare_hashes(&[0, 1, 2]).await;
    let hash = async |cluster: &Cluster| {
        let mut client = rusd::pb::maintenance_client::MaintenanceClient::new(cluster.channel(0));
        client.hash_kv(rusd::pb::HashKvRequest { revision: 0 }).await.unwrap().into_inner().hash
    };
    assert_eq!(hash(&new).await, hash(&old).await);
}
