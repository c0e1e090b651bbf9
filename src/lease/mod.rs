//! Leases: how long they were granted for, which keys hang on them, when they are due.
//!
//! Grants, revocations, attachments and checkpointed remainders come from the log and are the same
//! on every member. Deadlines are not: only the leader has them, they are points of its monotonic
//! clock, which a jump of the wall clock does not move, and a new leader starts them afresh, which
//! can only lengthen a lease. This room reads no clock; the caller passes the time.
//!
//! So that a change of leader does not give a long lease all of its time again, the leader notes in
//! the log now and then how much is left. A renewal makes such a note wrong: the next leader would
//! end the lease too early. So a lease with a note, or with one on its way, is renewed only once the
//! log has taken the note back: by an entry that stands behind the note. That the entry has come back
//! does not show that, as a note that was handed out before it can still be on its way. Notes are
//! numbered, and whoever takes one back says up to which number all have gone before.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap, HashMap};
use std::ops::Bound;
use std::time::Duration;

use bytes::Bytes;

use crate::limits;

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("requested lease not found")]
    NotFound,
    #[error("lease already exists")]
    Exists,
    #[error("too large lease TTL")]
    TtlTooLarge,
}

#[derive(Debug, Default)]
struct Lease {
    ttl_seconds: i64,
    /// Time left when the leader last noted it in the log; 0 if it never did.
    remaining_seconds: i64,
    keys: BTreeSet<Bytes>,
    /// On the leader.
    deadline: Option<Duration>,
    /// On the leader, for long leases: when the rest is to be noted in the log.
    checkpoint_at: Option<Duration>,
    /// On the leader: the number of the last note that was handed out and not taken back.
    note: Option<u64>,
}

/// A lease as LeaseTimeToLive reports it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Info {
    pub granted_seconds: i64,
    /// Negative if the lease is overdue and could not be revoked.
    pub remaining_seconds: i64,
    pub keys: Vec<Bytes>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Renewal {
    Renewed {
        ttl_seconds: i64,
    },
    /// Due, and its revocation is on the way.
    Expired,
    NotFound,
    /// The log holds a remainder, which must be taken back first: by a checkpoint of 0.
    Remainder,
    /// Only the leader knows deadlines.
    NotLeader,
}

#[derive(Debug, Default)]
pub struct Lessor {
    leases: HashMap<i64, Lease>,
    keys: HashMap<Bytes, i64>,
    /// Deadlines to look at, soonest first. An entry is stale if the lease has another deadline.
    due: BinaryHeap<Reverse<(Duration, i64)>>,
    /// When to note remainders, soonest first. An entry is stale if the lease says another time.
    checkpoints: BinaryHeap<Reverse<(Duration, i64)>>,
    is_leader: bool,
    /// Of the last note that was handed out.
    notes: u64,
}

impl Lease {
    /// What the log says is left.
    fn left_seconds(&self) -> i64 {
        if self.remaining_seconds > 0 { self.remaining_seconds } else { self.ttl_seconds }
    }
}

fn seconds(seconds: i64) -> Duration {
    Duration::from_secs(u64::try_from(seconds).unwrap_or(0))
}

impl Lessor {
    /// Takes over a stored lease at start.
    pub fn restore(&mut self, id: i64, ttl_seconds: i64, remaining_seconds: i64) {
        let lease = Lease { ttl_seconds, remaining_seconds, ..Lease::default() };
        self.leases.insert(id, lease);
    }

    pub fn exists(&self, id: i64) -> bool {
        self.leases.contains_key(&id)
    }

    pub fn len(&self) -> usize {
        self.leases.len()
    }

    pub fn is_empty(&self) -> bool {
        self.leases.is_empty()
    }

    pub fn grant(&mut self, id: i64, ttl_seconds: i64, now: Duration) -> Result<(), Error> {
        if id == 0 {
            return Err(Error::NotFound);
        }
        if ttl_seconds > limits::LEASE_TTL_SECONDS_MAX {
            return Err(Error::TtlTooLarge);
        }
        if self.exists(id) {
            return Err(Error::Exists);
        }
        self.restore(id, ttl_seconds, 0);
        if self.is_leader {
            self.set_deadline(id, now + seconds(ttl_seconds));
            self.plan_checkpoint(id, now);
        }
        Ok(())
    }

    /// Forgets the lease and returns its keys, in order; they are attached to nothing any more.
    pub fn revoke(&mut self, id: i64) -> Result<Vec<Bytes>, Error> {
        let lease = self.leases.remove(&id).ok_or(Error::NotFound)?;
        for key in &lease.keys {
            self.keys.remove(key);
        }
        Ok(lease.keys.into_iter().collect())
    }

