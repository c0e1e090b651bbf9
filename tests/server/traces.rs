//! What a collector of OpenTelemetry gets to see. The expected spans are those that etcd 3.7.1 sent
//! to a collector for the same calls.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use futures_util::StreamExt as _;
use rusd::pb::compare::{CompareResult, CompareTarget, TargetUnion};
use rusd::pb::kv_client::KvClient;
use rusd::pb::lease_client::LeaseClient;
use rusd::pb::request_op::Request as Op;
use rusd::pb::v3lockpb::lock_client::LockClient;
use rusd::pb::v3lockpb::{LockRequest, UnlockRequest};
use rusd::pb::watch_client::WatchClient;
use rusd::pb::watch_request::RequestUnion;
use rusd::pb::{
    AuthUserAddRequest, CompactionRequest, Compare, DeleteRangeRequest, LeaseGrantRequest,
    LeaseKeepAliveRequest, LeaseRevokeRequest, PutRequest, RangeRequest, RequestOp, TxnRequest,
    WatchCancelRequest, WatchCreateRequest, WatchRequest,
};
use tonic::Request;

use super::collector::{Collector, Seen, shown};
use super::fixture::Member;
use super::member;

fn spawn(more: &[&str], address: &str, root: &Path) -> Member {
    let address = format!("--distributed-tracing-address={address}");
    let flags = [&["--enable-distributed-tracing", &address], more].concat();
    let mut member = Member::spawn_with(&flags, &[], &root.join("data"), &root.join("log"));
    member.wait_ready();
    member
}

/// A request within the trace of this id.
fn traced<T>(trace: u128, message: T) -> Request<T> {
    flagged(trace, "01", message)
}

fn flagged<T>(trace: u128, flags: &str, message: T) -> Request<T> {
    let mut request = Request::new(message);
    let parent = format!("00-{trace:032x}-00000000000000aa-{flags}");
    request.metadata_mut().insert("traceparent", parent.parse().unwrap());
    request.metadata_mut().insert("tracestate", "x=y, z=1".parse().unwrap());
    request
}

/// The spans of a trace, one a line, in the order of their starts: name, parent, attributes, events.
/// `PORT` stands for the member's.
fn lines(spans: &[Seen], port: &str) -> Vec<String> {
    let names: BTreeMap<_, _> =
        spans.iter().map(|seen| (&seen.span.span_id, &seen.span.name)).collect();
    let mut spans: Vec<_> = spans.iter().collect();
    spans.sort_by_key(|seen| seen.span.start);
    let line = |seen: &&Seen| {
        let span = &seen.span;
        let parent = match span.parent_span_id[..] {
            [] => "-",
            [0, 0, 0, 0, 0, 0, 0, 0xaa] => "client",
            _ => names[&span.parent_span_id],
        };
        assert!(span.start <= span.end && span.status.is_some());
        let mut line = format!("{} < {parent} {}", span.name, shown(&span.attributes));
        for event in &span.events {
            assert!(span.start <= event.at && event.at <= span.end);
            line.push_str(&format!(" [{}]", event.name));
            if !event.attributes.is_empty() {
                line.push_str(&shown(&event.attributes));
            }
        }
        line.replace(port, "PORT")
    };
    spans.iter().map(line).collect()
}

/// The line of a call's span.
fn call(method: &str, status: &str) -> String {
    format!(
        "{method} < client rpc.method={method:?} rpc.response.status_code={status:?} \
         rpc.system.name=\"grpc\" server.address=\"127.0.0.1\" server.port=PORT"
    )
}

const RAFT: &str = " [Send raft proposal] [Receive raft result]";

