//! Clients: each asks one thing at a time of some member, and tells the oracle what it was told.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use prost::Message as _;
use rusd::apply;
use rusd::auth::Credentials;
use rusd::node::{Error, Node, Op, Reply};
use rusd::pb::alarm_request::AlarmAction;
use rusd::pb::compare::{CompareResult, CompareTarget, TargetUnion};
use rusd::pb::raw::{RangeResponse, Response, TxnResponse};
use rusd::pb::request_op::Request;
use rusd::pb::{
    AlarmMember, AlarmRequest, AlarmType, CompactionRequest, Compare, DeleteRangeRequest, KeyValue,
    LeaseGrantRequest, LeaseRevokeRequest, PutRequest, RangeRequest, RequestOp, ResponseHeader,
    TxnRequest,
};
use rusd::types::KeyRange;

use super::{Event, World};
use crate::clock::{Chance, MILLI, SECOND};
use crate::member::{Life, Worker};
use crate::oracle::{Oracle, fold};

const KEYS: u64 = 8;

fn key(number: u64) -> Bytes {
    Bytes::from(format!("k{number}"))
}

/// What a client asks for.
#[derive(Clone, Debug)]
pub enum Ask {
    Put(PutRequest),
    Delete(DeleteRangeRequest),
    Txn(TxnRequest),
    Range(RangeRequest),
    Grant(LeaseGrantRequest),
    Renew(i64),
    /// How long a lease has left.
    Left(i64),
    Revoke(LeaseRevokeRequest),
    Compact(CompactionRequest),
    Hash(i64),
    /// The disk had no room; it may have now.
    Disarm,
}

/// What it was told.
#[derive(Debug)]
pub enum Answer {
    Reply(Reply),
    Range(RangeResponse),
    Ttl(i64),
    /// Granted and left, in seconds; nothing if there is no such lease.
    Left(Option<(i64, i64)>),
}

type Slot = Arc<Mutex<Option<Result<Answer, Error>>>>;

pub struct Pending {
    pub ask: Ask,
    pub member: usize,
    since: u64,
    /// When the client hangs up.
    patience: u64,
    /// What was known to all clients when it was asked.
    least: i64,
    slot: Slot,
    task: tokio::task::JoinHandle<()>,
}

pub struct Client {
    id: u64,
    /// It only keeps a lease alive.
    is_keeper: bool,
    /// One value in so many is long.
    long_odds: u64,
    count: u64,
    grants: i64,
    /// The newest mod revision that this client saw of a key.
    seen: BTreeMap<Bytes, i64>,
    leases: Vec<i64>,
    /// It was refused for want of room.
    lacks_space: bool,
    pub pending: Option<Pending>,
}

impl Client {
    pub fn new(id: u64, is_keeper: bool, long_odds: u64) -> Self {
        let (seen, leases) = (BTreeMap::new(), Vec::new());
        let (count, grants, lacks_space) = (0, 0, false);
        Self { id, is_keeper, long_odds, count, grants, seen, leases, lacks_space, pending: None }
    }

    /// How long until it asks again.
    fn think(&self, chance: &mut Chance) -> u64 {
        chance.below(if self.is_keeper { 800 } else { 30 } * MILLI)
    }

    /// Grants one lease and renews it again and again.
    fn keep(&mut self, chance: &mut Chance) -> Ask {
        let Some(id) = self.leases.last().copied() else {
            self.grants += 1;
            let id = self.id as i64 * 1000 + self.grants;
            return Ask::Grant(LeaseGrantRequest { id, ttl: 2 + chance.below(2) as i64 });
        };
        match chance.below(10) {
            0 => {
                let one = key(chance.below(KEYS));
                Ask::Put(PutRequest { lease: id, ..self.put(chance, one) })
            }
            1 => Ask::Left(id),
            _ => Ask::Renew(id),
        }
    }

    fn put(&mut self, chance: &mut Chance, key: Bytes) -> PutRequest {
        self.count += 1;
        let padding = if chance.one_in(self.long_odds) { chance.below(2000) } else { 0 } as usize;
        let value = Bytes::from(format!("{}-{}{}", self.id, self.count, "x".repeat(padding)));
        PutRequest { key, value, ..Default::default() }
    }

