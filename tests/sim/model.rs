//! etcd by the book: what the committed log means, written down a second time, as plainly as
//! possible. Nothing here is fast and nothing is forgotten.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use rusd::node::Op;
use rusd::pb::compare::{CompareResult, CompareTarget, TargetUnion};
use rusd::pb::request_op::Request;
use rusd::pb::{AlarmType, Compare, KeyValue, PutRequest, RequestOp, alarm_request::AlarmAction};
use rusd::types::KeyRange;

/// One change of one key: its pair, or nothing if it was deleted.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    pub revision: i64,
    pub key: Bytes,
    pub pair: Option<KeyValue>,
}

#[derive(Default)]
pub struct Model {
    pub revision: i64,
    pub compacted: i64,
    /// Everything that ever changed, in order.
    pub changes: Vec<Change>,
    keys: BTreeMap<Bytes, Vec<(i64, Option<KeyValue>)>>,
    pub leases: BTreeMap<i64, BTreeSet<Bytes>>,
    without_space: BTreeSet<u64>,
    /// The revision of the transaction under way, until it changes something.
    open: i64,
}

impl Model {
    pub fn new() -> Self {
        Self { revision: 1, compacted: -1, ..Self::default() }
    }

    /// A key's pair as of a revision.
    pub fn get(&self, key: &[u8], revision: i64) -> Option<&KeyValue> {
        let history = self.keys.get(key)?;
        let newer = history.partition_point(|(at, _)| *at <= revision);
        history[..newer].last()?.1.as_ref()
    }

    /// All pairs of a range as of a revision, in order.
    pub fn range(&self, range: &KeyRange, revision: i64) -> Vec<KeyValue> {
        let keys = self.keys.keys().filter(|key| range.contains(key));
        keys.filter_map(|key| self.get(key, revision)).cloned().collect()
    }

    /// The changes of one revision.
    pub fn at(&self, revision: i64) -> &[Change] {
        let start = self.changes.partition_point(|change| change.revision < revision);
        let end = self.changes.partition_point(|change| change.revision <= revision);
        &self.changes[start..end]
    }

    pub fn apply(&mut self, op: &Op) {
        self.open = self.revision + 1;
        let no_space = !self.without_space.is_empty();
        match op {
            Op::Put(_) | Op::LeaseGrant(_) if no_space => {}
            Op::Put(put) if put.lease == 0 || self.leases.contains_key(&put.lease) => {
                self.put(put);
            }
            Op::Put(_) => {}
            Op::DeleteRange(delete) => self.delete(&delete.key, &delete.range_end),
            Op::Txn(txn) => {
                let puts = |ops: &[RequestOp]| {
                    ops.iter().any(|op| matches!(op.request, Some(Request::RequestPut(_))))
                };
                if no_space && (puts(&txn.success) || puts(&txn.failure)) {
                    return;
                }
                let holds = txn.compare.iter().all(|compare| self.holds(compare));
                for op in if holds { &txn.success } else { &txn.failure } {
                    match &op.request {
                        Some(Request::RequestPut(put)) => self.put(put),
                        Some(Request::RequestDeleteRange(delete)) => {
                            self.delete(&delete.key, &delete.range_end);
                        }
                        _ => {}
                    }
                }
            }
            Op::Compaction(compaction)
                if (self.compacted + 1..=self.revision).contains(&compaction.revision) =>
            {
                self.compacted = compaction.revision;
            }
            Op::Compaction(_) => {}
            Op::LeaseGrant(grant) => {
                self.leases.entry(grant.id).or_default();
            }
            Op::LeaseRevoke(revoke) => {
                for key in self.leases.remove(&revoke.id).unwrap_or_default() {
                    self.delete(&key, b"");
                }
            }
            Op::Alarm(alarm) if alarm.alarm == AlarmType::Nospace as i32 => {
                if alarm.action == AlarmAction::Activate as i32 {
                    self.without_space.insert(alarm.member_id);
                } else if alarm.action == AlarmAction::Deactivate as i32 {
                    self.without_space.remove(&alarm.member_id);
                }
            }
            _ => {}
        }
    }

    fn holds(&self, compare: &Compare) -> bool {
        let pair = self.get(&compare.key, self.revision).cloned().unwrap_or_default();
        let order = match (compare.target(), &compare.target_union) {
            (CompareTarget::Value, Some(TargetUnion::Value(asked))) => {
                // A missing value compares to nothing.
                if pair.mod_revision == 0 {
                    return false;
                }
                pair.value.cmp(asked)
            }
            (CompareTarget::Mod, Some(TargetUnion::ModRevision(asked))) => {
                pair.mod_revision.cmp(asked)
            }
            (CompareTarget::Version, Some(TargetUnion::Version(asked))) => pair.version.cmp(asked),
            other => panic!("the model does not know {other:?}"),
        };
        match compare.result() {
            CompareResult::Equal => order.is_eq(),
            CompareResult::Greater => order.is_gt(),
            CompareResult::Less => order.is_lt(),
            CompareResult::NotEqual => order.is_ne(),
        }
    }

    fn put(&mut self, put: &PutRequest) {
        let old = self.get(&put.key, self.open).cloned();
        let pair = KeyValue {
            key: put.key.clone(),
            create_revision: old.as_ref().map_or(self.open, |old| old.create_revision),
            mod_revision: self.open,
            version: old.as_ref().map_or(0, |old| old.version) + 1,
            value: put.value.clone(),
            lease: put.lease,
        };
        self.change(&put.key, Some(pair));
    }

    fn delete(&mut self, key: &Bytes, range_end: &[u8]) {
        let range = KeyRange::new(key.clone(), Bytes::copy_from_slice(range_end));
        let doomed: Vec<Bytes> =
            self.range(&range, self.open).into_iter().map(|pair| pair.key).collect();
        for key in doomed {
            self.change(&key, None);
        }
    }

    fn change(&mut self, key: &Bytes, pair: Option<KeyValue>) {
        for keys in self.leases.values_mut() {
            keys.remove(key);
        }
        let lease = pair.as_ref().map_or(0, |pair| pair.lease);
        if let Some(keys) = self.leases.get_mut(&lease) {
            keys.insert(key.clone());
        }
        let revision = self.open;
        self.revision = revision;
        self.keys.entry(key.clone()).or_default().push((revision, pair.clone()));
        self.changes.push(Change { revision, key: key.clone(), pair });
    }
}