    /// Attaches the key to the lease and to no other; 0, and a lease that is gone, detach it.
    pub fn set(&mut self, key: &Bytes, id: i64) {
        if id == 0 && self.keys.is_empty() {
            return;
        }
        let old = self.keys.get(key).copied().unwrap_or(0);
        if old == id {
            return;
        }
        if let Some(lease) = self.leases.get_mut(&old) {
            lease.keys.remove(key);
        }
        self.keys.remove(key);
        if let Some(lease) = self.leases.get_mut(&id) {
            // The key may be a part of a whole request; the lease should not keep that alive.
            let key = Bytes::copy_from_slice(key);
            lease.keys.insert(key.clone());
            self.keys.insert(key, id);
        }
    }

    /// The keys that hang on a lease, in order; none if it does not exist.
    pub fn keys(&self, id: i64) -> Vec<Bytes> {
        self.keys_after(id, None).cloned().collect()
    }

    /// The keys on a lease, or on any if none is given.
    pub fn keys_of(&self, id: Option<i64>) -> impl Iterator<Item = &Bytes> {
        let of_one = id.into_iter().flat_map(|id| self.keys_after(id, None));
        let of_all = id.is_none().then(|| self.keys.keys()).into_iter().flatten();
        of_one.chain(of_all)
    }

    /// The keys that hang on leases.
    pub fn attachments(&self) -> impl ExactSizeIterator<Item = (&Bytes, i64)> {
        self.keys.iter().map(|(key, id)| (key, *id))
    }

    /// The lease's keys in order, those after `after` if it is given; none if it is gone.
    pub fn keys_after(&self, id: i64, after: Option<&Bytes>) -> impl Iterator<Item = &Bytes> {
        let lower = after.map_or(Bound::Unbounded, |after| Bound::Excluded(after.clone()));
        let lease = self.leases.get(&id);
        lease.into_iter().flat_map(move |lease| lease.keys.range((lower.clone(), Bound::Unbounded)))
    }

    pub fn ids(&self) -> impl Iterator<Item = i64> {
        self.leases.keys().copied()
    }

    /// Notes from the log how long a lease had left, and answers its whole time; none if it is gone.
    pub fn checkpoint(&mut self, id: i64, remaining_seconds: i64, now: Duration) -> Option<i64> {
        let lease = self.leases.get_mut(&id)?;
        lease.remaining_seconds = remaining_seconds;
        let ttl_seconds = lease.ttl_seconds;
        if self.is_leader {
            self.plan_checkpoint(id, now);
        }
        Some(ttl_seconds)
    }

    /// Remainders to note in the log, at most `leases_max`, with the seconds left.
    pub fn due_checkpoints(&mut self, now: Duration, leases_max: usize) -> Vec<(i64, i64)> {
        let mut due = Vec::new();
        while due.len() < leases_max {
            match self.checkpoints.peek() {
                Some(Reverse((at, _))) if *at <= now => {}
                _ => break,
            }
            let Some(Reverse((at, id))) = self.checkpoints.pop() else { break };
            let Some(lease) = self.leases.get_mut(&id) else { continue };
            let Some(deadline) = lease.deadline.filter(|_| lease.checkpoint_at == Some(at)) else {
                continue;
            };
            lease.checkpoint_at = None;
            if deadline <= now {
                continue;
            }
            let left = deadline - now;
            let remaining_seconds = whole_seconds(left + Duration::from_nanos(999_999_999));
            if remaining_seconds < lease.ttl_seconds {
                self.notes += 1;
                lease.note = Some(self.notes);
                due.push((id, remaining_seconds));
            }
            // In case the note gets lost; with the note itself this is planned anew.
            self.plan_checkpoint(id, now);
        }
        due
    }

    /// The number of the last note that was handed out.
    pub fn last_note(&self) -> u64 {
        self.notes
    }

    /// The log has taken back what it says of a lease, with an entry that stands behind all notes up
    /// to this number.
    pub fn taken_back(&mut self, id: i64, last_note: u64) {
        if let Some(lease) = self.leases.get_mut(&id) {
            lease.note.take_if(|note| *note <= last_note);
        }
    }

    fn plan_checkpoint(&mut self, id: i64, now: Duration) {
        let Some(lease) = self.leases.get_mut(&id) else { return };
        if seconds(lease.left_seconds()) > limits::LEASE_CHECKPOINT_INTERVAL {
            let at = now + limits::LEASE_CHECKPOINT_INTERVAL;
            if lease.checkpoint_at.replace(at) != Some(at) {
                self.checkpoints.push(Reverse((at, id)));
            }
        }
    }

