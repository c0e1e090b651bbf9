//! Random users, roles, grants and requests against a member, judged by a model that knows only
//! single keys.
//!
//! ```text
//! cargo test --test auth                                    some thousand requests
//! RUSD_AUTH_CASES=100000 RUSD_AUTH_SEED=7 cargo test --test auth -- --nocapture
//! ```
//!
//! The universe has few keys, so that the model needs no arithmetic of ranges: a user may read a
//! key if a grant of one of his roles names it. Whatever leaves the member (pairs, previous pairs,
//! events, counts, outcomes of compares, keys of leases) must be of readable keys, whatever changes
//! must be writable, and no error may hold a value. What the model allows key by key is not
//! refused either, where a request names single keys alone.

#![expect(clippy::unwrap_used, reason = "a test program")]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use prost::Message;

use rusd::auth::{Credentials, Error as Refusal};
use rusd::clock::{SystemClock, split_mix};
use rusd::node::{AuthConfig, Config, Error, Node, Op, Reply, WatchError};
use rusd::pb::authpb::permission::Type;
use rusd::pb::authpb::{Permission, UserAddOptions};
use rusd::pb::compare::{CompareResult, CompareTarget, TargetUnion};
use rusd::pb::request_op::Request;
use rusd::pb::{
    AlarmRequest, AuthDisableRequest, AuthEnableRequest, AuthRoleAddRequest,
    AuthRoleGrantPermissionRequest, AuthRoleListRequest, AuthRoleRevokePermissionRequest,
    AuthUserAddRequest, AuthUserDeleteRequest, AuthUserGrantRoleRequest, AuthUserListRequest,
    AuthUserRevokeRoleRequest, CompactionRequest, Compare, DeleteRangeRequest, KeyValue,
    LeaseGrantRequest, LeaseRevokeRequest, PutRequest, RangeRequest, RequestOp, TxnRequest, raw,
};
#[cfg(debug_assertions)]
use rusd::planted::{Bug, plant_everywhere};
use rusd::types::KeyRange;
use rusd::watch::{Item, Next, Spec};

type Keys = BTreeSet<Bytes>;

const USERS: [&str; 3] = ["ann", "bob", "cat"];
const ROLES: [&str; 3] = ["r1", "r2", "r3"];
const LEASES: [i64; 3] = [11, 22, 33];
/// Begins each value, so that a value is found wherever it leaks.
const SECRET: &str = "secret-";
/// Requests between two changes of rights.
const CASES_A_WORLD: u64 = 40;

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(1);
        split_mix(self.0)
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound as u64).unwrap()
    }

    fn one_in(&mut self, count: usize) -> bool {
        self.below(count) == 0
    }

    fn of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())]
    }
}

/// All keys of one or two letters, and the smallest key, with which ranges may begin.
fn universe() -> Keys {
    let letters = [b'a', b'b', b'c'];
    let mut keys = Keys::from([Bytes::from_static(b"\0")]);
    for first in letters {
        keys.insert(Bytes::copy_from_slice(&[first]));
        for second in letters {
            keys.insert(Bytes::copy_from_slice(&[first, second]));
        }
    }
    keys
}

/// Keys of the universe that a request's key and range end name, by etcd's documentation alone.
fn named(key: &[u8], end: &[u8]) -> Keys {
    let is_named = |other: &Bytes| match end {
        [] => other == key,
        [0] => other.as_ref() >= key,
        end => other.as_ref() >= key && other.as_ref() < end,
    };
    universe().into_iter().filter(is_named).collect()
}

/// What each user may do, key by key.
#[derive(Default)]
struct Model {
    grants: BTreeMap<&'static str, Vec<Permission>>,
    held: BTreeMap<&'static str, BTreeSet<&'static str>>,
}

impl Model {
    fn may(&self, user: &str, kind: Type) -> Keys {
        let roles = self.held.get(user).into_iter().flatten();
        let perms = roles.filter_map(|role| self.grants.get(role)).flatten();
        let counts = |perm: &&Permission| {
            perm.perm_type == kind as i32 || perm.perm_type == Type::Readwrite as i32
        };
        perms.filter(counts).flat_map(|perm| named(&perm.key, &perm.range_end)).collect()
    }
}

