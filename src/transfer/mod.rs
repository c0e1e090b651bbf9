//! States on their way: out of a store as etcd's snapshot file, and out of such a file, or of another
//! store, into a generation of this one's.
//!
//! ```text
//!   store ─► Frozen ─► Snapshot ─► pieces ─► a client, a peer, a file
//!                                             │
//!   store ◄─ generation ◄─ fill ◄─────────────┘
//!     │
//!     └─ load ─► index, leases, members, users: what stands in memory while a member works
//! ```
//!
//! A client takes a snapshot by [`Downloads`], a peer by [`PeerDoor`], which also takes in what a peer
//! sends. A [`Seed`] is the first state of a new cluster, and [`adopt`] takes over another server's
//! member.
//!
//! This room knows stores and files. It does not know who may have a copy, and where a state stands
//! in the log it reads from the state itself.

mod conf_state;
mod downloads;
mod error;
mod fill;
mod install;
mod load;
mod seats;
mod seed;
mod snapshot;

pub use conf_state::{StoredConfState, ids_of_conf_state};
pub use downloads::{DownloadError, Downloads, Piece, Pieces};
pub use error::{InstallError, LoadError, SnapshotError};
pub use fill::{Seen, Source};
pub use install::{Installs, PeerDoor, Prepared};
pub use load::{Loaded, load, load_members};
pub use seed::{Adopted, Seed, adopt, bootstrap, hash_kv};
pub use snapshot::Snapshot;
