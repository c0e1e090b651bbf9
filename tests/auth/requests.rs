//! Requests by chance, each with the keys that it reads and writes.

use rusd::pb::compare::{CompareResult, CompareTarget, TargetUnion};
use rusd::pb::request_op::Request;
use rusd::pb::{Compare, DeleteRangeRequest, PutRequest, RangeRequest, RequestOp, TxnRequest};

use super::model::{Uses, named, universe};
use super::world::{LEASES, World};

impl World {
    pub fn put(&mut self, uses: &mut Uses) -> PutRequest {
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

    pub fn delete(&mut self, uses: &mut Uses) -> DeleteRangeRequest {
        let (key, range_end) = self.range_of_keys();
        let prev_kv = self.random.one_in(2);
        uses.writes.extend(named(&key, &range_end));
        if prev_kv {
            uses.reads.extend(named(&key, &range_end));
        }
        uses.is_exact &= range_end.is_empty() && universe().contains(&key);
        DeleteRangeRequest { key, range_end, prev_kv }
    }

    pub fn range(&mut self, uses: &mut Uses) -> RangeRequest {
        let (key, range_end) = self.range_of_keys();
        uses.reads.extend(named(&key, &range_end));
        uses.is_exact &= range_end.is_empty() && universe().contains(&key);
        let (count_only, keys_only) = (self.random.one_in(4), self.random.one_in(4));
        let serializable = self.random.one_in(2);
        RangeRequest { key, range_end, count_only, keys_only, serializable, ..Default::default() }
    }

    pub fn compare(&mut self, uses: &mut Uses) -> Compare {
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

    pub fn txn(&mut self, uses: &mut Uses, depth: usize) -> TxnRequest {
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
}
