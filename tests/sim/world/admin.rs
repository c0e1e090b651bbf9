//! The operator: adds, promotes, updates, replaces and removes members, and moves the leader.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rusd::auth::Credentials;
use rusd::limits;
use rusd::node::{Error, Join};
use rusd::raft::Role;

use super::{Event, World};
use crate::clock::{MILLI, SECOND};
use crate::member::{Life, Member, Worker};

#[derive(Clone, Debug)]
enum Deed {
    Add { urls: Vec<String>, is_learner: bool },
    Promote(u64),
    Remove(u64),
    Update { id: u64, urls: Vec<String> },
    Move(u64),
    HandOver,
}

/// What the operator does about a follower whose apply stands still: a learner comes, the follower is
/// cut off, and the learner becomes a voter or goes again. The log that the follower has says the one,
/// the snapshot that it gets says the other.
pub struct Errand {
    pub behind: usize,
    /// The learner's.
    pub urls: Vec<String>,
    /// Whether the learner is to be a voter.
    pub stays: bool,
    /// When the follower is cut off.
    pub cut_at: Option<u64>,
    /// What is not done by then is left.
    pub until: u64,
}

type Slot = Arc<Mutex<Option<Result<(), Error>>>>;

/// What the operator waits for.
pub struct Asked {
    deed: Deed,
    pub member: usize,
    patience: u64,
    slot: Slot,
    task: tokio::task::JoinHandle<()>,
}

impl World {
    /// Makes the next change, if the last one is over.
    pub fn admin(&mut self) {
        let pause = self.chance.below(2 * self.plan.admin_millis * MILLI);
        if let Some(asked) = &self.asked {
            let answer = asked.slot.lock().take();
            let is_over = answer.is_some() || self.now >= asked.patience;
            if let Some(Err(Error::Internal(why))) = &answer {
                panic!("{:?} failed: {why}", asked.deed);
            }
            if is_over && let Some(asked) = self.asked.take() {
                asked.task.abort();
                self.arm(asked.member, Worker::Tasks, 0);
                // An addition that is refused is the end of the errand that it was for.
                let is_refused = matches!((&asked.deed, &answer), (Deed::Add { .. }, Some(Err(_))));
                self.errand.take_if(|_| is_refused);
                self.tell(|| format!("{:?} -> {answer:?}", asked.deed));
            }
            return self.at(20 * MILLI, Event::Admin);
        }
        let repair = self.repair();
        let is_busy = self.is_asking && self.plan.admin_millis > 0;
        if !is_busy && repair.is_none() {
            return;
        }
        self.at(pause + 20 * MILLI, Event::Admin);
        let deed = match (repair, self.errand.is_some()) {
            (Some(deed), _) => Some(deed),
            (None, true) => self.go_on(),
            (None, false) => self.choose_deed(),
        };
        let Some(deed) = deed else { return };
        let Some(member) = self.choose_member(&deed) else { return };
        self.tell(|| format!("the operator asks m{member}: {deed:?}"));
        self.oracle.checked.deeds += 1;
        // Somebody is to lead whose removal is on its way into the log.
        if let (Deed::Remove(id), true) = (&deed, self.chance.one_in(2)) {
            let delay = self.chance.below(6 * MILLI);
            // Handing over to a member that is gone again and again would keep all proposals out.
            let is_up = |at: usize| self.members[at].life.is_some();
            if self.position(*id).is_some_and(is_up) {
                self.at(delay, Event::HandOver(*id));
            }
            // Members that have not applied the removal vote for the next leader and go on to ask it.
            let lags_until = self.now + self.chance.below(500 * MILLI);
            let others = self.members.iter_mut().filter(|member| member.id != *id);
            if self.plan.churns && self.errand.is_none() {
                others.for_each(|member| member.lags_until = member.lags_until.max(lags_until));
            }
        }
        let Some(life) = &self.members[member].life else { return };
        let (node, slot, asked) = (life.node.clone(), Slot::default(), deed.clone());
        let answer = Arc::clone(&slot);
        let task = life.runtime.spawn(async move {
            let who = Credentials::default();
            let result = match asked {
                Deed::Add { urls, is_learner } => {
                    node.add_member(&who, urls, is_learner).await.map(|_| ())
                }
                Deed::Promote(id) => node.promote_member(&who, id).await.map(|_| ()),
                Deed::Remove(id) => node.remove_member(&who, id).await.map(|_| ()),
                Deed::Update { id, urls } => node.update_member(&who, id, urls).await.map(|_| ()),
                Deed::Move(id) => node.move_leader(&who, id).await,
                Deed::HandOver => node.hand_over().await,
            };
            *answer.lock() = Some(result);
        });
        let longest = if self.plan.churns { 1 } else { 6 };
        let patience = self.now + SECOND + self.chance.below(longest * SECOND);
        self.asked = Some(Asked { deed, member, patience, slot, task });
        self.arm(member, Worker::Tasks, 0);
    }

