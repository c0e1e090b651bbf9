//! What happens in a history: a seeded sequence of operations.
//!
//! The next operation depends on the seed and on revisions that the server reported, never on time,
//! so two servers that answer alike are asked alike. What a server may answer in more than one way
//! is not asked: leases live long, a compaction waits until all watchers have read what it sweeps,
//! and hashes are not asked for while a sweep may be under way.

use std::collections::BTreeSet;

use bytes::Bytes;
use rusd::clock::split_mix;
use rusd::pb::compare::TargetUnion;
use rusd::pb::request_op::Request;
use rusd::pb::{
    CompactionRequest, Compare, DeleteRangeRequest, HashKvRequest, LeaseGrantRequest,
    LeaseKeepAliveRequest, LeaseLeasesRequest, LeaseRevokeRequest, LeaseTimeToLiveRequest,
    PutRequest, RangeRequest, RequestOp, TxnRequest, WatchCreateRequest,
};

/// Keys that most operations choose from: few, so that operations meet.
const KEYS: u64 = 40;
const LEASES: u64 = 12;
const STREAMS_MAX: usize = 4;
const COMPACTION_INTERVAL_OPS: u64 = 120;

#[derive(Clone, Debug)]
pub(crate) enum Op {
    Put(PutRequest),
    Range(RangeRequest),
    RangeStream(RangeRequest),
    DeleteRange(DeleteRangeRequest),
    Txn(TxnRequest),
    Compact(CompactionRequest),
    HashKv(HashKvRequest),
    LeaseGrant(LeaseGrantRequest),
    LeaseRevoke(LeaseRevokeRequest),
    LeaseTimeToLive(LeaseTimeToLiveRequest),
    LeaseKeepAlive(LeaseKeepAliveRequest),
    LeaseLeases(LeaseLeasesRequest),
    /// Opens a stream and creates watchers on it.
    Watch {
        stream: u64,
        creates: Vec<WatchCreateRequest>,
    },
    /// Waits until the stream has shown everything up to the revision, and takes it.
    Settle {
        stream: u64,
        revision: i64,
    },
    /// Cancels the watchers of a stream, after it settled.
    Cancel {
        stream: u64,
        watch_ids: Vec<i64>,
    },
}

pub(crate) struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        split_mix(self.0)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    fn signed_below(&mut self, end: i64) -> i64 {
        (self.next() % end.max(1) as u64) as i64
    }

    fn percent(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    fn of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len() as u64) as usize]
    }
}

struct OpenStream {
    id: u64,
    /// From which revision on all its watchers are current and progress is told.
    settles_at: i64,
}

pub(crate) struct Generator {
    chance: Chance,
    ops_left: u64,
    since_compaction: u64,
    revision: i64,
    compacted: i64,
    /// Whether the transaction that was planned last puts a key after it deleted it.
    puts_deleted: bool,
    /// Revisions of such transactions. A compaction there deletes the row that was put, in etcd alone,
    /// which then ends when somebody asks for the key.
    not_compacted: BTreeSet<i64>,
    /// A compaction was answered before its sweep ended.
    is_sweeping: bool,
    streams: Vec<OpenStream>,
    next_stream: u64,
    /// What must happen in a row.
    planned: Vec<Op>,
}

impl Generator {
    pub(crate) fn new(seed: u64, ops: u64) -> Self {
        Self {
            chance: Chance(split_mix(seed)),
            ops_left: ops,
            since_compaction: 0,
            revision: 1,
            compacted: -1,
            puts_deleted: false,
            not_compacted: BTreeSet::new(),
            is_sweeping: false,
            streams: Vec::new(),
            next_stream: 0,
            planned: Vec::new(),
        }
    }

    /// Goes on with another history on the same servers.
    pub(crate) fn restart(&mut self, seed: u64, ops: u64) {
        let (revision, compacted, is_sweeping) = (self.revision, self.compacted, self.is_sweeping);
        let not_compacted = std::mem::take(&mut self.not_compacted);
        *self = Self { revision, compacted, is_sweeping, not_compacted, ..Self::new(seed, ops) };
    }

