//! Bytes and requests that nobody should send: a clear answer or the end of that connection, and
//! never a panic or a lost member.

use std::io::{Read, Write};
use std::net::TcpStream;

use bytes::{Buf, BufMut, Bytes};
use prost::Message;
use rusd::pb::cluster_client::ClusterClient;
use rusd::pb::kv_client::KvClient;
use rusd::pb::lease_client::LeaseClient;
use rusd::pb::request_op::Request as Op;
use rusd::pb::watch_client::WatchClient;
use rusd::pb::watch_request::RequestUnion;
use rusd::pb::{
    CompactionRequest, DeleteRangeRequest, LeaseGrantRequest, LeaseRevokeRequest,
    LeaseTimeToLiveRequest, MemberAddRequest, PutRequest, PutResponse, RangeRequest, RequestOp,
    TxnRequest, WatchCreateRequest, WatchRequest, WatchResponse,
};
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::transport::Channel;
use tonic::{Code, Status};

use super::fixture::{Member, PATIENCE};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Length 0, type 4, no flags, stream 0: a client's first frame.
const SETTINGS: &[u8] = &[0, 0, 0, 4, 0, 0, 0, 0, 0];

fn key(name: &'static str) -> Bytes {
    Bytes::from_static(name.as_bytes())
}

fn noise(seed: u64, count: usize) -> Vec<u8> {
    let bytes = (0..).flat_map(|at| rusd::clock::split_mix(seed << 32 | at).to_le_bytes());
    bytes.take(count).collect()
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_ends_its_own_connection() {
    let member = Member::start();
    let bystander = member.channel().await;
    let after_preface = |rest: Vec<u8>| [PREFACE, SETTINGS, &rest].concat();
    let mut attacks: Vec<Vec<u8>> = (0..40).map(|seed| noise(seed, 4000)).collect();
    attacks.extend((40..80).map(|seed| after_preface(noise(seed, 4000))));
    attacks.extend([
        PREFACE[..10].to_vec(),
        // A TLS greeting on a plain port.
        [&[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3][..], &noise(1, 500)].concat(),
        // A frame longer than was agreed on, and one that claims 16 MiB.
        after_preface(frame(0, 0, 1, &[0; 100_000])),
        after_preface(vec![0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 1]),
        // Headers of a stream that only the server may open, headers that cannot be unpacked.
        after_preface(frame(1, 4, 2, b"\x82\x86\x84")),
        after_preface(frame(1, 4, 1, &[0xff; 1000])),
        after_preface(frame(3, 0, 1, &[0; 4])),
        after_preface(frame(6, 0, 0, &[0; 7])),
        after_preface(frame(8, 0, 0, &[0; 4])),
        b"GET / HTTP/9.9\r\n\r\n".to_vec(),
        [b"GET / HTTP/1.1\r\nx: ".as_slice(), &[b'a'; 1_000_000]].concat(),
        b"POST /v3/kv/range HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999\r\n\r\n"
            .to_vec(),
    ]);
    for attack in attacks {
        member.raw(&attack);
    }
    // Nobody else noticed.
    let range = RangeRequest { key: key("a"), ..Default::default() };
    KvClient::new(bystander).range(range).await.unwrap();
    member.serves().await;
}

#[test]
fn requests_of_unclear_host_or_end_are_refused_in_gos_words() {
    let member = Member::start();
    let missing = "400 Bad Request: missing required Host header";
    let malformed = "400 Bad Request: malformed Host header";
    let (ok, bad) = ("200 OK", "400 Bad Request");
    for (head, status, body) in [
        ("HTTP/1.1\r\nHost: a\r\nConnection: close", ok, ""),
        ("HTTP/1.1\r\nHost:\r\nConnection: close", ok, ""),
        ("HTTP/1.0", ok, ""),
        ("HTTP/1.1", missing, missing),
        ("HTTP/1.1\r\nHost: a\r\nHost: b", bad, bad),
        ("HTTP/1.0\r\nHost: a\r\nHost: b", bad, bad),
        ("HTTP/1.1\r\nHost: a b", malformed, malformed),
        ("HTTP/1.1\r\nHost: a\r\n\0: b", bad, bad),
        (
            "HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked",
            "501 Not Implemented",
            "Unsupported transfer encoding",
        ),
    ] {
        let answer = member.raw(format!("GET /version {head}\r\n\r\n").as_bytes());
        let answer = String::from_utf8(answer).unwrap();
        let (line, rest) = answer.split_once("\r\n").unwrap();
        assert_eq!(line.split_once(' ').unwrap().1, status, "{head:?}");
        if status != ok {
            assert!(rest.contains("Connection: close\r\n"), "{head:?}: {rest}");
            assert_eq!(rest.split_once("\r\n\r\n").unwrap().1, body, "{head:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn floods_cost_little() {
    let member = Member::start();
    let flood = |first: Vec<u8>, next: &dyn Fn(u32) -> Vec<u8>| {
        let mut bytes = [PREFACE, SETTINGS, &first].concat();
        (0..20_000).for_each(|number| bytes.extend(next(number)));
        bytes
    };
    let get = |number: u32| frame(1, 4, 2 * number + 1, b"\x82\x86\x84");
    let floods = [
        // Settings and pings that want answers, which nobody reads.
        flood(Vec::new(), &|_| SETTINGS.to_vec()),
        flood(Vec::new(), &|_| frame(6, 0, 0, &[7; 8])),
        // Headers that go on and on.
        flood(frame(1, 0, 1, b"\x82"), &|_| frame(9, 0, 1, &[0x40, 1, b'a', 1, b'b'].repeat(200))),
        // Calls that are taken back at once, and calls that never end.
        flood(Vec::new(), &|number| [get(number), frame(3, 0, 2 * number + 1, &[0; 4])].concat()),
        flood(Vec::new(), &get),
        // Priorities and windows of streams that do not exist.
        flood(Vec::new(), &|number| frame(2, 0, 2 * number + 1, &[0; 5])),
        flood(Vec::new(), &|_| frame(8, 0, 0, &[0, 0, 0, 1])),
    ];
    let before = member.memory_kib();
    for bytes in floods {
        member.raw(&bytes);
    }
    member.serves().await;
    let growth = member.memory_kib().saturating_sub(before);
    assert!(growth < 64 << 10, "memory has grown by {growth} KiB");
}

#[tokio::test(flavor = "multi_thread")]
async fn silent_connections_end_and_hold_nobody_up() {
    let member = Member::start();
    let open = |bytes: &[u8]| {
        let mut stream = TcpStream::connect(&member.address).unwrap();
        stream.write_all(bytes).unwrap();
        stream
    };
    let mut silent: Vec<TcpStream> = (0..100).map(|_| open(b"")).collect();
    silent.extend((0..100).map(|_| open(&PREFACE[..12])));
    // These have shown their protocol, and may stay.
    let begun: Vec<TcpStream> =
        (0..100).map(|_| open(&[PREFACE, SETTINGS, &[0, 0, 9, 0]].concat())).collect();
    member.serves().await;
    for mut stream in silent {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        assert!(!matches!(stream.read(&mut [0; 1]), Ok(1..)), "an answer to nothing");
    }
    drop(begun);
    member.serves().await;
}

/// Sends and takes messages as bytes.
struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }
    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put(item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(buffer.copy_to_bytes(buffer.remaining())))
    }
}

async fn send(channel: &Channel, path: &'static str, message: Vec<u8>) -> Result<Bytes, Status> {
    let mut grpc = tonic::client::Grpc::new(channel.clone());
    grpc.ready().await.unwrap();
    let path = http::uri::PathAndQuery::from_static(path);
    let request = tonic::Request::new(Bytes::from(message));
    grpc.unary(request, path, Raw).await.map(tonic::Response::into_inner)
}

const RANGE: &str = "/etcdserverpb.KV/Range";
const PUT: &str = "/etcdserverpb.KV/Put";
const TXN: &str = "/etcdserverpb.KV/Txn";

#[tokio::test(flavor = "multi_thread")]
async fn messages_that_cannot_be_read_are_refused() {
    let member = Member::start();
    let channel = member.channel().await;
    let refused = async |path, message: Vec<u8>| send(&channel, path, message).await.unwrap_err();
    // A field's length beyond the end, half a number, a group that does not end.
    for message in [vec![0x0a, 200, b'a'], vec![0x18, 0xff], vec![0x0b, 8, 1]] {
        let status = refused(RANGE, message).await;
        assert_eq!(status.code(), Code::Internal, "{status}");
        let text =
            "grpc: error unmarshalling request: proto: cannot parse invalid wire-format data";
        assert_eq!(status.message(), text);
    }
    for seed in 0..200 {
        // Some are requests by chance; none may end anything.
        let _ = send(&channel, TXN, noise(seed, 64)).await;
    }
    // The service's name is text, and this is none.
    let status = refused("/grpc.health.v1.Health/Check", vec![0x0a, 2, 0xc3, 0x28]).await;
    assert_eq!(status.code(), Code::Internal, "{status}");
    let text = "grpc: error unmarshalling request: string field contains invalid UTF-8";
    assert_eq!(status.message(), text);
    // In a stream.
    let mut grpc = tonic::client::Grpc::new(channel.clone());
    grpc.ready().await.unwrap();
    let path = http::uri::PathAndQuery::from_static("/etcdserverpb.Watch/Watch");
    let requests = tokio_stream::iter([Bytes::from_static(b"\x0a\x05")]);
    let streaming = grpc.streaming(tonic::Request::new(requests), path, Raw).await;
    let status = match streaming {
        Ok(answers) => answers.into_inner().message().await.unwrap_err(),
        Err(status) => status,
    };
    assert_eq!(status.code(), Code::Internal, "{status}");
    member.serves().await;
}

/// A put of this key in so many transactions, each in the other.
fn nested(depth: usize, key: &str) -> Vec<u8> {
    let put = wrap(2, &wrap(2, &wrap(1, key.as_bytes())));
    (0..depth).fold(put, |txn, _| wrap(2, &wrap(4, &txn)))
}

async fn has(kv: &mut KvClient<Channel>, key: &str) -> bool {
    let range = RangeRequest { key: Bytes::copy_from_slice(key.as_bytes()), ..Default::default() };
    kv.range(range).await.unwrap().into_inner().count == 1
}

#[tokio::test(flavor = "multi_thread")]
async fn transactions_nest_as_deep_as_in_etcd() {
    let mut member = Member::start();
    let channel = member.channel().await;
    let mut kv = member.kv().await;
    let deep = [10, 49, 50, 60, 100, 127];
    for depth in deep {
        send(&channel, TXN, nested(depth, &depth.to_string())).await.unwrap();
        assert!(has(&mut kv, &depth.to_string()).await, "{depth}");
    }
    for depth in [128, 150, 1000, 4998] {
        let status = send(&channel, TXN, nested(depth, "refused")).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{depth}: {status}");
        assert_eq!(status.message(), "etcdserver: too many operations in txn request");
    }
    for depth in [4999, 30_000] {
        let status = send(&channel, TXN, nested(depth, "refused")).await.unwrap_err();
        assert_eq!(status.code(), Code::Internal, "{depth}: {status}");
        let text = "grpc: error unmarshalling request: proto: exceeded maximum recursion depth";
        assert_eq!(status.message(), text);
    }
    assert!(!has(&mut kv, "refused").await);
    member.serves().await;
    // The log is replayed, and looked at by a command.
    member.child.kill().unwrap();
    member.child.wait().unwrap();
    let mut check = crate::child::command(crate::child::RUSD);
    let checked = check.args(["check", "data", "--data-dir"]).arg(member.data()).output().unwrap();
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
    // As many operations as one likes, but not as deep.
    let (more, log) = (["--max-txn-ops", "100000"], member.log.with_extension("again"));
    let mut again = Member::spawn_with(&more, &[], &member.data(), &log);
    again.wait_ready();
    let (channel, mut kv) = (again.channel().await, again.kv().await);
    for depth in deep {
        assert!(has(&mut kv, &depth.to_string()).await, "{depth}");
    }
    let most = rusd::limits::TXN_DEPTH_MAX;
    send(&channel, TXN, nested(most, "most")).await.unwrap();
    assert!(has(&mut kv, "most").await);
    let status = send(&channel, TXN, nested(most + 1, "refused")).await.unwrap_err();
    assert_eq!(status.message(), "etcdserver: too many operations in txn request");
    again.serves().await;
}

/// The most memory that a member had so far.
fn peak_bytes(member: &Member) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{}/status", member.child.id())).unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    1024 * peak.trim().trim_end_matches(" kB").parse::<usize>().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_that_is_nested_deep_costs_as_much_as_a_flat_one() {
    const ROOM: usize = 64 << 20;
    let member = Member::start();
    let channel = member.channel().await;
    let put = |bytes| wrap(2, &wrap(2, &[wrap(1, b"k"), wrap(2, &vec![b'v'; bytes])].concat()));
    // Beside what is nested, a part of it that is empty: in etcd, the two are one transaction.
    let deep = |bytes, depth, more: &[u8]| {
        (0..depth).fold(put(bytes), |txn, _| wrap(2, &[&wrap(4, &txn), more].concat()))
    };
    for more in [&[][..], &wrap(4, b"")] {
        let before = peak_bytes(&member);
        let status = send(&channel, TXN, deep(2_090_000, 300, more)).await.unwrap_err();
        assert_eq!(status.message(), "etcdserver: too many operations in txn request");
        send(&channel, TXN, deep(1_500_000, 127, more)).await.unwrap();
        // The kernel tells the peak from counters that it sums up roughly, so it may fall a little.
        let grown = peak_bytes(&member).saturating_sub(before);
        assert!(grown < ROOM, "{grown} bytes for a request of 2 MiB");
    }
    member.serves().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_field_of_another_wire_type_is_ignored_as_in_etcd() {
    let member = Member::start();
    let channel = member.channel().await;
    let mut kv = member.kv().await;
    // A key as a number alone, and beside the right one, whose value is a number.
    let status = send(&channel, RANGE, vec![0x08, 1]).await.unwrap_err();
    assert_eq!(status.message(), "etcdserver: key is not provided");
    let put = [&[0x08, 1][..], &wrap(1, b"a"), &[0x10, 1]].concat();
    send(&channel, PUT, put.clone()).await.unwrap();
    assert!(has(&mut kv, "a").await);
    // Within a transaction, and in a stream.
    let put = [&put[..], &wrap(1, b"b")].concat();
    send(&channel, TXN, wrap(2, &wrap(2, &put))).await.unwrap();
    assert!(has(&mut kv, "b").await);
    let mut grpc = tonic::client::Grpc::new(channel.clone());
    grpc.ready().await.unwrap();
    let path = http::uri::PathAndQuery::from_static("/etcdserverpb.Watch/Watch");
    let create = wrap(1, &[&wrap(1, b"a")[..], &wrap(3, b"no number")].concat());
    let requests = tokio_stream::iter([Bytes::from(create)]);
    let answers = grpc.streaming(tonic::Request::new(requests), path, Raw).await.unwrap();
    let answer = answers.into_inner().message().await.unwrap().unwrap();
    assert!(WatchResponse::decode(answer).unwrap().created);
    // Groups of a release that never was, in each other.
    let groups = [[0xa3, 6].repeat(300), [0xa4, 6].repeat(300)].concat();
    send(&channel, RANGE, [wrap(1, b"a"), groups].concat()).await.unwrap();
    member.serves().await;
}

/// A field that holds a message.
fn wrap(field: u8, message: &[u8]) -> Vec<u8> {
    let mut bytes = vec![field << 3 | 2];
    prost::encoding::encode_varint(message.len() as u64, &mut bytes);
    bytes.extend_from_slice(message);
    bytes
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_fields_are_ignored_and_unknown_enums_refused() {
    let member = Member::start();
    let channel = member.channel().await;
    let put = PutRequest { key: key("a"), value: key("b"), ..Default::default() };
    let mut message = put.encode_to_vec();
    // Field 1000, of a release to come.
    message.extend([0xc2, 0x3e, 3, b'n', b'e', b'w']);
    let answer = send(&channel, PUT, message).await.unwrap();
    assert_eq!(PutResponse::decode(answer).unwrap().header.unwrap().revision, 2);
    let mut kv = member.kv().await;
    let found = kv.range(RangeRequest { key: key("a"), ..Default::default() }).await.unwrap();
    assert_eq!(found.into_inner().kvs[0].value, key("b"));
    for (order, target) in [(99, 0), (0, 99), (-1, 0), (i32::MIN, i32::MAX)] {
        let range = RangeRequest {
            key: key("a"),
            sort_order: order,
            sort_target: target,
            ..Default::default()
        };
        let status = kv.range(range).await.unwrap_err();
        assert_eq!(status.message(), "etcdserver: invalid sort option");
    }
    member.serves().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_too_large_is_refused_in_etcds_words() {
    let member = Member::start();
    let mut kv = member.kv().await;
    let put = |key: Vec<u8>, value: Vec<u8>| PutRequest {
        key: key.into(),
        value: value.into(),
        ..Default::default()
    };
    let status = kv.put(put(b"a".to_vec(), vec![0; 3 << 20])).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted);
    let expected = "grpc: received message larger than max (3145736 vs. 2097152)";
    assert_eq!(status.message(), expected);
    let status = kv.put(put(vec![b'k'; 1_572_864], Vec::new())).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    assert_eq!(status.message(), "etcdserver: request is too large");
    // A key just below that is a key like any other.
    let large = vec![b'k'; 1_500_000];
    kv.put(put(large.clone(), b"v".to_vec())).await.unwrap();
    let range = RangeRequest { key: large.clone().into(), ..Default::default() };
    let found = kv.range(range).await.unwrap().into_inner();
    assert_eq!((found.count, found.kvs[0].key.len()), (1, large.len()));
    let delete = DeleteRangeRequest { key: large.into(), ..Default::default() };
    assert_eq!(kv.delete_range(delete).await.unwrap().into_inner().deleted, 1);
    let get = |name: String| RequestOp {
        request: Some(Op::RequestRange(RangeRequest { key: name.into(), ..Default::default() })),
    };
    let success: Vec<RequestOp> = (0..129).map(|number| get(number.to_string())).collect();
    let status = kv.txn(TxnRequest { success, ..Default::default() }).await.unwrap_err();
    assert_eq!(status.message(), "etcdserver: too many operations in txn request");
    member.serves().await;
}

/// Later members could not read them, and would form no cluster.
#[tokio::test(flavor = "multi_thread")]
async fn members_with_urls_that_nobody_can_read_are_not_added() {
    let member = Member::start();
    let mut cluster = ClusterClient::new(member.channel().await);
    for url in
        ["http://[::1:5", "http://a\\b:1", "http://%zz:1", "http://a\x01:1", "http://a\n:1", ""]
    {
        let request = MemberAddRequest { peer_ur_ls: vec![url.into()], ..Default::default() };
        let refused = cluster.member_add(request).await.unwrap_err();
        let expected = "etcdserver: given member URLs are invalid";
        assert_eq!((refused.code(), refused.message()), (Code::InvalidArgument, expected), "{url}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn empty_keys_are_refused() {
    let member = Member::start();
    let mut kv = member.kv().await;
    let put = Op::RequestPut(PutRequest::default());
    let delete = Op::RequestDeleteRange(DeleteRangeRequest::default());
    let range = Op::RequestRange(RangeRequest::default());
    let mut refusals = vec![
        kv.put(PutRequest::default()).await.unwrap_err(),
        kv.range(RangeRequest::default()).await.unwrap_err(),
        kv.delete_range(DeleteRangeRequest::default()).await.unwrap_err(),
    ];
    for op in [put, delete, range] {
        let success = vec![RequestOp { request: Some(op) }];
        let txn = TxnRequest { success, ..Default::default() };
        refusals.push(kv.txn(txn).await.unwrap_err());
    }
    for status in refusals {
        assert_eq!(status.code(), Code::InvalidArgument);
        assert_eq!(status.message(), "etcdserver: key is not provided");
    }
    member.serves().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn absurd_numbers_have_sober_answers() {
    let member = Member::start();
    let mut kv = member.kv().await;
    kv.put(PutRequest { key: key("a"), ..Default::default() }).await.unwrap();
    let range = RangeRequest { key: key("a"), range_end: key("z"), ..Default::default() };
    for limit in [i64::MAX, -1, i64::MIN] {
        let found = kv.range(RangeRequest { limit, ..range.clone() }).await.unwrap().into_inner();
        assert_eq!((found.count, found.kvs.len(), found.more), (1, 1, false), "limit {limit}");
    }
    let old = RangeRequest { revision: i64::MIN, ..range.clone() };
    assert_eq!(kv.range(old).await.unwrap().into_inner().count, 1);
    let future = kv.range(RangeRequest { revision: i64::MAX, ..range }).await.unwrap_err();
    assert_eq!(future.code(), Code::OutOfRange);
    for revision in [i64::MAX, 3] {
        let request = CompactionRequest { revision, ..Default::default() };
        let status = kv.compact(request).await.unwrap_err();
        assert_eq!(status.code(), Code::OutOfRange, "{status}");
    }

    let mut lease = LeaseClient::new(member.channel().await);
    let long = LeaseGrantRequest { ttl: i64::MAX, ..Default::default() };
    let status = lease.lease_grant(long).await.unwrap_err();
    assert_eq!(status.message(), "etcdserver: too large lease TTL");
    let short = LeaseGrantRequest { ttl: i64::MIN, id: i64::MIN };
    assert!(lease.lease_grant(short).await.unwrap().into_inner().ttl > 0);
    let status = lease.lease_revoke(LeaseRevokeRequest { id: i64::MAX }).await.unwrap_err();
    assert_eq!(status.code(), Code::NotFound);
    let ask = LeaseTimeToLiveRequest { id: -1, keys: true };
    assert_eq!(lease.lease_time_to_live(ask).await.unwrap().into_inner().ttl, -1);
    member.serves().await;
}

/// What was asked of the watcher before does not hold for the one that takes its id, and its end is not
/// the end of that one.
#[tokio::test(flavor = "multi_thread")]
async fn a_watch_id_can_be_used_again_at_once() {
    let member = Member::start();
    let create = |prev_kv| {
        let create =
            WatchCreateRequest { key: key("a"), watch_id: 5, prev_kv, ..Default::default() };
        WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) }
    };
    let cancel = || {
        let cancel = rusd::pb::WatchCancelRequest { watch_id: 5 };
        WatchRequest { request_union: Some(RequestUnion::CancelRequest(cancel)) }
    };
    let mut kv = member.kv().await;
    let mut put = async || {
        let put = PutRequest { key: key("a"), value: "v".into(), ..Default::default() };
        kv.put(put).await.unwrap();
    };
    put().await;
    let (sender, receiver) = tokio::sync::mpsc::channel(8);
    // Both arrive together, most of the time.
    for request in [create(false), cancel(), create(true), cancel(), create(true)] {
        sender.try_send(request).unwrap();
    }
    let requests = tokio_stream::wrappers::ReceiverStream::new(receiver);
    let mut watch = WatchClient::new(member.channel().await);
    let mut answers = watch.watch(requests).await.unwrap().into_inner();
    let mut next = async || -> WatchResponse {
        tokio::time::timeout(PATIENCE, answers.message()).await.unwrap().unwrap().unwrap()
    };
    let mut created = 0;
    while created < 3 {
        created += usize::from(next().await.created);
    }
    for round in 0..20 {
        put().await;
        let answer = next().await;
        assert_eq!((answer.watch_id, answer.events.len()), (5, 1), "round {round}");
        assert_eq!(answer.events[0].prev_kv.is_some(), round % 2 == 0, "round {round}");
        sender.try_send(cancel()).unwrap();
        sender.try_send(create(round % 2 == 1)).unwrap();
        assert!(next().await.canceled);
        assert!(next().await.created);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn absurd_watches_are_answered_on_their_stream() {
    let member = Member::start();
    let mut watch = WatchClient::new(member.channel().await);
    let create = |start_revision, watch_id| {
        let create = WatchCreateRequest {
            key: key("a"),
            start_revision,
            watch_id,
            filters: vec![99, -1],
            ..Default::default()
        };
        WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) }
    };
    let cancel = |watch_id| {
        let cancel = rusd::pb::WatchCancelRequest { watch_id };
        WatchRequest { request_union: Some(RequestUnion::CancelRequest(cancel)) }
    };
    let requests = vec![
        WatchRequest { request_union: None },
        cancel(i64::MIN),
        create(i64::MAX, i64::MAX),
        create(i64::MIN, 7),
        create(0, 7),
        cancel(7),
    ];
    let (sender, receiver) = tokio::sync::mpsc::channel(requests.len());
    for request in requests {
        sender.try_send(request).unwrap();
    }
    let requests = tokio_stream::wrappers::ReceiverStream::new(receiver);
    let mut answers = watch.watch(requests).await.unwrap().into_inner();
    let mut next = async || -> WatchResponse {
        tokio::time::timeout(PATIENCE, answers.message()).await.unwrap().unwrap().unwrap()
    };
    let mut seen = Vec::new();
    while seen.last() != Some(&(7, false, true)) {
        let answer = next().await;
        seen.push((answer.watch_id, answer.created, answer.canceled));
    }
    // The stream answers on, whatever it was asked.
    assert!(seen.contains(&(i64::MAX, true, false)), "{seen:?}");
    assert!(seen.contains(&(7, true, false)), "{seen:?}");
    assert!(seen.contains(&(-1, true, true)), "{seen:?}");
    member.serves().await;
}
