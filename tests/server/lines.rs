//! The lines about requests that took long, which operators look for.

use rusd::pb::auth_client::AuthClient;
use rusd::pb::authpb::Permission;
use rusd::pb::kv_client::KvClient;
use rusd::pb::maintenance_client::MaintenanceClient;
use rusd::pb::request_op::Request as Op;
use rusd::pb::{
    AuthDisableRequest, AuthEnableRequest, AuthRoleAddRequest, AuthRoleDeleteRequest,
    AuthRoleGrantPermissionRequest, AuthRoleRevokePermissionRequest, AuthUserAddRequest,
    AuthUserChangePasswordRequest, AuthUserDeleteRequest, AuthUserGrantRoleRequest,
    AuthUserRevokeRoleRequest, AuthenticateRequest, DeleteRangeRequest, PutRequest, RangeRequest,
    RequestOp, StatusRequest, TxnRequest,
};
use serde_json::{Value, json};
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

/// Who may do what is changed, and each change leaves its line, as does a token that nobody has.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_of_users_and_roles_are_logged_as_in_etcd() {
    let member = Member::start();
    let channel = member.channel().await;
    let mut auth = AuthClient::new(channel.clone());
    let name = || "root".to_owned();
    let password = || PASSWORD.to_owned();
    let user = AuthUserAddRequest { name: name(), password: password(), ..Default::default() };
    auth.user_add(user).await.unwrap();
    auth.role_add(AuthRoleAddRequest { name: name() }).await.unwrap();
    let perm = Permission { key: "a".into(), range_end: "b".into(), perm_type: 2 };
    auth.role_grant_permission(AuthRoleGrantPermissionRequest { name: name(), perm: Some(perm) })
        .await
        .unwrap();
    let grant = AuthUserGrantRoleRequest { user: name(), role: name() };
    auth.user_grant_role(grant.clone()).await.unwrap();
    auth.user_grant_role(grant).await.unwrap();
    let change =
        AuthUserChangePasswordRequest { name: name(), password: password(), ..Default::default() };
    auth.user_change_password(change).await.unwrap();
    auth.auth_enable(AuthEnableRequest {}).await.unwrap();
    let login = AuthenticateRequest { name: name(), password: password() };
    let token = auth.authenticate(login).await.unwrap().into_inner().token;
    let mut range = tonic::Request::new(RangeRequest { key: "k".into(), ..Default::default() });
    range.metadata_mut().insert("token", "nobody.1".parse().unwrap());
    KvClient::new(channel).range(range).await.unwrap_err();
    let mut disable = tonic::Request::new(AuthDisableRequest {});
    disable.metadata_mut().insert("token", token.parse().unwrap());
    auth.auth_disable(disable).await.unwrap();
    let (key, range_end) = ("a".into(), "b".into());
    let revoke = AuthRoleRevokePermissionRequest { role: name(), key, range_end };
    auth.role_revoke_permission(revoke).await.unwrap();
    auth.user_revoke_role(AuthUserRevokeRoleRequest { name: name(), role: name() }).await.unwrap();
    auth.role_delete(AuthRoleDeleteRequest { role: name() }).await.unwrap();
    auth.user_delete(AuthUserDeleteRequest { name: name() }).await.unwrap();

    for (message, level, field, value) in [
        ("added a user", "info", "user-name", json!("root")),
        ("created a role", "info", "role-name", json!("root")),
        ("granted/updated a permission to a user", "info", "permission-name", json!("READWRITE")),
        ("granted a role to a user", "info", "user-roles", json!(["root"])),
        ("ignored grant role request to a user", "warn", "duplicate-role-name", json!("root")),
        ("changed a password of a user", "info", "user-roles", json!(["root"])),
        ("enabled authentication", "info", "msg", json!("enabled authentication")),
        ("invalid auth token", "warn", "token-fingerprint", json!("548ac61cadab")),
        ("disabled authentication", "info", "msg", json!("disabled authentication")),
        ("revoked a permission on range", "info", "range-end", json!("b")),
        ("revoked a role from a user", "info", "new-user-roles", json!([])),
        ("deleted a role", "info", "role-name", json!("root")),
        ("deleted a user", "info", "user-name", json!("root")),
    ] {
        let found = lines(&member, message);
        let [line] = &found[..] else { panic!("{message}: {found:?}") };
        assert_eq!((&line["level"], &line[field]), (&json!(level), &value), "{line}");
    }
    assert!(!member.log().contains(PASSWORD) && !member.log().contains(&token));
}

/// Once auth is on, a line about a request names its user, and one about a change who changed it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lines_say_who_asked_and_who_changed() {
    let root = tempfile::tempdir().unwrap();
    let (data, log) = (root.path().join("data"), root.path().join("log"));
    let mut member =
        Member::spawn_with(&["--warning-unary-request-duration=1ns"], &[], &data, &log);
    member.wait_ready();
    let channel = member.channel().await;
    let mut auth = AuthClient::new(channel.clone());
    let name = || "root".to_owned();
    let (user, password) = (name(), PASSWORD.to_owned());
    auth.user_add(AuthUserAddRequest { name: user, password, ..Default::default() }).await.unwrap();
    auth.role_add(AuthRoleAddRequest { name: name() }).await.unwrap();
    let grant = AuthUserGrantRoleRequest { user: name(), role: name() };
    auth.user_grant_role(grant).await.unwrap();
    auth.auth_enable(AuthEnableRequest {}).await.unwrap();
    let login = AuthenticateRequest { name: name(), password: PASSWORD.to_owned() };
    let token = auth.authenticate(login).await.unwrap().into_inner().token;
    let mut put = tonic::Request::new(PutRequest { key: "k1".into(), ..Default::default() });
    put.metadata_mut().insert("token", token.parse().unwrap());
    KvClient::new(channel).put(put).await.unwrap();
    let mut add = tonic::Request::new(AuthRoleAddRequest { name: "second".to_owned() });
    add.metadata_mut().insert("token", token.parse().unwrap());
    auth.role_add(add).await.unwrap();
    member.wait_log("second");

    let stats = lines(&member, "request stats");
    let of_put = stats.iter().find(|line| line["response type"] == "/etcdserverpb.KV/Put");
    assert_eq!(of_put.unwrap()["user"], "root");
    let of_grant = |line: &&Value| line["response type"] == "/etcdserverpb.Auth/UserGrantRole";
    assert!(stats.iter().find(of_grant).unwrap()["user"].is_null(), "auth was off");
    let roles = lines(&member, "created a role");
    let by: Vec<&Value> = roles.iter().map(|line| &line["by"]).collect();
    assert_eq!(by, [&Value::Null, &json!("root")]);
}
