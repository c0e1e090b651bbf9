//! Communication between members: etcd's peer protocol below `/raft`, on HTTP/1.1.
//!
//! ```text
//!   us                                                      a peer
//!   Transport::send ─► queue ─► body of an endless answer ─► its reader ─► its raft
//!                               (it dialed: GET /raft/stream/msgapp/{its id}
//!                                           GET /raft/stream/message/{its id})
//!   our raft ◄─ our reader ◄─ (we dialed)
//! ```
//!
//! The receiver dials. A peer reads two streams of this member: entries come on `msgapp`,
//! everything else on `message`, so that a heartbeat does not wait behind a megabyte. To a peer that
//! has not dialed, messages are posted, one in a request: it may be one that cannot dial this member.
//! Queues are bounded. A message that does not fit, or cannot be posted, is dropped, and the peer is
//! reported to raft as unreachable: raft repeats what matters. Both ends notice a silent link: the
//! sender puts a sign of life into each stream, and the reader hangs up after
//! `PeersConfig::read_timeout` without one.
//!
//! A member for which the log no longer reaches back gets a snapshot by a separate request. Another
//! request measures the round-trip time to each peer every few seconds.
//!
//! Caveat: members that do not identify themselves as rusd are neither read from nor answered,
//! because it is not proven that this member applies every request just as etcd does.

mod answer;
mod ask;
mod connection;
mod dial;
mod digest;
mod frame;
mod headers;
mod kept;
mod one;
mod owner;
mod pace;
mod peers;
mod post;
mod probe;
mod reader;
mod snapshot;

pub use self::answer::PeerBody;
pub use self::ask::{Answered, AskError, HASH_KV_PATH, ask, method_of};
pub use self::dial::{Dial, Dialing, Link, TcpDial};
pub use self::digest::{DIGEST_BYTES, SnapshotDigest};
pub use self::frame::{Broken, Channel, Decoder, Encoder, Read};
pub use self::headers::{CLUSTER_ID, PeersConfig, RUSD_VERSION, is_rusd};
pub use self::pace::Pace;
pub use self::peers::{PeerEvents, Peers, Reach};
pub use self::snapshot::{IncomingSnapshot, OutgoingSnapshot, Snapshots};

#[cfg(test)]
mod tests;
