//! Leases: their TTLs, the keys that are attached to them, and when they expire.
//!
//! Grants, revocations, attachments and checkpointed remaining times come from the log and are the
//! same on every member. Deadlines are not: only the leader has them. They are points of its
//! monotonic clock, which a jump of the wall clock does not move. A new leader starts them afresh,
//! which can only lengthen a lease. This room reads no clock; the caller passes the time. It also
//! never revokes a lease: the caller asks which are due (`Lessor::expired`) and proposes their
//! revocation.
//!
//! So that a change of leader does not give a long lease its whole TTL again, the leader notes in
//! the log now and then how much is left (etcd's LeaseCheckpoint). A renewal makes such a note
//! wrong: the next leader would end the lease too early. So a lease with a note, in the log or on
//! its way there, is renewed only after an entry that takes the note back: a checkpoint of 0. That
//! entry must come after the note in the log, and its coming back alone does not show that: a note
//! that was handed out before it can still be on its way. So notes are numbered, and the entry says
//! up to which number all notes precede it.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::time::Duration;

use bytes::Bytes;

use crate::limits;

/// Why a request about a lease is refused; the same on every member.
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
    /// Time left according to the last note in the log; 0 if there is none, or if it was taken
    /// back.
    remaining_seconds: i64,
    keys: BTreeSet<Bytes>,
    /// On the leader: when the lease expires.
    deadline: Option<Duration>,
    /// When it is looked at whether the deadline has passed. A renewal moves the deadline alone.
    due_at: Option<Duration>,
    /// On the leader, for long leases: when the time left is to be noted in the log.
    checkpoint_at: Option<Duration>,
    /// On the leader: number of the last note that was handed out by `due_checkpoints` and not
    /// taken back.
    note: Option<u64>,
}

/// A lease as LeaseTimeToLive reports it. On a member that is not the leader, the whole TTL counts
/// as left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Info {
    pub granted_seconds: i64,
    /// Negative once the deadline has passed and the lease is not revoked yet.
    pub remaining_seconds: i64,
    pub keys: Vec<Bytes>,
}

/// The outcome of a renewal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Renewal {
    Renewed {
        ttl_seconds: i64,
    },
    /// The deadline has passed, so the lease is about to be revoked.
    Expired,
    NotFound,
    /// The log holds a note of the time left, or will hold one. A checkpoint of 0 must take it back
    /// before the renewal.
    NoteInTheWay,
    /// Only the leader knows deadlines.
    NotLeader,
}

/// All leases of a member. The time is passed in as a point of the member's monotonic clock. Its maps
/// are trees, since apply would wait while a hash table grows and moves all of its entries.
#[derive(Debug, Default)]
pub struct Lessor {
    leases: BTreeMap<i64, Lease>,
    keys: BTreeMap<Bytes, i64>,
    /// When to look at leases with deadlines, soonest first: each one's `due_at`.
    due: BTreeSet<(Duration, i64)>,
    /// When to note the time left, soonest first: each lease's `checkpoint_at`.
    checkpoints: BTreeSet<(Duration, i64)>,
    is_leader: bool,
    /// Number of the last note that was handed out.
    notes: u64,
}

impl Lease {
    /// The time left as far as the log says: the last note, or the whole TTL.
    fn left_seconds(&self) -> i64 {
        if self.remaining_seconds > 0 { self.remaining_seconds } else { self.ttl_seconds }
    }
}

fn seconds(seconds: i64) -> Duration {
    Duration::from_secs(u64::try_from(seconds).unwrap_or(0))
}

impl Lessor {
    /// Adds a lease that was read from the store.
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

    /// Applies a grant with a TTL in seconds. The id 0 stands for no lease and is refused as
    /// `NotFound`, as in etcd.
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

    /// Removes the lease and returns its keys in order. They are not attached to any lease
    /// afterwards; the caller deletes them.
    pub fn revoke(&mut self, id: i64) -> Result<Vec<Bytes>, Error> {
        let lease = self.leases.remove(&id).ok_or(Error::NotFound)?;
        lease.due_at.map(|at| self.due.remove(&(at, id)));
        lease.checkpoint_at.map(|at| self.checkpoints.remove(&(at, id)));
        for key in &lease.keys {
            self.keys.remove(key);
        }
        Ok(lease.keys.into_iter().collect())
    }

