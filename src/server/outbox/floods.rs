//! Floods that have gone, and may have left free memory behind that the allocator keeps.

use crate::limits;

/// What there was most of since memory was given back last.
#[derive(Default)]
struct Most(usize);

impl Most {
    /// Whether there were more than `kept`, and most of them are gone.
    fn is_over(&mut self, now: usize, kept: usize) -> bool {
        self.0 = self.0.max(now);
        self.0 > kept && now < self.0 / 4
    }
}

/// What of a flood may have left free memory behind.
#[derive(Default)]
pub(super) struct Floods {
    bytes: Most,
    connections: Most,
    calls: Most,
    /// The least that the process held since memory was given back last.
    least_held_bytes: Option<usize>,
    /// More may be free than what was given back, since connections end one by one.
    is_to_go_on: bool,
}

/// What there is now.
pub(super) struct Counts {
    pub(super) bytes: usize,
    pub(super) connections: usize,
    pub(super) calls: usize,
}

impl Floods {
    /// Once memory has been given back: what the process held before, and what it holds now.
    pub(super) fn after(held: usize, left: usize) -> Self {
        Self {
            least_held_bytes: Some(left),
            is_to_go_on: held.saturating_sub(left) > limits::FREE_BYTES_KEPT,
            ..Self::default()
        }
    }

    /// Whether a flood has gone whose memory, of which the process holds so much, may be free.
    pub(super) fn is_over(&mut self, held: usize, now: Counts) -> bool {
        let least = self.least_held_bytes.map_or(held, |least| least.min(held));
        self.least_held_bytes = Some(least);
        let has_grown = held - least > limits::FREE_BYTES_KEPT;
        // All three, so that each is noted.
        let bytes = self.bytes.is_over(now.bytes, limits::UNSENT_BYTES_KEPT);
        let connections = self.connections.is_over(now.connections, limits::CONNECTIONS_KEPT);
        let calls = self.calls.is_over(now.calls, limits::CALLS_KEPT);
        bytes || self.is_to_go_on || has_grown && (connections || calls)
    }
}