fn op(op: Op) -> RequestOp {
    RequestOp { request: Some(op) }
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_have_the_spans_that_they_have_in_etcd() {
    let (collector, root) = (Collector::start().await, tempfile::tempdir().unwrap());
    let names = ["--distributed-tracing-service-name=kv", "--distributed-tracing-instance-id=one"];
    let mut member = spawn(&names, &collector.address, root.path());
    keys(&member).await;
    leases_and_watchers(&member).await;
    others(&member).await;
    let port = member.address.rsplit_once(':').unwrap().1.to_owned();
    member.stop();

    let traces = collector.traces();
    let of = |trace: u128| lines(&traces[&trace], &port);
    for (trace, method, status, step) in STEPS {
        let mut expected = vec![call(method, status)];
        expected.extend(step.iter().map(|step| step.replace("RAFT", RAFT)));
        assert_eq!(of(*trace), expected);
    }
    assert_eq!(of(15), [call("etcdserverpb.Auth/UserAdd", "OK") + RAFT]);
    let lock = of(16);
    assert_eq!(lock[0], call("v3lockpb.Lock/Lock", "OK"));
    assert!(lock[1].starts_with("lease_grant < v3lockpb.Lock/Lock id="), "{lock:?}");
    assert!(lock[2].starts_with("txn < v3lockpb.Lock/Lock compare_first_key=\"L/"), "{lock:?}");
    let name = |line: &String| line.split(' ').next().unwrap().to_owned();
    let waiting: Vec<String> = of(19).iter().map(name).collect();
    let steps: [String; 6] =
        ["v3lockpb.Lock/Lock", "lease_grant", "txn", "range", "watch", "range"].map(String::from);
    assert_eq!(waiting[..6], steps);
    let [unlock] = &traces[&20][..] else { panic!("{:?}", of(20)) };
    let status = unlock.span.status.as_ref().unwrap();
    assert_eq!((status.code, &*status.message), (2, "etcdserver: key is not provided"));
    // Of all other calls, some with a flag that says no, none was recorded.
    assert_eq!(traces.keys().copied().collect::<Vec<_>>(), (1..=20).collect::<Vec<_>>());
    traces.values().flatten().for_each(has_what_all_spans_have);
}

fn has_what_all_spans_have(seen: &Seen) {
    assert_eq!(seen.resource, "service.instance.id=\"one\" service.name=\"kv\"");
    let is_call = seen.span.name.contains('/');
    let scope = match is_call {
        true => "go.opentelemetry.io/contrib/instrumentation/google.golang.org/grpc/otelgrpc",
        false => "go.etcd.io/etcd",
    };
    assert_eq!(seen.scope, scope);
    assert_eq!((seen.span.kind, seen.span.flags), if is_call { (2, 0x301) } else { (1, 0x101) });
    let state = if seen.span.trace_id[15] == 17 { "" } else { "x=y,z=1" };
    assert_eq!(seen.span.trace_state, state);
    let is_error = seen.span.status.as_ref().unwrap().code != 0;
    assert!(!is_error || (19..=20).contains(&seen.span.trace_id[15]));
}

/// Trace, call, status, and the spans below that of the call. `RAFT` stands for the events of a
/// proposal.
type Steps = (u128, &'static str, &'static str, &'static [&'static str]);
const STEPS: &[Steps] = &[
    (1, "etcdserverpb.KV/Put", "OK", &["put < etcdserverpb.KV/Put key=\"a\"RAFT"]),
    (2, "etcdserverpb.KV/Put", "INVALID_ARGUMENT", &[]),
    (3, "etcdserverpb.KV/Put", "NOT_FOUND", &["put < etcdserverpb.KV/Put key=\"a\"RAFT"]),
    (
        4,
        "etcdserverpb.KV/Put",
        "INVALID_ARGUMENT",
        &["put < etcdserverpb.KV/Put key=\"a\" [exception]exception.message=\"etcdserver: \
           request is too large\" exception.type=\"*errors.errorString\""],
    ),
    (5, "etcdserverpb.KV/Range", "OK", &[RANGE]),
    (
        6,
        "etcdserverpb.KV/Txn",
        "OK",
        &["txn < etcdserverpb.KV/Txn compare_first_key=\"c\" compare_len=1 failure_len=2 \
           read_only=false success_first_key=\"d\" success_first_lease=0 \
           success_first_type=\"put\" success_len=1RAFT"],
    ),
    (
        7,
        "etcdserverpb.KV/Txn",
        "OK",
        &["txn < etcdserverpb.KV/Txn compare_first_key=\"\" compare_len=0 failure_len=0 \
           read_only=true success_first_key=\"d\" success_first_lease=-1 \
           success_first_type=\"range\" success_len=1"],
    ),
    (
        8,
        "etcdserverpb.KV/DeleteRange",
        "OK",
        &["delete_range < etcdserverpb.KV/DeleteRange range_begin=\"d\" range_end=\"e\"RAFT"],
    ),
    (
        9,
        "etcdserverpb.KV/Compact",
        "OK",
        &["compact < etcdserverpb.KV/Compact is_physical=true rev=2RAFT"],
    ),
    (
        10,
        "etcdserverpb.KV/RangeStream",
        "OK",
        &["range_streaming < etcdserverpb.KV/RangeStream count_only=false limit=0 \
           range_begin=\"a\" range_end=\"\\0\" rev=0"],
    ),
    (
        11,
        "etcdserverpb.Lease/LeaseGrant",
        "OK",
        &["lease_grant < etcdserverpb.Lease/LeaseGrant id=7 ttl=1RAFT"],
    ),
    (
        12,
        "etcdserverpb.Lease/LeaseKeepAlive",
        "OK",
        &["lease_renew < etcdserverpb.Lease/LeaseKeepAlive id=7"],
    ),
    (
        13,
        "etcdserverpb.Lease/LeaseRevoke",
        "OK",
        &["lease_revoke < etcdserverpb.Lease/LeaseRevoke id=7RAFT"],
    ),
    (
        14,
        "etcdserverpb.Watch/Watch",
        "CANCELLED",
        &[
            "watch < etcdserverpb.Watch/Watch fragment=false key=\"w\" prev_kv=true \
             progress_notify=true range_end=\"\" start_rev=3",
            "watch < etcdserverpb.Watch/Watch fragment=true key=\"\\0\" prev_kv=false \
             progress_notify=false range_end=\"x\" start_rev=0",
        ],
    ),
    (17, "etcdserverpb.KV/Range", "OK", &[RANGE]),
    // A key that is no text, for which a collector would refuse all of etcd's batch.
    (18, "etcdserverpb.KV/Put", "OK", &["put < etcdserverpb.KV/Put key=\"\u{fffd}\"RAFT"]),
    (20, "v3lockpb.Lock/Unlock", "UNKNOWN", &[]),
];
const RANGE: &str = "range < etcdserverpb.KV/Range count_only=false keys_only=true limit=5 \
                     range_begin=\"a\" range_end=\"b\" rev=2";