/// Keys that a request reads and writes, however it goes.
#[derive(Debug, Default)]
struct Uses {
    reads: Keys,
    writes: Keys,
    /// Whether it names single keys only, so that the model knows its whole demand.
    is_exact: bool,
}

struct World {
    node: Node,
    random: Random,
    model: Model,
    /// Keys on leases, by lease.
    leases: BTreeMap<i64, Keys>,
    values: u64,
}

fn root() -> Credentials {
    user("root")
}

fn user(name: &str) -> Credentials {
    Credentials::default().with_common_name(Some(name.to_owned()))
}

fn is_refusal(error: &Error) -> bool {
    matches!(error, Error::Auth(Refusal::PermissionDenied | Refusal::UserEmpty))
}

impl World {
    async fn new(dir: &std::path::Path, seed: u64) -> Self {
        let config = Config {
            initial_cluster: vec![("default".into(), vec!["http://localhost:2380".into()])],
            peer_urls: vec!["http://localhost:2380".into()],
            initial_election_tick_advance: false,
            downgrade_check_interval: Duration::from_secs(5),
            compaction_sleep_interval: Duration::from_millis(1),
            auth: AuthConfig { bcrypt_cost: 4, ..AuthConfig::default() },
            ..Config::of(dir)
        };
        let node = Node::start(config, Arc::new(SystemClock::new())).unwrap();
        node.ready().wait_for(|ready| *ready).await.unwrap();
        let world = Self {
            node,
            random: Random(seed),
            model: Model::default(),
            leases: BTreeMap::new(),
            values: 0,
        };
        let nobody = Credentials::default();
        for name in USERS.into_iter().chain(["root"]) {
            let options = Some(UserAddOptions { no_password: true });
            let add = AuthUserAddRequest { name: name.into(), options, ..Default::default() };
            world.node.propose(&nobody, Op::UserAdd(add)).await.unwrap();
        }
        for role in ROLES {
            let add = AuthRoleAddRequest { name: role.into() };
            world.node.propose(&nobody, Op::RoleAdd(add)).await.unwrap();
        }
        let grant = AuthUserGrantRoleRequest { user: "root".into(), role: "root".into() };
        world.node.propose(&nobody, Op::UserGrantRole(grant)).await.unwrap();
        world.node.propose(&nobody, Op::AuthEnable(AuthEnableRequest {})).await.unwrap();
        world
    }

    async fn as_root(&self, op: Op) -> Reply {
        self.node.propose(&root(), op).await.unwrap()
    }

    fn range_of_keys(&mut self) -> (Bytes, Bytes) {
        let keys: Vec<Bytes> = universe().into_iter().collect();
        let key = keys[self.random.below(keys.len())].clone();
        let end = match self.random.below(5) {
            0 | 1 => Bytes::new(),
            2 => Bytes::from_static(b"\0"),
            3 => Bytes::from([&key[..key.len() - 1], &[key[key.len() - 1] + 1]].concat()),
            _ => keys[self.random.below(keys.len())].clone(),
        };
        let key = if self.random.one_in(12) { Bytes::from_static(b"\0") } else { key };
        (key, end)
    }

