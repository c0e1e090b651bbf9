//! One request of one user, and what is judged of it: what it saw, what it changed, and whether it
//! was refused.

use bytes::Bytes;
use prost::Message;

use rusd::apply;
use rusd::auth::{Credentials, Error as Refusal};
use rusd::node::{Error, Op, Reply, WatchError};
use rusd::pb::authpb::Permission;
use rusd::pb::authpb::permission::Type;
use rusd::pb::request_op::Request;
use rusd::pb::{
    AlarmRequest, AuthDisableRequest, AuthRoleAddRequest, AuthRoleGrantPermissionRequest,
    AuthRoleListRequest, AuthUserAddRequest, AuthUserDeleteRequest, AuthUserGrantRoleRequest,
    AuthUserListRequest, CompactionRequest, KeyValue, LeaseRevokeRequest, RequestOp, TxnRequest,
    raw,
};
use rusd::types::KeyRange;
use rusd::watch::{Item, Next, WatchSpec};

use super::model::{Keys, Uses, named, universe};
use super::world::{LEASES, SECRET, USERS, World, user};

impl World {
    /// One request of one user.
    pub async fn case(&mut self) -> Result<(), String> {
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
        let spec = WatchSpec { range, start_revision, watch_id: 0, no_put, no_delete, prev_kv };
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
        assert_eq!(
            result.unwrap_err(),
            Error::Apply(apply::Error::Auth(Refusal::PermissionDenied)),
            "{what}"
        );
        // Refused as it should be: nothing further to judge.
        (what, Ok(()))
    }
}

fn is_refusal(error: &Error) -> bool {
    matches!(
        error,
        Error::Apply(apply::Error::Auth(Refusal::PermissionDenied | Refusal::UserEmpty))
    )
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
