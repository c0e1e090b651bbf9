//! A disk in memory for the log. At a power cut, what was not synced survives sector by sector, or
//! not; names survive in the order of a journal. Writes, syncs and reads fail, space runs out, bits of
//! files at rest change, and the power can go in the middle of anything.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use rusd::raft::log::{Disk, File, Space};

use super::clock::{Chance, Trap};

const SECTOR: usize = 512;

/// A file's bytes as a reader sees them, as the last sync left them, and where they differ.
#[derive(Default)]
struct Inode {
    seen: Vec<u8>,
    synced: Vec<u8>,
    dirty: BTreeSet<usize>,
    /// A sync failed: what was dirty then is taken for written, and is not.
    has_lost: bool,
}

type Node = Arc<Mutex<Inode>>;

#[derive(Clone)]
enum Change {
    Link(PathBuf, Node),
    Unlink(PathBuf),
    Rename(PathBuf, PathBuf),
}

#[derive(Default)]
struct Names {
    seen: BTreeMap<PathBuf, Node>,
    synced: BTreeMap<PathBuf, Node>,
    /// What happened to names since the last sync of a directory, in order.
    changes: Vec<Change>,
}

/// What goes wrong.
#[derive(Default)]
pub struct Troubles {
    /// So many more operations until the power goes.
    pub fuse: Option<u64>,
    pub sync_fails: bool,
    /// So many more writes, to files or to names, until one fails.
    pub write_fails_in: Option<u64>,
    /// A write or sync failed, and the power stayed.
    pub has_failed: bool,
    pub is_full: bool,
    /// So many more operations until the disk is full.
    pub fills_in: Option<u64>,
    /// So many more reads until one fails.
    pub read_fails_in: Option<u64>,
    /// Whoever works with a file may panic.
    pub trap: Trap,
    /// Something did go wrong, so the member may stop.
    pub struck: bool,
}

#[derive(Default)]
struct Shared {
    names: Mutex<Names>,
    troubles: Mutex<Troubles>,
}

#[derive(Default, Clone)]
pub struct SimDisk(Arc<Shared>);

impl Change {
    fn apply(&self, names: &mut BTreeMap<PathBuf, Node>) {
        match self {
            Self::Link(path, node) => drop(names.insert(path.clone(), Arc::clone(node))),
            Self::Unlink(path) => drop(names.remove(path)),
            Self::Rename(from, to) => {
                let moved: Vec<_> =
                    names.keys().filter(|path| path.starts_with(from)).cloned().collect();
                for path in moved {
                    let Some(node) = names.remove(&path) else { continue };
                    let rest = path.strip_prefix(from).unwrap();
                    let is_same = rest.as_os_str().is_empty();
                    names.insert(if is_same { to.clone() } else { to.join(rest) }, node);
                }
            }
        }
    }
}

impl SimDisk {
    pub fn troubles<T>(&self, f: impl FnOnce(&mut Troubles) -> T) -> T {
        f(&mut self.0.troubles.lock())
    }

    /// The power goes and comes back.
    pub fn cut_power(&self, chance: &mut Chance) {
        let mut names = self.0.names.lock();
        let changes = std::mem::take(&mut names.changes);
        let survived = chance.below(changes.len() as u64 + 1) as usize;
        let mut synced = std::mem::take(&mut names.synced);
        for change in &changes[..survived] {
            change.apply(&mut synced);
        }
        for node in synced.values() {
            node.lock().cut_power(chance);
        }
        names.seen = synced.clone();
        names.synced = synced;
    }

    /// Nothing is there any more.
    pub fn wipe(&self) {
        *self.0.names.lock() = Names::default();
    }

