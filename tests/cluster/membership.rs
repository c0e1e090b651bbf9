//! Members that come and go while clients write.

use std::time::Duration;

use rusd::pb::alarm_request::AlarmAction;
use rusd::pb::cluster_client::ClusterClient;
use rusd::pb::lease_client::LeaseClient;
use rusd::pb::maintenance_client::MaintenanceClient;
use rusd::pb::{
    AlarmRequest, AlarmType, LeaseGrantRequest, LeaseKeepAliveRequest, LeaseTimeToLiveRequest,
    Member, MemberAddRequest, MemberListRequest, MemberPromoteRequest, MemberRemoveRequest,
    MemberUpdateRequest, MoveLeaderRequest, StatusRequest,
};
use tokio::time::sleep;
use tonic::{Code, Status};

use super::fixture::{Cluster, PATIENCE, get, put};

pub fn client(cluster: &Cluster, at: usize) -> ClusterClient<tonic::transport::Channel> {
    ClusterClient::new(cluster.channel(at))
}

pub async fn list(cluster: &Cluster, at: usize) -> Vec<Member> {
    let request = MemberListRequest { linearizable: true };
    client(cluster, at).member_list(request).await.unwrap().into_inner().members
}

pub async fn id_of(cluster: &Cluster, at: usize) -> u64 {
    let mut client = MaintenanceClient::new(cluster.channel(at));
    client.status(StatusRequest {}).await.unwrap().into_inner().header.unwrap().member_id
}

/// Asks until the cluster is found healthy, which takes it some seconds after a change.
pub async fn until_healthy<T>(
    mut ask: impl AsyncFnMut() -> Result<T, Status>,
) -> Result<T, Status> {
    let begun = std::time::Instant::now();
    loop {
        match ask().await {
            Err(status)
                if begun.elapsed() < PATIENCE
                    && (status.message() == "etcdserver: unhealthy cluster"
                        || status.message().contains("in sync with leader")) =>
            {
                sleep(Duration::from_millis(100)).await;
            }
            outcome => return outcome,
        }
    }
}

fn refusal<T: std::fmt::Debug>(outcome: Result<T, Status>) -> (Code, String) {
    let status = outcome.unwrap_err();
    (status.code(), status.message().to_owned())
}