    /// The next step of an errand, if it is time for one.
    fn go_on(&mut self) -> Option<Deed> {
        let errand = self.errand.as_mut().filter(|errand| self.now < errand.until);
        let Some(Errand { behind, urls, stays, cut_at, until }) = errand else {
            self.errand = None;
            return None;
        };
        let member = self.oracle.members.iter().find(|(_, member)| member.urls == *urls);
        match (member, *cut_at) {
            (None, None) => Some(Deed::Add { urls: urls.clone(), is_learner: true }),
            (Some(_), None) => {
                // By then the follower has heard that the addition is committed.
                let (delay, behind) = (self.chance.below(100 * MILLI), *behind);
                *cut_at = Some(self.now + delay);
                let mends_in = *until - self.now;
                self.at(delay, Event::Cut(behind));
                self.at(mends_in, Event::Mend);
                None
            }
            (_, Some(at)) if self.now <= at => None,
            (Some((id, member)), _) if *stays && member.is_learner => Some(Deed::Promote(*id)),
            (Some((id, _)), _) if !*stays => Some(Deed::Remove(*id)),
            _ => {
                self.errand = None;
                None
            }
        }
    }

    /// Whoever lost its log goes, and another one comes.
    fn repair(&mut self) -> Option<Deed> {
        let members = &self.oracle.members;
        let mut ruined = self.members.iter().filter(|member| member.is_ruined).peekable();
        ruined.peek()?;
        if let Some(member) = ruined.find(|member| members.contains_key(&member.id)) {
            return Some(Deed::Remove(member.id));
        }
        let is_short = self.is_asking && members.len() < self.plan.members;
        is_short.then(|| {
            // The machine of before gets another id under its own URLs, or another one takes its place.
            let is_taken = |urls: &[String]| members.values().any(|member| member.urls == urls);
            let free = self.members.iter().filter(|of| of.is_ruined && !is_taken(&of.urls));
            let old = free.map(|of| of.urls.clone()).last();
            self.last_url += 1;
            let new = vec![format!("http://10.0.1.{}:2380", self.last_url)];
            let urls = old.filter(|_| self.chance.one_in(2)).unwrap_or(new);
            Deed::Add { urls, is_learner: false }
        })
    }

