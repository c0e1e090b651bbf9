//! Signals for the commands that have something to undo.

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::cli::exit::Failure;

/// SIGINT and SIGTERM, caught from its making on.
pub(super) struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    pub(super) fn catch() -> Result<Self, Failure> {
        let make = |kind| signal(kind).map_err(Failure::error);
        let interrupt = make(SignalKind::interrupt())?;
        Ok(Self { interrupt, terminate: make(SignalKind::terminate())? })
    }

    /// Returns at the next one.
    pub(super) async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}