fn add(url: &str, is_learner: bool) -> MemberAddRequest {
    MemberAddRequest { peer_ur_ls: vec![url.to_owned()], is_learner }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_learner_joins_becomes_a_voter_and_replaces_a_member() {
    let mut cluster = Cluster::start(3);
    cluster.ready(&[0, 1, 2]).await;
    put(cluster.channel(0), "k", "before").await.unwrap();
    let new = cluster.add();
    let url = cluster.members[new].peer.clone();
    let leader = cluster.leader().await;
    let follower = (leader + 1) % 3;
    let added =
        until_healthy(async || client(&cluster, follower).member_add(add(&url, true)).await);
    let id = added.await.unwrap().into_inner().member.unwrap().id;
    assert_eq!(
        refusal(client(&cluster, follower).member_add(add("http://127.0.0.1:1", true)).await),
        (Code::FailedPrecondition, "etcdserver: too many learner members in cluster".to_owned())
    );
    let promote = MemberPromoteRequest { id };
    assert_eq!(
        refusal(client(&cluster, follower).member_promote(promote).await),
        (
            Code::FailedPrecondition,
            "etcdserver: can only promote a learner member which is in sync with leader".to_owned()
        )
    );
    let said = "\"msg\":\"rejecting promote learner: learner is not ready\",\
                \"learner-ready-percent\":0";
    assert!(cluster.log(leader).contains(said), "{}", cluster.log(leader));
    cluster.run(new, "existing");
    // It has published itself once its name is known.
    let begun = std::time::Instant::now();
    while !list(&cluster, leader).await.iter().any(|member| member.name == "m4") {
        assert!(begun.elapsed() < PATIENCE, "the learner does not start:\n{}", cluster.logs());
        sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(
        refusal(put(cluster.channel(new), "k", "learner").await),
        (Code::FailedPrecondition, "etcdserver: rpc not supported for learner".to_owned())
    );
    let promoted = until_healthy(async || client(&cluster, follower).member_promote(promote).await);
    let members = promoted.await.unwrap().into_inner().members;
    assert!(members.len() == 4 && members.iter().all(|member| !member.is_learner));
    cluster.ready(&[new]).await;
    assert_eq!(get(cluster.channel(new), "k").await.unwrap().as_deref(), Some(&b"before"[..]));

    let gone = id_of(&cluster, follower).await;
    let remove = MemberRemoveRequest { id: gone };
    until_healthy(async || client(&cluster, leader).member_remove(remove).await).await.unwrap();
    assert_eq!(cluster.wait(follower), Some(0), "a removed member ends with success");
    cluster.run(follower, "new");
    assert_eq!(cluster.wait(follower), Some(0), "also when it is started again");
    let left: Vec<usize> = (0..4).filter(|at| *at != follower).collect();
    assert!(list(&cluster, leader).await.iter().all(|member| member.id != gone));
    put(cluster.channel(new), "k", "after").await.unwrap();
    cluster.compare_hashes(&left).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_that_the_cluster_cannot_bear_are_refused_and_logged_as_in_etcd() {
    let cluster = Cluster::start(1);
    cluster.ready(&[0]).await;
    let (mut client, own) = (client(&cluster, 0), id_of(&cluster, 0).await);
    // It never starts, so that half of the voters are missing.
    client.member_add(add("http://127.0.0.1:1", false)).await.unwrap();
    let too_few = "etcdserver: re-configuration failed due to not enough started members";
    let unhealthy = "etcdserver: unhealthy cluster";
    let refused = refusal(client.member_add(add("http://127.0.0.1:2", false)).await);
    assert_eq!(refused, (Code::Unknown, too_few.to_owned()));
    let refused = refusal(client.member_add(add("http://127.0.0.1:3", true)).await);
    assert_eq!(refused, (Code::Unavailable, unhealthy.to_owned()));
    let refused = refusal(client.member_remove(MemberRemoveRequest { id: own }).await);
    assert_eq!(refused, (Code::Unknown, too_few.to_owned()));
    let log = cluster.log(0);
    let line = |text: &str| {
        let text = format!("\"msg\":\"{text}\"");
        log.lines().find(|line| line.contains(&text)).unwrap_or_else(|| panic!("{text}:\n{log}"))
    };
    let (local, error) = (format!("\"local-member-id\":\"{own:x}\""), "\"error\":\"etcdserver: ");
    let has = |text: &str, parts: &[&str]| {
        let line = line(text);
        let is_there = |part: &&str| line.contains(*part);
        assert!(line.contains("\"level\":\"warn\"") && parts.iter().all(is_there), "{line}");
    };
    let wanted = |url: &str, is_learner| {
        format!(
            "RaftAttributes:{{PeerURLs:[{url}] IsLearner:{is_learner}}} \
                 Attributes:{{Name: ClientURLs:[]}}}}\""
        )
    };
    let numbers = ["\"number-of-started-member\":1,\"quorum\":2,\"cluster-id\":\"", &local];
    has("rejecting member add; started member will be less than quorum", &numbers);
    let voter = wanted("http://127.0.0.1:2", false);
    let add = "rejecting member add request; not enough healthy members";
    has(add, &[&local, "\"requested-member-add\":\"{ID:", &voter, error, too_few]);
    let learner = wanted("http://127.0.0.1:3", true);
    let add = "rejecting member add request; local member has not been connected to majority \
               peers, reconfigure breaks active quorum";
    has(add, &[&local, &learner, error, unhealthy]);
    let numbers = ["\"number-of-started-member\":0,\"quorum\":1,\"cluster-id\":\"", &local];
    has("rejecting member remove; started member will be less than quorum", &numbers);
    let id = format!("\"requested-member-remove-id\":\"{own:x}\"");
    let remove = "rejecting member remove request; not enough healthy members";
    has(remove, &[&local, &id, error, too_few]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_joins_does_not_raise_the_alarms_that_it_reads_of() {
    let mut cluster = Cluster::start(1);
    cluster.ready(&[0]).await;
    let mut maintenance = MaintenanceClient::new(cluster.channel(0));
    let id = id_of(&cluster, 0).await;
    for action in [AlarmAction::Activate, AlarmAction::Deactivate] {
        let alarm = AlarmType::Nospace as i32;
        let alarm = AlarmRequest { action: action as i32, member_id: id, alarm };
        maintenance.alarm(alarm).await.unwrap();
        let written = put(cluster.channel(0), "k", "v").await;
        assert_eq!(written.is_ok(), action == AlarmAction::Deactivate, "{written:?}");
    }
    // The log begins at the first entry, so this one applies all of them.
    let new = cluster.add();
    let url = cluster.members[new].peer.clone();
    let added = until_healthy(async || client(&cluster, 0).member_add(add(&url, false)).await);
    added.await.unwrap();
    cluster.run(new, "existing");
    cluster.ready(&[new]).await;
    for _ in 0..20 {
        put(cluster.channel(new), "k", "v").await.unwrap();
        sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_that_do_not_hold_are_refused_in_etcds_words() {
    let cluster = Cluster::start(3);
    cluster.ready(&[0, 1, 2]).await;
    let mut first = client(&cluster, 0);
    let not_found = (Code::NotFound, "etcdserver: member not found".to_owned());
    let remove = MemberRemoveRequest { id: 1 };
    assert_eq!(refusal(until_healthy(async || first.member_remove(remove).await).await), not_found);
    let mut update = MemberUpdateRequest { id: 1, peer_ur_ls: vec!["http://127.0.0.1:1".into()] };
    assert_eq!(refusal(first.member_update(update.clone()).await), not_found);
    // Whatever the URLs are: whether there is such a member comes first.
    for urls in [&[][..], &["http://[::1:1"], &["ftp://127.0.0.1:1"]] {
        update.peer_ur_ls = urls.iter().copied().map(str::to_owned).collect();
        assert_eq!(refusal(first.member_update(update.clone()).await), not_found, "{urls:?}");
    }
    update.id = id_of(&cluster, 0).await;
    update.peer_ur_ls = vec![cluster.members[1].peer.clone()];
    let taken = (Code::FailedPrecondition, "etcdserver: Peer URLs already exists".to_owned());
    assert_eq!(refusal(first.member_update(update.clone()).await), taken);
    update.peer_ur_ls = vec!["ftp://127.0.0.1:1".into()];
    let text = "etcdserver: given member URLs are invalid".to_owned();
    assert_eq!(refusal(first.member_update(update).await), (Code::InvalidArgument, text));
    assert_eq!(refusal(first.member_promote(MemberPromoteRequest { id: 1 }).await), not_found);
    let voter = MemberPromoteRequest { id: id_of(&cluster, 1).await };
    let text = "etcdserver: can only promote a learner member".to_owned();
    assert_eq!(refusal(first.member_promote(voter).await), (Code::FailedPrecondition, text));
    let bad = add("127.0.0.1:1", false);
    let text = "etcdserver: given member URLs are invalid".to_owned();
    assert_eq!(refusal(first.member_add(bad).await), (Code::InvalidArgument, text));
    let known = add(&cluster.members[2].peer, false);
    let known = until_healthy(async || first.member_add(known.clone()).await).await;
    assert_eq!(refusal(known), taken);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leadership_moves_when_asked_and_when_the_leader_ends_or_removes_itself() {
    let mut cluster = Cluster::start(3);
    cluster.ready(&[0, 1, 2]).await;
    let leader = cluster.leader().await;
    let other = (leader + 1) % 3;
    let target = MoveLeaderRequest { target_id: id_of(&cluster, other).await };
    let mut maintenance = MaintenanceClient::new(cluster.channel(other));
    let not_leader = (Code::FailedPrecondition, "etcdserver: not leader".to_owned());
    assert_eq!(refusal(maintenance.move_leader(target).await), not_leader);
    let mut maintenance = MaintenanceClient::new(cluster.channel(leader));
    let nobody = MoveLeaderRequest { target_id: 1 };
    let bad = (Code::FailedPrecondition, "etcdserver: bad leader transferee".to_owned());
    assert_eq!(refusal(maintenance.move_leader(nobody).await), bad);
    maintenance.move_leader(target).await.unwrap();
    assert_eq!(cluster.leader().await, other);

    // A leader that is told to end hands over first, so that nobody waits for an election.
    cluster.signal(other, libc::SIGTERM);
    cluster.wait(other);
    let text = cluster.logs();
    assert!(text.contains("leadership transfer finished"), "{text}");
    cluster.run(other, "new");
    cluster.ready(&[0, 1, 2]).await;

    let leader = cluster.leader().await;
    let remove = MemberRemoveRequest { id: id_of(&cluster, leader).await };
    until_healthy(async || client(&cluster, leader).member_remove(remove).await).await.unwrap();
    assert_eq!(cluster.wait(leader), Some(0));
    let left: Vec<usize> = (0..3).filter(|at| *at != leader).collect();
    put(cluster.channel(left[0]), "k", "two").await.unwrap();
    cluster.compare_hashes(&left).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lease_is_kept_alive_through_any_member() {
    let cluster = Cluster::start(3);
    cluster.ready(&[0, 1, 2]).await;
    for at in 0..3 {
        let mut leases = LeaseClient::new(cluster.channel(at));
        let grant = LeaseGrantRequest { ttl: 100, id: 7 + at as i64 };
        let id = leases.lease_grant(grant).await.unwrap().into_inner().id;
        for asked in 0..3 {
            let mut leases = LeaseClient::new(cluster.channel(asked));
            let request = tokio_stream::once(LeaseKeepAliveRequest { id });
            let mut answers = leases.lease_keep_alive(request).await.unwrap().into_inner();
            assert_eq!(answers.message().await.unwrap().unwrap().ttl, 100);
            let request = LeaseTimeToLiveRequest { id, keys: true };
            let answer = leases.lease_time_to_live(request).await.unwrap().into_inner();
            assert_eq!(answer.granted_ttl, 100);
            assert!(answer.ttl > 90);
            let none = LeaseTimeToLiveRequest { id: 1, keys: true };
            assert_eq!(leases.lease_time_to_live(none).await.unwrap().into_inner().ttl, -1);
            let request = tokio_stream::once(LeaseKeepAliveRequest { id: 1 });
            let mut answers = leases.lease_keep_alive(request).await.unwrap().into_inner();
            assert_eq!(answers.message().await.unwrap().unwrap().ttl, 0);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_lost_the_others_is_made_a_cluster_of_its_own() {
    let mut cluster = Cluster::start(3);
    cluster.ready(&[0, 1, 2]).await;
    put(cluster.channel(0), "k", "v").await.unwrap();
    let (id, all) = (id_of(&cluster, 2).await, list(&cluster, 2).await);
    (0..3).for_each(|at| cluster.kill(at));
    // A second start with the flag left in place changes nothing more.
    for _ in 0..2 {
        cluster.run_with(2, &["--force-new-cluster"]);
        cluster.ready(&[2]).await;
        assert_eq!(get(cluster.channel(2), "k").await.unwrap().unwrap(), "v");
        put(cluster.channel(2), "k", "v").await.unwrap();
        let alone = all.iter().filter(|member| member.id == id);
        assert_eq!(list(&cluster, 2).await, alone.cloned().collect::<Vec<_>>());
        cluster.kill(2);
    }
    // Members that were dropped are told so when they come back.
    cluster.run_with(2, &[]);
    cluster.ready(&[2]).await;
    cluster.run_with(0, &[]);
    assert_eq!(cluster.wait(0), Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_meet_through_a_discovery_service() {
    let mut registry = Cluster::start(1);
    registry.ready(&[0]).await;
    put(registry.channel(0), "/_etcd/registry/here/_config/size", "3").await.unwrap();
    let endpoint = registry.members[0].client.clone();
    let flags = ["--discovery-endpoints", &endpoint, "--discovery-token", "here"];
    let mut cluster = Cluster::empty();
    for at in 0..3 {
        cluster.add();
        cluster.run_with(at, &flags);
    }
    cluster.ready(&[0, 1, 2]).await;
    let mut names: Vec<_> = list(&cluster, 1).await.into_iter().map(|it| it.name).collect();
    names.sort();
    assert_eq!(names, ["m1", "m2", "m3"]);
    // There is no place for a fourth, and without a size for nobody.
    cluster.add();
    cluster.run_with(3, &flags);
    assert_eq!(cluster.wait(3), Some(1));
    assert!(cluster.logs().contains("discovery: cluster is full"));
    registry.add();
    registry.run_with(1, &["--discovery-endpoints", &endpoint, "--discovery-token", "other"]);
    assert_eq!(registry.wait(1), Some(1));
    assert!(registry.logs().contains("discovery: size key not found"));
    // Two of one name would be one member with two addresses.
    put(registry.channel(0), "/_etcd/registry/twins/_config/size", "2").await.unwrap();
    let twins = ["--discovery-endpoints", &endpoint, "--discovery-token", "twins", "--name=twin"];
    for _ in 0..2 {
        let at = cluster.add();
        cluster.run_with(at, &twins);
    }
    for at in [4, 5] {
        assert_eq!(cluster.wait(at), Some(1));
        assert!(cluster.log(at).contains("has two members of one name"), "{}", cluster.log(at));
    }
    // Once it has started, a member does not ask again.
    registry.kill(0);
    cluster.kill(0);
    cluster.run_with(0, &flags);
    cluster.ready(&[0]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_was_away_too_long_comes_back_by_a_snapshot() {
    let mut cluster = Cluster::start_with_short_logs().await;
    let leader = cluster.leader().await;
    let away = (leader + 1) % 3;
    // A few entries are kept for it; after many it is shown the whole state.
    for (count, by_snapshot) in [(5, false), (200, true)] {
        cluster.kill(away);
        for at in 0..count {
            put(cluster.channel(leader), &format!("k{at}"), "v").await.unwrap();
        }
        // What is written reaches the store, and the log is cut, within some milliseconds.
        sleep(Duration::from_millis(300)).await;
        put(cluster.channel(leader), "last", "v").await.unwrap();
        cluster.run_with_short_log(away);
        cluster.ready(&[away]).await;
        let has = cluster.log(away).contains("installed a snapshot of another member");
        assert_eq!(has, by_snapshot, "after {count}:\n{}", cluster.logs());
    }
    cluster.compare_hashes(&[0, 1, 2]).await;
}
