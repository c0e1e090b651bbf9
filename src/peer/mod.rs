//! What goes between members: etcd's peer protocol below `/raft`, on HTTP/1.1.
//!
//! ```text
//!   us                                                      a peer
//!   Transport::send ─► queue ─► body of an endless answer ─► its reader ─► its raft
//!                               (it dialed: GET /raft/stream/msgapp/{its id}
//!                                           GET /raft/stream/message/{its id})
//!   our raft ◄─ our reader ◄─ (we dialed)
//! ```
//!
//! The receiver dials. A peer holds two streams of ours: entries go down `msgapp`, everything else
//! down `message`, so that a heartbeat does not wait behind a megabyte. Queues are bounded; what
//! does not fit, or finds no stream, is dropped and the peer reported unreachable: raft repeats
//! what matters. Both ends of a silent link notice: the sender puts a sign of life into each stream
//! and the reader hangs up without one.
//!
//! A member that is too far behind for the log gets a snapshot by a request of its own. Another, now
//! and then, measures the way to each peer and back.
//!
//! Caveats: until it is proven that this member applies every request
//! just as etcd does, it neither reads from nor answers members that do not say that they are rusd.

mod answer;
mod ask;
mod connection;
mod dial;
mod digest;
mod frame;
mod headers;
mod one;
mod owner;
mod pace;
mod peers;
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
