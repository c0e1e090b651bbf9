//! A member whose data differs from the others' is found, and kept from harm.

use std::path::Path;
use std::time::Duration;

use rusd::pb::maintenance_client::MaintenanceClient;
use rusd::pb::{AlarmRequest, AlarmType};

use super::backup::{rusd, text};
use super::fixture::{Cluster, get, put};
use super::membership::list;

/// Saves a snapshot of as many revisions as another, with another value.
async fn save(value: &str, file: &Path) {
    let old = Cluster::start(1);
    old.ready(&[0]).await;
    for at in 0..20 {
        put(old.channel(0), &format!("k{}", at % 7), value).await.unwrap();
    }
    rusd(&["snapshot", "save", text(file), "--endpoints", &old.members[0].client]);
}

/// Three members of one cluster, of which the last one has been given another history.
async fn restored() -> Cluster {
    let dir = tempfile::tempdir().unwrap();
    let files = [dir.path().join("a.db"), dir.path().join("b.db")];
    save("a", &files[0]).await;
    save("b", &files[1]).await;
    let mut cluster = Cluster::empty();
    for _ in 0..3 {
        cluster.add();
    }
    let all: Vec<String> =
        cluster.members.iter().map(|member| format!("{}={}", member.name, member.peer)).collect();
    for (at, member) in cluster.members.iter().enumerate() {
        let data_dir = cluster.dir(at);
        rusd(&[
            "snapshot",
            "restore",
            text(&files[at / 2]),
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
    cluster
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_with_other_data_does_not_start() {
    let mut cluster = restored().await;
    let gate = ["--feature-gates", "InitialCorruptCheck=true"];
    for at in 0..2 {
        cluster.run_with(at, &gate);
    }
    cluster.ready(&[0, 1]).await;
    cluster.run_with(2, &gate);
    assert_eq!(cluster.wait(2), Some(1));
    let log = cluster.log(2);
    assert!(log.contains("found different hash values from remote peer"), "{log}");
    assert!(log.contains("found data inconsistency with peers"), "{log}");
    put(cluster.channel(0), "k0", "after").await.unwrap();
    // Who has the same data may come and go.
    cluster.kill(1);
    cluster.run_with(1, &gate);
    cluster.ready(&[0, 1]).await;
    assert!(cluster.log(1).contains("initial corruption checking passed; no corruption"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_leader_raises_the_alarm_for_a_member_with_other_data() {
    let mut cluster = restored().await;
    for at in 0..2 {
        cluster.run_with(at, &["--corrupt-check-time", "500ms"]);
    }
    cluster.ready(&[0, 1]).await;
    cluster.run_with(2, &[]);
    let all = list(&cluster, 0).await;
    let damaged = all.iter().find(|member| member.peer_ur_ls == [cluster.members[2].peer.clone()]);
    let damaged = damaged.unwrap().id;
    let list = AlarmRequest { action: 0, member_id: 0, alarm: 0 };
    let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
    loop {
        let mut client = MaintenanceClient::new(cluster.channel(0));
        let alarms =
            client.alarm(list).await.map_or_else(|_| Vec::new(), |it| it.into_inner().alarms);
        if let [alarm] = alarms.as_slice() {
            assert_eq!((alarm.alarm, alarm.member_id), (AlarmType::Corrupt as i32, damaged));
            break;
        }
        assert!(tokio::time::Instant::now() < deadline, "no alarm: {}", cluster.logs());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let refused = put(cluster.channel(1), "k0", "after").await.unwrap_err();
    assert_eq!(refused.message(), "etcdserver: corrupt cluster");
    assert_eq!(refused.code(), tonic::Code::DataLoss);
    assert_eq!(get(cluster.channel(0), "k0").await.unwrap().unwrap(), "a", "reads go on");
}
