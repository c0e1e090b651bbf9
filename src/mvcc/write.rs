//! One write transaction: its changes share the main revision after the current one.

use std::sync::atomic::Ordering;

use bytes::{Bytes, BytesMut};

use super::index::Visit;
use super::kv::{self, Pair};
use super::range::end_of;
use super::{Change, ChangeKind, Current, Error, Mvcc, View, deletion_event};
use crate::limits;
use crate::metrics;
use crate::pb::raw::{DeleteRangeResponse, PutResponse, RangeResponse};
use crate::pb::{DeleteRangeRequest, PutRequest, RangeRequest, ResponseHeader};
use crate::store::Row;
use crate::types::{KeyRange, Revision};

/// The block in which the pairs of a transaction are encoded, at most. A watcher's event that waits
/// holds its block, and the whole request through its key.
const BLOCK_BYTES_MAX: usize = 64 << 10;
/// Bytes of an encoded pair beside key and value: numbers, and the fields' tags and lengths.
const PAIR_BYTES: usize = 48;

/// The leases, as far as this room needs them.
pub trait Leases {
    fn exists(&self, id: i64) -> bool;
    /// Attaches the key to the lease, and to no other; 0 detaches it.
    fn set(&mut self, key: &Bytes, lease: i64);
}

/// An open transaction. The index and the tail get its changes at once; views see them only after
/// `Mvcc::publish`.
pub struct Write<'a> {
    mvcc: &'a Mvcc,
    begin: Current,
    changes: Vec<Change>,
    /// Room for encoded pairs.
    block: BytesMut,
    is_awaited: bool,
    counts: Counts,
}

/// The operations of a transaction, and the bytes of keys and values that it puts; for metrics.
#[derive(Default)]
struct Counts {
    ranges: u64,
    puts: u64,
    deletes: u64,
    put_bytes: usize,
}

impl Counts {
    fn report(&self) {
        for (counter, count) in [
            (metrics::mvcc_range(), self.ranges),
            (metrics::mvcc_put(), self.puts),
            (metrics::mvcc_delete(), self.deletes),
        ] {
            if count > 0 {
                counter.inc_by(count);
            }
        }
        if self.put_bytes > 0 {
            metrics::put_bytes().add(i64::try_from(self.put_bytes).unwrap_or(i64::MAX));
        }
    }
}

impl<'a> Write<'a> {
    pub(super) fn new(mvcc: &'a Mvcc) -> Self {
        let (begin, counts) = (mvcc.written(), Counts::default());
        let (changes, block) = (Vec::new(), BytesMut::new());
        Self { mvcc, begin, changes, block, is_awaited: true, counts }
    }

    /// Sets whether a call on this member waits for the answer (by default it does). If none does,
    /// pairs that only the answer would hold are not read. The changes, and whether the request is
    /// refused, are the same either way.
    #[must_use]
    pub fn with_caller(self, is_awaited: bool) -> Self {
        Self { is_awaited, ..self }
    }

