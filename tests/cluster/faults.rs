//! Members that die, stop, lose their disks or each other, and what the others make of it.

use std::time::{Duration, Instant};

use rusd::clock::split_mix;
use rusd::pb::alarm_request::AlarmAction;
use rusd::pb::maintenance_client::MaintenanceClient;
use rusd::pb::{AlarmRequest, MemberAddRequest, MemberPromoteRequest, MemberRemoveRequest};
use tokio::time::{sleep, timeout};

use super::fixture::{Cluster, PATIENCE, get, put};
use super::membership::{client, id_of, until_healthy};
use super::oracle::Load;

/// Few kinds for each size of cluster, unless more are asked for: nine rounds have one of each.
fn rounds() -> usize {
    std::env::var("RUSD_CLUSTER_ROUNDS").ok().and_then(|n| n.parse().ok()).unwrap_or(4)
}

/// The kinds of faults in their order, or those which `RUSD_CLUSTER_FAULTS` names.
fn kinds() -> Vec<Fault> {
    let wanted = std::env::var("RUSD_CLUSTER_FAULTS").unwrap_or_default();
    let is_wanted = |kind: &Fault| wanted.split(',').any(|name| name == format!("{kind:?}"));
    let some: Vec<Fault> = KINDS.into_iter().filter(is_wanted).collect();
    if some.is_empty() { KINDS.to_vec() } else { some }
}

#[derive(Clone, Copy, Debug)]
enum Fault {
    Kill,
    Stop,
    Separate,
    /// Others do not hear the member, but it hears them.
    Mute,
    /// The other way round.
    Deafen,
    FillDisk,
    Replace,
    RestartAll,
    KillAll,
}