    /// Becomes the one that lets leases expire. Each gets its whole time again (or what the log
    /// says was left) and `extend` on top, since nobody knows what the last leader renewed.
    pub fn promote(&mut self, now: Duration, extend: Duration) {
        self.demote();
        self.is_leader = true;
        let left: Vec<(i64, i64)> =
            self.leases.iter().map(|(id, lease)| (*id, lease.left_seconds())).collect();
        for (id, left) in left {
            self.set_deadline(id, now + seconds(left) + extend);
            self.plan_checkpoint(id, now);
        }
        self.spread(now);
    }

    /// Stops expiring leases.
    pub fn demote(&mut self) {
        self.is_leader = false;
        self.due.clear();
        self.checkpoints.clear();
        for lease in self.leases.values_mut() {
            (lease.deadline, lease.checkpoint_at) = (None, None);
            lease.note = None;
        }
    }

    pub fn is_leader(&self) -> bool {
        self.is_leader
    }

    /// Starts the lease's time again.
    pub fn renew(&mut self, id: i64, now: Duration) -> Renewal {
        if !self.is_leader {
            return Renewal::NotLeader;
        }
        let Some(lease) = self.leases.get(&id) else { return Renewal::NotFound };
        if lease.deadline.is_some_and(|deadline| deadline <= now) {
            return Renewal::Expired;
        }
        if lease.remaining_seconds > 0 || lease.note.is_some() {
            return Renewal::Remainder;
        }
        let ttl_seconds = lease.ttl_seconds;
        self.set_deadline(id, now + seconds(ttl_seconds));
        Renewal::Renewed { ttl_seconds }
    }

    pub fn info(&self, id: i64, with_keys: bool, now: Duration) -> Option<Info> {
        let lease = self.leases.get(&id)?;
        let remaining_seconds = match lease.deadline {
            None => lease.ttl_seconds,
            Some(deadline) if deadline >= now => whole_seconds(deadline - now),
            Some(deadline) => -whole_seconds(now - deadline),
        };
        let keys = if with_keys { lease.keys.iter().cloned().collect() } else { Vec::new() };
        Some(Info { granted_seconds: lease.ttl_seconds, remaining_seconds, keys })
    }

    /// All leases, the one due first in front.
    pub fn list(&self) -> Vec<i64> {
        let mut ids: Vec<(Option<Duration>, i64)> =
            self.leases.iter().map(|(id, lease)| (lease.deadline, *id)).collect();
        ids.sort_unstable();
        ids.into_iter().map(|(_, id)| id).collect()
    }

    /// Leases that are due, at most `leases_max`, soonest first. They stay due: each is looked at
    /// again at `retry_at`, in case its revocation fails.
    pub fn expired(&mut self, now: Duration, retry_at: Duration, leases_max: usize) -> Vec<i64> {
        let mut expired = Vec::new();
        while expired.len() < leases_max {
            match self.due.peek() {
                Some(Reverse((at, _))) if *at <= now => {}
                _ => break,
            }
            let Some(Reverse((at, id))) = self.due.pop() else { break };
            let Some(deadline) = self.leases.get(&id).and_then(|lease| lease.deadline) else {
                continue;
            };
            if deadline <= now {
                expired.push(id);
                self.due.push(Reverse((retry_at, id)));
            } else if at < deadline {
                // Renewed since: the heap holds one entry for each lease, so it moves on.
                self.due.push(Reverse((deadline, id)));
            }
        }
        expired
    }

    fn set_deadline(&mut self, id: i64, deadline: Duration) {
        if let Some(lease) = self.leases.get_mut(&id) {
            let is_new = lease.deadline.replace(deadline).is_none();
            if is_new {
                self.due.push(Reverse((deadline, id)));
            }
        }
    }

