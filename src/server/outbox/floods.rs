//! Finds out when a flood of clients has ended: the allocator may then keep much free memory.

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
}

/// The counts at one look.
pub(super) struct Counts {
    pub(super) bytes: usize,
    pub(super) connections: usize,
    pub(super) calls: usize,
}

impl Floods {
    /// The state after memory was given back. `held` are the bytes of the process before, `left`
    /// those after.
    pub(super) fn after(held: usize, left: usize) -> Self {
        Self {
            least_held_bytes: Some(left),
            is_to_go_on: held.saturating_sub(left) > limits::GIVE_BACK_FREE_BYTES_MIN,
            ..Self::default()
        }
    }

    /// Whether a flood has ended and much of the `held` bytes of the process may be free.
    pub(super) fn has_ended(&mut self, held: usize, now: Counts) -> bool {
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
        bytes || self.is_to_go_on || has_grown && (connections || calls)
    }
}
