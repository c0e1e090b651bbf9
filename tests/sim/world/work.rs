//! The threads of members take their turns: whatever gives one of them work arms it, and its turn
//! comes a little later, or much later if the seed says so.

use rusd::node::Applied;
use rusd::pb::{AlarmMember, AlarmType};
use rusd::raft::Committed;

use super::{Event, World};
use crate::clock::{MILLI, SECOND};
use crate::member::{Member, Worker, local};

/// Entries of a batch after which apply is held up for long: more than the log keeps for others at least.
const LONG_PART: usize = 4;

impl World {
    pub fn turn(&mut self, number: usize, life: u64, worker: Worker) {
        let member = &self.members[number];
        let lags = worker == Worker::Apply && member.lags_until > self.now;
        let until = if lags { member.lags_until } else { member.frozen_until };
        if until > self.now {
            let delay = until - self.now + self.chance.below(MILLI);
            self.at(delay, Event::Work(number, life, worker));
        } else if member.lives == life && member.life.is_some() {
            self.work(number, worker);
        }
    }

    pub fn arm(&mut self, member: usize, worker: Worker, delay: u64) {
        let lives = self.members[member].lives;
        let (slow_until, drag) = (self.members[member].slow_until, self.members[member].drag);
        let Some(life) = &mut self.members[member].life else { return };
        if std::mem::replace(&mut life.armed[worker as usize], true) {
            return;
        }
        let mut delay = delay + 10_000 + self.chance.below(300_000);
        if self.has_faults && self.chance.one_in(self.plan.slow_odds) {
            delay += self.chance.below(100 * MILLI);
        }
        if worker == Worker::Log && slow_until > self.now {
            delay += slow_until - self.now;
        }
        if worker == Worker::Log && drag.0 > self.now {
            delay += self.chance.below(drag.1);
        }
        self.at(delay, Event::Work(member, lives, worker));
    }

    pub fn work(&mut self, number: usize, worker: Worker) {
        let member = &mut self.members[number];
        let (drift, now) = (member.drift, self.now);
        // A thread that has panicked is gone.
        let is_gone = member.trapped.is_some_and(|(of, ..)| of == worker && of != Worker::Tasks);
        if member.trap.has_sprung() && is_gone {
            return;
        }
        let Some(life) = &mut member.life else { return };
        life.armed[worker as usize] = false;
        let rings = life.clock.advance_to(local(drift, now - life.since));
        let mut died = None;
        let mut did = worker != Worker::Raft || life.steps.raft_has_work();
        let trapped = member.trapped.take_if(|(of, ..)| did && *of == worker);
        let trap = member.trap.clone();
        trap.set(trapped.map_or(0, |(.., left)| left));
        match worker {
            Worker::Raft => {
                if did {
                    died = life.steps.raft().err().map(|error| error.to_string());
                }
            }
            Worker::Log => {
                did = life.steps.log_has_work();
                died = life.steps.log().err().map(|error| error.to_string());
            }
            Worker::Apply => {
                did = self.apply(number);
            }
            Worker::Commit => match life.steps.commit() {
                Ok(committed) => did = committed,
                Err(error) => died = Some(error.to_string()),
            },
            Worker::Sweep => did = self.sweep(number),
            Worker::Tasks => life.runtime.block_on(async {
                for _ in 0..3 {
                    tokio::task::yield_now().await;
                }
            }),
        }
        let left = trap.lift();
        if let Some((of, name, _)) = trapped {
            self.members[number].trapped = Some((of, name, left));
        }
        self.hear_of_panic(number);
        if rings {
            self.arm(number, Worker::Tasks, 0);
        }
        if let Some(why) = died {
            return self.end(number, &why);
        }
        if did {
            // A task seldom does anything when it is looked at.
            self.events += u64::from(worker != Worker::Tasks);
            self.note(number as u64 * 8 + worker as u64);
            self.follow(number, worker);
        }
    }

