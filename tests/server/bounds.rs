//! What docs/architecture.md and docs/compat.md promise of connections, as a client on the wire sees it.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use http_body_util::BodyExt;
use rusd::pb::alarm_request::AlarmAction;
use rusd::pb::lease_client::LeaseClient;
use rusd::pb::maintenance_client::MaintenanceClient;
use rusd::pb::v3lockpb::LockRequest;
use rusd::pb::v3lockpb::lock_client::LockClient;
use rusd::pb::watch_request::RequestUnion;
use rusd::pb::{
    AlarmMember, AlarmRequest, CompactionRequest, DefragmentRequest, LeaseGrantRequest, PutRequest,
    StatusRequest, WatchCreateRequest, WatchRequest,
};

use super::fixture::{Member, PATIENCE};

/// Frames until ours are acknowledged and the connection's window is told: type, stream and payload.
fn first_frames(address: &str) -> Vec<(u8, u32, Vec<u8>)> {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").unwrap();
    let mut frames = Vec::new();
    let (mut is_acknowledged, mut is_window_told) = (false, false);
    loop {
        let mut head = [0; 9];
        stream.read_exact(&mut head).unwrap();
        let [a, b, c, kind, flags, stream_id @ ..] = head;
        let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
        stream.read_exact(&mut payload).unwrap();
        is_acknowledged |= (kind, flags) == (4, 1);
        is_window_told |= (kind, stream_id) == (8, [0; 4]);
        frames.push((kind, u32::from_be_bytes(stream_id), payload));
        if is_acknowledged && is_window_told {
            return frames;
        }
    }
}

#[test]
fn unread_requests_are_bounded_by_windows() {
    let member = Member::start();
    let frames = first_frames(&member.address);
    let (_, _, settings) = frames.iter().find(|(kind, ..)| *kind == 4).unwrap();
    let setting = |number: u16| {
        let pairs = settings.chunks_exact(6);
        let mut found = pairs.filter(|pair| pair[..2] == number.to_be_bytes());
        found.next().map(|pair| u32::from_be_bytes(pair[2..].try_into().unwrap()))
    };
    assert_eq!(setting(4), Some(256 << 10), "a stream");
    let updates = frames.iter().filter(|(kind, stream, _)| (*kind, *stream) == (8, 0));
    let more: u32 =
        updates.map(|(.., bytes)| u32::from_be_bytes(bytes[..4].try_into().unwrap())).sum();
    assert_eq!(65_535 + more, 16 << 20, "a connection");
}