    fn choose(&mut self, chance: &mut Chance, known: i64) -> Ask {
        if self.is_keeper {
            return self.keep(chance);
        }
        if std::mem::take(&mut self.lacks_space) && chance.one_in(10) {
            return Ask::Disarm;
        }
        let one = key(chance.below(KEYS));
        let range = |key: Bytes| RangeRequest { key, ..Default::default() };
        match chance.below(100) {
            0..36 => {
                let mut put = self.put(chance, one);
                if !self.leases.is_empty() && chance.one_in(4) {
                    put.lease = *chance.pick(&self.leases);
                }
                Ask::Put(put)
            }
            36..42 => Ask::Delete(DeleteRangeRequest { key: one, ..Default::default() }),
            42..44 => {
                let range_end = Bytes::from_static(b"k4");
                Ask::Delete(DeleteRangeRequest { key: key(1), range_end, ..Default::default() })
            }
            44..58 => self.compare_and_swap(chance, one),
            58..61 => self.many(chance),
            61..72 => Ask::Range(range(one)),
            72..77 => Ask::Range(RangeRequest { serializable: true, ..range(one) }),
            77..82 => Ask::Range(all(0)),
            82..84 => Ask::Range(all((known - chance.below(20) as i64).max(1))),
            84..87 => {
                self.grants += 1;
                let id = self.id as i64 * 1000 + self.grants;
                Ask::Grant(LeaseGrantRequest { id, ttl: 1 + chance.below(3) as i64 })
            }
            87..95 if !self.leases.is_empty() => Ask::Renew(*chance.pick(&self.leases)),
            95 if !self.leases.is_empty() => {
                let at = chance.below(self.leases.len() as u64) as usize;
                Ask::Revoke(LeaseRevokeRequest { id: self.leases.remove(at) })
            }
            96 | 97 => {
                let revision = known - chance.below(60) as i64;
                Ask::Compact(CompactionRequest { revision, physical: chance.one_in(3) })
            }
            98 => Ask::Hash(known - chance.below(5) as i64),
            _ => Ask::Range(range(one)),
        }
    }

    fn compare_and_swap(&mut self, chance: &mut Chance, key: Bytes) -> Ask {
        let asked = self.seen.get(&key).copied().unwrap_or(0);
        let compare = Compare {
            result: CompareResult::Equal as i32,
            target: CompareTarget::Mod as i32,
            key: key.clone(),
            target_union: Some(TargetUnion::ModRevision(asked)),
            ..Default::default()
        };
        // What exists has a value: this says nothing new, and has apply read the row.
        let there = (asked > 0).then(|| Compare {
            result: CompareResult::NotEqual as i32,
            target: CompareTarget::Value as i32,
            key: key.clone(),
            target_union: Some(TargetUnion::Value("".into())),
            ..Default::default()
        });
        let put = self.put(chance, key.clone());
        let get = RangeRequest { key, ..Default::default() };
        Ask::Txn(TxnRequest {
            compare: std::iter::once(compare).chain(there).collect(),
            success: vec![RequestOp { request: Some(Request::RequestPut(put)) }],
            failure: vec![RequestOp { request: Some(Request::RequestRange(get)) }],
        })
    }

    /// Two puts and a deletion that belong together.
    fn many(&mut self, chance: &mut Chance) -> Ask {
        let start = chance.below(KEYS);
        let [a, b, c] = [0, 1, 2].map(|step| key((start + step) % KEYS));
        let puts = [self.put(chance, a), self.put(chance, b)].map(Request::RequestPut);
        let delete = DeleteRangeRequest { key: c, ..Default::default() };
        let all = puts.into_iter().chain([Request::RequestDeleteRange(delete)]);
        let success = all.map(|request| RequestOp { request: Some(request) }).collect();
        Ask::Txn(TxnRequest { success, ..Default::default() })
    }

    /// Asks a member; the task runs in its runtime.
    fn ask(
        &mut self,
        ask: Ask,
        member: usize,
        life: &Life,
        (since, patience): (u64, u64),
        least: i64,
    ) {
        let slot = Slot::default();
        let node = &life.node;
        let (node, answer, asked) = (node.clone(), Arc::clone(&slot), ask.clone());
        let task = life.runtime.spawn(async move {
            let result = carry_out(&node, asked).await;
            *answer.lock() = Some(result);
        });
        self.pending = Some(Pending { ask, member, since, patience, least, slot, task });
    }

    /// Whether the answer is there.
    fn is_answered(&self) -> bool {
        self.pending.as_ref().is_some_and(|pending| pending.slot.lock().is_some())
    }

    /// Takes the answer and judges it.
    fn take(&mut self, now: u64, oracle: &mut Oracle) -> Option<String> {
        let pending = self.pending.take()?;
        let result = pending.slot.lock().take()?;
        let text = format!("{:?} -> {result:?}", pending.ask);
        match result {
            Ok(answer) => self.judge(&pending, answer, now, oracle),
            Err(error) => self.refused(&pending, &error, oracle),
        }
        Some(text)
    }