    /// Attaches the key to the lease `id` and to no other. 0, or a lease that does not exist,
    /// detaches it.
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
            // The key is a slice of the request's buffer, which would stay in memory as long as the
            // lease.
            let key = Bytes::copy_from_slice(key);
            lease.keys.insert(key.clone());
            self.keys.insert(key, id);
        }
    }

    /// The keys that are attached to the lease, in order; none if it does not exist.
    pub fn keys(&self, id: i64) -> Vec<Bytes> {
        self.keys_after(id, None).cloned().collect()
    }

    /// The keys that are attached to the lease `id`, or to any lease for None.
    pub fn keys_of(&self, id: Option<i64>) -> impl Iterator<Item = &Bytes> {
        let of_one = id.into_iter().flat_map(|id| self.keys_after(id, None));
        let of_all = id.is_none().then(|| self.keys.keys()).into_iter().flatten();
        of_one.chain(of_all)
    }

    /// All keys with a lease, and its id.
    pub fn attachments(&self) -> impl ExactSizeIterator<Item = (&Bytes, i64)> {
        self.keys.iter().map(|(key, id)| (key, *id))
    }

    /// The keys of the lease in order, from after `after` on if it is given; none if the lease does
    /// not exist.
    pub fn keys_after(&self, id: i64, after: Option<&Bytes>) -> impl Iterator<Item = &Bytes> {
        let lower = after.map_or(Bound::Unbounded, |after| Bound::Excluded(after.clone()));
        let lease = self.leases.get(&id);
        lease.into_iter().flat_map(move |lease| lease.keys.range((lower.clone(), Bound::Unbounded)))
    }

    pub fn ids(&self) -> impl Iterator<Item = i64> {
        self.leases.keys().copied()
    }

    /// Applies a note of the time left, in seconds; 0 takes earlier ones back. Returns the TTL of
    /// the lease, in seconds; None if it does not exist.
    pub fn checkpoint(&mut self, id: i64, remaining_seconds: i64, now: Duration) -> Option<i64> {
        let lease = self.leases.get_mut(&id)?;
        lease.remaining_seconds = remaining_seconds;
        let ttl_seconds = lease.ttl_seconds;
        if self.is_leader {
            self.plan_checkpoint(id, now);
        }
        Some(ttl_seconds)
    }

    /// Notes that are due: at most `leases_max` lease ids with the seconds left, rounded up. Each
    /// gets a number and blocks renewals of its lease until it is taken back.
    pub fn due_checkpoints(&mut self, now: Duration, leases_max: usize) -> Vec<(i64, i64)> {
        let mut due = Vec::new();
        while due.len() < leases_max {
            let Some(id) = pop_due(&mut self.checkpoints, now) else { break };
            let Some(lease) = self.leases.get_mut(&id) else { continue };
            lease.checkpoint_at = None;
            let Some(deadline) = lease.deadline else { continue };
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
            // The note may be lost on its way to the log, so the next one is planned at once; when
            // the note is applied, it is planned again.
            self.plan_checkpoint(id, now);
        }
        due
    }

    /// The number of the last note that was handed out.
    pub fn last_note(&self) -> u64 {
        self.notes
    }

    /// Records that an applied entry has taken back the notes of the lease up to number
    /// `last_note`: all of these precede the entry in the log.
    pub fn confirm_taken_back(&mut self, id: i64, last_note: u64) {
        if let Some(lease) = self.leases.get_mut(&id) {
            lease.note.take_if(|note| *note <= last_note);
        }
    }

    fn plan_checkpoint(&mut self, id: i64, now: Duration) {
        let Some(lease) = self.leases.get_mut(&id) else { return };
        if seconds(lease.left_seconds()) > limits::LEASE_CHECKPOINT_INTERVAL {
            let at = now + limits::LEASE_CHECKPOINT_INTERVAL;
            if let Some(before) = lease.checkpoint_at.replace(at) {
                self.checkpoints.remove(&(before, id));
            }
            self.checkpoints.insert((at, id));
        }
    }

    /// Called when this member becomes the leader: from then on leases have deadlines. Each gets
    /// its TTL, or the time left that the log says, and `extend` more, since the renewals of the
    /// last leader are unknown.
    pub fn promote(&mut self, now: Duration, extend: Duration) {
        self.demote();
        self.is_leader = true;
        let left: Vec<(i64, i64)> =
            self.leases.iter().map(|(id, lease)| (*id, lease.left_seconds())).collect();
        for (id, left) in left {
            self.set_deadline(id, now + seconds(left) + extend);
            self.plan_checkpoint(id, now);
        }
        self.spread_deadlines(now);
    }

    /// Called when this member stops being the leader: leases have no deadlines any more.
    pub fn demote(&mut self) {
        self.is_leader = false;
        self.due.clear();
        self.checkpoints.clear();
        for lease in self.leases.values_mut() {
            (lease.deadline, lease.due_at, lease.checkpoint_at) = (None, None, None);
            lease.note = None;
        }
    }

    pub fn is_leader(&self) -> bool {
        self.is_leader
    }

    /// Starts the TTL of the lease again, if this member is the leader and no note stands against
    /// it.
    pub fn renew(&mut self, id: i64, now: Duration) -> Renewal {
        if !self.is_leader {
            return Renewal::NotLeader;
        }
        let Some(lease) = self.leases.get(&id) else { return Renewal::NotFound };
        if lease.deadline.is_some_and(|deadline| deadline <= now) {
            return Renewal::Expired;
        }
        if lease.remaining_seconds > 0 || lease.note.is_some() {
            return Renewal::NoteInTheWay;
        }
        let ttl_seconds = lease.ttl_seconds;
        self.set_deadline(id, now + seconds(ttl_seconds));
        Renewal::Renewed { ttl_seconds }
    }

    /// A lease as of `now`; None if it does not exist.
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

    /// The ids of all leases, ordered by deadline on the leader and by id elsewhere.
    pub fn list(&self) -> Vec<i64> {
        let mut ids: Vec<(Option<Duration>, i64)> =
            self.leases.iter().map(|(id, lease)| (lease.deadline, *id)).collect();
        ids.sort_unstable();
        ids.into_iter().map(|(_, id)| id).collect()
    }

    /// Ids of leases whose deadlines have passed, at most `leases_max`, soonest first. Each is
    /// returned again at `retry_at` if it still exists then: its revocation may fail.
    pub fn expired(&mut self, now: Duration, retry_at: Duration, leases_max: usize) -> Vec<i64> {
        let mut expired = Vec::new();
        while expired.len() < leases_max {
            let Some(id) = pop_due(&mut self.due, now) else { break };
            let Some(lease) = self.leases.get_mut(&id) else { continue };
            lease.due_at = None;
            let Some(deadline) = lease.deadline else { continue };
            let is_expired = deadline <= now;
            // One that was renewed since is looked at again at its new deadline.
            let at = if is_expired { retry_at } else { deadline };
            lease.due_at = Some(at);
            self.due.insert((at, id));
            if is_expired {
                expired.push(id);
            }
        }
        expired
    }

    fn set_deadline(&mut self, id: i64, deadline: Duration) {
        if let Some(lease) = self.leases.get_mut(&id) {
            lease.deadline = Some(deadline);
            if lease.due_at.is_none() {
                lease.due_at = Some(deadline);
                self.due.insert((deadline, id));
            }
        }
    }

    /// Spreads deadlines after a change of leader, as etcd's `lessor.Promote` does: many leases may
    /// expire at once, and their revocations would delay requests. A window of one second takes
    /// three quarters of the leases that may be revoked in a second, and is lengthened by the
    /// delays that it causes.
    fn spread_deadlines(&mut self, now: Duration) {
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

/// Takes out the soonest lease whose time has come.
fn pop_due(due: &mut BTreeSet<(Duration, i64)>, now: Duration) -> Option<i64> {
    let (at, id) = due.first().copied().filter(|(at, _)| *at <= now)?;
    due.remove(&(at, id));
    Some(id)
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

    /// A client may grant and revoke one id for as long as it likes.
    #[test]
    fn a_revoked_lease_leaves_nothing_behind() {
        let mut lessor = leader();
        for _ in 0..1000 {
            lessor.grant(1, 1000, at(0)).unwrap();
            lessor.revoke(1).unwrap();
        }
        assert_eq!((lessor.due.len(), lessor.checkpoints.len()), (0, 0));
        lessor.grant(1, 1000, at(0)).unwrap();
        lessor.grant(2, 1000, at(0)).unwrap();
        (0..1000).for_each(|second| _ = lessor.checkpoint(1, 0, at(second)));
        assert_eq!((lessor.due.len(), lessor.checkpoints.len()), (2, 2));
        assert_eq!(lessor.expired(at(1000), at(2000), 500), [1, 2]);
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
        // A note that was lost on its way is repeated.
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
        // The note is on its way: a renewal before it arrives would be forgotten by the next
        // leader.
        assert_eq!(lessor.renew(1, at(300)), Renewal::NoteInTheWay);
        lessor.checkpoint(1, 700, at(301));
        assert_eq!(lessor.renew(1, at(301)), Renewal::NoteInTheWay);
        let last_note = lessor.last_note();
        lessor.checkpoint(1, 0, at(302));
        lessor.confirm_taken_back(1, last_note);
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
        // A renewal takes back earlier notes, and its entry gets into the log before the note.
        lessor.checkpoint(1, 0, at(300));
        lessor.confirm_taken_back(1, before);
        assert_eq!(lessor.renew(1, at(301)), Renewal::NoteInTheWay, "the note is still on its way");
        lessor.checkpoint(1, 700, at(301));
        assert_eq!(lessor.renew(1, at(301)), Renewal::NoteInTheWay);
        let last_note = lessor.last_note();
        lessor.checkpoint(1, 0, at(302));
        lessor.confirm_taken_back(1, last_note);
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
            // etcd's target for a second, and leases within the window that is being filled.
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