    /// Notes what an answer other than an error says.
    pub(crate) fn learn(&mut self, op: &Op, revision: Option<i64>) {
        let Some(revision) = revision else { return };
        if let Op::Compact(compaction) = op {
            self.compacted = compaction.revision;
            self.is_sweeping = !compaction.physical;
        }
        if matches!(op, Op::Txn(_)) && self.puts_deleted {
            self.not_compacted.insert(revision);
        }
        self.revision = self.revision.max(revision);
    }

    fn plan(&mut self) {
        self.since_compaction += 1;
        if self.since_compaction >= COMPACTION_INTERVAL_OPS && self.streams_can_settle() {
            self.since_compaction = self.chance.below(COMPACTION_INTERVAL_OPS);
            return self.plan_compaction();
        }
        let op = match self.chance.below(1000) {
            0..330 => Op::Put(self.put()),
            330..560 => Op::Range(self.range()),
            // etcd repeats keys in a stream that is sorted by anything else and in no order;
            // docs/compat.md says why rusd does not.
            560..570 => Op::RangeStream(RangeRequest { sort_target: 0, ..self.range() }),
            570..640 => Op::DeleteRange(self.delete_range()),
            640..900 => {
                let mut txn = self.txn(0);
                self.puts_deleted = false;
                spare_reference(&mut txn, None, &mut self.puts_deleted);
                Op::Txn(txn)
            }
            900..925 => Op::LeaseGrant(self.grant()),
            925..933 => Op::LeaseRevoke(LeaseRevokeRequest { id: self.lease() }),
            933..950 => {
                let (id, keys) = (self.lease(), self.chance.percent(80));
                Op::LeaseTimeToLive(LeaseTimeToLiveRequest { id, keys })
            }
            950..953 => Op::LeaseKeepAlive(LeaseKeepAliveRequest { id: self.lease() }),
            953..956 => Op::LeaseLeases(LeaseLeasesRequest {}),
            956..966 if !self.is_sweeping => {
                Op::HashKv(HashKvRequest { revision: self.some_revision() })
            }
            966..982 if self.streams.len() < STREAMS_MAX => self.watch(),
            982..994 => return self.plan_settling(false),
            994..1000 => return self.plan_cancel(),
            _ => Op::Put(self.put()),
        };
        self.planned.push(op);
    }

    fn streams_can_settle(&self) -> bool {
        self.streams.iter().all(|stream| stream.settles_at <= self.revision)
    }

    /// Takes what the streams have shown; planned operations run from the last to the first.
    fn plan_settling(&mut self, all: bool) {
        let chosen = self.chance.below(STREAMS_MAX as u64);
        for (position, stream) in self.streams.iter().enumerate() {
            let is_chosen = all || position as u64 == chosen;
            if is_chosen && stream.settles_at <= self.revision {
                self.planned.push(Op::Settle { stream: stream.id, revision: self.revision });
            }
        }
    }

    fn plan_cancel(&mut self) {
        let Some(stream) = self.streams.first() else { return };
        if stream.settles_at > self.revision {
            return;
        }
        let id = stream.id;
        // An id that no watcher has is met with silence.
        let watch_ids = vec![0, 1, 2, 77, 5, -3];
        self.planned.push(Op::Cancel { stream: id, watch_ids });
        self.planned.push(Op::Settle { stream: id, revision: self.revision });
        self.streams.remove(0);
    }

