//! How long a call may take.

use std::time::Duration;

use tokio::time::{Instant, timeout_at};

/// The time at which a call is given up; `NONE` never comes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Deadline(Option<Instant>);

impl Deadline {
    pub const NONE: Self = Self(None);

    /// `wait` from now; `NONE` if that is too far off to be a time.
    pub fn after(wait: Duration) -> Self {
        Self(Instant::now().checked_add(wait))
    }

    pub(super) fn at(self) -> Option<Instant> {
        self.0
    }

    pub fn passed(self) -> bool {
        self.0.is_some_and(|at| at <= Instant::now())
    }

    /// Runs `work` until the deadline; None if the deadline came first.
    pub async fn bound<F: Future>(self, work: F) -> Option<F::Output> {
        match self.0 {
            Some(at) => timeout_at(at, work).await.ok(),
            None => Some(work.await),
        }
    }
}