    fn choose_deed(&mut self) -> Option<Deed> {
        let members = self.oracle.members.clone();
        let ids: Vec<u64> = members.keys().copied().collect();
        if ids.is_empty() {
            return None;
        }
        let learners: Vec<u64> = ids.iter().filter(|id| members[*id].is_learner).copied().collect();
        let voters = ids.len() - learners.len();
        let one = *self.chance.pick(&ids);
        let urls = || vec![format!("http://10.0.1.{}:2380", self.last_url)];
        Some(match self.chance.below(12) {
            0..3 if ids.len() < self.plan.members_max => {
                let deed = Deed::Add { urls: urls(), is_learner: self.chance.one_in(2) };
                self.last_url += 1;
                deed
            }
            3 | 4 if !learners.is_empty() => Deed::Promote(*self.chance.pick(&learners)),
            // Of two voters, the one that stays may need the vote of the other, until it hears of the
            // removal.
            5..8 if voters < if self.plan.churns { 2 } else { 3 } => return None,
            // Whoever is gone is replaced: what follows is an addition, sooner or later.
            5 | 6 => {
                let gone = |id: &&u64| {
                    let member = self.members.iter().find(|member| member.id == **id);
                    member.is_none_or(|member| member.life.is_none())
                };
                Deed::Remove(ids.iter().find(gone).copied().unwrap_or(one))
            }
            7 => Deed::Remove(one),
            8 => {
                let deed = Deed::Update { id: one, urls: urls() };
                self.last_url += 1;
                deed
            }
            9 | 10 => Deed::Move(one),
            _ => Deed::HandOver,
        })
    }

    fn choose_member(&mut self, deed: &Deed) -> Option<usize> {
        let wants_leader = match deed {
            Deed::Move(_) | Deed::HandOver => true,
            // A leader that removes itself.
            Deed::Remove(_) => self.chance.one_in(3),
            _ => false,
        };
        if wants_leader {
            return self.leader();
        }
        let alive = |at: &usize| self.members[*at].life.is_some();
        let mut alive: Vec<usize> = (0..self.members.len()).filter(alive).collect();
        // Where the membership changes all the time, the operator seldom waits for who cannot answer.
        if self.plan.churns && !self.chance.one_in(4) {
            let is_behind = |at: usize| self.members[at].lags_until > self.now;
            let is_cut = |at: usize| self.cut.iter().any(|(from, _)| *from == at);
            alive.retain(|at| !is_behind(*at) && !is_cut(*at));
        }
        (!alive.is_empty()).then(|| *self.chance.pick(&alive))
    }

    /// Members that were added get a machine.
    pub fn welcome(&mut self) {
        for (id, urls) in std::mem::take(&mut self.oracle.added) {
            if self.position(id).is_some() {
                continue;
            }
            let number = self.members.len();
            self.tell(|| format!("m{number} is to be {id:x}"));
            let mut member = Member::new(id, number, self.dir.path(), &mut self.chance, &self.plan);
            let known = self.oracle.members.iter().map(|(id, of)| (*id, of.urls.clone()));
            let cluster_id = self.cluster_id;
            member.join = Some(Join { cluster_id, member_id: id, members: known.collect() });
            member.urls = urls;
            self.members.push(member);
            let delay = self.chance.below(SECOND);
            self.at(delay, Event::Boot(number));
        }
    }

    /// A member that learned of its removal ends, and does not come back.
    pub fn leave(&mut self, number: usize, life: u64) {
        let member = &self.members[number];
        if member.lives != life || member.life.is_none() {
            return;
        }
        let id = member.id;
        assert!(self.oracle.removed.contains_key(&id), "m{number} leaves without being removed");
        let is_told = |life: &Life| *life.node.removed().borrow() == Some(Duration::ZERO);
        let may_leave = |life: &Life| is_told(life) || life.steps.handle().may_leave();
        if !member.life.as_ref().is_some_and(may_leave) {
            let delay = limits::REMOVED_LOOK_INTERVAL.as_nanos() as u64;
            return self.at(delay, Event::Leave(number, life));
        }
        self.tell(|| format!("m{number} leaves"));
        self.members[number].is_gone = true;
        self.stop(number);
    }

    /// Some member that believes to lead.
    pub fn leader(&mut self) -> Option<usize> {
        let leads = |at: &usize| {
            let life = self.members[*at].life.as_ref();
            life.is_some_and(|life| life.steps.status().role == Role::Leader)
        };
        let leaders: Vec<usize> = (0..self.members.len()).filter(leads).collect();
        (!leaders.is_empty()).then(|| *self.chance.pick(&leaders))
    }
}