    fn plan_compaction(&mut self) {
        let recent = self.revision - self.chance.signed_below(self.revision.min(150));
        let mut revision = match self.chance.below(12) {
            0 => self.revision,
            1 => self.revision + 1 + self.chance.signed_below(5),
            2 => self.compacted,
            3 => self.chance.signed_below(self.compacted + 1),
            _ => recent.max(self.compacted + 1),
        };
        // etcd answers its hash for any that is asked for without a revision.
        if revision == 0 && self.compacted < 0 {
            revision = 1;
        }
        while self.not_compacted.contains(&revision) {
            revision += 1;
        }
        // A sweep that is still under way when the next one is asked for leaves no hash behind,
        // and whether it is depends on the time; a physical compaction waits for it.
        let physical = true;
        let compaction = Op::Compact(CompactionRequest { revision, physical });
        if physical {
            for revision in [revision, revision + 1, 0] {
                self.planned.push(Op::HashKv(HashKvRequest { revision }));
            }
        }
        self.planned.push(compaction);
        self.plan_settling(true);
    }

    fn text(prefix: &str, number: u64) -> Bytes {
        Bytes::from(format!("{prefix}{number:02}"))
    }

    fn key(&mut self) -> Bytes {
        match self.chance.below(60) {
            0 => Bytes::new(),
            1 => Bytes::from_static(b"\0"),
            2 => Bytes::from_static(b"\xff\xff"),
            3 => Bytes::from_static(b"k"),
            4 => Bytes::from_static(b"k0"),
            _ => Self::text("k", self.chance.below(KEYS)),
        }
    }

    fn range_end(&mut self, key: &Bytes) -> Bytes {
        match self.chance.below(8) {
            0..3 => Bytes::new(),
            3 => Bytes::from_static(b"\0"),
            4 => Bytes::from_static(b"l"),
            5 => [key, &b"\0"[..]].concat().into(),
            _ => Self::text("k", self.chance.below(KEYS + 1)),
        }
    }

    fn value(&mut self) -> Bytes {
        let size = match self.chance.below(1000) {
            0..100 => 0,
            100..990 => 1 + self.chance.below(40),
            990..999 => 2000 + self.chance.below(4000),
            _ => 60_000 + self.chance.below(60_000),
        };
        let byte = b'a' + self.chance.below(4) as u8;
        let mut value = vec![byte; size as usize];
        if size > 8 && self.chance.percent(70) {
            value[..8].copy_from_slice(&self.chance.next().to_le_bytes());
        }
        value.into()
    }

    fn lease(&mut self) -> i64 {
        match self.chance.below(LEASES + 2) {
            0 => -1000,
            1 => i64::MAX,
            id => 7000 + id as i64,
        }
    }

    fn grant(&mut self) -> LeaseGrantRequest {
        let ttl = if self.chance.percent(5) { 9_000_000_001 } else { 100_000 };
        LeaseGrantRequest { id: self.lease(), ttl }
    }

    fn some_revision(&mut self) -> i64 {
        match self.chance.below(20) {
            0..6 => 0,
            6 => -1 - self.chance.signed_below(3),
            7 => self.revision + 1 + self.chance.signed_below(3),
            8 => self.compacted,
            9 => self.compacted - 1,
            10 => self.revision,
            _ => {
                let first = self.compacted.max(1);
                first + self.chance.signed_below(self.revision - first + 1)
            }
        }
    }

    fn put(&mut self) -> PutRequest {
        let mut put = PutRequest {
            key: self.key(),
            value: self.value(),
            prev_kv: self.chance.percent(30),
            ..Default::default()
        };
        match self.chance.below(20) {
            0..5 => put.lease = self.lease(),
            5 => {
                put.ignore_value = true;
                if !self.chance.percent(10) {
                    put.value = Bytes::new();
                }
                if self.chance.percent(40) {
                    put.lease = self.lease();
                }
            }
            6 => {
                put.ignore_lease = true;
                if self.chance.percent(10) {
                    put.lease = self.lease();
                }
            }
            7 if self.chance.percent(30) => {
                (put.ignore_lease, put.ignore_value) = (true, true);
                put.value = Bytes::new();
            }
            _ => {}
        }
        put
    }

