//! What goes wrong, and that everything is well again when nothing does any more.

use std::io;
use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};
use rusd::raft::Role;
use rusd::store::Faults;

use super::client::{all, pairs};
use super::world::{Event, Life, MILLI, SECOND, Worker, World};

/// What goes wrong with the store's files.
#[derive(Default)]
pub struct StoreTroubles {
    pub is_full: bool,
    /// So many more reads until one fails; then the trouble is over.
    pub read_fails_in: Option<u64>,
    /// Only reads of apply count.
    pub is_of_apply: bool,
    pub is_applying: bool,
    /// A read did fail, so the member may stop.
    pub struck: bool,
}

#[derive(Default, Clone)]
pub struct StoreFaults(Arc<Mutex<StoreTroubles>>);

impl StoreFaults {
    pub fn lock(&self) -> MutexGuard<'_, StoreTroubles> {
        self.0.lock()
    }
}

impl Faults for StoreFaults {
    fn commit(&self) -> io::Result<()> {
        match self.0.lock().is_full {
            true => Err(io::Error::from_raw_os_error(28)),
            false => Ok(()),
        }
    }

    fn free_bytes(&self) -> Option<u64> {
        Some(if self.0.lock().is_full { 0 } else { 1 << 40 })
    }

    fn read(&self) -> io::Result<()> {
        let mut troubles = self.0.lock();
        if troubles.is_of_apply && !troubles.is_applying {
            return Ok(());
        }
        match &mut troubles.read_fails_in {
            Some(0) => {
                troubles.read_fails_in = None;
                troubles.struck = true;
                Err(io::Error::from_raw_os_error(5))
            }
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }
}

impl World {
    /// A member ends; with a power cut, unsynced bytes go with it.
    pub fn crash(&mut self, number: usize, power: bool) {
        self.oracle.checked.crashes += 1;
        self.drop_transfers(number);
        for client in &mut self.clients {
            if client.pending.as_ref().is_some_and(|pending| pending.member == number) {
                client.pending = None;
            }
        }
        self.asked.take_if(|asked| asked.member == number);
        for watcher in &mut self.watchers {
            watcher.lose(number);
        }
        self.wires.retain(|(from, to, _), _| *from != number && *to != number);
        let member = &mut self.members[number];
        if let Some(Life { runtime, node, steps, .. }) = member.life.take() {
            drop(runtime);
            drop(steps);
            drop(node);
        }
        let struck = member.disk.troubles(|troubles| {
            troubles.fuse = None;
            std::mem::take(&mut troubles.struck)
        });
        let mut store = member.store_faults.lock();
        (store.read_fails_in, store.struck) = (None, false);
        drop(store);
        if power || struck {
            member.disk.cut_power(&mut self.chance);
        }
        self.litter(number);
        self.rewire();
        if self.members[number].is_gone {
            return;
        }
        let delay = match self.chance.below(4) {
            0 | 1 => self.chance.below(50 * MILLI),
            2 => self.chance.below(SECOND),
            _ => self.chance.below(4 * SECOND),
        };
        self.at(delay, Event::Boot(number));
    }

    /// What a snapshot leaves that was being received.
    fn litter(&mut self, number: usize) {
        let db = self.members[number].dir.join("member/db");
        if self.chance.one_in(4) && db.is_dir() {
            std::fs::write(db.join("incoming.snap.db"), b"half a snapshot").unwrap();
        }
    }