async fn keys(member: &Member) {
    let mut kv = member.kv().await;
    let put = PutRequest { key: "a".into(), value: "b".into(), ..Default::default() };
    kv.put(traced(1, put.clone())).await.unwrap();
    kv.put(traced(2, PutRequest::default())).await.unwrap_err();
    kv.put(traced(3, PutRequest { lease: 77, ..put.clone() })).await.unwrap_err();
    let value = vec![0; 1_600_000].into();
    kv.put(traced(4, PutRequest { value, ..put.clone() })).await.unwrap_err();
    let (key, range_end) = ("a".into(), "b".into());
    let range = RangeRequest { key, range_end, revision: 2, limit: 5, ..Default::default() };
    kv.range(traced(5, RangeRequest { keys_only: true, ..range })).await.unwrap();
    let compare = Compare {
        result: CompareResult::Equal as i32,
        target: CompareTarget::Create as i32,
        key: "c".into(),
        target_union: Some(TargetUnion::CreateRevision(0)),
        ..Default::default()
    };
    let of_d = RangeRequest { key: "d".into(), ..Default::default() };
    let put_d = PutRequest { key: "d".into(), ..Default::default() };
    let read_d = || op(Op::RequestRange(of_d.clone()));
    let txn = TxnRequest {
        compare: vec![compare],
        success: vec![op(Op::RequestPut(put_d))],
        failure: vec![read_d(), read_d()],
    };
    kv.txn(traced(6, txn)).await.unwrap();
    let txn = TxnRequest { success: vec![read_d()], ..Default::default() };
    kv.txn(traced(7, txn)).await.unwrap();
    let (key, range_end) = ("d".into(), "e".into());
    let delete = DeleteRangeRequest { key, range_end, ..Default::default() };
    kv.delete_range(traced(8, delete)).await.unwrap();
    kv.compact(traced(9, CompactionRequest { revision: 2, physical: true })).await.unwrap();
    let (key, range_end) = ("a".into(), vec![0].into());
    let all = RangeRequest { key, range_end, ..Default::default() };
    let mut stream = kv.range_stream(traced(10, all)).await.unwrap().into_inner();
    while stream.message().await.unwrap().is_some() {}
    let odd = PutRequest { key: vec![0xff].into(), ..Default::default() };
    kv.put(traced(18, odd)).await.unwrap();
    kv.put(flagged(99, "00", put.clone())).await.unwrap();
    kv.put(flagged(98, "zz", put.clone())).await.unwrap();
    kv.put(put).await.unwrap();
}