    /// Changes rights and data.
    async fn change(&mut self) {
        for _ in 0..self.random.below(8) + 4 {
            let (role, name) = (self.random.of(&ROLES), self.random.of(&USERS));
            match self.random.below(5) {
                0 | 1 => self.grant(role).await,
                2 => self.revoke(role).await,
                3 => {
                    let op = AuthUserGrantRoleRequest { user: name.into(), role: role.into() };
                    self.as_root(Op::UserGrantRole(op)).await;
                    self.model.held.entry(name).or_default().insert(role);
                }
                _ => {
                    if self.model.held.entry(name).or_default().remove(role) {
                        let op = AuthUserRevokeRoleRequest { name: name.into(), role: role.into() };
                        self.as_root(Op::UserRevokeRole(op)).await;
                    }
                }
            }
        }
        for id in LEASES {
            if !self.leases.contains_key(&id) {
                let grant = LeaseGrantRequest { id, ttl: 100_000 };
                self.as_root(Op::LeaseGrant(grant)).await;
                self.leases.insert(id, Keys::new());
            }
        }
        for key in universe() {
            if self.random.one_in(2) {
                let lease = if self.random.one_in(3) { self.random.of(&LEASES) } else { 0 };
                let value = self.value();
                let put = PutRequest { key, value, lease, ..Default::default() };
                self.as_root(Op::Put(put)).await;
            }
        }
        self.learn_leases().await;
    }

    async fn grant(&mut self, role: &'static str) {
        let (key, range_end) = self.range_of_keys();
        let is_valid = range_end.is_empty() || range_end.as_ref() == [0] || key < range_end;
        let perm_type = self.random.of(&[Type::Read, Type::Write, Type::Readwrite]) as i32;
        let perm = Permission { perm_type, key, range_end };
        let op = AuthRoleGrantPermissionRequest { name: role.into(), perm: Some(perm.clone()) };
        let reply = self.node.propose(&root(), Op::RoleGrantPermission(op)).await;
        assert_eq!(reply.is_ok(), is_valid, "{perm:?}");
        if is_valid {
            // As etcd has it, a grant takes the place of the role's first one of this key, if that
            // is of the same range, and stands beside all others.
            let grants = self.model.grants.entry(role).or_default();
            match grants.iter_mut().find(|old| old.key == perm.key) {
                Some(first) if first.range_end == perm.range_end => *first = perm,
                _ => grants.push(perm),
            }
        }
    }

    async fn revoke(&mut self, role: &'static str) {
        let grants = self.model.grants.entry(role).or_default();
        if grants.is_empty() {
            return;
        }
        let perm = grants.remove(self.random.below(grants.len()));
        grants.retain(|other| (&other.key, &other.range_end) != (&perm.key, &perm.range_end));
        let op = AuthRoleRevokePermissionRequest {
            role: role.into(),
            key: perm.key,
            range_end: perm.range_end,
        };
        self.as_root(Op::RoleRevokePermission(op)).await;
    }

    fn value(&mut self) -> Bytes {
        self.values += 1;
        Bytes::from(format!("{SECRET}{}", self.values))
    }

    /// Everything that is stored.
    async fn dump(&self) -> BTreeMap<Bytes, KeyValue> {
        let (key, range_end) = (Bytes::from_static(b"\0"), Bytes::from_static(b"\0"));
        let all = RangeRequest { key, range_end, ..Default::default() };
        let response = self.node.range(&root(), &all).await.unwrap();
        let rows = response.kvs.iter().map(|row| KeyValue::decode(row.clone()).unwrap());
        rows.map(|row| (row.key.clone(), row)).collect()
    }

    async fn learn_leases(&mut self) {
        let ids = self.node.lease_list(&root()).await.unwrap();
        self.leases = ids.into_iter().map(|id| (id, Keys::new())).collect();
        for row in self.dump().await.into_values().filter(|row| row.lease != 0) {
            self.leases.entry(row.lease).or_default().insert(row.key);
        }
    }

    fn put(&mut self, uses: &mut Uses) -> PutRequest {
        let (key, _) = self.range_of_keys();
        let lease = if self.random.one_in(2) { self.random.of(&LEASES) } else { 0 };
        let prev_kv = self.random.one_in(3);
        uses.writes.extend(named(&key, b""));
        uses.writes.extend(self.leases.get(&lease).into_iter().flatten().cloned());
        if prev_kv {
            uses.reads.extend(named(&key, b""));
        }
        // Outside the universe the model knows nothing.
        uses.is_exact &= universe().contains(&key);
        PutRequest { key, value: self.value(), lease, prev_kv, ..Default::default() }
    }

