//! The lines about requests that took long, which operators look for.

use rusd::pb::auth_client::AuthClient;
use rusd::pb::kv_client::KvClient;
use rusd::pb::maintenance_client::MaintenanceClient;
use rusd::pb::request_op::Request as Op;
use rusd::pb::{
    AuthUserAddRequest, DeleteRangeRequest, PutRequest, RangeRequest, RequestOp, StatusRequest,
    TxnRequest,
};
use serde_json::Value;
use tonic::transport::Channel;

use super::fixture::Member;

const VALUE: &str = "a value that nobody may see";
const PASSWORD: &str = "a password that nobody may see";

/// The lines with this message, in their order.
fn lines(member: &Member, message: &str) -> Vec<Value> {
    let log = member.log();
    let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    lines.filter(|line| line["msg"] == message).collect()
}

fn op(request: Op) -> RequestOp {
    RequestOp { request: Some(request) }
}

/// Makes one call of each kind.
async fn call(channel: Channel) {
    let mut kv = KvClient::new(channel.clone());
    let put = PutRequest { key: "k1".into(), value: VALUE.into(), ..Default::default() };
    let range = RangeRequest { key: "k1".into(), limit: 1, ..Default::default() };
    let delete = DeleteRangeRequest { key: "k1".into(), ..Default::default() };
    kv.put(put.clone()).await.unwrap();
    kv.range(range.clone()).await.unwrap();
    let success = vec![op(Op::RequestPut(put)), op(Op::RequestRange(range))];
    kv.txn(TxnRequest { success, ..Default::default() }).await.unwrap();
    kv.delete_range(delete).await.unwrap();
    let future = RangeRequest { key: "k1".into(), revision: 99, ..Default::default() };
    kv.range(future).await.unwrap_err();
    MaintenanceClient::new(channel.clone()).status(StatusRequest {}).await.unwrap();
    let (name, password) = ("someone".into(), PASSWORD.into());
    let user = AuthUserAddRequest { name, password, ..Default::default() };
    AuthClient::new(channel).user_add(user).await.unwrap();
}

fn check_stats(lines: &[Value], level: &str, value_bytes: usize) {
    let rest = |line: &Value| {
        let names = ["request count", "request size", "response count", "response size"];
        names.map(|name| line[name].as_i64().unwrap())
    };
    let of = |method: &str, at: usize| {
        let is_it = |line: &&Value| line["response type"] == format!("/etcdserverpb.{method}");
        lines.iter().filter(is_it).nth(at).unwrap_or_else(|| panic!("no {method} in {lines:?}"))
    };
    for line in lines {
        assert_eq!(line["level"], level, "{line}");
        assert!(line["remote"].as_str().unwrap().starts_with("127.0.0.1:"), "{line}");
        assert!(line["time spent"].as_str().unwrap().ends_with('s'), "{line}");
        let start = line["start time"].as_str().unwrap();
        assert!(start.starts_with("20") && start.ends_with('Z') && start.len() == 27, "{line}");
    }
    let (put, put_bytes) = (of("KV/Put", 0), value_bytes as i64 + 6);
    let [count, bytes, responses, response_bytes] = rest(put);
    assert_eq!((count, bytes, responses), (1, put_bytes, 0), "{put}");
    assert!(response_bytes > 10, "{put}");
    let shown = format!(r#"key:"k1" value_size:{value_bytes} "#);
    assert_eq!(put["request content"], shown);
    let range = of("KV/Range", 0);
    assert_eq!(rest(range)[..3], [0, 6, 1], "{range}");
    assert_eq!(range["request content"], r#"key:"k1" limit:1"#);
    assert_eq!(rest(of("KV/Range", 1)), [0, 6, 0, 0]);
    let txn = of("KV/Txn", 0);
    assert_eq!(rest(txn)[..3], [2, put_bytes + 2 + 8, 0], "{txn}");
    let content = format!(
        r#"compare:<> success:<request_put:<{shown}> request_range:{{key:"k1" limit:1}}> failure:<>"#
    );
    assert_eq!(txn["request content"], content);
    assert_eq!(rest(of("KV/DeleteRange", 0))[..3], [0, 4, 1]);
    for other in ["Maintenance/Status", "Auth/UserAdd"] {
        assert_eq!(rest(of(other, 0)), [-1; 4]);
        assert_eq!(of(other, 0)["request content"], "");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn lines_about_slow_requests_have_etcds_fields_and_no_secrets() {
    let slow = ["--warning-unary-request-duration=1ns", "--warning-apply-duration=1ns"];
    for (flags, level) in [(&slow[..], "warn"), (&["--log-level=debug"], "debug")] {
        let root = tempfile::tempdir().unwrap();
        let (data, log) = (root.path().join("data"), root.path().join("log"));
        let mut member = Member::spawn_with(flags, &[], &data, &log);
        member.wait_ready();
        call(member.channel().await).await;
        member.wait_log("/etcdserverpb.Auth/UserAdd");
        check_stats(&lines(&member, "request stats"), level, VALUE.len());
        let said = member.log();
        assert!(!said.contains("nobody may see"), "{said}");
        let applies = lines(&member, "apply request took too long");
        assert_eq!(applies.is_empty(), level == "debug", "{applies:?}");
        if level == "warn" {
            check_applies(&applies, VALUE.len());
        }
    }
}

fn check_applies(lines: &[Value], value_bytes: usize) {
    let of = |prefix: &str, request: &str| {
        let is_it = |line: &&Value| {
            let shown = line["request"].as_str().unwrap();
            line["prefix"] == prefix && shown.contains(request)
        };
        let found = lines.iter().find(is_it);
        found.unwrap_or_else(|| panic!("no {request} in {lines:?}"))
    };
    let put = format!(r#"put:<key:"k1" value_size:{value_bytes} >"#);
    let put = of("", &put);
    assert!(put["request"].as_str().unwrap().starts_with("header:<ID:"), "{put}");
    assert!(put["response"].as_str().unwrap().starts_with("size:"), "{put}");
    let range = of("read-only range ", r#"key:"k1" limit:1"#);
    let response = range["response"].as_str().unwrap();
    assert!(response.starts_with("range_response_count:1 size:"), "{range}");
    let failed = of("read-only range ", "revision:99");
    assert_eq!(failed["error"], "mvcc: required revision is a future revision");
    assert_eq!(failed["response"], "");
    of("", "auth_user_add:<name:someone>");
    of("", r#"delete_range:{key:"k1"}"#);
    of("", r#"txn:<compare:<> success:<request_put:<key:"k1" value_size:"#);
}