    fn range(&mut self) -> RangeRequest {
        let key = self.key();
        let mut range = RangeRequest {
            range_end: self.range_end(&key),
            key,
            revision: self.some_revision(),
            serializable: self.chance.percent(30),
            ..Default::default()
        };
        if self.chance.percent(30) {
            range.limit = self.chance.signed_below(12) - 1;
        }
        if self.chance.percent(30) {
            range.sort_order = self.chance.of(&[0, 1, 2]);
            range.sort_target = self.chance.of(&[0, 1, 2, 3, 4]);
        }
        match self.chance.below(100) {
            0 => range.sort_order = 3,
            1 => range.sort_target = 5,
            2..12 => range.keys_only = true,
            12..20 => range.count_only = true,
            _ => {}
        }
        if self.chance.percent(12) {
            let bound = self.some_revision();
            *self.chance_of_filters(&mut range) = bound;
            if self.chance.percent(40) {
                let bound = self.some_revision();
                *self.chance_of_filters(&mut range) = bound;
            }
        }
        range
    }

    fn chance_of_filters<'a>(&mut self, range: &'a mut RangeRequest) -> &'a mut i64 {
        match self.chance.below(4) {
            0 => &mut range.min_mod_revision,
            1 => &mut range.max_mod_revision,
            2 => &mut range.min_create_revision,
            _ => &mut range.max_create_revision,
        }
    }

    fn delete_range(&mut self) -> DeleteRangeRequest {
        let key = self.key();
        // Most deletions are small, so that keys live long enough to get versions.
        let range_end = match self.chance.below(12) {
            0 => self.range_end(&key),
            1..3 => Self::text("k", self.chance.below(8)),
            _ => Bytes::new(),
        };
        DeleteRangeRequest { key, range_end, prev_kv: self.chance.percent(40) }
    }

    fn compare(&mut self) -> Compare {
        let key = self.key();
        let target = self.chance.of(&[0, 1, 2, 3, 4]);
        let number = match self.chance.below(4) {
            0 => 0,
            1 => self.chance.signed_below(6),
            _ => self.some_revision(),
        };
        let union = match if self.chance.percent(3) { self.chance.of(&[0, 3]) } else { target } {
            0 => TargetUnion::Version(self.chance.signed_below(5)),
            1 => TargetUnion::CreateRevision(number),
            2 => TargetUnion::ModRevision(number),
            3 => TargetUnion::Value(self.value()),
            _ => TargetUnion::Lease(self.lease()),
        };
        let mut compare = Compare {
            result: self.chance.of(&[0, 1, 2, 3]),
            target,
            target_union: (!self.chance.percent(4)).then_some(union),
            range_end: if self.chance.percent(30) { self.range_end(&key) } else { Bytes::new() },
            key,
        };
        match self.chance.below(300) {
            0 => compare.result = 4,
            1 => compare.target = 5,
            _ => {}
        }
        compare
    }

    fn txn(&mut self, depth: u64) -> TxnRequest {
        let compares = self.chance.of(&[0, 1, 1, 1, 2, 3]);
        TxnRequest {
            compare: (0..compares).map(|_| self.compare()).collect(),
            success: self.branch(depth),
            failure: self.branch(depth),
        }
    }

    fn branch(&mut self, depth: u64) -> Vec<RequestOp> {
        let is_huge = self.chance.below(400) == 0;
        let ops = if is_huge { 120 + self.chance.below(12) } else { self.chance.below(5) };
        let reads_only = is_huge || self.chance.percent(15);
        let ops = (0..ops).map(|_| self.request_op(depth, reads_only));
        let mut ops: Vec<RequestOp> = ops.collect();
        if !self.chance.percent(10) {
            separate_puts(&mut ops);
        }
        ops
    }

    fn request_op(&mut self, depth: u64, reads_only: bool) -> RequestOp {
        let request = match self.chance.below(100) {
            _ if reads_only => Some(Request::RequestRange(self.range())),
            0 if self.chance.percent(20) => None,
            0..30 => {
                let mut range = self.range();
                // A bad revision refuses the whole transaction, which is seen soon enough.
                if self.chance.percent(70) {
                    range.revision = 0;
                }
                Some(Request::RequestRange(range))
            }
            30..80 => {
                let mut put = self.put();
                if self.chance.percent(70) && put.lease != 0 {
                    put.lease = 0;
                }
                Some(Request::RequestPut(put))
            }
            80..90 => Some(Request::RequestDeleteRange(self.delete_range())),
            _ if depth < 3 => Some(Request::RequestTxn(Box::new(self.txn(depth + 1)))),
            _ => Some(Request::RequestRange(self.range())),
        };
        RequestOp { request }
    }

    fn watch(&mut self) -> Op {
        let watchers = self.chance.of(&[1, 1, 2, 3]);
        let mut settles_at = 0;
        let creates = (0..watchers).map(|_| {
            let create = self.watch_create();
            settles_at = settles_at.max(create.start_revision);
            create
        });
        let creates = creates.collect();
        let stream = self.next_stream;
        self.next_stream += 1;
        self.streams.push(OpenStream { id: stream, settles_at });
        Op::Watch { stream, creates }
    }

    fn watch_create(&mut self) -> WatchCreateRequest {
        let key = self.key();
        let start_revision = match self.chance.below(10) {
            0..3 => 0,
            3 => self.revision + 1 + self.chance.signed_below(20),
            4 => self.compacted - 1,
            5 => self.compacted,
            6 if self.chance.percent(20) => -1,
            _ => self.revision - self.chance.signed_below(self.revision - self.compacted),
        };
        let filters = match self.chance.below(10) {
            0 => vec![0],
            1 => vec![1],
            2 if self.chance.percent(20) => vec![0, 1],
            _ => Vec::new(),
        };
        WatchCreateRequest {
            range_end: self.range_end(&key),
            key,
            start_revision,
            progress_notify: self.chance.percent(10),
            filters,
            prev_kv: self.chance.percent(40),
            watch_id: self.chance.of(&[0, 0, 0, 0, 5, -3, 1]),
            fragment: self.chance.percent(30),
        }
    }
}

