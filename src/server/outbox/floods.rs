//! Finds out when the allocator may keep much free memory: once a flood of clients has ended, or while
//! one goes on and the process grows by far more than is counted.

use crate::limits;

/// The greatest count since memory was given back last.
#[derive(Default)]
struct Peak(usize);

impl Peak {
    /// Whether the greatest count was above `kept`, and less than a quarter of it is left.
    fn has_ended(&mut self, now: usize, kept: usize) -> bool {
        self.0 = self.0.max(now);
        self.0 > kept && now < self.0 / 4
    }
}

/// The greatest counts since memory was given back last, of all that may leave free memory behind.
#[derive(Default)]
pub(super) struct Floods {
    bytes: Peak,
    connections: Peak,
    calls: Peak,
    /// The least that the process held since memory was given back last.
    least_held_bytes: Option<usize>,
    /// Whether memory is given back once more because the last time freed much: connections end one
    /// by one, so more may be free.
    is_to_go_on: bool,
    /// Bytes of a flood that was going on at the last look; 0 without one.
    flood_bytes: usize,
}

/// The counts at one look.
pub(super) struct Counts {
    pub(super) bytes: usize,
    pub(super) connections: usize,
    pub(super) calls: usize,
}

impl Floods {
    /// Begins anew after memory was given back. `held` are the bytes of the process before, `left`
    /// those after.
    pub(super) fn given_back(&mut self, held: usize, left: usize) {
        let freed = held.saturating_sub(left);
        *self = Self {
            // The end of a flood that goes on is still to be noticed, and holes that it leaves again.
            bytes: Peak(self.flood_bytes),
            least_held_bytes: Some(left.saturating_sub(self.flood_bytes)),
            is_to_go_on: self.flood_bytes == 0 && freed > limits::GIVE_BACK_FREE_BYTES_MIN,
            ..Self::default()
        };
    }

    /// Whether much of the `held` bytes of the process may be free.
    pub(super) fn leave_free_memory(&mut self, held: usize, now: Counts) -> bool {
        let least = self.least_held_bytes.map_or(held, |least| least.min(held));
        self.least_held_bytes = Some(least);
        let growth = held - least;
        let has_grown = growth > limits::GIVE_BACK_FREE_BYTES_MIN;
        // While answers are made they take several times what is counted in the end.
        let counted_min = match growth > limits::GIVE_BACK_UNSENT_BYTES_MIN {
            true => limits::GIVE_BACK_FREE_BYTES_MIN,
            false => limits::GIVE_BACK_UNSENT_BYTES_MIN,
        };
        // All three are evaluated, since each call notes a greatest count.
        let bytes = self.bytes.has_ended(now.bytes, counted_min);
        let connections =
            self.connections.has_ended(now.connections, limits::GIVE_BACK_CONNECTIONS_MIN);
        let calls = self.calls.has_ended(now.calls, limits::GIVE_BACK_CALLS_MIN);
        let is_flooded = now.bytes > limits::GIVE_BACK_UNSENT_BYTES_MIN;
        self.flood_bytes = if is_flooded { now.bytes } else { 0 };
        let has_holes = growth.saturating_sub(now.bytes) > limits::GIVE_BACK_HOLES_BYTES_MIN;
        bytes || self.is_to_go_on || is_flooded && has_holes || has_grown && (connections || calls)
    }
}
