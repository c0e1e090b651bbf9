//! A history that moves from rusd to etcd and back by each of the ways there are, and grows on each
//! side. What can be asked is the same before and after each move.

use std::path::Path;
use std::process::Command;

use rusd::pb::auth_client::AuthClient;
use rusd::pb::authpb::Permission;
use rusd::pb::kv_client::KvClient;
use rusd::pb::lease_client::LeaseClient;
use rusd::pb::maintenance_client::MaintenanceClient;
use rusd::pb::{
    AlarmRequest, AuthDisableRequest, AuthEnableRequest, AuthRoleAddRequest, AuthRoleGetRequest,
    AuthRoleGrantPermissionRequest, AuthRoleListRequest, AuthStatusRequest, AuthUserAddRequest,
    AuthUserGetRequest, AuthUserGrantRoleRequest, AuthUserListRequest, AuthenticateRequest,
    HashKvRequest, LeaseLeasesRequest, LeaseTimeToLiveRequest, PutRequest, RangeRequest,
};
use tonic::Request;
use tonic::transport::Channel;

use super::generate::Generator;
use super::member::{free_address, serve};
use super::server::Server;
use super::subject::Subject;

/// Operations of one leg of four.
pub(crate) const OPS: u64 = 25_000;
/// About as large as a request may be.
const LARGE_BYTES: usize = 1_500_000;
/// Large values of one leg.
const LARGE: usize = 8;
/// Revisions at which hashes are compared, besides the newest.
const HASHES: i64 = 5;
const ROOT: &str = "root";
const PASSWORD: &str = "pass";

/// Everything that moves, as far as it can be asked for.
async fn picture(endpoint: &str) -> Vec<String> {
    let channel = channel(endpoint).await;
    let (mut kv, mut lease) = (KvClient::new(channel.clone()), LeaseClient::new(channel.clone()));
    let mut maintenance = MaintenanceClient::new(channel.clone());
    let mut lines = Vec::new();
    let all = RangeRequest {
        key: vec![0].into(),
        range_end: vec![0].into(),
        count_only: true,
        ..Default::default()
    };
    let counted = kv.range(all).await.unwrap().into_inner();
    let revision = counted.header.unwrap().revision;
    lines.push(format!("{} keys at {revision}", counted.count));
    let newest = maintenance.hash_kv(HashKvRequest { revision: 0 }).await.unwrap().into_inner();
    let compacted = newest.compact_revision;
    lines.push(format!("{} of {compacted} to {}", newest.hash, newest.hash_revision));
    let step = ((revision - compacted) / HASHES).max(1);
    // At the compaction itself, servers that ran it answer with the hash that they stored then.
    for revision in (compacted.max(0) + 1..revision).step_by(step as usize) {
        let answer = maintenance.hash_kv(HashKvRequest { revision }).await;
        lines.push(match answer {
            Ok(hash) => format!("{} at {revision}", hash.into_inner().hash),
            Err(status) => format!("{} at {revision}", status.message()),
        });
    }
    let leases = lease.lease_leases(LeaseLeasesRequest {}).await.unwrap().into_inner().leases;
    let mut leases: Vec<i64> = leases.iter().map(|lease| lease.id).collect();
    leases.sort_unstable();
    for id in leases {
        let question = LeaseTimeToLiveRequest { id, keys: true };
        let mut lease = lease.lease_time_to_live(question).await.unwrap().into_inner();
        lease.keys.sort_unstable();
        lines.push(format!("lease {id} of {} s: {:?}", lease.granted_ttl, lease.keys));
    }
    let alarms = maintenance.alarm(AlarmRequest::default()).await.unwrap().into_inner().alarms;
    lines.push(format!("{} alarms", alarms.len()));
    lines.extend(rights(channel).await);
    lines
}