    fn delete(&mut self, uses: &mut Uses) -> DeleteRangeRequest {
        let (key, range_end) = self.range_of_keys();
        let prev_kv = self.random.one_in(2);
        uses.writes.extend(named(&key, &range_end));
        if prev_kv {
            uses.reads.extend(named(&key, &range_end));
        }
        uses.is_exact &= range_end.is_empty() && universe().contains(&key);
        DeleteRangeRequest { key, range_end, prev_kv }
    }

    fn range(&mut self, uses: &mut Uses) -> RangeRequest {
        let (key, range_end) = self.range_of_keys();
        uses.reads.extend(named(&key, &range_end));
        uses.is_exact &= range_end.is_empty() && universe().contains(&key);
        let (count_only, keys_only) = (self.random.one_in(4), self.random.one_in(4));
        let serializable = self.random.one_in(2);
        RangeRequest { key, range_end, count_only, keys_only, serializable, ..Default::default() }
    }

    fn compare(&mut self, uses: &mut Uses) -> Compare {
        let (key, range_end) = self.range_of_keys();
        uses.reads.extend(named(&key, &range_end));
        uses.is_exact &= range_end.is_empty() && universe().contains(&key);
        Compare {
            result: CompareResult::Equal as i32,
            target: CompareTarget::Version as i32,
            target_union: Some(TargetUnion::Version(self.random.below(2).try_into().unwrap())),
            key,
            range_end,
        }
    }

    fn txn(&mut self, uses: &mut Uses, depth: usize) -> TxnRequest {
        let mut txn = TxnRequest::default();
        for _ in 0..self.random.below(2) {
            txn.compare.push(self.compare(uses));
        }
        for _ in 0..self.random.below(3) {
            let op = self.op(uses, depth);
            if self.random.one_in(2) { txn.success.push(op) } else { txn.failure.push(op) }
        }
        txn
    }

    fn op(&mut self, uses: &mut Uses, depth: usize) -> RequestOp {
        let request = match self.random.below(if depth < 3 { 4 } else { 3 }) {
            0 => Request::RequestRange(self.range(uses)),
            1 => Request::RequestPut(self.put(uses)),
            2 => Request::RequestDeleteRange(self.delete(uses)),
            _ => Request::RequestTxn(Box::new(self.txn(uses, depth + 1))),
        };
        RequestOp { request: Some(request) }
    }

    /// One request of one user.
    async fn case(&mut self) -> Result<(), String> {
        let name = self.random.of(&USERS);
        let (readable, writable) =
            (self.model.may(name, Type::Read), self.model.may(name, Type::Write));
        let before = self.dump().await;
        let mut uses = Uses { is_exact: true, ..Uses::default() };
        let mut seen = Keys::new();
        let (what, result) = self.request(name, &mut uses, &mut seen).await;
        let after = self.dump().await;
        let changed: Keys =
            universe().into_iter().filter(|key| before.get(key) != after.get(key)).collect();
        self.learn_leases().await;
        let told = |text: &str| Err(format!("{name}: {what}: {text}"));
        match &result {
            Err(error) => {
                if format!("{error} {error:?}").contains(SECRET) {
                    return told("the error holds a value");
                }
                let is_allowed =
                    uses.reads.is_subset(&readable) && uses.writes.is_subset(&writable);
                if uses.is_exact && is_allowed && is_refusal(error) {
                    return told("refused, although each key is granted");
                }
                if is_refusal(error) && !changed.is_empty() {
                    return told("refused and done");
                }
            }
            Ok(()) => {
                if !uses.reads.is_subset(&readable) {
                    return told("reads what it may not");
                }
                if !uses.writes.is_subset(&writable) {
                    return told("writes what it may not");
                }
            }
        }
        if !seen.is_subset(&readable) {
            return told(&format!("saw {seen:?} of {readable:?}"));
        }
        if !changed.is_subset(&writable) {
            return told(&format!("changed {changed:?} of {writable:?}"));
        }
        Ok(())
    }