async fn leases_and_watchers(member: &Member) {
    let mut leases = LeaseClient::new(member.channel().await);
    leases.lease_grant(traced(11, LeaseGrantRequest { ttl: 1, id: 7 })).await.unwrap();
    let renewal = futures_util::stream::iter([LeaseKeepAliveRequest { id: 7 }]);
    let answers = leases.lease_keep_alive(traced(12, renewal)).await.unwrap().into_inner();
    assert_eq!(answers.count().await, 1);
    leases.lease_revoke(traced(13, LeaseRevokeRequest { id: 7 })).await.unwrap();

    let (requests, sent) = tokio::sync::mpsc::channel(8);
    let ask = async |union| {
        requests.send(WatchRequest { request_union: Some(union) }).await.unwrap();
    };
    let create = |create: WatchCreateRequest| RequestUnion::CreateRequest(create);
    let start_revision = 3;
    let (prev_kv, progress_notify, key) = (true, true, "w".into());
    let first =
        WatchCreateRequest { key, prev_kv, progress_notify, start_revision, ..Default::default() };
    let range_end = "x".into();
    let second = WatchCreateRequest { range_end, fragment: true, ..Default::default() };
    let (key, range_end) = ("b".into(), "a".into());
    let empty = WatchCreateRequest { key, range_end, ..Default::default() };
    let sent = tokio_stream::wrappers::ReceiverStream::new(sent);
    ask(create(first)).await;
    let mut watch = WatchClient::new(member.channel().await);
    let mut answers = watch.watch(traced(14, sent)).await.unwrap().into_inner();
    for next in [create(second), create(empty)] {
        answers.message().await.unwrap().unwrap();
        ask(next).await;
    }
    let refused = answers.message().await.unwrap().unwrap();
    assert!(refused.created && refused.canceled);
    ask(RequestUnion::CancelRequest(WatchCancelRequest { watch_id: 0 })).await;
    while !answers.message().await.unwrap().unwrap().canceled {}
}

async fn others(member: &Member) {
    let mut users = rusd::pb::auth_client::AuthClient::new(member.channel().await);
    let user = AuthUserAddRequest { name: "u".into(), password: "p".into(), ..Default::default() };
    users.user_add(traced(15, user)).await.unwrap();
    let mut locks = LockClient::new(member.channel().await);
    locks.lock(traced(16, LockRequest { name: "L".into(), lease: 0 })).await.unwrap();
    let mut waiting = traced(19, LockRequest { name: "L".into(), lease: 0 });
    waiting.set_timeout(Duration::from_millis(500));
    locks.lock(waiting).await.unwrap_err();
    locks.unlock(traced(20, UnlockRequest::default())).await.unwrap_err();
    let body = r#"{"key":"YQ==","range_end":"Yg==","revision":"2","limit":"5","keys_only":true}"#;
    let parent = format!("00-{:032x}-00000000000000aa-01", 17);
    let answer = post(&member.address, &format!("Grpc-Metadata-Traceparent: {parent}\r\n"), body);
    assert!(answer.contains("\"kvs\""), "{answer}");
    // The gateway passes no other header on.
    let answer = post(&member.address, &format!("Traceparent: {parent}\r\n"), body);
    assert!(answer.contains("\"kvs\""), "{answer}");
}