impl Iterator for Generator {
    type Item = Op;

    fn next(&mut self) -> Option<Op> {
        if self.ops_left == 0 {
            return None;
        }
        self.ops_left -= 1;
        loop {
            match self.planned.pop() {
                Some(Op::HashKv(_)) if self.is_sweeping => {}
                Some(op) => return Some(op),
                None => self.plan(),
            }
        }
    }
}

/// etcd's process ends at a put that keeps the value or lease of a key which the same transaction
/// deleted, and its check for duplicate keys misses deletions without an end: such puts keep
/// nothing. Gives the lowest key from which on there are no more keys.
/// `puts_deleted` is set if there is such a put.
fn spare_reference(
    txn: &mut TxnRequest,
    deleted: Option<Bytes>,
    puts_deleted: &mut bool,
) -> Option<Bytes> {
    let lower = |a: Option<Bytes>, b: Option<Bytes>| [a, b].into_iter().flatten().min();
    let mut lowest = deleted.clone();
    for branch in [&mut txn.success, &mut txn.failure] {
        let mut deleted = deleted.clone();
        for op in branch {
            match &mut op.request {
                Some(Request::RequestDeleteRange(delete)) if delete.range_end.as_ref() == [0] => {
                    deleted = lower(deleted, Some(delete.key.clone()));
                }
                Some(Request::RequestPut(put))
                    if deleted.as_ref().is_some_and(|from| *from <= put.key) =>
                {
                    (put.ignore_value, put.ignore_lease) = (false, false);
                    *puts_deleted = true;
                }
                Some(Request::RequestTxn(nested)) => {
                    deleted = spare_reference(nested, deleted, puts_deleted);
                }
                _ => {}
            }
        }
        lowest = lower(lowest, deleted);
    }
    lowest
}

/// Keeps the first put of each key only, so that fewer transactions are refused.
fn separate_puts(ops: &mut Vec<RequestOp>) {
    let mut keys = Vec::new();
    ops.retain(|op| match &op.request {
        Some(Request::RequestPut(put)) => {
            let is_new = !keys.contains(&put.key);
            keys.push(put.key.clone());
            is_new
        }
        _ => true,
    });
}
