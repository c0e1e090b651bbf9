//! What goes wrong with members, their disks and the network between them, by chance.

use rusd::limits;
use rusd::pb;

use super::admin::Errand;
use super::{Event, World};
use crate::clock::{MILLI, SECOND};
use crate::member::{Life, Member, Worker};

/// Purges may wait for the log writer beside its jobs.
const PURGES: usize = 40;

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
        let (struck, has_power) = member.disk.troubles(|troubles| {
            let has_power = troubles.fuse.take() != Some(0) && !troubles.is_full;
            let has_failed = std::mem::take(&mut troubles.has_failed);
            (troubles.read_fails_in, troubles.write_fails_in) = (None, None);
            (std::mem::take(&mut troubles.struck), has_failed && has_power)
        });
        member.trap.reset();
        member.trapped = None;
        let mut store = member.store_faults.lock();
        (store.read_fails_in, store.commit_fails_in, store.struck) = (None, None, false);
        drop(store);
        // After a write or sync that failed, the process starts again, and the system still shows what
        // never reached the disk.
        let shows_all = has_power && self.chance.one_in(2);
        if power || (struck && !shows_all) {
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
        let cuts_off = self.plan.churns && self.chance.one_in(3);
        let kind = if cuts_off { 27 } else { self.chance.below(35) };
        self.note(kind);
        self.tell(|| format!("fault {kind} at m{number}"));
        match kind {
            0 => self.crash_if_alive(number, true),
            1 => self.crash_if_alive(number, false),
            2..5 | 29 | 30 => self.disk_fault(number, kind),
            5..9 => self.network_fault(number, kind),
            9..11 => {
                let to = self.members[self.chance.below(count as u64) as usize].id;
                self.hand_over(number, to);
            }
            11 | 12 => {
                let wall = self.chance.below(2_000_000_000 * SECOND);
                if let Some(life) = &self.members[number].life {
                    life.clock.jump(wall);
                }
            }
            13 | 14 => {
                let time = self.chance.below(2 * SECOND);
                self.members[number].frozen_until = self.now + time;
                self.frozen += time;
            }
            15 | 16 => self.members[number].lags_until = self.now + self.chance.below(2 * SECOND),
            17 | 31..33 => self.fill(number),
            19 | 20 | 28 => {
                // Apply reads little, and what it makes of an error counts most.
                let is_of_apply = kind != 20;
                let left = self.chance.below(if is_of_apply { 3 } else { 40 });
                let mut store = self.members[number].store_faults.lock();
                (store.read_fails_in, store.is_of_apply) = (Some(left), is_of_apply);
            }
            18 => self.members[number].slow_until = self.now + self.chance.below(3 * SECOND),
            22 | 23 => self.want_panic(number),
            24 => self.damage(number),
            25 => {
                let left = self.chance.below(6);
                self.members[number].disk.troubles(|troubles| troubles.read_fails_in = Some(left));
            }
            26 => self.slow_followers(),
            27 | 33 if self.plan.churns => self.fall_behind(),
            27 => self.isolate(number),
            33 => self.stall(number),
            34 => self.wipe(number),
            _ => self.stop(number),
        }
    }

    /// The disk of the log, or that of the store, or both, have no room for a while, from some
    /// operation on.
    pub fn fill(&mut self, number: usize) {
        let (which, left) = (self.chance.below(3), self.chance.below(12));
        if which != 0 {
            self.members[number].store_faults.lock().fills_in = Some(left / 4);
        }
        if which != 1 {
            self.members[number].disk.troubles(|troubles| troubles.fills_in = Some(left));
        }
        let delay = self.chance.below(2 * SECOND);
        self.at(delay, Event::Relief(number));
    }

    /// The log's disk of a member hangs for long.
    fn stall(&mut self, number: usize) {
        self.members[number].slow_until = self.now + SECOND + self.chance.below(8 * SECOND);
    }

    /// What waits in a member has a bound, whatever fails and whoever asks.
    pub fn weigh(&self, number: usize) {
        let Some(life) = &self.members[number].life else { return };
        for (kind, count) in life.steps.waiting() {
            let most = match kind {
                "jobs that are not durable" => limits::LOG_JOBS_MAX,
                "jobs of the log" => limits::LOG_JOBS_MAX + PURGES,
                "batches of apply" => limits::APPLY_QUEUE_BATCHES_MAX,
                "changes of the configuration" => limits::CONF_CHANGES_WAITING_MAX,
                "reads of other members" => limits::FORWARDED_READS_MAX,
                _ => continue,
            };
            assert!(count <= most, "{count} {kind} wait in m{number}, and no more than {most} may");
        }
    }

    /// A member that leads is to let another one lead.
    pub fn hand_over(&mut self, number: usize, to: u64) {
        if let Some(life) = &self.members[number].life {
            life.steps.transfer_leader(to);
            self.arm(number, Worker::Raft, 0);
        }
    }

    /// One of a member's threads is to panic in the middle of what it does.
    fn want_panic(&mut self, number: usize) {
        const DUTIES: [&str; 4] = ["follow-leader", "publish", "expire-leases", "watch-space"];
        let (worker, name) = *self.chance.pick(&[
            (Worker::Raft, "raft"),
            (Worker::Log, "raft-log"),
            (Worker::Apply, "apply"),
            (Worker::Apply, "apply"),
            (Worker::Commit, "committer"),
            (Worker::Sweep, "sweeper"),
            (Worker::Tasks, ""),
        ]);
        let (duty, left) = (*self.chance.pick(&DUTIES), 1 + self.chance.below(6));
        let member = &mut self.members[number];
        let Some(life) = member.life.as_ref().filter(|_| member.trapped.is_none()) else { return };
        // A duty shares its thread with clients, whose panics end connections elsewhere.
        if worker == Worker::Tasks {
            let trap = member.trap.clone();
            let duty_ends = async move { trap.spring() };
            life.node.supervisor().task_on(life.runtime.handle(), duty, duty_ends);
            member.trapped = Some((worker, duty, 0));
        } else {
            member.trapped = Some((worker, name, left));
        }
        self.arm(number, worker, 0);
    }

    /// A member whose thread has panicked says so by its name, and ends.
    pub fn hear_of_panic(&mut self, number: usize) {
        let member = &self.members[number];
        let (true, Some(life)) = (member.trap.has_sprung(), &member.life) else { return };
        let name = member.trapped.map_or("nobody", |(_, name, _)| name);
        let why = life.node.fatal().borrow().clone();
        let is_said = why.as_ref().is_some_and(|why| why.starts_with(&format!("{name} panicked")));
        assert!(is_said, "m{number} says {why:?} of a panic in {name}");
        if life.ends_at.is_none() {
            self.oracle.checked.panics += 1;
        }
    }

    /// A bit of a log at rest changes, where whoever is ruined by that can be replaced: nobody else
    /// is missing or on the way, and the membership does not change otherwise.
    fn damage(&mut self, number: usize) {
        if !self.can_spare(number) {
            return;
        }
        self.crash_if_alive(number, false);
        let is_damaged = self.members[number].disk.damage(&mut self.chance);
        self.members[number].is_damaged = is_damaged;
        self.tell(|| format!("m{number} is damaged: {is_damaged}"));
    }

    /// Whether a member may lose its log for ever.
    fn can_spare(&self, number: usize) -> bool {
        let members = &self.oracle.members;
        let is_well = |of: &Member| !of.is_damaged && !of.is_wiped;
        self.plan.admin_millis == 0
            && self.plan.members >= 3
            && members.len() == self.plan.members
            && self.members.iter().all(is_well)
            && self.members.iter().all(|of| !members.contains_key(&of.id) || !of.is_gone)
            && members.contains_key(&self.members[number].id)
            && self.others_know_members(number)
    }

    /// Whether the others alone are a quorum that has applied the last change of the membership: with
    /// the membership before, they might need the member that is lost.
    fn others_know_members(&self, number: usize) -> bool {
        let members = &self.oracle.members;
        let knows = |of: &Member| {
            let known = of.life.as_ref().map(|life| life.node.members()).unwrap_or_default();
            known.len() == members.len() && known.iter().all(|it| members.contains_key(&it.id))
        };
        let others = self
            .members
            .iter()
            .enumerate()
            .filter(|(at, of)| *at != number && members.contains_key(&of.id) && knows(of));
        others.count() > members.len() / 2
    }

    /// The data directory of a member is deleted, and the member is started again with the same flags.
    /// Its id stays with those who know it, and the votes and entries that it acknowledged are lost; so
    /// it must not come back under that id.
    fn wipe(&mut self, number: usize) {
        if !self.can_spare(number) || !self.is_known_as_started(number) {
            return;
        }
        self.crash_if_alive(number, false);
        let member = &mut self.members[number];
        member.disk.wipe();
        std::fs::remove_dir_all(&member.dir).unwrap();
        member.is_wiped = true;
        self.tell(|| format!("m{number} is wiped"));
    }

    /// Whether one of the others says that this member has run: a member without a log asks them, and
    /// ends.
    pub fn is_known_as_started(&self, number: usize) -> bool {
        let id = self.members[number].id;
        let has_run = |of: &pb::Member| of.id == id && !of.client_ur_ls.is_empty();
        self.members.iter().enumerate().any(|(at, other)| {
            let hears = at != number && !self.is_cut(number, at) && !self.is_cut(at, number);
            let members = other.life.as_ref().filter(|_| hears).map(|life| life.node.members());
            members.is_some_and(|members| members.iter().any(has_run))
        })
    }

    /// A member does not start with a damaged log, and says where it is. Somebody replaces it.
    pub fn ruin(&mut self, number: usize, why: &str) {
        let is_named = why.contains("the log is damaged: ") && why.contains(".wal at byte ");
        assert!(is_named, "a damaged log is not named: {why}");
        self.oracle.checked.ruined += 1;
        self.give_up(number);
    }

    /// A member without its log is replaced.
    pub fn give_up(&mut self, number: usize) {
        let member = &mut self.members[number];
        (member.is_ruined, member.is_gone) = (true, true);
        self.at(0, Event::Admin);
    }

    /// The disks of all who do not lead are slow for a while.
    fn slow_followers(&mut self) {
        let leader = self.leader();
        let until = self.now + self.chance.below(6 * SECOND);
        for number in (0..self.members.len()).filter(|number| Some(*number) != leader) {
            if !self.chance.one_in(3) {
                self.members[number].drag = (until, self.chance.below(400 * MILLI));
            }
        }
    }

    /// A member's apply is held up within a long batch, a part of which the store commits, and its leader
    /// is cut off: the member stands for election with less applied than the store has.
    pub fn hold_and_elect(&mut self, number: usize) {
        let leader = self.leader().filter(|leader| *leader != number && self.cut.is_empty());
        let Some(leader) = leader else { return };
        let length = SECOND + self.chance.below(SECOND);
        self.members[number].lags_until = self.now + length;
        self.tell(|| format!("m{number} is held up, and m{leader} is cut off"));
        self.cut_off(leader);
        self.at(length, Event::Mend);
    }

    /// A member is cut off for long, and clients go on asking it.
    fn isolate(&mut self, number: usize) {
        let length = self.chance.below(12 * SECOND);
        self.cut_off(number);
        self.at(length, Event::Mend);
        self.gather(number, self.now + length);
    }

    /// A member's apply stands still while changes of the membership come to it, and then the member
    /// is cut off until the log has gone on without it. So a snapshot finds such a change not applied.
    /// The changes are whichever the operator makes then, or those of an errand.
    fn fall_behind(&mut self) {
        // The others go on without it.
        let is_learner = |at: &usize| self.oracle.members[&self.members[*at].id].is_learner;
        let (learners, voters): (Vec<usize>, Vec<usize>) = self.current().partition(is_learner);
        let are_up = voters.iter().all(|at| self.members[*at].life.is_some());
        let one_of = if learners.is_empty() { &voters } else { &learners };
        if !self.cut.is_empty() || !are_up || (learners.is_empty() && voters.len() < 3) {
            return;
        }
        let number = *self.chance.pick(one_of);
        // Or nothing is cut off, and more is committed than apply may be given.
        if self.chance.one_in(6) {
            let length = 3 * SECOND + self.chance.below(5 * SECOND);
            self.members[number].lags_until = self.now + length;
            return;
        }
        if self.errand.is_none() && self.chance.one_in(3) {
            return self.send_on_errand(number);
        }
        let until_cut = 100 * MILLI + self.chance.below(500 * MILLI);
        let length = 800 * MILLI + self.chance.below(2 * SECOND);
        let rest = self.chance.below(2 * SECOND);
        self.members[number].lags_until = self.now + until_cut + length + rest;
        self.at(until_cut, Event::Cut(number));
        self.at(until_cut + length, Event::Mend);
    }

    /// The operator takes a learner in while that member's apply stands still.
    fn send_on_errand(&mut self, behind: usize) {
        let until = self.now + SECOND + self.chance.below(3 * SECOND);
        self.members[behind].lags_until = until + self.chance.below(2 * SECOND);
        let urls = vec![format!("http://10.0.1.{}:2380", self.last_url)];
        self.last_url += 1;
        let stays = self.chance.one_in(2);
        self.errand = Some(Errand { behind, urls, stays, cut_at: None, until });
    }

    pub fn cut_off(&mut self, number: usize) {
        for other in (0..self.members.len()).filter(|other| *other != number) {
            self.cut.extend([(number, other), (other, number)]);
        }
        self.cut_wires();
    }

    /// Streams do not outlive a cut.
    fn cut_wires(&mut self) {
        let cut = std::mem::take(&mut self.cut);
        self.wires.retain(|(from, to, _), _| !cut.contains(&(*from, *to)));
        self.cut = cut;
        self.rewire();
    }

    fn disk_fault(&mut self, number: usize, kind: u64) {
        // The power goes in the middle of a write, or a sync, a write or a commit fails.
        let left = self.chance.below(6);
        if kind == 30 {
            self.members[number].store_faults.lock().commit_fails_in = Some(left);
            return;
        }
        self.members[number].disk.troubles(|troubles| match kind {
            2 | 3 => troubles.fuse = Some(left),
            29 => troubles.write_fails_in = Some(left),
            _ => troubles.sync_fails = true,
        });
    }

    fn network_fault(&mut self, number: usize, kind: u64) {
        let count = self.members.len();
        match kind {
            5 | 6 => self.cut_off(number),
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
        self.cut_wires();
        let delay = self.chance.below(3 * SECOND);
        self.at(delay, Event::Mend);
    }

    pub fn relieve(&mut self, number: usize) {
        self.members[number].disk.troubles(|troubles| {
            (troubles.is_full, troubles.fills_in) = (false, None);
        });
        let mut store = self.members[number].store_faults.lock();
        (store.is_full, store.fills_in) = (false, None);
        drop(store);
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
}