fn post(address: &str, headers: &str, body: &str) -> String {
    use std::io::{Read as _, Write as _};
    let mut stream = std::net::TcpStream::connect(address).unwrap();
    let head = format!(
        "POST /v3/kv/range HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{headers}Content-Length: {}",
        body.len()
    );
    stream.write_all(format!("{head}\r\n\r\n{body}").as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_records_traces_of_its_own_at_the_rate_that_a_file_or_variables_give() {
    let (collector, root) = (Collector::start().await, tempfile::tempdir().unwrap());
    let (data, log) = (root.path().join("data"), root.path().join("log"));
    let settings = format!(
        "enable-distributed-tracing: true\ndistributed-tracing-address: {}\n\
         distributed-tracing-service-name: of-file\ndistributed-tracing-sampling-rate: 1000000\n",
        collector.address
    );
    let file = root.path().join("file");
    let mut member = Member::spawn_from_file(&file, &data, &settings, &log);
    member.wait_ready();
    let put = PutRequest { key: "own".into(), ..Default::default() };
    member.kv().await.put(put.clone()).await.unwrap();
    member.kv().await.put(flagged(99, "00", put.clone())).await.unwrap();
    member.stop();
    let variables = [
        ("ETCD_ENABLE_DISTRIBUTED_TRACING", "true"),
        ("ETCD_DISTRIBUTED_TRACING_ADDRESS", collector.address.as_str()),
        ("ETCD_EXPERIMENTAL_DISTRIBUTED_TRACING_SERVICE_NAME", "of-variables"),
        ("ETCD_DISTRIBUTED_TRACING_INSTANCE_ID", "one"),
        ("OTEL_RESOURCE_ATTRIBUTES", "a=b"),
    ];
    let rate = ["--experimental-distributed-tracing-sampling-rate=1000000"];
    let (data, log) = (root.path().join("data2"), root.path().join("log2"));
    let mut member = Member::spawn_with(&rate, &variables, &data, &log);
    member.wait_ready();
    member.kv().await.put(put).await.unwrap();
    member.stop();

    let traces = collector.traces();
    assert!(!traces.contains_key(&99));
    let roots: Vec<&Seen> = traces
        .values()
        .map(|spans| spans.iter().find(|seen| seen.span.parent_span_id.is_empty()).unwrap())
        .collect();
    // Probes of health read a range, and begin a trace with it.
    assert!(roots.iter().all(|seen| ["etcdserverpb.KV/Put", "range"].contains(&&*seen.span.name)));
    for Seen { span, .. } in &roots {
        assert_eq!(span.flags, if span.name == "range" { 0x101 } else { 0x301 });
    }
    let mut puts: Vec<_> = roots
        .iter()
        .filter(|seen| seen.span.name == "etcdserverpb.KV/Put")
        .map(|seen| (seen.resource.as_str(), traces[&id(seen)].len()))
        .collect();
    puts.sort_unstable();
    let of_variables = "service.instance.id=\"one\" service.name=\"of-variables\"";
    assert_eq!(puts, [(of_variables, 2), ("service.name=\"of-file\"", 2)]);
}

fn id(seen: &Seen) -> u128 {
    u128::from_be_bytes(seen.span.trace_id[..].try_into().unwrap())
}

/// Makes more spans than one batch and the queue hold.
async fn flood(mut kv: KvClient<tonic::transport::Channel>) {
    for _ in 0..2000 {
        let key = "k".into();
        kv.range(RangeRequest { key, serializable: true, ..Default::default() }).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_does_not_answer_costs_spans_and_no_client_anything() {
    let (collector, root) = (Collector::mute().await, tempfile::tempdir().unwrap());
    let rate = ["--distributed-tracing-sampling-rate=1000000"];
    let mut member = spawn(&rate, &collector.address, root.path());
    flood(member.kv().await).await;
    assert!(!collector.traces().is_empty(), "nothing was sent");
    let metrics = member::get(&member.address, "/metrics");
    let dropped = metrics
        .lines()
        .find_map(|line| line.strip_prefix("rusd_trace_spans_dropped_total ")?.parse::<u64>().ok());
    assert!(dropped.is_some_and(|dropped| dropped > 0), "{dropped:?}");
    member.wait_log("failed to export traces");
    member.serves().await;
    // While a batch is on its way that will not be answered.
    member.stop();
    assert!(member.log().contains("closed etcd server"), "{}", member.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_serves_without_its_collector_and_not_with_an_address_that_is_none() {
    let root = tempfile::tempdir().unwrap();
    let rate = ["--distributed-tracing-sampling-rate=1000000"];
    let mut member = spawn(&rate, &member::free_address(), root.path());
    member.serves().await;
    member.wait_log("failed to export traces");
    member.wait_log("onnection refused");
    member.serves().await;
    member.stop();

    let flags = ["--enable-distributed-tracing", "--distributed-tracing-address=%zz"];
    let (mut refused, _root, _) = Member::spawn_bare(&flags);
    let said = refused.wait_refused();
    assert!(said.contains("the member cannot start"), "{said}");
    let why = r#"parse \"dns:///%zz\": invalid URL escape \"%zz\""#;
    assert!(said.contains(why), "{said}");
}