    /// After a change of leader many leases may be due at once; etcd spreads them so that their
    /// revocations do not crowd out requests. A second's window takes three quarters of what may be
    /// revoked in it, and stretches with what is put off.
    fn spread(&mut self, now: Duration) {
        const TARGET: u32 = 3 * limits::LEASE_REVOKES_PER_SECOND as u32 / 4;
        const SECOND: Duration = Duration::from_secs(1);
        if self.leases.len() < limits::LEASE_REVOKES_PER_SECOND {
            return;
        }
        let mut leases: Vec<(Duration, i64)> = self
            .leases
            .iter()
            .filter_map(|(id, lease)| Some((lease.deadline?.saturating_sub(now), *id)))
            .collect();
        leases.sort_unstable();
        let mut base = leases.first().map_or(Duration::ZERO, |(remaining, _)| *remaining);
        let mut next = base + SECOND;
        let mut expiring: u32 = 0;
        for (remaining, id) in leases {
            if remaining > next {
                (base, next, expiring) = (remaining, remaining + SECOND, 1);
                continue;
            }
            expiring += 1;
            if expiring <= TARGET {
                continue;
            }
            let delay = (SECOND * expiring / TARGET).saturating_sub(remaining - base);
            next = base + delay;
            self.set_deadline(id, now + remaining + delay);
        }
    }
}

