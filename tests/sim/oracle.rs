//! What must hold, whatever fails. The members' applied entries make the one history; everything
//! that a client was told is compared with it.

use std::collections::BTreeMap;

use bytes::Bytes;
use prost::Message as _;
use rusd::apply::Entry;
use rusd::members;
use rusd::mvcc::{Change, ChangeKind};
use rusd::node::Op;
use rusd::pb::{self, KeyValue};
use rusd::raft::{Committed, ConfChange, ConfState, Message, Role, Status};
use rusd::types::KeyRange;

use super::model::{self, Model};

pub struct Oracle {
    pub model: Model,
    /// Term and bytes of each entry, from index 1 on, as whoever applied it first saw them.
    entries: Vec<(u64, Bytes)>,
    /// Terms and what messages said about an entry of them.
    sent: BTreeMap<(u64, u64), u64>,
    leaders: BTreeMap<u64, u64>,
    /// The revision after each entry.
    revisions: Vec<i64>,
    /// Voters and learners, by the entry that made them so.
    configurations: BTreeMap<u64, Configuration>,
    /// Who the members are after the last entry, and who was one.
    pub members: BTreeMap<u64, Member>,
    /// And the entry that removed it.
    pub removed: BTreeMap<u64, u64>,
    /// Members that nobody has seen to yet.
    pub added: Vec<(u64, Vec<String>)>,
    /// Up to here clients know of history.
    pub known: i64,
    /// Hash by compact revision and revision.
    hashes: BTreeMap<(i64, i64), u32>,
    leases: BTreeMap<i64, Lease>,
    pub checked: Checked,
}

/// How much there was to judge.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Checked {
    pub entries: u64,
    pub writes: u64,
    pub reads: u64,
    pub stale_reads: u64,
    pub events: u64,
    pub hashes: u64,
    pub renewals: u64,
    pub expired: u64,
    pub leaders: u64,
    pub crashes: u64,
    pub snapshots: u64,
    pub installed: u64,
    pub deeds: u64,
    pub changes: u64,
    pub panics: u64,
    pub ruined: u64,
    pub wiped: u64,
    pub crowded: u64,
}

impl Checked {
    pub fn add(&mut self, other: &Self) {
        let mine = [
            &mut self.entries,
            &mut self.writes,
            &mut self.reads,
            &mut self.stale_reads,
            &mut self.events,
            &mut self.hashes,
            &mut self.renewals,
            &mut self.expired,
            &mut self.leaders,
            &mut self.crashes,
            &mut self.snapshots,
            &mut self.installed,
            &mut self.deeds,
            &mut self.changes,
            &mut self.panics,
            &mut self.ruined,
            &mut self.wiped,
            &mut self.crowded,
        ];
        let others = [
            other.entries,
            other.writes,
            other.reads,
            other.stale_reads,
            other.events,
            other.hashes,
            other.renewals,
            other.expired,
            other.leaders,
            other.crashes,
            other.snapshots,
            other.installed,
            other.deeds,
            other.changes,
            other.panics,
            other.ruined,
            other.wiped,
            other.crowded,
        ];
        for (mine, other) in mine.into_iter().zip(others) {
            *mine += other;
        }
    }
}

/// A member as the log has it.
#[derive(Clone, Debug, PartialEq)]
pub struct Member {
    pub urls: Vec<String>,
    pub is_learner: bool,
}

/// Ids of voters and learners, in order.
type Configuration = (Vec<u64>, Vec<u64>);

struct Lease {
    /// Until then it must live, as far as clients know.
    safe_until: u64,
    revoked_by_client: bool,
}