    fn apply(&mut self, number: usize) -> bool {
        let most = match self.has_faults && self.chance.one_in(self.plan.split_odds) {
            true => {
                let most = *self.chance.pick(&[4, 4, 16]);
                1 + self.chance.below(most) as usize
            }
            false => usize::MAX,
        };
        let Member { life, store_faults, .. } = &mut self.members[number];
        let Some(life) = life else { return false };
        store_faults.lock().is_applying = true;
        let applied = life.steps.apply(most);
        store_faults.lock().is_applying = false;
        let Some(Applied { entries, is_published }) = applied else { return false };
        // Why it did not is seen next. What it showed before it ended is committed all the same.
        if life.node.fatal().borrow().is_some() {
            let shown = life.node.unguarded().mvcc().current().revision;
            life.unsure.extend(entries);
            while self.oracle.model.revision < shown
                && let Some(committed) = life.unsure.pop_front()
            {
                self.oracle.applied(self.now, &committed);
            }
            return true;
        }
        for committed in &entries {
            let index = committed.index();
            let before = std::mem::replace(&mut life.reached, index);
            let is_next = match committed {
                Committed::Snapshot { .. } => before < index,
                _ => before + 1 == index,
            };
            assert!(is_next, "member {number} applied {index} after {before}");
            self.oracle.applied(self.now, committed);
        }
        if is_published {
            life.applied = life.reached;
            self.compare(number);
        } else if self.has_faults && entries.len() > LONG_PART && self.chance.one_in(2) {
            self.hold_and_elect(number);
        } else if self.has_faults && self.chance.one_in(20) {
            // It is held up within a batch, in which the store may commit.
            self.members[number].lags_until = self.now + self.chance.below(2 * SECOND);
            if self.chance.one_in(4) {
                self.fill(number);
            }
        }
        true
    }

    /// A member's state is the one that the log leads to.
    pub fn compare(&self, number: usize) {
        let Some(life) = &self.members[number].life else { return };
        let revision = life.node.unguarded().mvcc().current().revision;
        let expected = self.oracle.revision_at(life.applied);
        assert!(
            expected.is_none_or(|expected| revision == expected),
            "member {number} is at revision {revision} with entry {}, not at {expected:?}",
            life.applied
        );
        if life.applied == self.oracle.committed() {
            self.oracle.membership(&life.node.members());
        }
        let is_corrupt = |alarm: &AlarmMember| alarm.alarm == AlarmType::Corrupt as i32;
        let alarm = life.node.alarms().into_iter().find(is_corrupt);
        assert!(alarm.is_none(), "healthy members found each other corrupt: {alarm:?}");
    }

    fn sweep(&mut self, number: usize) -> bool {
        let Some(life) = &mut self.members[number].life else { return false };
        let Some(rest) = life.steps.sweep() else { return false };
        self.arm(number, Worker::Sweep, rest.as_nanos() as u64 + MILLI);
        true
    }

    /// Who may have work after a worker's turn.
    fn follow(&mut self, number: usize, worker: Worker) {
        self.send(number);
        match worker {
            Worker::Raft => {
                self.arm(number, Worker::Log, 0);
                self.arm(number, Worker::Apply, 0);
                self.arm(number, Worker::Tasks, 0);
            }
            Worker::Apply => {
                self.arm(number, Worker::Apply, 0);
                self.arm(number, Worker::Tasks, 0);
                let delay = self.chance.below(200) * MILLI;
                self.arm(number, Worker::Commit, delay);
                self.arm(number, Worker::Sweep, 0);
            }
            Worker::Commit => {
                let delay = self.chance.below(50) * MILLI;
                self.arm(number, Worker::Commit, delay);
            }
            Worker::Sweep => self.arm(number, Worker::Commit, 20 * MILLI),
            Worker::Tasks => {
                self.send_answers(number);
                self.collect();
            }
            Worker::Log => {}
        }
        let Some(life) = &self.members[number].life else { return };
        if life.steps.raft_has_work() {
            self.arm(number, Worker::Raft, 0);
        }
    }
}