async fn rights(channel: Channel) -> Vec<String> {
    let mut auth = AuthClient::new(channel);
    let mut lines = Vec::new();
    for name in auth.user_list(AuthUserListRequest {}).await.unwrap().into_inner().users {
        let user = auth.user_get(AuthUserGetRequest { name: name.clone() }).await.unwrap();
        lines.push(format!("user {name}: {:?}", user.into_inner().roles));
    }
    for role in auth.role_list(AuthRoleListRequest {}).await.unwrap().into_inner().roles {
        let found = auth.role_get(AuthRoleGetRequest { role: role.clone() }).await.unwrap();
        lines.push(format!("role {role}: {:?}", found.into_inner().perm));
    }
    lines
}

async fn channel(endpoint: &str) -> Channel {
    Channel::from_shared(format!("http://{endpoint}")).unwrap().connect().await.unwrap()
}

/// A leg's part of the history, and what histories lack: large values and rights.
async fn grow(endpoint: &str, generator: &mut Generator, leg: usize, seed: u64, ops: u64) {
    let mut subject = Subject::connect(endpoint).await;
    generator.restart(seed, ops);
    while let Some(op) = generator.next() {
        let outcome = subject.run(&op).await;
        generator.learn(&op, outcome.revision);
    }
    drop(subject);
    let channel = channel(endpoint).await;
    let mut kv = KvClient::new(channel.clone());
    for number in 0..LARGE {
        let key = format!("large {leg} {}", number % (LARGE - 1)).into();
        let value = vec![number as u8; LARGE_BYTES - number].into();
        kv.put(PutRequest { key, value, ..Default::default() }).await.unwrap();
    }
    let mut auth = AuthClient::new(channel);
    let (user, role) = (format!("user {leg}"), format!("role {leg}"));
    let password = PASSWORD.to_owned();
    if leg == 0 {
        let add = AuthUserAddRequest {
            name: ROOT.into(),
            password: password.clone(),
            ..Default::default()
        };
        auth.user_add(add).await.unwrap();
        auth.role_add(AuthRoleAddRequest { name: ROOT.into() }).await.unwrap();
        let grant = AuthUserGrantRoleRequest { user: ROOT.into(), role: ROOT.into() };
        auth.user_grant_role(grant).await.unwrap();
    }
    let add = AuthUserAddRequest { name: user.clone(), password, ..Default::default() };
    auth.user_add(add).await.unwrap();
    auth.role_add(AuthRoleAddRequest { name: role.clone() }).await.unwrap();
    let perm = Permission { perm_type: 2, key: "k".into(), range_end: format!("l{leg}").into() };
    let grant = AuthRoleGrantPermissionRequest { name: role.clone(), perm: Some(perm) };
    auth.role_grant_permission(grant).await.unwrap();
    auth.user_grant_role(AuthUserGrantRoleRequest { user, role }).await.unwrap();
}

async fn auth_status(endpoint: &str) -> String {
    let mut auth = AuthClient::new(channel(endpoint).await);
    let status = auth.auth_status(AuthStatusRequest {}).await.unwrap().into_inner();
    format!("auth {} at {}", status.enabled, status.auth_revision)
}

async fn enable_auth(endpoint: &str) {
    AuthClient::new(channel(endpoint).await).auth_enable(AuthEnableRequest {}).await.unwrap();
}

/// The password has moved as well.
async fn disable_auth(endpoint: &str) -> Result<(), String> {
    let mut auth = AuthClient::new(channel(endpoint).await);
    let login = AuthenticateRequest { name: ROOT.into(), password: PASSWORD.into() };
    let token = auth.authenticate(login).await.map_err(|status| status.to_string())?;
    let mut request = Request::new(AuthDisableRequest {});
    let token = token.into_inner().token.parse().unwrap();
    request.metadata_mut().insert("token", token);
    auth.auth_disable(request).await.map_err(|status| status.to_string())?;
    Ok(())
}