    async fn request(
        &mut self,
        name: &str,
        uses: &mut Uses,
        seen: &mut Keys,
    ) -> (String, Result<(), Error>) {
        let who = user(name);
        match self.random.below(12) {
            0 => {
                let request = self.range(uses);
                let result = self.node.range(&who, &request).await;
                (format!("{request:?}"), result.map(|range| see_range(&range, seen)))
            }
            1 => {
                let request = self.put(uses);
                self.propose(&who, Op::Put(request), seen).await
            }
            2 => {
                let request = self.delete(uses);
                self.propose(&who, Op::DeleteRange(request), seen).await
            }
            3..=5 => {
                let request = self.txn(uses, 0);
                // A request without keys needs somebody only.
                self.propose(&who, Op::Txn(request), seen).await
            }
            6 => {
                let mut request = TxnRequest::default();
                for _ in 0..self.random.below(3) {
                    request.compare.push(self.compare(uses));
                }
                let range = self.range(uses);
                let op = RequestOp { request: Some(Request::RequestRange(range)) };
                request.success.push(op);
                let result = self.node.read_txn_as(&who, &request, |txn| txn).await;
                (format!("{request:?}"), result.map(|txn| see_txn(&txn, seen)))
            }
            7 => {
                let id = self.random.of(&LEASES);
                uses.writes.extend(self.leases.get(&id).into_iter().flatten().cloned());
                if self.random.one_in(2) {
                    let revoke = Op::LeaseRevoke(LeaseRevokeRequest { id });
                    self.propose(&who, revoke, seen).await
                } else {
                    let result = self.node.lease_renew(&who, id).await;
                    (format!("renew {id}"), result.map(drop))
                }
            }
            8 => {
                let id = self.random.of(&LEASES);
                uses.reads.extend(self.leases.get(&id).into_iter().flatten().cloned());
                let result = self.node.lease_time_to_live(&who, id, true).await;
                let see = |info: Option<rusd::node::LeaseInfo>| {
                    seen.extend(info.into_iter().flat_map(|info| info.keys));
                };
                (format!("time to live {id}"), result.map(see))
            }
            9 => {
                uses.reads.extend(self.leases.values().flatten().cloned());
                let result = self.node.lease_list(&who).await;
                ("leases".to_owned(), result.map(drop))
            }
            10 => self.watch(&who, uses, seen).await,
            _ => self.roots_own(&who).await,
        }
    }

    async fn propose(
        &self,
        who: &Credentials,
        op: Op,
        seen: &mut Keys,
    ) -> (String, Result<(), Error>) {
        let what = format!("{op:?}");
        let result = self.node.propose(who, op).await.map(|reply| match reply {
            Reply::Put(put) => see(put.prev_kv.iter(), seen),
            Reply::DeleteRange(delete) => see(delete.prev_kvs.iter(), seen),
            Reply::Txn(txn) => see_txn(&txn, seen),
            _ => {}
        });
        (what, result)
    }

    async fn watch(
        &mut self,
        who: &Credentials,
        uses: &mut Uses,
        seen: &mut Keys,
    ) -> (String, Result<(), Error>) {
        let (key, end) = self.range_of_keys();
        uses.reads.extend(named(&key, &end));
        uses.is_exact = end.is_empty() && universe().contains(&key);
        let range = KeyRange::new(key, end);
        let what = format!("watch {range:?}");
        let start_revision = if self.random.one_in(2) { 1 } else { 0 };
        let (no_put, no_delete, prev_kv) = (false, false, self.random.one_in(2));
        let spec = Spec { range, start_revision, watch_id: 0, no_put, no_delete, prev_kv };
        let stream = self.node.watch_stream();
        match stream.create(who, spec).await {
            Ok(_) => {}
            Err(WatchError::Refused(error)) => return (what, Err(error)),
            // A range that is turned around is refused after the question of rights.
            Err(WatchError::Watch(_)) => return (what, Ok(())),
        }
        let mut items = Vec::new();
        loop {
            match stream.next() {
                Next::Item(item) => items.push(item),
                Next::CatchUp => stream.catch_up().await.unwrap(),
                Next::Wait => break,
            }
        }
        for item in items {
            if let Item::Events { changes, .. } = item {
                let changes = stream.read_previous(changes).await.unwrap();
                see(changes.iter().filter_map(|change| change.previous.as_ref()), seen);
                seen.extend(changes.into_iter().map(|change| change.key));
            }
        }
        (what, Ok(()))
    }

