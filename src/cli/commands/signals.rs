//! Signals, for commands that have to clean up before they end.

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::cli::exit::Failure;

/// Catches SIGINT and SIGTERM from its creation on.
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

    /// Returns when the next signal arrives.
    pub(super) async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}
