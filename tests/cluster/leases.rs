//! Leases while leaders come and go.

use std::time::{Duration, Instant};

use rusd::pb::kv_client::KvClient;
use rusd::pb::lease_client::LeaseClient;
use rusd::pb::{LeaseGrantRequest, LeaseKeepAliveRequest, LeaseTimeToLiveRequest, PutRequest};
use tokio::time::{sleep, timeout};
use tonic::Code;

use super::fixture::{Cluster, PATIENCE, get};

const LONG: i64 = 600;
const SHORT: i64 = 3;

/// Renews until a member says that it did; when the renewal that succeeded was sent.
async fn renew(cluster: &Cluster, at: usize, id: i64) -> Instant {
    let begun = Instant::now();
    while begun.elapsed() < PATIENCE {
        let sent = Instant::now();
        let mut leases = LeaseClient::new(cluster.channel(at));
        let renewed = async {
            let request = tokio_stream::once(LeaseKeepAliveRequest { id });
            leases.lease_keep_alive(request).await?.into_inner().message().await
        };
        if let Ok(Ok(Some(answer))) = timeout(Duration::from_secs(5), renewed).await {
            assert!(answer.ttl > 0, "the lease is gone");
            return sent;
        }
        sleep(Duration::from_millis(20)).await;
    }
    panic!("no renewal:\n{}", cluster.logs());
}

async fn remaining(cluster: &Cluster, at: usize, id: i64) -> Option<i64> {
    let mut leases = LeaseClient::new(cluster.channel(at));
    let request = LeaseTimeToLiveRequest { id, keys: false };
    let asked = timeout(Duration::from_secs(5), leases.lease_time_to_live(request)).await;
    asked.ok()?.ok().map(|answer| answer.into_inner().ttl)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_lease_ends_early_when_leaders_die() {
    let mut cluster = Cluster::start(3);
    cluster.ready(&[0, 1, 2]).await;
    let mut leases = LeaseClient::new(cluster.channel(0));
    leases.lease_grant(LeaseGrantRequest { ttl: LONG, id: 1 }).await.unwrap();
    for _ in 0..2 {
        let leader = cluster.leader().await;
        let other = (leader + 1) % 3;
        let renewed = renew(&cluster, other, 1).await;
        cluster.kill(leader);
        // The new leader knows of the renewal, or gives the whole time again.
        let begun = Instant::now();
        let left = loop {
            match remaining(&cluster, other, 1).await {
                Some(left) => break left,
                None => assert!(begun.elapsed() < PATIENCE, "{}", cluster.logs()),
            }
            sleep(Duration::from_millis(20)).await;
        };
        let elapsed = renewed.elapsed().as_secs() as i64;
        assert!(left >= LONG - elapsed - 1, "{left} s are left after {elapsed} s");
        cluster.run(leader, "new");
        cluster.ready(&[0, 1, 2]).await;
    }
    // One that nobody renews goes, but not before its time, though the leader dies.
    let leader = cluster.leader().await;
    let other = (leader + 1) % 3;
    let mut leases = LeaseClient::new(cluster.channel(other));
    let granted = Instant::now();
    leases.lease_grant(LeaseGrantRequest { ttl: SHORT, id: 3 }).await.unwrap();
    let put = PutRequest { key: "3".into(), lease: 3, ..PutRequest::default() };
    let has_key = KvClient::new(cluster.channel(other)).put(put).await.is_ok();
    cluster.kill(leader);
    loop {
        match timeout(Duration::from_secs(5), get(cluster.channel(other), "3")).await {
            Ok(Ok(None)) => break,
            _ => assert!(granted.elapsed() < PATIENCE, "it never ends:\n{}", cluster.logs()),
        }
        sleep(Duration::from_millis(20)).await;
    }
    assert!(!has_key || granted.elapsed() >= Duration::from_secs(SHORT as u64), "it ended early");
}

/// An answer between members has 16 MiB at most, and a lease may have more keys than that.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lease_of_many_keys_is_shown_by_every_member() {
    let cluster = Cluster::start(3);
    cluster.ready(&[0, 1, 2]).await;
    let mut leases = LeaseClient::new(cluster.channel(0));
    leases.lease_grant(LeaseGrantRequest { ttl: LONG, id: 1 }).await.unwrap();
    for n in 0..20 {
        let mut key = format!("key {n:02} ").into_bytes();
        key.resize(1 << 20, b'k');
        let put = PutRequest { key: key.into(), lease: 1, ..PutRequest::default() };
        // On a busy machine the leader may be replaced meanwhile.
        let put = async {
            while let Err(status) = KvClient::new(cluster.channel(0)).put(put.clone()).await {
                assert_eq!(status.code(), Code::Unavailable, "{status}");
                sleep(Duration::from_millis(100)).await;
            }
        };
        timeout(PATIENCE, put).await.expect("no put is answered");
    }
    for at in 0..3 {
        let client = LeaseClient::new(cluster.channel(at));
        let mut client = client.max_decoding_message_size(usize::MAX);
        let request = LeaseTimeToLiveRequest { id: 1, keys: true };
        let asked = timeout(PATIENCE, client.lease_time_to_live(request)).await;
        let answer = asked.expect("no answer").unwrap().into_inner();
        assert_eq!((answer.keys.len(), answer.granted_ttl), (20, LONG), "member {at}");
    }
}