fn tool(program: &Path, arguments: &[&str]) -> Result<(), String> {
    let done = Command::new(program).args(arguments).output().unwrap();
    if done.status.success() {
        return Ok(());
    }
    let errors = String::from_utf8_lossy(&done.stderr);
    Err(format!("{} {arguments:?}: {errors}", program.display()))
}

/// How a state moves to the next server.
#[derive(Clone, Copy, Debug)]
enum Move {
    /// etcdctl saves from rusd, etcdutl restores.
    SavedByEtcdctl,
    /// rusd saves from etcd and restores.
    SavedByRusd,
    /// rusd exports its stopped member, etcdutl restores.
    Exported,
    /// rusd imports the directory of a stopped etcd.
    Imported,
}

const MOVES: [Move; 4] = [Move::SavedByEtcdctl, Move::SavedByRusd, Move::Exported, Move::Imported];

/// Begins and ends with rusd, and is on etcd twice between.
pub(crate) async fn run(tools: &Path, seed: u64, ops: u64) -> Result<(), String> {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: String| dir.path().join(name).to_str().unwrap().to_owned();
    let own = Path::new(crate::child::RUSD);
    let mut peer = free_address();
    let mut server = Server::run(serve(), Path::new(&path("data 0".into())), &peer).await;
    let mut generator = Generator::new(seed, 0);
    for (leg, by) in MOVES.into_iter().enumerate() {
        grow(&server.endpoint, &mut generator, leg, seed + leg as u64, ops).await;
        let before = picture(&server.endpoint).await;
        enable_auth(&server.endpoint).await;
        let auth = auth_status(&server.endpoint).await;
        let (from, to) = (path(format!("data {leg}")), path(format!("data {}", leg + 1)));
        let file = path(format!("{leg}.db"));
        let login = format!("{ROOT}:{PASSWORD}");
        let save = ["--endpoints", &server.endpoint, "--user", &login, "snapshot", "save", &file];
        match by {
            Move::SavedByEtcdctl => tool(&tools.join("etcdctl"), &save)?,
            Move::SavedByRusd => tool(own, &save)?,
            Move::Exported | Move::Imported => {}
        }
        server.stop();
        if !matches!(by, Move::Imported) {
            peer = free_address();
        }
        let url = format!("http://{peer}");
        let cluster = format!("default={url}");
        let restore = [
            "snapshot",
            "restore",
            &file,
            "--data-dir",
            &to,
            "--initial-cluster",
            &cluster,
            "--initial-advertise-peer-urls",
            &url,
        ];
        match by {
            Move::SavedByEtcdctl => tool(&tools.join("etcdutl"), &restore)?,
            Move::SavedByRusd => tool(own, &restore)?,
            Move::Exported => {
                tool(own, &["export", "--data-dir", &from, &file])?;
                tool(&tools.join("etcdutl"), &restore)?;
            }
            Move::Imported => tool(own, &["import", "--from-data-dir", &from, "--data-dir", &to])?,
        }
        let next = match by {
            Move::SavedByEtcdctl | Move::Exported => crate::child::command(tools.join("etcd")),
            Move::SavedByRusd | Move::Imported => serve(),
        };
        server = Server::run(next, Path::new(&to), &peer).await;
        let failed = |what: &str| format!("{by:?}, leg {leg}: {what}");
        let moved = auth_status(&server.endpoint).await;
        if moved != auth {
            return Err(failed(&format!("{auth}, then {moved}")));
        }
        disable_auth(&server.endpoint).await.map_err(|why| failed(&why))?;
        let after = picture(&server.endpoint).await;
        if let Some((a, b)) = before.iter().zip(&after).find(|(a, b)| a != b) {
            return Err(failed(&format!("{a}, then {b}")));
        }
        if before.len() != after.len() {
            return Err(failed(&format!("{} lines, then {}", before.len(), after.len())));
        }
        println!("{by:?}: {} and {} more are the same", after[0], after.len() - 1);
    }
    server.stop();
    Ok(())
}
