//! Everything is well again when nothing goes wrong any more: everybody agrees soon, everything
//! that was asked is answered, and all members hold the same.

use rusd::raft::Role;

use super::World;
use super::client::{all, pairs};
use crate::clock::SECOND;
use crate::member::Worker;

/// What may wait in a member that nobody asks for anything: its duties ask the leader now and then.
const WAITING_MAX: usize = 10;

impl World {
    /// Without faults everybody agrees soon, and everything asked is answered.
    pub fn heal(&mut self) {
        self.tell(|| "healing".into());
        self.has_faults = false;
        self.is_asking = false;
        self.cut.clear();
        self.rewire();
        for number in 0..self.members.len() {
            let member = &mut self.members[number];
            (member.slow_until, member.lags_until, member.frozen_until) = (0, 0, 0);
            member.drag = (0, 0);
            if let Some((.., left)) = &mut member.trapped {
                *left = 0;
            }
            member.disk.troubles(|troubles| {
                troubles.fuse = None;
                troubles.sync_fails = false;
                (troubles.read_fails_in, troubles.write_fails_in) = (None, None);
            });
            let mut store = member.store_faults.lock();
            (store.read_fails_in, store.commit_fails_in) = (None, None);
            drop(store);
            self.relieve(number);
            // Its next turn may have been put off for as long as its disk was to be slow.
            self.work(number, Worker::Log);
        }
        let deadline = self.now + 60 * SECOND;
        let mut calm_since = None;
        loop {
            self.step();
            if !self.is_calm() {
                calm_since = None;
            } else if self.now > *calm_since.get_or_insert(self.now) + 2 * SECOND {
                break;
            }
            assert!(self.now < deadline, "no calm after a minute: {}", self.restless());
        }
        self.judge();
    }

    /// Those who are members now, by the log.
    pub fn current(&self) -> impl Iterator<Item = usize> {
        let is_member = |at: &usize| self.oracle.members.contains_key(&self.members[*at].id);
        (0..self.members.len()).filter(is_member)
    }

    fn is_calm(&self) -> bool {
        let committed = self.oracle.committed();
        let mut leaders = 0;
        for number in self.current() {
            let Some(life) = &self.members[number].life else { return false };
            leaders += u64::from(life.steps.status().role == Role::Leader);
            if life.applied != committed || life.steps.status().committed != committed {
                return false;
            }
        }
        leaders == 1
            && self.asked.is_none()
            && self.clients.iter().all(|client| client.pending.is_none())
            && self.oracle.model.leases.is_empty()
    }

    fn restless(&self) -> String {
        let mut text = format!(
            "{} committed, {} leases;",
            self.oracle.committed(),
            self.oracle.model.leases.len()
        );
        for number in self.current() {
            let member = &self.members[number];
            let status = member.life.as_ref().map(|life| life.steps.status());
            text += &format!(" {}: {status:?}", member.name);
        }
        for client in self.clients.iter().filter_map(|client| client.pending.as_ref()) {
            text += &format!(" pending on m{}: {:?}", client.member, client.ask);
        }
        text
    }

    /// All members hold the same, which is what the log says, and all watchers know it.
    fn judge(&mut self) {
        let revision = self.oracle.model.revision;
        for number in self.current().collect::<Vec<_>>() {
            let Some(life) = &self.members[number].life else { continue };
            let view = life.node.unguarded().mvcc().view();
            let response = view.range(&all(0)).unwrap();
            let found = pairs(&response);
            let range = rusd::types::KeyRange::new("k".into(), "l".into());
            drop(view);
            self.oracle.read(revision, None, &range, revision, &found);
            assert_eq!(
                life.node.unguarded().mvcc().current().revision,
                revision,
                "member {number}"
            );
            self.oracle.membership(&life.node.members());
            assert_eq!(life.node.unguarded().leases(), [0_i64; 0], "member {number} keeps leases");
            let (hash, _) = life
                .node
                .unguarded()
                .mvcc()
                .hash_by_revision(0, &rusd::mvcc::ReadCheck::default())
                .unwrap();
            self.oracle.hash(hash.revision, hash.compact_revision, hash.hash);
            for (kind, count) in life.steps.waiting() {
                assert!(count <= WAITING_MAX, "{count} {kind} still wait in m{number}");
            }
        }
        for watcher in &self.watchers {
            watcher.finish(&self.oracle, revision);
        }
        self.note(self.now);
    }
}
