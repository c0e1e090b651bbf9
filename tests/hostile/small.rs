//! Busy, well-behaved clients: very many small messages on one stream, each in a frame of its own.
//! The server must not end their connections.

use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use prost::Message;
use rusd::pb::lease_client::LeaseClient;
use rusd::pb::watch_request::RequestUnion;
use rusd::pb::{LeaseGrantRequest, LeaseKeepAliveRequest, WatchCreateRequest, WatchRequest};
use tonic::transport::Channel;

use super::case::Case;
use super::fixture::{Member, PATIENCE};
use super::frames::Client;

const KEEP_ALIVE: &str = "/etcdserverpb.Lease/LeaseKeepAlive";
const WATCH: &str = "/etcdserverpb.Watch/Watch";

fn renewal(id: i64) -> Vec<u8> {
    LeaseKeepAliveRequest { id }.encode_to_vec()
}

/// Waits until `bytes` bytes of answers have been received.
fn await_answers(client: &Client, bytes: usize) {
    let end = Instant::now() + PATIENCE;
    while client.received() < bytes {
        assert!(Instant::now() < end, "{} of {bytes} bytes of answers", client.received());
        thread::sleep(Duration::from_millis(10));
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.unwrap()
}

async fn grant(channel: Channel, count: i64) {
    let mut client = LeaseClient::new(channel);
    for id in 1..=count {
        client.lease_grant(LeaseGrantRequest { ttl: 3600, id }).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn thousands_of_leases_kept_alive_on_one_stream() {
    const LEASES: i64 = 8000;
    let member = Member::start(&[]);
    // Renewals of leases that exist cost more than others; 200 leases are enough.
    grant(member.channel().await, 200).await;
    let name = "8000 renewals every half second on one stream";
    let case = Case { name, growth_kib_max: 64 << 10, left_kib_max: 32 << 10 };
    case.run(&member, async |member, end| {
        let address = member.address.clone();
        blocking(move || {
            let mut client = Client::call(&address, KEEP_ALIVE);
            let mut rounds = 0;
            while Instant::now() < end {
                client.send((1..=LEASES).map(renewal));
                rounds += 1;
                thread::sleep(Duration::from_millis(500));
            }
            // 15 bytes: less than an answer has, since it has a header.
            await_answers(&client, rounds * LEASES as usize * 15);
            client
        })
        .await
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_thousand_renewals_at_once() {
    let member = Member::start(&[]);
    let name = "50,000 renewals at once";
    let case = Case { name, growth_kib_max: 64 << 10, left_kib_max: 32 << 10 };
    case.run(&member, async |member, _| {
        let address = member.address.clone();
        blocking(move || {
            let mut client = Client::call(&address, KEEP_ALIVE);
            client.send((1..=50_000).map(renewal));
            await_answers(&client, 50_000 * 15);
            client
        })
        .await
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_thousand_watches_created_at_once() {
    let member = Member::start(&[]);
    let name = "100,000 watches created at once";
    let case = Case { name, growth_kib_max: 256 << 10, left_kib_max: 64 << 10 };
    case.run(&member, async |member, _| {
        let address = member.address.clone();
        blocking(move || {
            let mut client = Client::call(&address, WATCH);
            client.send((0..100_000).map(|number| {
                let key = Bytes::from(format!("watched/{number}"));
                let create = WatchCreateRequest { key, ..Default::default() };
                let request_union = Some(RequestUnion::CreateRequest(create));
                WatchRequest { request_union }.encode_to_vec()
            }));
            await_answers(&client, 100_000 * 15);
            client
        })
        .await
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn renewals_one_by_one_that_nobody_awaits() {
    let member = Member::start(&[]);
    let name = "renewals one by one on 8 streams";
    let case = Case { name, growth_kib_max: 64 << 10, left_kib_max: 32 << 10 };
    case.run(&member, async |member, end| {
        let address = member.address.clone();
        blocking(move || {
            let mut clients: Vec<Client> =
                (0..8).map(|_| Client::call(&address, KEEP_ALIVE)).collect();
            for id in (1..).take_while(|_| Instant::now() < end) {
                // One write per frame, so that frames are not merged in one packet.
                clients.iter_mut().for_each(|client| client.send([renewal(id)].into_iter()));
            }
            clients.iter().for_each(|client| assert!(client.received() > 0));
            clients
        })
        .await
    })
    .await;
}
