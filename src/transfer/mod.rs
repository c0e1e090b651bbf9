//! States on their way out of a store, as etcd's snapshot file, and on their way into a generation
//! of a store, from such a file or another store.
//!
//! ```text
//!   store ─► Frozen ─► Snapshot ─► pieces ─► a client, a peer, a file
//!                                             │
//!   store ◄─ generation ◄─ fill ◄─────────────┘
//!     │
//!     └─ load ─► index, leases, members, users: what stands in memory while a member works
//! ```
//!
//! A client gets a snapshot from [`Downloads`]; a peer gets and sends one through
//! [`PeerSnapshots`]. A [`Seed`] is the first state of a new cluster, and [`adopt`] takes over a
//! member of another server.
//!
//! This room knows stores and files. It does not know who may have a copy, and it reads the place
//! in the log that a state belongs to from the state itself.

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
pub use downloads::{DownloadError, Downloads, SnapshotPiece, SnapshotPieces};
pub use error::{InstallError, LoadError, SnapshotError};
pub use fill::{Source, WalkItem};
pub use install::{PeerSnapshots, Prepared, PreparedSlot};
pub use load::{Loaded, due_storage_version, load, load_members};
pub use seed::{Adopted, Seed, adopt, bootstrap, hash_kv};
pub use snapshot::Snapshot;