    fn refused(&mut self, pending: &Pending, error: &Error, oracle: &mut Oracle) {
        match (error, &pending.ask) {
            // A read of the store that the seed lets fail.
            (Error::Internal(text), _) if text.contains("(os error 5)") => {}
            (Error::Internal(text), _) => panic!("{:?} failed: {text}", pending.ask),
            (Error::Apply(apply::Error::Compacted), Ask::Range(range)) => {
                assert!(range.revision < oracle.model.compacted, "nothing was compacted");
            }
            (Error::Apply(apply::Error::NoSpace), _) => self.lacks_space = true,
            (Error::Apply(apply::Error::LeaseNotFound), Ask::Put(put)) => {
                assert!(!oracle.model.leases.contains_key(&put.lease), "the lease is there");
                self.leases.retain(|id| *id != put.lease);
            }
            _ => {}
        }
    }

    fn judge(&mut self, pending: &Pending, answer: Answer, now: u64, oracle: &mut Oracle) {
        let least = pending.least;
        match (&pending.ask, answer) {
            (Ask::Put(put), Answer::Reply(Reply::Put(response))) => {
                let revision = revision(&response.header);
                self.seen.insert(put.key.clone(), revision);
                oracle.wrote(revision, least, &put.key, Some(&put.value));
            }
            (Ask::Delete(delete), Answer::Reply(Reply::DeleteRange(response))) => {
                let (range, revision) =
                    (range_of(&delete.key, &delete.range_end), revision(&response.header));
                let before = if response.deleted > 0 { revision - 1 } else { revision };
                let gone = oracle.model.range(&range, before).len() as i64;
                assert_eq!(response.deleted, gone, "deleted at {revision}: {delete:?}");
                if gone > 0 {
                    let first = oracle.model.range(&range, before)[0].key.clone();
                    oracle.wrote(revision, least, &first, None);
                } else {
                    oracle.read(revision, Some(least), &range, 0, &[]);
                }
            }
            (Ask::Txn(txn), Answer::Reply(Reply::Txn(response))) => {
                self.judge_txn(txn, &response, least, oracle);
            }
            (Ask::Range(range), Answer::Range(response)) => {
                let least = (!range.serializable).then_some(least);
                let pairs = pairs(&response);
                for pair in &pairs {
                    self.seen.insert(pair.key.clone(), pair.mod_revision);
                }
                let keys = range_of(&range.key, &range.range_end);
                oracle.read(revision(&response.header), least, &keys, range.revision, &pairs);
            }
            (Ask::Grant(_), Answer::Reply(Reply::LeaseGrant(response))) => {
                oracle.renewed(response.id, pending.since, response.ttl);
                self.leases.push(response.id);
            }
            (Ask::Renew(id), Answer::Ttl(ttl)) => {
                if ttl > 0 {
                    oracle.renewed(*id, pending.since, ttl);
                } else {
                    oracle.lease_is_gone(now, *id);
                    self.leases.retain(|known| known != id);
                }
            }
            (Ask::Left(id), Answer::Left(None)) => oracle.lease_is_gone(now, *id),
            (Ask::Left(_), Answer::Left(Some((granted, left)))) => {
                assert!(left <= granted, "{left} seconds left of {granted}");
            }
            _ => {}
        }
    }

    fn judge_txn(
        &mut self,
        txn: &TxnRequest,
        response: &TxnResponse,
        least: i64,
        oracle: &mut Oracle,
    ) {
        let revision = revision(&response.header);
        if let Some(compare) = txn.compare.first() {
            let Some(TargetUnion::ModRevision(asked)) = compare.target_union else { return };
            let at = if response.succeeded { revision - 1 } else { revision };
            let found = oracle.model.get(&compare.key, at).map_or(0, |pair| pair.mod_revision);
            assert_eq!(response.succeeded, found == asked, "{txn:?} at {revision}: {found}");
        }
        for op in if response.succeeded { &txn.success } else { &txn.failure } {
            match &op.request {
                Some(Request::RequestPut(put)) => {
                    self.seen.insert(put.key.clone(), revision);
                    oracle.wrote(revision, least, &put.key, Some(&put.value));
                }
                Some(Request::RequestRange(get)) => {
                    let Some(Response::Range(range)) =
                        response.responses.first().and_then(|op| op.response.as_ref())
                    else {
                        panic!("a transaction without the answer to its range");
                    };
                    let pairs = pairs(range);
                    for pair in &pairs {
                        self.seen.insert(pair.key.clone(), pair.mod_revision);
                    }
                    oracle.read(revision, Some(least), &range_of(&get.key, b""), 0, &pairs);
                }
                _ => {}
            }
        }
    }
}