pub fn fold(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

impl Oracle {
    pub fn new() -> Self {
        Self {
            model: Model::new(),
            entries: Vec::new(),
            sent: BTreeMap::new(),
            leaders: BTreeMap::new(),
            revisions: Vec::new(),
            configurations: BTreeMap::from([(0, Configuration::default())]),
            members: BTreeMap::new(),
            removed: BTreeMap::new(),
            added: Vec::new(),
            known: 1,
            hashes: BTreeMap::new(),
            leases: BTreeMap::new(),
            checked: Checked::default(),
        }
    }

    /// Entries applied by anyone so far.
    pub fn committed(&self) -> u64 {
        self.entries.len() as u64
    }

    /// A member applied an entry: all apply the same ones, whether they lead or replay.
    pub fn applied(&mut self, now: u64, committed: &Committed) {
        let (index, term) = (committed.index(), committed.term());
        let data = match committed {
            Committed::Normal { data, .. } => data.clone(),
            Committed::ConfChange { change, .. } => Bytes::from(change.encode_to_vec()),
            // It stands for entries that others applied.
            Committed::Snapshot { .. } => {
                let known = self.entries.get(index as usize - 1).map(|(term, _)| *term);
                assert_eq!(known, Some(term), "a snapshot of entry {index}");
                self.checked.installed += 1;
                return;
            }
        };
        if let Some(known) = self.entries.get(index as usize - 1) {
            assert_eq!(*known, (term, data), "two histories: entry {index} was applied as another");
            return;
        }
        assert_eq!(index, self.committed() + 1, "an entry was applied before those below it");
        self.entries.push((term, data.clone()));
        self.checked.entries += 1;
        if let (Committed::Normal { .. }, false) = (committed, data.is_empty()) {
            let entry = Entry::decode(data).unwrap();
            if let Op::LeaseRevoke(revoke) = &entry.command {
                self.revoked(now, revoke.id);
            }
            self.model.apply(&entry.command);
        }
        if let Committed::ConfChange { change, .. } = committed {
            self.change_members(index, change);
            let ids = |is_learner| {
                let members = self.members.iter();
                members
                    .filter(move |(_, member)| member.is_learner == is_learner)
                    .map(|(id, _)| *id)
            };
            let configuration = (ids(false).collect(), ids(true).collect());
            self.configurations.insert(index, configuration);
        }
        self.revisions.push(self.model.revision);
    }

    /// The revision of a state that includes an entry, once anyone has applied it.
    pub fn revision_at(&self, index: u64) -> Option<i64> {
        self.revisions.get(index.checked_sub(1)? as usize).copied()
    }

    /// Raft counts quorums among those whom the log names where a member's apply is.
    pub fn configuration(&self, index: u64, said: &ConfState) {
        if index > self.committed() {
            return;
        }
        let sorted = |ids: &[u64]| {
            let mut ids = ids.to_vec();
            ids.sort_unstable();
            ids
        };
        let said = (sorted(&said.voters), sorted(&said.learners));
        let Some((_, expected)) = self.configurations.range(..=index).next_back() else { return };
        assert_eq!(&said, expected, "raft's configuration is not that of entry {index}");
    }

    /// etcd's rules, again.
    fn change_members(&mut self, index: u64, change: &ConfChange) {
        let id = change.node_id;
        if self.removed.contains_key(&id) {
            return;
        }
        let is_taken = |urls: &[String]| {
            let others = self.members.iter().filter(|(other, _)| **other != id);
            others.flat_map(|(_, member)| &member.urls).any(|url| urls.contains(url))
        };
        let voters = self.members.values().filter(|member| !member.is_learner).count();
        let known = self.members.get(&id).cloned();
        let is_removal = change.change_type == 1;
        let wanted = match change.change_type {
            1 => members::Change::Remove(id),
            2 => members::Change::update(&change.context).unwrap(),
            _ => members::Change::addition(&change.context).unwrap(),
        };
        assert_eq!(is_removal, matches!(wanted, members::Change::Remove(_)));
        match (wanted, known) {
            (members::Change::Add(member), None) if !is_taken(&member.peer_urls) => {
                let (urls, is_learner) = (member.peer_urls, member.is_learner);
                self.added.push((id, urls.clone()));
                self.members.insert(id, Member { urls, is_learner });
            }
            (members::Change::Promote(_), Some(member)) if member.is_learner => {
                self.members.insert(id, Member { is_learner: false, ..member });
            }
            (members::Change::Remove(_), Some(member)) if member.is_learner || voters > 1 => {
                self.members.remove(&id);
                self.removed.insert(id, index);
            }
            (members::Change::Update { peer_urls: urls, .. }, Some(member)) if !is_taken(&urls) => {
                self.members.insert(id, Member { urls, ..member });
            }
            _ => return,
        }
        self.checked.changes += 1;
    }

    /// What a member that has applied everything says of the membership.
    pub fn membership(&self, said: &[pb::Member]) {
        let said = said.iter().map(|member| {
            let (urls, is_learner) = (member.peer_ur_ls.clone(), member.is_learner);
            (member.id, Member { urls, is_learner })
        });
        let said: BTreeMap<u64, Member> = said.collect();
        assert_eq!(said, self.members, "the members are others");
    }

    fn revoked(&mut self, now: u64, id: i64) {
        if !self.model.leases.contains_key(&id) {
            return;
        }
        let Some(lease) = self.leases.get(&id) else { return };
        if !lease.revoked_by_client {
            self.checked.expired += 1;
            assert!(
                now >= lease.safe_until,
                "lease {id} was revoked {:?} before its time",
                std::time::Duration::from_nanos(lease.safe_until - now)
            );
        }
    }

    /// Log matching, as far as messages show it: index and term name one entry.
    pub fn sent(&mut self, message: &Message) {
        for entry in &message.entries {
            if entry.index == 0 {
                continue;
            }
            let mark = fold(&entry.data) ^ entry.entry_type as u64;
            let known = *self.sent.entry((entry.term, entry.index)).or_insert(mark);
            let (term, index) = (entry.term, entry.index);
            assert_eq!(known, mark, "two entries have term {term} and index {index}");
        }
    }

    /// Raft's promises, as far as one member's word shows whether they are kept.
    pub fn status(&mut self, status: &Status, before: &Status) {
        let id = status.id;
        assert!(status.term >= before.term, "the term of {id:x} fell: {before:?}, {status:?}");
        let fell = status.committed < before.committed;
        assert!(!fell, "what {id:x} knows as committed fell: {before:?}, {status:?}");
        if status.role == Role::Leader {
            if !self.leaders.contains_key(&status.term) {
                self.elected(status);
            }
            let checked = &mut self.checked.leaders;
            let leader = *self.leaders.entry(status.term).or_insert_with(|| {
                *checked += 1;
                status.id
            });
            assert_eq!(leader, status.id, "two leaders in term {}", status.term);
        }
    }

    /// Who leads has all that was committed in earlier terms, and a vote.
    fn elected(&self, status: &Status) {
        let earlier = self.entries.partition_point(|(term, _)| *term < status.term) as u64;
        assert!(
            status.last_index >= earlier,
            "{:x} leads term {} with {} entries, but {earlier} were committed before",
            status.id,
            status.term,
            status.last_index
        );
        let is_learner = self.members.get(&status.id).is_some_and(|member| member.is_learner);
        assert!(!is_learner, "the learner {:x} leads", status.id);
    }

    /// Something that was confirmed at a revision: it must be past what was known before it began.
    fn confirmed(&mut self, revision: i64, least: i64) {
        assert!(
            revision >= least,
            "answered at revision {revision}, though {least} had been acknowledged before"
        );
        assert!(revision <= self.model.revision, "revision {revision} is not committed");
        self.known = self.known.max(revision);
    }

    pub fn wrote(&mut self, revision: i64, least: i64, key: &[u8], value: Option<&[u8]>) {
        self.confirmed(revision, least + 1);
        self.checked.writes += 1;
        let found = self.model.at(revision).iter().any(|change| {
            change.key == key && change.pair.as_ref().map(|pair| &pair.value[..]) == value
        });
        let at = self.model.at(revision);
        assert!(found, "an acknowledged write of {key:?} is not at {revision}, but {at:?}");
    }

    pub fn read(
        &mut self,
        revision: i64,
        least: Option<i64>,
        range: &KeyRange,
        at: i64,
        found: &[KeyValue],
    ) {
        match least {
            Some(least) => {
                self.confirmed(revision, least);
                self.checked.reads += 1;
            }
            None => {
                assert!(revision <= self.model.revision, "a read of the future at {revision}");
                self.checked.stale_reads += 1;
            }
        }
        let at = if at > 0 { at } else { revision };
        let expected = self.model.range(range, at);
        assert_eq!(found, expected, "a read of {range:?} at {at}, header {revision}");
    }

    /// Where a watch begins in the list of all changes.
    pub fn cursor(&self, revision: i64) -> usize {
        self.model.changes.partition_point(|change| change.revision < revision)
    }

    fn next_event(&self, range: &KeyRange, cursor: usize) -> Option<(usize, &model::Change)> {
        let mut rest = self.model.changes.iter().enumerate().skip(cursor);
        rest.find(|(_, change)| range.contains(&change.key))
    }

    /// A watcher got changes of whole transactions; they must be the next ones. Returns where it is
    /// then.
    pub fn observed(&mut self, range: &KeyRange, mut cursor: usize, changes: &[Change]) -> usize {
        let mut last = 0;
        for change in changes {
            let Some((at, expected)) = self.next_event(range, cursor) else {
                panic!("an event that is not in history: {change:?}");
            };
            let pair = KeyValue::decode(change.kv.clone()).unwrap();
            let is_put = change.kind == ChangeKind::Put;
            let same = (expected.revision, &expected.key) == (change.revision.main, &change.key)
                && (!is_put || expected.pair.as_ref() == Some(&pair))
                && is_put == expected.pair.is_some();
            assert!(same, "a watch of {range:?} expected {expected:?}, got {change:?}");
            if let Some(previous) = &change.previous {
                let mut before = self.model.changes[..at].iter().rev();
                let before = before
                    .find(|it| it.key == expected.key && it.revision < expected.revision)
                    .and_then(|before| before.pair.clone());
                assert_eq!(before, Some(KeyValue::decode(previous.clone()).unwrap()));
            }
            (cursor, last) = (at + 1, expected.revision);
        }
        self.checked.events += changes.len() as u64;
        let halved = self.next_event(range, cursor).is_some_and(|(_, next)| next.revision == last);
        assert!(!halved, "a watch of {range:?} got half of revision {last}");
        cursor
    }

    /// The watcher has everything up to `revision`.
    pub fn complete(&self, range: &KeyRange, cursor: usize, revision: i64) {
        if let Some((_, missing)) = self.next_event(range, cursor) {
            let late = missing.revision <= revision;
            assert!(!late, "a watch of {range:?} misses {missing:?}, and is at {revision}");
        }
    }

    pub fn hash(&mut self, revision: i64, compact_revision: i64, hash: u32) {
        self.checked.hashes += 1;
        let known = *self.hashes.entry((compact_revision, revision)).or_insert(hash);
        assert_eq!(known, hash, "members differ at revision {revision} ({compact_revision})");
    }

    /// A grant or renewal that began at `from` was acknowledged.
    pub fn renewed(&mut self, id: i64, from: u64, ttl_seconds: i64) {
        self.checked.renewals += 1;
        // A leader's clock may be fast by a thousandth.
        let until = from + ttl_seconds as u64 * 998_000_000;
        let lease =
            self.leases.entry(id).or_insert(Lease { safe_until: 0, revoked_by_client: false });
        lease.safe_until = lease.safe_until.max(until);
    }

    /// A client was told that there is no such lease.
    pub fn lease_is_gone(&self, now: u64, id: i64) {
        let Some(lease) = self.leases.get(&id) else { return };
        let may_be = lease.revoked_by_client || now >= lease.safe_until;
        assert!(may_be, "lease {id} is gone before its time");
    }

    /// A client asked for the end of a lease.
    pub fn gives_up(&mut self, id: i64) {
        if let Some(lease) = self.leases.get_mut(&id) {
            lease.revoked_by_client = true;
        }
    }
}
