//! Hands the `raft` crate's log lines to `tracing`.

use slog::{Drain, KV, OwnedKVList, Record, Serializer};

pub(super) struct TracingDrain;

/// Collects key-value pairs as text.
struct Pairs(String);

impl Serializer for Pairs {
    fn emit_arguments(&mut self, key: slog::Key, value: &std::fmt::Arguments<'_>) -> slog::Result {
        use std::fmt::Write;
        write!(self.0, " {key}={value}").map_err(slog::Error::from)
    }
}

impl Drain for TracingDrain {
    type Ok = ();
    type Err = slog::Never;

    fn log(&self, record: &Record<'_>, _: &OwnedKVList) -> Result<(), slog::Never> {
        let level = record.level();
        if level.is_at_least(slog::Level::Info) {
            let mut pairs = Pairs(record.msg().to_string());
            // Only formatting could fail, and formatting into a string does not.
            let _ = record.kv().serialize(record, &mut pairs);
            match level {
                slog::Level::Critical | slog::Level::Error => tracing::error!("raft: {}", pairs.0),
                slog::Level::Warning => tracing::warn!("raft: {}", pairs.0),
                _ => tracing::info!("raft: {}", pairs.0),
            }
        }
        Ok(())
    }
}
