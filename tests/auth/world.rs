//! A member, the model beside it, and what root changes in both: users, roles, grants, data.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use prost::Message;

use rusd::auth::Credentials;
use rusd::clock::{SystemClock, split_mix};
use rusd::node::{AuthConfig, Config, Node, Op, Reply};
use rusd::pb::authpb::permission::Type;
use rusd::pb::authpb::{Permission, UserAddOptions};
use rusd::pb::{
    AuthEnableRequest, AuthRoleAddRequest, AuthRoleGrantPermissionRequest,
    AuthRoleRevokePermissionRequest, AuthUserAddRequest, AuthUserGrantRoleRequest,
    AuthUserRevokeRoleRequest, KeyValue, LeaseGrantRequest, PutRequest, RangeRequest,
};

use super::model::{Keys, Model, universe};

pub const USERS: [&str; 3] = ["ann", "bob", "cat"];
const ROLES: [&str; 3] = ["r1", "r2", "r3"];
pub const LEASES: [i64; 3] = [11, 22, 33];
/// Begins each value, so that a value is found wherever it leaks.
pub const SECRET: &str = "secret-";

pub struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(1);
        split_mix(self.0)
    }

    pub fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound as u64).unwrap()
    }

    pub fn one_in(&mut self, count: usize) -> bool {
        self.below(count) == 0
    }

    pub fn of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())]
    }
}

pub struct World {
    pub node: Node,
    pub random: Random,
    pub model: Model,
    /// Keys on leases, by lease.
    pub leases: BTreeMap<i64, Keys>,
    values: u64,
}

fn root() -> Credentials {
    user("root")
}

pub fn user(name: &str) -> Credentials {
    Credentials::default().with_common_name(Some(name.to_owned()))
}

impl World {
    pub async fn new(dir: &std::path::Path, seed: u64) -> Self {
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

    pub fn range_of_keys(&mut self) -> (Bytes, Bytes) {
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
    pub async fn change(&mut self) {
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

    pub fn value(&mut self) -> Bytes {
        self.values += 1;
        Bytes::from(format!("{SECRET}{}", self.values))
    }

    /// Everything that is stored.
    pub async fn dump(&self) -> BTreeMap<Bytes, KeyValue> {
        let (key, range_end) = (Bytes::from_static(b"\0"), Bytes::from_static(b"\0"));
        let all = RangeRequest { key, range_end, ..Default::default() };
        let response = self.node.range(&root(), &all).await.unwrap();
        let rows = response.kvs.iter().map(|row| KeyValue::decode(row.clone()).unwrap());
        rows.map(|row| (row.key.clone(), row)).collect()
    }

    pub async fn learn_leases(&mut self) {
        let ids = self.node.lease_list(&root()).await.unwrap();
        self.leases = ids.into_iter().map(|id| (id, Keys::new())).collect();
        for row in self.dump().await.into_values().filter(|row| row.lease != 0) {
            self.leases.entry(row.lease).or_default().insert(row.key);
        }
    }
}