    pub fn fault(&mut self) {
        if !self.has_faults {
            return;
        }
        let delay = self.chance.below(2 * self.plan.fault_millis * MILLI);
        self.at(delay, Event::Fault);
        let count = self.members.len();
        let mut number = self.chance.below(count as u64) as usize;
        if let (true, Some(leader)) = (self.chance.one_in(3), self.leader()) {
            number = leader;
        }
        let kind = self.chance.below(22);
        self.note(kind);
        self.tell(|| format!("fault {kind} at m{number}"));
        match kind {
            0 => self.crash_if_alive(number, true),
            1 => self.crash_if_alive(number, false),
            2..5 => self.disk_fault(number, kind),
            5..9 => self.network_fault(number, kind),
            9..11 => {
                let to = self.members[self.chance.below(count as u64) as usize].id;
                if let Some(life) = &self.members[number].life {
                    life.steps.transfer_leader(to);
                    self.arm(number, Worker::Raft, 0);
                }
            }
            11 | 12 => {
                let wall = self.chance.below(2_000_000_000 * SECOND);
                if let Some(life) = &self.members[number].life {
                    life.clock.jump(wall);
                }
            }
            13 | 14 => self.members[number].frozen_until = self.now + self.chance.below(2 * SECOND),
            15 | 16 => self.members[number].lags_until = self.now + self.chance.below(2 * SECOND),
            17 => {
                self.members[number].store_faults.lock().is_full = true;
                let log_too = self.chance.one_in(2);
                self.members[number].disk.troubles(|troubles| troubles.is_full = log_too);
                let delay = self.chance.below(SECOND);
                self.at(delay, Event::Relief(number));
            }
            19 | 20 => {
                // Apply reads little, and what it makes of an error counts most.
                let is_of_apply = kind == 19;
                let left = self.chance.below(if is_of_apply { 3 } else { 40 });
                let mut store = self.members[number].store_faults.lock();
                (store.read_fails_in, store.is_of_apply) = (Some(left), is_of_apply);
            }
            18 => self.members[number].slow_until = self.now + self.chance.below(3 * SECOND),
            _ => self.stop(number),
        }
    }

    fn disk_fault(&mut self, number: usize, kind: u64) {
        // The power goes in the middle of a write, or a sync fails.
        let left = self.chance.below(6);
        self.members[number].disk.troubles(|troubles| match kind {
            2 | 3 => troubles.fuse = Some(left),
            _ => troubles.sync_fails = true,
        });
    }

    fn network_fault(&mut self, number: usize, kind: u64) {
        let count = self.members.len();
        match kind {
            5 | 6 => {
                for other in (0..count).filter(|other| *other != number) {
                    self.cut.extend([(number, other), (other, number)]);
                }
            }
            7 => {
                let other = self.chance.below(count as u64) as usize;
                self.cut.insert((number, other));
            }
            _ => {
                for from in 0..count {
                    for to in 0..count {
                        if self.chance.one_in(3) {
                            self.cut.insert((from, to));
                        }
                    }
                }
            }
        }
        let cut = std::mem::take(&mut self.cut);
        self.wires.retain(|(from, to, _), _| !cut.contains(&(*from, *to)));
        self.cut = cut;
        self.rewire();
        let delay = self.chance.below(3 * SECOND);
        self.at(delay, Event::Mend);
    }

    pub fn relieve(&mut self, number: usize) {
        self.members[number].disk.troubles(|troubles| troubles.is_full = false);
        self.members[number].store_faults.lock().is_full = false;
        self.arm(number, Worker::Commit, 0);
        self.arm(number, Worker::Log, 0);
    }

    fn crash_if_alive(&mut self, number: usize, power: bool) {
        if self.members[number].life.is_some() {
            self.crash(number, power);
        }
    }

    /// A member is asked to stop and does so in order.
    pub fn stop(&mut self, number: usize) {
        let Some(life) = &self.members[number].life else { return };
        {
            let _guard = life.runtime.enter();
            life.node.stop_now();
        }
        self.crash(number, false);
    }

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
            member.disk.troubles(|troubles| {
                troubles.fuse = None;
                troubles.sync_fails = false;
            });
            member.store_faults.lock().read_fails_in = None;
            self.relieve(number);
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
    fn current(&self) -> impl Iterator<Item = usize> {
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
            let (hash, _) = life.node.unguarded().mvcc().hash_by_revision(0).unwrap();
            self.oracle.hash(hash.revision, hash.compact_revision, hash.hash);
        }
        for watcher in &self.watchers {
            watcher.finish(&self.oracle, revision);
        }
        self.note(self.now);
    }
}
