//! What a seed decides about itself before anything happens.

use super::clock::Chance;

#[derive(Clone, Debug)]
pub struct Plan {
    pub members: usize,
    pub events: u64,
    /// One fault in so many milliseconds, on average.
    pub fault_millis: u64,
    pub loss_odds: u64,
    pub repeat_odds: u64,
    pub garbage_odds: u64,
    pub slow_odds: u64,
    pub late_odds: u64,
    pub drift: u64,
    /// What the operator does, one thing in so many milliseconds; 0 is nothing.
    pub admin_millis: u64,
    pub long_odds: u64,
    pub segment_bytes: u64,
    pub catch_up_entries: u64,
    /// The membership changes again and again, while members are cut off.
    pub churns: bool,
    /// Members at a time.
    pub members_max: usize,
    /// How seldom apply stops within a batch.
    pub split_odds: u64,
    /// How often leaders compare histories; 0 is never.
    pub corrupt_check_millis: u64,
}

impl Plan {
    pub fn new(chance: &mut Chance, events: u64) -> Self {
        const NEVER: u64 = 1_000_000;
        let plan = Self {
            members: *chance.pick(&[3, 3, 3, 3, 3, 3, 5, 5, 1]),
            events,
            fault_millis: *chance.pick(&[150, 300, 600, 1500]),
            loss_odds: *chance.pick(&[10, 50, NEVER]),
            repeat_odds: *chance.pick(&[10, 50, NEVER]),
            garbage_odds: *chance.pick(&[100, NEVER]),
            late_odds: *chance.pick(&[3, 10, 10, 50]),
            slow_odds: *chance.pick(&[20, 100, 1000]),
            drift: *chance.pick(&[0, 100, 1000]),
            admin_millis: *chance.pick(&[0, 0, 200, 600, 2000]),
            long_odds: *chance.pick(&[10, 10, 2]),
            segment_bytes: *chance.pick(&[4 << 10, 8 << 10, 256 << 10]),
            catch_up_entries: *chance.pick(&[3, 20, 5000]),
            churns: false,
            members_max: 7,
            split_odds: *chance.pick(&[2, 5, 50]),
            corrupt_check_millis: *chance.pick(&[0, 300, 2000]),
        };
        if !chance.one_in(6) {
            return plan;
        }
        // Little goes wrong, so that the membership changes all the time; but logs are short, and who
        // is behind for a second gets a snapshot.
        let members_max = *chance.pick(&[3, 7]);
        let plan = Self { churns: true, members_max, admin_millis: 50, fault_millis: 800, ..plan };
        Self { events: 4 * events, catch_up_entries: 3, segment_bytes: 512, ..plan }
    }
}