const KINDS: [Fault; 9] = [
    Fault::Kill,
    Fault::Separate,
    Fault::FillDisk,
    Fault::Mute,
    Fault::Stop,
    Fault::Replace,
    Fault::Deafen,
    Fault::RestartAll,
    Fault::KillAll,
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_members_lose_nothing_to_any_fault() {
    survive(3, 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_members_lose_nothing_to_any_fault() {
    survive(5, 4).await;
}

/// Every round one fault, under load, at the leader or at another member in turns.
async fn survive(count: usize, first: usize) {
    let mut cluster = Cluster::start_apart(count).await;
    let all: Vec<usize> = (0..count).collect();
    let load = Load::start(&cluster, &all);
    let kinds = kinds();
    for round in first..first + rounds() {
        let begun = Instant::now();
        let fault = kinds[round % kinds.len()];
        let leader = cluster.leader().await;
        let offset = split_mix(round as u64) as usize % (count - 1) + 1;
        // Each kind meets both, in its turn and again when all kinds had theirs.
        let at_leader = (round % kinds.len() + round / kinds.len()).is_multiple_of(2);
        let victim = if at_leader { leader } else { (leader + offset) % count };
        println!("round {round} of {count} members: {fault:?} at {victim}, leader {leader}");
        sleep(Duration::from_millis(100)).await;
        inflict(&mut cluster, &load, fault, victim, &all).await;
        load.assert_running();
        cluster.ready(&all).await;
        println!("round {round} of {count} members: over after {:?}", begun.elapsed());
    }
    load.end(&cluster, &all).await;
}

async fn inflict(cluster: &mut Cluster, load: &Load, fault: Fault, victim: usize, all: &[usize]) {
    let others: Vec<usize> = all.iter().copied().filter(|at| *at != victim).collect();
    let network = cluster.network.clone().unwrap();
    match fault {
        Fault::Kill => {
            cluster.kill(victim);
            let killed = Instant::now();
            put_somewhere(cluster, &others).await;
            println!("put after a kill: {:?}", killed.elapsed());
            load.goes_on(cluster).await;
            cluster.run(victim, "new");
        }
        Fault::Stop => {
            cluster.signal(victim, libc::SIGSTOP);
            load.goes_on(cluster).await;
            sleep(Duration::from_millis(500)).await;
            cluster.signal(victim, libc::SIGCONT);
        }
        Fault::Separate => {
            network.split(&[&[victim], &others]);
            load.goes_on(cluster).await;
            // A linearizable read finds no quorum there, once what was on its way has arrived.
            let begun = Instant::now();
            loop {
                let alone = get(cluster.channel(victim), "none");
                let Ok(Ok(_)) = timeout(Duration::from_secs(2), alone).await else { break };
                assert!(begun.elapsed() < PATIENCE, "a separated member answers");
            }
            network.heal();
        }
        Fault::Mute => {
            network.silence(&[victim], &others);
            load.goes_on(cluster).await;
            network.heal();
        }
        Fault::Deafen => {
            network.silence(&others, &[victim]);
            load.goes_on(cluster).await;
            network.heal();
        }
        Fault::FillDisk => fill_disk(cluster, load, victim).await,
        Fault::Replace => replace(cluster, load, victim, others[0]).await,
        Fault::RestartAll => {
            for at in all {
                cluster.signal(*at, libc::SIGTERM);
                cluster.wait(*at);
                load.goes_on(cluster).await;
                cluster.run(*at, "new");
                cluster.ready(&[*at]).await;
            }
        }
        Fault::KillAll => {
            for at in all {
                cluster.signal(*at, libc::SIGKILL);
            }
            for at in all {
                cluster.wait(*at);
                cluster.run(*at, "new");
            }
            cluster.ready(all).await;
            load.goes_on(cluster).await;
        }
    }
}

/// Writes as a client does that knows all these members.
async fn put_somewhere(cluster: &Cluster, members: &[usize]) {
    let begun = Instant::now();
    for at in members.iter().cycle() {
        let write = put(cluster.channel(*at), "after", "v");
        if let Ok(Ok(_)) = timeout(Duration::from_secs(2), write).await {
            return;
        }
        assert!(begun.elapsed() < PATIENCE, "nothing is written:\n{}", cluster.logs());
        sleep(Duration::from_millis(10)).await;
    }
}

/// A member without space refuses or ends; with space, nothing is missing.
async fn fill_disk(cluster: &mut Cluster, load: &Load, victim: usize) {
    cluster.spoil_disk(victim, "full");
    // Something large, so that the store has to grow; refused once it cannot.
    let begun = Instant::now();
    let large = "x".repeat(200_000);
    let mut is_refused = false;
    while begun.elapsed() < Duration::from_secs(3) && !cluster.has_ended(victim) && !is_refused {
        let write = put(cluster.channel(victim), "large", &large);
        let outcome = timeout(Duration::from_secs(1), write).await;
        let full = |status: &tonic::Status| status.code() == tonic::Code::ResourceExhausted;
        is_refused = matches!(outcome, Ok(Err(status)) if full(&status));
    }
    println!("full disk: refused {is_refused}, ended {}", cluster.has_ended(victim));
    cluster.repair_disk(victim, "full");
    if cluster.has_ended(victim) {
        cluster.kill(victim);
        cluster.run(victim, "new");
    }
    cluster.ready(&[victim]).await;
    // The member may raise its alarm late.
    let disarmed = async {
        loop {
            let request =
                AlarmRequest { action: AlarmAction::Deactivate as i32, ..AlarmRequest::default() };
            let mut maintenance = MaintenanceClient::new(cluster.channel(victim));
            let get = AlarmRequest { action: AlarmAction::Get as i32, ..request };
            if let Ok(active) = maintenance.alarm(get).await {
                for alarm in active.into_inner().alarms {
                    let request =
                        AlarmRequest { member_id: alarm.member_id, alarm: alarm.alarm, ..request };
                    let _ = maintenance.alarm(request).await;
                }
            }
            let write = put(cluster.channel(victim), "large", "");
            if let Ok(Ok(_)) = timeout(Duration::from_secs(2), write).await {
                return;
            }
            sleep(Duration::from_millis(50)).await;
        }
    };
    if timeout(PATIENCE, disarmed).await.is_err() {
        panic!("no space after it was given back:\n{}", cluster.logs());
    }
    load.goes_on(cluster).await;
}

/// Removes a member and puts an empty one in its place: where there are many, as a learner that is
/// promoted.
async fn replace(cluster: &mut Cluster, load: &Load, victim: usize, other: usize) {
    let id = id_of(cluster, victim).await;
    let remove = MemberRemoveRequest { id };
    let begun = Instant::now();
    loop {
        let removed = async || client(cluster, other).member_remove(remove).await;
        let Err(status) = until_healthy(removed).await else { break };
        // A leader that goes may take the answer with it, and a connection the request.
        let list = super::membership::list(cluster, other).await;
        if list.iter().all(|member| member.id != id) {
            break;
        }
        assert!(status.message().contains("timed out"), "{status}: {list:?}");
        assert!(begun.elapsed() < PATIENCE, "{status}: {list:?}");
    }
    let code = cluster.wait(victim);
    assert_eq!(code, Some(0), "a removed member ends with success:\n{}", cluster.logs());
    cluster.wipe(victim);
    load.goes_on(cluster).await;
    let url = cluster.members[victim].peer.clone();
    let is_learner = cluster.members.len() > 3;
    let add = MemberAddRequest { peer_ur_ls: vec![url.clone()], is_learner };
    let begun = Instant::now();
    let id = loop {
        let added = async || client(cluster, other).member_add(add.clone()).await;
        let status = match until_healthy(added).await {
            Ok(added) => break added.into_inner().member.unwrap().id,
            Err(status) => status,
        };
        let list = super::membership::list(cluster, other).await;
        if let Some(added) = list.iter().find(|member| member.peer_ur_ls == [url.as_str()]) {
            break added.id;
        }
        assert!(status.message().contains("timed out"), "{status}: {list:?}");
        assert!(begun.elapsed() < PATIENCE, "{status}: {list:?}");
    };
    cluster.network.as_ref().unwrap().name(victim, id);
    cluster.run(victim, "existing");
    if is_learner {
        let promote = MemberPromoteRequest { id };
        let promoted = async || client(cluster, other).member_promote(promote).await;
        until_healthy(promoted).await.unwrap();
    }
    cluster.ready(&[victim]).await;
    load.goes_on(cluster).await;
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

/// The lines of a member's log with this message.
fn told(cluster: &Cluster, at: usize, message: &str) -> Vec<serde_json::Value> {
    let log = cluster.log(at);
    let lines = log.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    lines.filter(|line| line["msg"] == message).collect()
}

async fn wait_told(cluster: &Cluster, at: usize, message: &str) -> serde_json::Value {
    let told = async {
        loop {
            if let [line, ..] = &told(cluster, at, message)[..] {
                return line.clone();
            }
            sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(PATIENCE, told).await.unwrap_or_else(|_| panic!("no {message}:\n{}", cluster.logs()))
}

#[tokio::test]
async fn a_quorum_that_is_lost_is_told_once_with_who_is_missing() {
    let mut cluster = Cluster::start(3);
    cluster.ready(&[0, 1, 2]).await;
    let leader = cluster.leader().await;
    let stays = (leader + 1) % 3;
    let other = (leader + 2) % 3;
    assert_eq!(told(&cluster, stays, "quorum lost"), Vec::<serde_json::Value>::new());
    cluster.kill(other);
    let line = wait_told(&cluster, stays, "member unreachable").await;
    assert!(line["peer"].as_str().unwrap().starts_with(&cluster.members[other].name), "{line}");
    assert!(!line["error"].as_str().unwrap().is_empty(), "{line}");
    cluster.kill(leader);
    let line = wait_told(&cluster, stays, "quorum lost").await;
    let missing: Vec<&str> =
        line["missing"].as_array().unwrap().iter().map(|it| it.as_str().unwrap()).collect();
    assert_eq!((missing.len(), &line["present"], &line["needed"]), (2, &1.into(), &2.into()));
    for at in [leader, other] {
        let name = format!("{} (", cluster.members[at].name);
        let found = missing.iter().find(|it| it.starts_with(&name));
        assert!(found.is_some_and(|it| it.contains(") since 2")), "{line}");
    }
    let log = cluster.log(stays);
    assert!(log.contains(" lost leader "), "{log}");
    cluster.run(leader, "new");
    cluster.run(other, "new");
    let line = wait_told(&cluster, stays, "quorum regained").await;
    assert!(!line["took"].as_str().unwrap().is_empty(), "{line}");
    cluster.ready(&[0, 1, 2]).await;
    for message in ["quorum lost", "quorum regained"] {
        assert_eq!(told(&cluster, stays, message).len(), 1, "{message}");
    }
}