async fn carry_out(node: &Node, ask: Ask) -> Result<Answer, Error> {
    let who = Credentials::default();
    let op = match ask {
        Ask::Range(range) => {
            return node.range(&who, &range).await.map(Answer::Range);
        }
        Ask::Renew(id) => return node.lease_renew(&who, id).await.map(Answer::Ttl),
        Ask::Left(id) => {
            let info = node.lease_time_to_live(&who, id, true).await?;
            return Ok(Answer::Left(info.map(|info| (info.granted_ttl, info.ttl))));
        }
        Ask::Put(put) => Op::Put(put),
        Ask::Delete(delete) => Op::DeleteRange(delete),
        Ask::Txn(txn) => Op::Txn(txn),
        Ask::Grant(grant) => Op::LeaseGrant(grant),
        Ask::Revoke(revoke) => Op::LeaseRevoke(revoke),
        Ask::Compact(compact) => Op::Compaction(compact),
        Ask::Disarm => {
            let is_full = |alarm: &AlarmMember| alarm.alarm == AlarmType::Nospace as i32;
            match node.alarms().into_iter().find(is_full) {
                Some(AlarmMember { member_id, alarm }) => {
                    let action = AlarmAction::Deactivate as i32;
                    Op::Alarm(AlarmRequest { action, member_id, alarm })
                }
                None => return Ok(Answer::Ttl(0)),
            }
        }
        Ask::Hash(_) => return Ok(Answer::Ttl(0)),
    };
    node.quota_gate(&op).await?;
    node.propose(&who, op).await.map(Answer::Reply)
}

/// All keys, a page of them, so that the answer is made at once.
pub fn all(revision: i64) -> RangeRequest {
    let (key, range_end) = (Bytes::from_static(b"k"), Bytes::from_static(b"l"));
    RangeRequest { key, range_end, revision, limit: 100, ..Default::default() }
}

fn range_of(key: &Bytes, end: &[u8]) -> KeyRange {
    KeyRange::new(key.clone(), Bytes::copy_from_slice(end))
}

fn revision(header: &Option<ResponseHeader>) -> i64 {
    header.as_ref().map_or(0, |header| header.revision)
}

pub fn pairs(response: &RangeResponse) -> Vec<KeyValue> {
    response.kvs.iter().map(|pair| KeyValue::decode(pair.clone()).unwrap()).collect()
}

impl World {
    pub fn client(&mut self, number: usize) {
        if let Some(pending) = &self.clients[number].pending {
            // A client that loses patience hangs up.
            if self.now >= pending.patience {
                pending.task.abort();
                let member = pending.member;
                self.clients[number].pending = None;
                self.arm(member, Worker::Tasks, 0);
            }
            self.at(50 * MILLI, Event::Client(number));
            return;
        }
        if !self.is_asking {
            return;
        }
        let think = self.clients[number].think(&mut self.chance);
        self.at(think, Event::Client(number));
        let alive = |at: &usize| self.members[*at].life.is_some();
        let alive: Vec<usize> = (0..self.members.len()).filter(alive).collect();
        if alive.is_empty() {
            return;
        }
        let member = *self.chance.pick(&alive);
        let known = self.oracle.known;
        let ask = self.clients[number].choose(&mut self.chance, known);
        if let Ask::Revoke(revoke) = &ask {
            self.oracle.gives_up(revoke.id);
        }
        let Some(life) = &self.members[member].life else { return };
        if let Ask::Hash(revision) = ask {
            if let Ok((hash, _)) = life
                .node
                .unguarded()
                .mvcc()
                .hash_by_revision(revision, &rusd::mvcc::ReadCheck::default())
            {
                self.oracle.hash(hash.revision, hash.compact_revision, hash.hash);
            }
            return;
        }
        let patience = match self.chance.below(3) {
            0 => self.now + self.chance.below(6 * SECOND),
            _ => self.now + 50 * MILLI + self.chance.below(400 * MILLI),
        };
        let times = (self.now, patience);
        self.clients[number].ask(ask, member, life, times, self.oracle.known);
        self.arm(member, Worker::Tasks, 0);
    }

    /// Takes the answers that came.
    pub fn collect(&mut self) {
        for number in 0..self.clients.len() {
            if !self.clients[number].is_answered() {
                continue;
            }
            let text = self.clients[number].take(self.now, &mut self.oracle);
            if let Some(text) = text {
                // An error of the disk names a file, whose directory has another name in each run.
                let text = text.replace(&self.dir.path().display().to_string(), "");
                self.note(fold(text.as_bytes()));
                self.tell(|| format!("client {number}: {text}"));
            }
        }
    }
}
