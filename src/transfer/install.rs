//! A snapshot from another member: received, checked, built into a generation of the store, and
//! installed in place of the state.
//!
//! ```text
//!   peer ─► incoming file ─► checked ─► gen-N+1, its index and leases in memory ─► raft
//!   raft: log record durable ─► apply thread: CURRENT, then everything in memory
//! ```
//!
//! The member serves until the last step, which takes milliseconds. After a crash before the log
//! record, the next start deletes what was built; after a crash behind it, the next start completes
//! the installation.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::sync::{Arc, Weak};

use bytes::Bytes;
use parking_lot::Mutex;

use super::conf_state::StoredConfState;
use super::error::{InstallError, refused};
use super::fill::fill_and_index;
use super::load::{Loaded, load};
use super::snapshot::Snapshot;
use crate::clock;
use crate::files;
use crate::metrics;
use crate::peer::{DIGEST_BYTES, IncomingSnapshot, OutgoingSnapshot, SnapshotDigest, Snapshots};
use crate::raft::{ConfState, SnapshotPlace};
use crate::store::{Bucket, Options, Store, schema};

/// The name of the received file, which is kept until the generation is built.
const INCOMING: &str = "incoming.snap.db";

/// A generation that is ready to be installed, with its state in memory.
pub struct Prepared {
    pub store: Arc<Store>,
    pub place: SnapshotPlace,
    pub loaded: Loaded,
}

/// The prepared generation, if there is one; never more than one.
#[derive(Default)]
pub struct PreparedSlot(Mutex<Option<Prepared>>);

impl PreparedSlot {
    /// Takes the prepared generation if its snapshot has exactly this index.
    pub fn take(&self, index: u64) -> Option<Prepared> {
        self.0.lock().take_if(|prepared| prepared.place.index == index)
    }

    /// Drops the prepared generation once apply has reached its index without it: raft has dropped
    /// that snapshot.
    pub fn applied(&self, index: u64) {
        if let Some(mut prepared) = self.0.try_lock() {
            let outdated = prepared.take_if(|prepared| prepared.place.index <= index);
            drop(prepared);
            drop(outdated);
        }
    }
}

/// The source and target of snapshots between members.
pub struct PeerSnapshots {
    /// Weak, because the store must close when the member ends, and peers' requests may last
    /// longer.
    pub store: Weak<Store>,
    pub prepared_slot: Arc<PreparedSlot>,
    pub options: Options,
}

impl PeerSnapshots {
    fn store(&self) -> io::Result<Arc<Store>> {
        self.store.upgrade().ok_or_else(|| io::Error::other("the member is stopping"))
    }
}

impl Snapshots for PeerSnapshots {
    fn open(&self) -> io::Result<Box<dyn OutgoingSnapshot>> {
        let snapshot = Snapshot::new(&*self.store()?).map_err(io::Error::other)?;
        let place = place_of(|key| snapshot.get(Bucket::Meta, key).map(<[u8]>::to_vec));
        let place = place.map_err(io::Error::other)?;
        Ok(Box::new(Sending { snapshot, place }))
    }

    /// The file and the generation built from it exist at the same time, so twice the file's size
    /// is needed. The store's reserve does not count as free.
    fn has_room(&self, bytes: u64) -> io::Result<()> {
        let store = self.store()?;
        let needed = bytes.saturating_mul(2);
        let free = store.disk_free_bytes();
        if free >= needed {
            return Ok(());
        }
        let dir = store.directory();
        Err(io::Error::new(
            io::ErrorKind::StorageFull,
            format!(
                "{}: a snapshot of {bytes} bytes needs {needed} bytes of free disk space while it \
                 is taken in, and {free} are left",
                dir.display()
            ),
        ))
    }