    /// A view of the state with this transaction's changes so far.
    pub fn view(&self) -> View<'a> {
        let current = Current { revision: self.revision(), ..self.begin };
        View { mvcc: self.mvcc, current, wanted: None, _epoch: None }
    }

    /// The revision for the response's header: the transaction's own once it has changed something.
    pub fn revision(&self) -> i64 {
        self.begin.revision + i64::from(!self.changes.is_empty())
    }

    /// Makes room for these puts, so that they share a few blocks of memory.
    pub(super) fn expect<'p>(&mut self, puts: impl Iterator<Item = &'p PutRequest>) {
        let (mut count, mut bytes) = (0, 0);
        for put in puts {
            count += 1;
            bytes += put.key.len() + put.value.len() + PAIR_BYTES;
        }
        if count > 1 {
            self.changes.reserve(count);
            self.block.reserve(bytes.min(BLOCK_BYTES_MAX));
        }
    }

    /// Ends the transaction and returns its changes. Views see them after `Mvcc::publish`.
    pub fn finish(self) -> Vec<Change> {
        self.mvcc.written.store(self.revision(), Ordering::Release);
        self.counts.report();
        self.changes
    }

    /// Puts a key. The caller has checked the request (`checked_put`, `txn`); an error here is
    /// local.
    pub fn put(
        &mut self,
        request: &PutRequest,
        leases: &mut impl Leases,
    ) -> Result<PutResponse, Error> {
        let needs_previous =
            request.prev_kv && self.is_awaited || request.ignore_value || request.ignore_lease;
        let previous = match needs_previous {
            true => self.view().get(&request.key, self.revision())?,
            false => None,
        };
        let old = previous.as_deref().map(Pair::parse).transpose()?.unwrap_or_default();
        let value = if request.ignore_value { old.value } else { &request.value };
        let lease = if request.ignore_lease { old.lease } else { request.lease };
        self.counts.puts += 1;
        self.counts.put_bytes += request.key.len() + value.len();
        self.store_put(&request.key, value, lease);
        leases.set(&request.key, lease);
        let prev_kv = previous.filter(|_| request.prev_kv);
        Ok(PutResponse { header: self.header(), prev_kv })
    }

    /// Deletes all keys of a range.
    pub fn delete_range(
        &mut self,
        request: &DeleteRangeRequest,
        leases: &mut impl Leases,
    ) -> Result<DeleteRangeResponse, Error> {
        self.counts.deletes += 1;
        let range = KeyRange::new(request.key.clone(), request.range_end.clone());
        let mut prev_kvs = Vec::new();
        if request.prev_kv && self.is_awaited {
            let (key, range_end) = (range.key.clone(), range.end.clone());
            let range = RangeRequest { key, range_end, ..Default::default() };
            prev_kvs = self.view().range(&range)?.kvs;
        }
        let keys = self.keys_of(&range);
        for key in &keys {
            self.store_delete(key);
            leases.set(key, 0);
        }
        let deleted = i64::try_from(keys.len()).unwrap_or(i64::MAX);
        Ok(DeleteRangeResponse { header: self.header(), deleted, prev_kvs })
    }

    /// A range within a transaction.
    pub(super) fn range(&mut self, request: &RangeRequest) -> Result<RangeResponse, Error> {
        self.counts.ranges += 1;
        if self.is_awaited {
            return self.view().range(request);
        }
        Ok(RangeResponse { header: self.header(), ..Default::default() })
    }

    /// Deletes one key if it exists.
    pub fn delete(&mut self, key: &Bytes, leases: &mut impl Leases) {
        if self.mvcc.index.read().get(key, self.revision()).is_some() {
            self.counts.deletes += 1;
            self.store_delete(key);
            leases.set(key, 0);
        }
    }

    #[expect(clippy::unnecessary_wraps, reason = "the form in which responses hold it")]
    fn header(&self) -> Option<ResponseHeader> {
        Some(ResponseHeader { revision: self.revision(), ..Default::default() })
    }

    fn next_revision(&self) -> Revision {
        Revision::new(
            self.begin.revision + 1,
            i64::try_from(self.changes.len()).unwrap_or(i64::MAX),
        )
    }

    fn store_put(&mut self, key: &Bytes, value: &[u8], lease: i64) {
        let revision = self.next_revision();
        let found = self.mvcc.index.write().put(key, revision);
        let pair = Pair {
            key,
            create_revision: found.created.main,
            mod_revision: revision.main,
            version: found.version,
            value,
            lease,
        };
        let kv = pair.encode_in(&mut self.block);
        self.mvcc.store.push_row(Row { rev: revision, tombstone: false, kv: kv.clone() });
        let is_create = found.version == 1;
        let key = key.clone();
        let (kind, previous) = (ChangeKind::Put, None);
        self.changes.push(Change { kind, key, kv, revision, is_create, previous });
    }

    fn store_delete(&mut self, key: &Bytes) {
        let revision = self.next_revision();
        self.mvcc.index.write().tombstone(key, revision);
        let stored = kv::encode_tombstone(key);
        self.mvcc.store.push_row(Row { rev: revision, tombstone: true, kv: stored });
        let kv = deletion_event(key, revision.main);
        let (kind, key, previous) = (ChangeKind::Delete, key.clone(), None);
        self.changes.push(Change { kind, key, kv, revision, is_create: false, previous });
    }

    /// The keys of the range that exist, in order.
    fn keys_of(&self, range: &KeyRange) -> Vec<Bytes> {
        let index = self.mvcc.index.read();
        let main = self.revision();
        if range.is_single() {
            let exists = index.get(&range.key, main).is_some();
            return if exists { vec![range.key.clone()] } else { Vec::new() };
        }
        drop(index);
        let end = end_of(range);
        let mut keys = Vec::new();
        let mut start: Box<[u8]> = range.key.as_ref().into();
        loop {
            let index = self.mvcc.index.read();
            let visit =
                index.visit(&start, end, main, limits::INDEX_HOLD_KEYS_MAX, |mut visited| {
                    keys.push(Bytes::copy_from_slice(visited.key()));
                    true
                });
            match visit {
                Visit::Done => return keys,
                Visit::Next(next) => start = next,
            }
        }
    }
}