    /// Changes a bit of a log's segment that nobody writes to any more, and says whether there was
    /// one.
    pub fn damage(&self, chance: &mut Chance) -> bool {
        let names = self.0.names.lock();
        let is_segment = |path: &&PathBuf| path.extension().is_some_and(|is| is == "wal");
        let mut segments: Vec<&PathBuf> = names.seen.keys().filter(is_segment).collect();
        // Their names are in order.
        segments.pop();
        if segments.is_empty() {
            return false;
        }
        let mut inode = names.seen[*chance.pick(&segments)].lock();
        let (at, bit) = (chance.below(inode.seen.len() as u64) as usize, 1 << chance.below(8));
        inode.seen[at] ^= bit;
        if let Some(byte) = inode.synced.get_mut(at) {
            *byte ^= bit;
        }
        true
    }

    fn change(&self, change: Change) -> io::Result<()> {
        self.0.burn()?;
        self.0.write()?;
        let mut names = self.0.names.lock();
        change.apply(&mut names.seen);
        names.changes.push(change);
        Ok(())
    }

    fn handle(&self, node: Node) -> Arc<dyn File> {
        Arc::new(Handle { node, disk: Arc::clone(&self.0) })
    }
}

/// Counts down to something that happens once.
pub fn is_due(countdown: &mut Option<u64>) -> bool {
    match countdown {
        Some(0) => {
            *countdown = None;
            true
        }
        Some(left) => {
            *left -= 1;
            false
        }
        None => false,
    }
}

pub fn broken() -> io::Error {
    io::Error::from_raw_os_error(5)
}

fn no_space() -> io::Error {
    io::Error::from_raw_os_error(28)
}

impl Shared {
    /// Counts an operation; an error once the power is gone.
    fn burn(&self) -> io::Result<()> {
        let mut troubles = self.troubles.lock();
        troubles.trap.pass();
        match &mut troubles.fills_in {
            Some(0) => (troubles.fills_in, troubles.is_full) = (None, true),
            Some(left) => *left -= 1,
            None => {}
        }
        match &mut troubles.fuse {
            Some(0) => {
                troubles.struck = true;
                Err(io::Error::other("the power is gone"))
            }
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }

    fn read(&self) -> io::Result<()> {
        let mut troubles = self.troubles.lock();
        let fails = is_due(&mut troubles.read_fails_in);
        troubles.struck |= fails;
        if fails { Err(broken()) } else { Ok(()) }
    }

    fn write(&self) -> io::Result<()> {
        let mut troubles = self.troubles.lock();
        let fails = is_due(&mut troubles.write_fails_in);
        troubles.struck |= fails;
        troubles.has_failed |= fails;
        if fails { Err(broken()) } else { Ok(()) }
    }

    fn need_space(&self) -> io::Result<()> {
        let troubles = self.troubles.lock();
        if troubles.is_full { Err(no_space()) } else { Ok(()) }
    }
}

impl Inode {
    fn cut_power(&mut self, chance: &mut Chance) {
        let lost = std::mem::take(&mut self.has_lost);
        if !lost && self.dirty.is_empty() && self.seen.len() == self.synced.len() {
            return;
        }
        // Now and then all or nothing survives.
        let odds = chance.below(4);
        let mut keep = || match odds {
            0 => true,
            1 => false,
            _ => chance.one_in(2),
        };
        let length = if keep() { self.seen.len() } else { self.synced.len() };
        let mut image = self.synced.clone();
        image.resize(length, 0);
        for sector in std::mem::take(&mut self.dirty) {
            if keep() {
                copy_sector(&self.seen, &mut image, sector);
            }
        }
        self.seen = image.clone();
        self.synced = image;
    }

    fn mark(&mut self, from: usize, to: usize) {
        self.dirty.extend(from / SECTOR..to.div_ceil(SECTOR));
    }