fn whole_seconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_secs()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn key(name: &'static str) -> Bytes {
        Bytes::from_static(name.as_bytes())
    }

    fn leader() -> Lessor {
        let mut lessor = Lessor::default();
        lessor.promote(at(0), at(0));
        lessor
    }

    #[test]
    fn grants_are_checked_in_etcds_order() {
        let mut lessor = leader();
        assert_eq!(lessor.grant(0, 10, at(0)), Err(Error::NotFound));
        assert_eq!(lessor.grant(1, 9_000_000_001, at(0)), Err(Error::TtlTooLarge));
        assert_eq!(lessor.grant(1, 9_000_000_000, at(0)), Ok(()));
        assert_eq!(lessor.grant(1, 10, at(0)), Err(Error::Exists));
        assert_eq!(lessor.revoke(2), Err(Error::NotFound));
    }

    #[test]
    fn a_key_hangs_on_one_lease() {
        let mut lessor = leader();
        lessor.grant(1, 10, at(0)).unwrap();
        lessor.grant(2, 10, at(0)).unwrap();
        lessor.set(&key("b"), 1);
        lessor.set(&key("a"), 1);
        lessor.set(&key("c"), 1);
        lessor.set(&key("c"), 2);
        lessor.set(&key("a"), 0);
        assert_eq!(lessor.revoke(1), Ok(vec![key("b")]));
        assert_eq!(lessor.revoke(2), Ok(vec![key("c")]));
        assert!(lessor.keys.is_empty());
    }

    #[test]
    fn renewal_moves_the_deadline_and_an_overdue_lease_cannot_be_renewed() {
        let mut lessor = leader();
        lessor.grant(1, 10, at(0)).unwrap();
        assert_eq!(lessor.renew(1, at(9)), Renewal::Renewed { ttl_seconds: 10 });
        assert_eq!(lessor.expired(at(10), at(13), 10), Vec::<i64>::new());
        assert_eq!(lessor.info(1, false, at(12)).unwrap().remaining_seconds, 7);
        assert_eq!(lessor.expired(at(19), at(22), 10), [1]);
        assert_eq!(lessor.renew(1, at(19)), Renewal::Expired);
        assert_eq!(
            lessor.expired(at(21), at(24), 10),
            Vec::<i64>::new(),
            "asked for again only later"
        );
        assert_eq!(lessor.expired(at(22), at(25), 10), [1]);
        assert_eq!(lessor.info(1, false, at(22)).unwrap().remaining_seconds, -3);
        lessor.revoke(1).unwrap();
        assert_eq!(lessor.expired(at(99), at(99), 10), Vec::<i64>::new());
        assert_eq!(lessor.renew(1, at(99)), Renewal::NotFound);
    }

    #[test]
    fn a_new_leader_gives_every_lease_its_time_again() {
        let mut lessor = Lessor::default();
        lessor.restore(1, 10, 0);
        lessor.restore(2, 100, 4);
        assert_eq!(lessor.expired(at(1000), at(1001), 10), Vec::<i64>::new());
        lessor.promote(at(1000), at(1));
        assert_eq!(lessor.list(), [2, 1]);
        assert_eq!(lessor.expired(at(1004), at(1005), 10), Vec::<i64>::new());
        assert_eq!(lessor.expired(at(1005), at(1006), 10), [2]);
        assert_eq!(lessor.expired(at(1011), at(1012), 1), [2]);
        lessor.demote();
        assert_eq!(lessor.expired(at(2000), at(2001), 10), Vec::<i64>::new());
        assert_eq!(lessor.renew(1, at(2000)), Renewal::NotLeader);
        assert_eq!(lessor.info(1, false, at(2000)).unwrap().remaining_seconds, 10);
        lessor.grant(3, 10, at(2000)).unwrap();
        assert_eq!(lessor.expired(at(9000), at(9001), 10), Vec::<i64>::new());
        lessor.promote(at(9000), at(1));
        assert_eq!(lessor.expired(at(9004), at(9005), 10), Vec::<i64>::new());
        assert_eq!(lessor.renew(3, at(9010)), Renewal::Renewed { ttl_seconds: 10 });
    }

    #[test]
    fn the_rest_of_long_leases_is_noted_every_five_minutes() {
        let mut lessor = leader();
        lessor.grant(1, 1000, at(0)).unwrap();
        lessor.grant(2, 300, at(0)).unwrap();
        lessor.grant(3, 1000, at(10)).unwrap();
        assert_eq!(lessor.due_checkpoints(at(299), 10), []);
        assert_eq!(lessor.due_checkpoints(at(300), 10), [(1, 700)]);
        assert_eq!(lessor.due_checkpoints(at(301), 10), []);
        assert_eq!(lessor.checkpoint(1, 700, at(301)), Some(1000));
        assert_eq!(lessor.checkpoint(9, 700, at(301)), None);
        assert_eq!(lessor.due_checkpoints(at(620), 1), [(3, 390)]);
        assert_eq!(lessor.due_checkpoints(at(620), 1), [(1, 380)]);
        // A note that never came back is repeated.
        assert_eq!(lessor.due_checkpoints(at(920), 10), [(1, 80), (3, 90)]);
        lessor.demote();
        assert_eq!(lessor.due_checkpoints(at(9999), 10), []);
        lessor.promote(at(10_000), at(1));
        assert_eq!(lessor.info(1, false, at(10_000)).unwrap().remaining_seconds, 701);
        assert_eq!(lessor.info(3, false, at(10_000)).unwrap().remaining_seconds, 1001);
    }

    #[test]
    fn a_lease_is_renewed_once_its_note_is_taken_back() {
        let mut lessor = leader();
        lessor.grant(1, 1000, at(0)).unwrap();
        assert_eq!(lessor.due_checkpoints(at(300), 10), [(1, 700)]);
        // The note is on its way: a renewal before it arrives would be forgotten by the next leader.
        assert_eq!(lessor.renew(1, at(300)), Renewal::Remainder);
        lessor.checkpoint(1, 700, at(301));
        assert_eq!(lessor.renew(1, at(301)), Renewal::Remainder);
        let last_note = lessor.last_note();
        lessor.checkpoint(1, 0, at(302));
        lessor.taken_back(1, last_note);
        assert_eq!(lessor.renew(1, at(302)), Renewal::Renewed { ttl_seconds: 1000 });
        lessor.promote(at(303), at(0));
        assert_eq!(lessor.info(1, false, at(303)).unwrap().remaining_seconds, 1000);
    }

    #[test]
    fn a_note_that_the_log_gets_late_does_not_shorten_a_renewed_lease() {
        let mut lessor = leader();
        lessor.grant(1, 1000, at(0)).unwrap();
        let before = lessor.last_note();
        assert_eq!(lessor.due_checkpoints(at(300), 10), [(1, 700)]);
        // A renewal takes back what the log says, and its entry overtakes the note.
        lessor.checkpoint(1, 0, at(300));
        lessor.taken_back(1, before);
        assert_eq!(lessor.renew(1, at(301)), Renewal::Remainder, "the note is still on its way");
        lessor.checkpoint(1, 700, at(301));
        assert_eq!(lessor.renew(1, at(301)), Renewal::Remainder);
        let last_note = lessor.last_note();
        lessor.checkpoint(1, 0, at(302));
        lessor.taken_back(1, last_note);
        assert_eq!(lessor.renew(1, at(302)), Renewal::Renewed { ttl_seconds: 1000 });
        lessor.promote(at(303), at(0));
        assert_eq!(lessor.info(1, false, at(303)).unwrap().remaining_seconds, 1000);
    }

    #[test]
    fn a_storm_of_expiries_is_spread() {
        let mut lessor = Lessor::default();
        for id in 1..=5000 {
            lessor.restore(id, 60, 0);
        }
        lessor.promote(at(0), at(1));
        let mut expired = 0;
        for second in 0..=80 {
            let due = lessor.expired(at(second), at(second + 1000), usize::MAX).len();
            // etcd's target, and what is due within the second that is being looked at.
            assert!(
                second < 61 || due <= 2 * limits::LEASE_REVOKES_PER_SECOND,
                "{due} at {second}"
            );
            expired += due;
            assert!(second >= 61 || due == 0);
        }
        assert_eq!(expired, 5000);
    }
}