    fn receive(&self, place: SnapshotPlace) -> io::Result<Box<dyn IncomingSnapshot>> {
        // Discards a snapshot that is prepared and not installed. Only one is received at a time.
        drop(self.prepared_slot.0.lock().take());
        let db = self.store()?.directory();
        let path = db.join(INCOMING);
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(true).mode(0o600);
        let file = files::open_with(&options, &path)?;
        let (prepared_slot, options) = (Arc::clone(&self.prepared_slot), self.options.clone());
        let digest = SnapshotDigest::default();
        let store = Weak::clone(&self.store);
        Ok(Box::new(Receiving { file, path, store, place, digest, prepared_slot, options }))
    }
}

struct Sending {
    snapshot: Snapshot,
    place: SnapshotPlace,
}

impl OutgoingSnapshot for Sending {
    fn place(&self) -> &SnapshotPlace {
        &self.place
    }

    fn bytes(&self) -> u64 {
        self.snapshot.file_bytes()
    }

    fn next_piece(&mut self) -> io::Result<Option<Bytes>> {
        self.snapshot.next_piece().map_err(io::Error::other)
    }
}

struct Receiving {
    file: File,
    path: PathBuf,
    store: Weak<Store>,
    place: SnapshotPlace,
    digest: SnapshotDigest,
    prepared_slot: Arc<PreparedSlot>,
    options: Options,
}

impl Drop for Receiving {
    fn drop(&mut self) {
        // A failure is ignored: the next snapshot overwrites the file.
        let _ = fs::remove_file(&self.path);
    }
}

impl IncomingSnapshot for Receiving {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.digest.update(bytes);
        self.file.write_all(bytes)
    }

    fn finish(self: Box<Self>, digest: [u8; DIGEST_BYTES]) -> io::Result<()> {
        if self.digest.clone().finish() != digest {
            return Err(io::Error::other("the snapshot's digest does not match"));
        }
        self.prepare().map_err(|error| {
            let kind =
                if error.is_full() { io::ErrorKind::StorageFull } else { io::ErrorKind::Other };
            io::Error::new(kind, error)
        })
    }
}

impl Receiving {
    fn prepare(&self) -> Result<(), InstallError> {
        let stopping = || io::Error::other("the member is stopping");
        let replaced = || self.store.upgrade().ok_or_else(stopping);
        let building = replaced()?.begin_building()?;
        let (building, index) = fill_and_index(&self.file, building)?;
        let began = clock::instant();
        let (store, opened) = replaced()?.finish_building(building, self.options.clone())?;
        metrics::snap_db_fsync_seconds().observe(began.elapsed().as_secs_f64());
        let meta: BTreeMap<_, _> = store.bucket_iter(Bucket::Meta)?.into_iter().collect();
        let place = place_of(|key| meta.get(key).cloned())?;
        if place != self.place {
            let (found, said) = (&place, &self.place);
            return Err(refused(format!(
                "it is of entry {} of term {} and not of {} of {}, or its configuration differs",
                found.index, found.term, said.index, said.term
            )));
        }
        let store = Arc::new(store);
        let loaded = load(&store, &opened, Some(index))?;
        *self.prepared_slot.0.lock() = Some(Prepared { store, place, loaded });
        Ok(())
    }
}

/// The place in the log that a state belongs to, from its bucket `meta`.
fn place_of(get: impl Fn(&[u8]) -> Option<Vec<u8>>) -> Result<SnapshotPlace, InstallError> {
    let number = |key: &[u8]| {
        let bytes = get(key).and_then(|value| value.try_into().ok()).map(u64::from_be_bytes);
        bytes.ok_or_else(|| refused(format!("it has no {}", key.escape_ascii())))
    };
    let json = get(schema::CONF_STATE).ok_or_else(|| refused("it has no confState"))?;
    let conf_state: ConfState = StoredConfState::parse(&json)?;
    Ok(SnapshotPlace {
        index: number(schema::CONSISTENT_INDEX)?,
        term: number(schema::TERM)?,
        conf_state,
    })
}