    fn sync(&mut self) {
        self.synced.resize(self.seen.len(), 0);
        for sector in std::mem::take(&mut self.dirty) {
            copy_sector(&self.seen, &mut self.synced, sector);
        }
    }
}

/// Copies what both have of a sector.
fn copy_sector(from: &[u8], to: &mut [u8], sector: usize) {
    let end = ((sector + 1) * SECTOR).min(from.len()).min(to.len());
    let start = (sector * SECTOR).min(end);
    to[start..end].copy_from_slice(&from[start..end]);
}

struct Handle {
    node: Node,
    disk: Arc<Shared>,
}

impl File for Handle {
    fn size(&self) -> io::Result<u64> {
        Ok(self.node.lock().seen.len() as u64)
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.disk.read()?;
        let inode = self.node.lock();
        let bytes = inode.seen.get(offset as usize..offset as usize + buffer.len());
        buffer.copy_from_slice(bytes.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.disk.burn()?;
        let written = self.disk.write();
        let start = offset as usize;
        // A write that fails may have done a part of its work, whole sectors of it.
        let end = match written {
            Ok(()) => start + bytes.len(),
            Err(_) => ((start + bytes.len() / 2) / SECTOR * SECTOR).max(start),
        };
        let bytes = &bytes[..end - start];
        let mut inode = self.node.lock();
        if inode.seen.len() < end {
            self.disk.need_space()?;
            inode.seen.resize(end, 0);
        }
        inode.seen[start..end].copy_from_slice(bytes);
        inode.mark(start, end);
        written
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.disk.burn()?;
        self.disk.write()?;
        let mut inode = self.node.lock();
        let old = inode.seen.len();
        inode.seen.resize(len as usize, 0);
        inode.mark(old.min(len as usize), old.max(len as usize));
        Ok(())
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        self.disk.burn()?;
        self.disk.write()?;
        let mut inode = self.node.lock();
        let (old, len) = (inode.seen.len(), len as usize);
        if old >= len {
            return Ok(());
        }
        // A disk that gets full gives a part.
        let given = self.disk.need_space();
        let end = if given.is_ok() { len } else { old + (len - old) / 2 };
        inode.seen.resize(end, 0);
        inode.mark(old, end);
        given
    }

    fn fdatasync(&self) -> io::Result<()> {
        self.disk.burn()?;
        let fails = {
            let mut troubles = self.disk.troubles.lock();
            troubles.struck |= troubles.sync_fails;
            troubles.has_failed |= troubles.sync_fails;
            std::mem::take(&mut troubles.sync_fails)
        };
        if fails {
            let mut inode = self.node.lock();
            inode.dirty.clear();
            inode.has_lost = true;
            return Err(broken());
        }
        self.node.lock().sync();
        Ok(())
    }
}

impl Disk for SimDisk {
    fn create(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        // It takes an inode.
        self.0.need_space()?;
        let node = Node::default();
        self.change(Change::Link(path.to_path_buf(), Arc::clone(&node)))?;
        Ok(self.handle(node))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        let node = self.0.names.lock().seen.get(path).cloned();
        Ok(self.handle(node.ok_or(io::ErrorKind::NotFound)?))
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let names = self.0.names.lock();
        let inside = names.seen.keys().filter(|path| path.parent() == Some(dir));
        Ok(inside.map(|path| path.file_name().unwrap().to_string_lossy().into_owned()).collect())
    }

    fn create_dir(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }

    fn exists(&self, path: &Path) -> bool {
        self.0.names.lock().seen.keys().any(|known| known.starts_with(path))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.change(Change::Rename(from.to_path_buf(), to.to_path_buf()))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.change(Change::Unlink(path.to_path_buf()))
    }

    fn remove_dir_all(&self, dir: &Path) -> io::Result<()> {
        let known: Vec<_> = self.0.names.lock().seen.keys().cloned().collect();
        for path in known.into_iter().filter(|path| path.starts_with(dir)) {
            self.change(Change::Unlink(path))?;
        }
        Ok(())
    }

    fn space(&self, _: &Path) -> io::Result<Space> {
        let free_bytes = if self.0.troubles.lock().is_full { 0 } else { u64::MAX };
        Ok(Space { total_bytes: u64::MAX, free_bytes })
    }

    fn fsync_dir(&self, _: &Path) -> io::Result<()> {
        self.0.burn()?;
        let mut names = self.0.names.lock();
        names.changes.clear();
        names.synced = names.seen.clone();
        Ok(())
    }
}