#[test]
fn one_port_for_both_costs_nothing_and_nothing_of_go_is_there() {
    let member = Member::start();
    let request = b"GET /debug/vars HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    let answer = String::from_utf8(member.raw(request)).unwrap();
    let (_, body) = answer.split_once("\r\n\r\n").unwrap();
    let variables: serde_json::Value = serde_json::from_str(body).unwrap();
    let names: Vec<&String> = variables.as_object().unwrap().keys().collect();
    assert_eq!(names, ["cmdline", "file_descriptor_limit", "raft.status"]);
    let words = variables["cmdline"].as_array().unwrap();
    assert!(words[0].as_str().unwrap().ends_with("rusd") && words[1] == "serve", "{words:?}");
    assert!(!member.log().contains("single port"), "one port for both costs nothing here");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_store_takes_45_kib_and_at_most_80_after_its_first_writes() {
    let member = Member::start();
    let mut maintenance = MaintenanceClient::new(member.channel().await);
    let mut size =
        async || maintenance.status(StatusRequest {}).await.unwrap().into_inner().db_size;
    assert!(size().await <= 64 << 10);
    for _ in 0..3 {
        member.serves().await;
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    let found = size().await;
    assert!((45 << 10..=80 << 10).contains(&found), "{found}");
}

/// etcd's TestAlarm: an empty store must be below this quota, and so must one that was compacted and
/// defragmented.
#[tokio::test(flavor = "multi_thread")]
async fn a_quota_of_13_pages_fills_and_recovers_as_etcds() {
    let root = tempfile::tempdir().unwrap();
    let quota = format!("--quota-backend-bytes={}", 13 * 4096);
    let (data, log) = (root.path().join("data"), root.path().join("log"));
    let mut member = Member::spawn_with(&[&quota], &[], &data, &log);
    member.wait_ready();
    for round in 0..3 {
        let mut kv = member.kv().await;
        let mut put = async |key: String, bytes: usize| {
            let value = vec![b'a'; bytes].into();
            kv.put(PutRequest { key: key.into(), value, ..Default::default() }).await
        };
        put(format!("first {round}"), 64).await.unwrap();
        let refused = loop {
            if let Err(status) = put("second".to_owned(), 4096).await {
                break status;
            }
        };
        assert_eq!(refused.message(), "etcdserver: mvcc: database space exceeded");
        assert!(put("third".to_owned(), 64).await.is_err(), "the alarm is raised");
        let mut maintenance = MaintenanceClient::new(member.channel().await);
        let status = maintenance.status(StatusRequest {}).await.unwrap().into_inner();
        let revision = status.header.unwrap().revision;
        member.kv().await.compact(CompactionRequest { revision, physical: true }).await.unwrap();
        maintenance.defragment(DefragmentRequest {}).await.unwrap();
        let list = AlarmRequest { action: AlarmAction::Get.into(), ..Default::default() };
        for alarm in maintenance.alarm(list).await.unwrap().into_inner().alarms {
            let (action, AlarmMember { member_id, alarm }) =
                (AlarmAction::Deactivate.into(), alarm);
            maintenance.alarm(AlarmRequest { action, member_id, alarm }).await.unwrap();
        }
        put(format!("fourth {round}"), 64).await.unwrap();
    }
}

/// As `printf … | nc -N` does; etcd answers.
#[test]
fn a_client_that_has_said_all_is_answered_all_the_same() {
    let member = Member::start();
    for path in ["/metrics", "/health", "/debug/vars", "/readyz"] {
        for _ in 0..20 {
            let ask = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
            let answer = member.raw(ask.as_bytes());
            assert!(answer.starts_with(b"HTTP/1.1 200 OK\r\n"), "{path}: {answer:?}");
        }
    }
}

fn ask(address: &str, request: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = Vec::new();
    // It may end the connection with what it has not read.
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

#[test]
fn a_member_of_etcd_is_told_that_it_cannot_take_part() {
    let root = tempfile::tempdir().unwrap();
    let (data, log) = (root.path().join("data"), root.path().join("log"));
    let (mut member, for_peers) = Member::spawn_limited(1000, 1000, &data, &log);
    member.wait_ready();
    let log = member.log();
    let id_after = |name: &str| {
        let rest = log.split_once(&format!("\"{name}\":\"")).unwrap_or_else(|| panic!("{log}")).1;
        rest.split('"').next().unwrap().to_owned()
    };
    let member_id = id_after("local-member-id");
    let version = ask(&for_peers, "GET /version HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    let cluster = version
        .lines()
        .find_map(|line| {
            line.to_ascii_lowercase().strip_prefix("x-etcd-cluster-id: ").map(str::to_owned)
        })
        .unwrap_or_else(|| panic!("{version}"));
    for path in ["/raft/stream/message/1", "/raft/stream/msgapp/1"] {
        let answer = ask(
            &for_peers,
            &format!(
                "GET {path} HTTP/1.1\r\nHost: x\r\nX-Etcd-Cluster-ID: {cluster}\r\n\
                 X-Server-From: 1\r\nX-Server-Version: 3.7.1\r\nX-Min-Cluster-Version: 3.0.0\r\n\
                 X-Raft-To: {member_id}\r\nConnection: close\r\n\r\n"
            ),
        );
        assert!(answer.starts_with("HTTP/1.1 412 "), "{answer}");
        assert!(answer.contains("a cluster of rusd and etcd members is not supported"), "{answer}");
    }
}

#[test]
fn until_its_cluster_is_known_a_member_ends_its_peers_connections() {
    let flags = ["--discovery-endpoints=127.0.0.1:1", "--discovery-token=t"];
    let (mut member, _root, for_peers) = Member::spawn_bare(&flags);
    let mut answer = None;
    for _ in 0..PATIENCE.as_millis() / 20 {
        assert!(member.child.try_wait().unwrap().is_none(), "{}", member.log());
        if let Ok(mut stream) = TcpStream::connect(&for_peers) {
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            answer = Some(stream.read(&mut [0; 1]));
            break;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    match answer.expect("it never listens") {
        Ok(0) => {}
        Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => {}
        other => panic!("{other:?}"),
    }
}

/// A caller that stops waiting by its own word frees what it held: here the server itself ends the
/// call, with nobody cancelling it.
#[tokio::test(flavor = "multi_thread")]
async fn a_stated_deadline_is_kept_by_the_server() {
    let member = Member::start();
    let mut leases = LeaseClient::new(member.channel().await);
    for id in [1, 2] {
        leases.lease_grant(LeaseGrantRequest { ttl: 600, id }).await.unwrap();
    }
    let lock = |lease| LockRequest { name: "l".into(), lease };
    LockClient::new(member.channel().await).lock(lock(1)).await.unwrap();

    let stream = tokio::net::TcpStream::connect(&member.address).await.unwrap();
    let (executor, io) =
        (hyper_util::rt::TokioExecutor::new(), hyper_util::rt::TokioIo::new(stream));
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(executor, io).await.unwrap();
    tokio::spawn(connection);
    let create = WatchCreateRequest { key: "a".into(), ..Default::default() };
    let watch = WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) };
    let calls = [
        ("v3lockpb.Lock/Lock", prost::Message::encode_to_vec(&lock(2))),
        ("etcdserverpb.Watch/Watch", prost::Message::encode_to_vec(&watch)),
    ];
    for (method, message) in calls {
        let mut body = vec![0];
        body.extend((message.len() as u32).to_be_bytes());
        body.extend(message);
        let request = http::Request::post(format!("http://x/{method}"))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .header("grpc-timeout", "300m")
            .body(http_body_util::Full::new(bytes::Bytes::from(body)))
            .unwrap();
        let response = tokio::time::timeout(PATIENCE, sender.send_request(request));
        let response = response.await.unwrap().unwrap();
        let mut headers = response.headers().clone();
        let body = tokio::time::timeout(PATIENCE, response.into_body().collect()).await.unwrap();
        headers.extend(body.unwrap().trailers().cloned().unwrap_or_default());
        assert_eq!(headers["grpc-status"], "4", "{method}");
        let text = headers["grpc-message"].to_str().unwrap().replace("%20", " ");
        assert_eq!(text, "context deadline exceeded");
    }
}