    /// What only root may do.
    async fn roots_own(&mut self, who: &Credentials) -> (String, Result<(), Error>) {
        let name = || "ann".to_owned();
        let grant = Permission {
            perm_type: Type::Readwrite as i32,
            key: Bytes::from_static(b"\0"),
            range_end: Bytes::from_static(b"\0"),
        };
        let op = match self.random.below(10) {
            0 => Op::Compaction(CompactionRequest { revision: 1, physical: false }),
            1 => Op::AuthDisable(AuthDisableRequest {}),
            2 => Op::UserAdd(AuthUserAddRequest { name: "dan".into(), ..Default::default() }),
            3 => Op::UserDelete(AuthUserDeleteRequest { name: name() }),
            4 => Op::UserList(AuthUserListRequest {}),
            5 => Op::UserGrantRole(AuthUserGrantRoleRequest { user: name(), role: "root".into() }),
            6 => Op::RoleList(AuthRoleListRequest {}),
            7 => Op::RoleAdd(AuthRoleAddRequest { name: "r9".into() }),
            8 => Op::Alarm(AlarmRequest { action: 1, member_id: 1, alarm: 1 }),
            _ => Op::RoleGrantPermission(AuthRoleGrantPermissionRequest {
                name: "r1".into(),
                perm: Some(grant),
            }),
        };
        let what = format!("{op:?}");
        let result = self.node.propose(who, op).await;
        assert_eq!(result.unwrap_err(), Error::Auth(Refusal::PermissionDenied), "{what}");
        // Refused as it should be: nothing further to judge.
        (what, Ok(()))
    }
}

fn see<'a>(rows: impl Iterator<Item = &'a Bytes>, seen: &mut Keys) {
    seen.extend(rows.map(|row| KeyValue::decode(row.clone()).unwrap().key));
}

fn see_range(range: &raw::RangeResponse, seen: &mut Keys) {
    see(range.kvs.iter(), seen);
}

fn see_txn(txn: &raw::TxnResponse, seen: &mut Keys) {
    for response in &txn.responses {
        match &response.response {
            None => {}
            Some(raw::Response::Range(range)) => see_range(range, seen),
            Some(raw::Response::Put(put)) => see(put.prev_kv.iter(), seen),
            Some(raw::Response::DeleteRange(delete)) => see(delete.prev_kvs.iter(), seen),
            Some(raw::Response::Txn(txn)) => see_txn(txn, seen),
        }
    }
}

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// What the first case is that goes wrong, if any does.
async fn first_fault(seed: u64, cases: u64) -> Option<(u64, String)> {
    let dir = tempfile::tempdir().unwrap();
    let mut world = World::new(dir.path(), seed).await;
    let mut fault = None;
    for case in 0..cases {
        if case % CASES_A_WORLD == 0 {
            world.change().await;
        }
        if let Err(complaint) = world.case().await {
            fault = Some((case, complaint));
            break;
        }
    }
    world.node.stop().await;
    fault
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_leaves_or_changes_that_was_not_granted() {
    let (cases, seed) = (setting("RUSD_AUTH_CASES", 2500), setting("RUSD_AUTH_SEED", 1));
    if let Some((case, complaint)) = first_fault(seed, cases).await {
        panic!("seed {seed}, case {case}: {complaint}");
    }
    // It would have been seen, had there been a way around.
    #[cfg(debug_assertions)]
    for bug in Bug::OF_AUTH {
        plant_everywhere(Some(bug));
        let fault = first_fault(seed, 2500).await;
        plant_everywhere(None);
        let (case, complaint) = fault.unwrap_or_else(|| panic!("{bug:?} is not found"));
        println!("{bug:?} is found by case {case}: {complaint}");
    }
}
