//! The client of etcd's gRPC API, for any etcd or rusd endpoint.
//!
//! The model is clientv3's: one [`Client`] knows several endpoints, connects when it is first
//! needed, and sends each call to one endpoint that answers. A call waits for a connection as long
//! as its deadline allows, so a dead cluster costs exactly the caller's patience and one living
//! endpoint among dead ones suffices. A client made with [`Reach::AtOnce`] is less patient: it
//! connects when it is made, and says why no endpoint can be reached as soon as that is known.
//!
//! ```text
//! call(method, request, deadline)
//!   └─ node(): a connected endpoint in turn, else race to connect all of them, else wait, again
//!        └─ one attempt ── ok ──────────────────────────────> response
//!             └─ error: one log line; retried only when safe
//!                  repeatable methods: unavailable; any: the token expired and we can log in again
//! ```
//!
//! Writes of keys are never repeated once they may have reached a server: a put that ran twice
//! would overwrite what came between. Lease grants and revocations are repeated, as in etcd's
//! client.
//!
//! Above single calls stand the pieces that need more than one: [`Watcher`] resumes where it was
//! cut off, [`KeepAlive`] renews a lease, [`Session`] with [`Mutex`] and [`Election`] are etcd's
//! recipes. Nothing here prints: a [`LogSink`] takes what there is to tell.

mod concurrency;
mod config;
mod connection;
mod deadline;
mod encoded;
mod endpoint;
mod error;
mod keep_alive;
mod log;
mod methods;
mod nodes;
mod reach;
mod watch;

pub use concurrency::{Election, Mutex, Session};
pub use config::{Config, Credentials, TlsOptions};
pub use connection::Client;
pub use deadline::Deadline;
pub use encoded::Answers;
pub use endpoint::{Address, Target};
pub use error::Error;
#[cfg(test)]
pub(crate) use error::KNOWN;
pub use keep_alive::KeepAlive;
pub use log::{Event, LogSink};
pub use methods::{Method, rpc};
pub use reach::{Cause, Reach, Unreached};
pub use watch::{Progress, WatchBatch, WatchSpec, Watcher};

/// The first key behind all keys that begin with `prefix`; one zero byte, for "all keys from
/// start", if no key is.
pub fn prefix_end(prefix: &[u8]) -> Vec<u8> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < 0xff {
            end.push(last + 1);
            return end;
        }
    }
    vec![0]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_ends_before_the_next_sibling() {
        assert_eq!(prefix_end(b"pre/"), b"pre0");
        assert_eq!(prefix_end(b"a\xff\xff"), b"b");
        assert_eq!(prefix_end(b"\xff"), b"\0");
        assert_eq!(prefix_end(b""), b"\0");
    }
}
