//! A disk in memory that loses power: what was not synced survives sector by sector, or not.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use raft::eraftpb::{ConfState, Entry, HardState};

use super::*;
use crate::clock::split_mix;

const SECTOR: usize = 512;

pub(super) struct Chance(u64);

impl Chance {
    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(1);
        split_mix(self.0) % bound
    }
}

/// A file's bytes as a reader sees them, and as the last sync left them.
#[derive(Default)]
struct Inode {
    seen: Vec<u8>,
    synced: Vec<u8>,
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
    /// What happened to names since; a file system journals it in this order.
    changes: Vec<Change>,
}

#[derive(Default, Clone)]
pub(super) struct CrashDisk(Arc<Mutex<Names>>);

fn apply(names: &mut BTreeMap<PathBuf, Node>, change: &Change) {
    match change {
        Change::Link(path, node) => drop(names.insert(path.clone(), Arc::clone(node))),
        Change::Unlink(path) => drop(names.remove(path)),
        Change::Rename(from, to) => {
            let moved: Vec<_> =
                names.keys().filter(|path| path.starts_with(from)).cloned().collect();
            for path in moved {
                let node = names.remove(&path).unwrap();
                let rest = path.strip_prefix(from).unwrap();
                let path = if rest.as_os_str().is_empty() { to.clone() } else { to.join(rest) };
                names.insert(path, node);
            }
        }
    }
}

impl CrashDisk {
    fn change(&self, change: Change) {
        let mut names = self.0.lock();
        apply(&mut names.seen, &change);
        names.changes.push(change);
    }

    fn node(&self, path: &Path) -> io::Result<Node> {
        let names = self.0.lock();
        names.seen.get(path).cloned().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// The power goes and comes back.
    fn crash(&self, chance: &mut Chance) {
        let mut names = self.0.lock();
        let changes = std::mem::take(&mut names.changes);
        let survived = chance.below(changes.len() as u64 + 1) as usize;
        let mut synced = std::mem::take(&mut names.synced);
        for change in &changes[..survived] {
            apply(&mut synced, change);
        }
        for node in synced.values() {
            node.lock().crash(chance);
        }
        names.seen = synced.clone();
        names.synced = synced;
    }
}

impl Inode {
    fn crash(&mut self, chance: &mut Chance) {
        // Now and then all or nothing survives.
        let odds = chance.below(4);
        let mut keep = || match odds {
            0 => true,
            1 => false,
            _ => chance.below(2) == 0,
        };
        let length = if keep() { self.seen.len() } else { self.synced.len() };
        let mut image = vec![0; length];
        for (at, sector) in image.chunks_mut(SECTOR).enumerate() {
            let source = if keep() { &self.seen } else { &self.synced };
            let start = (at * SECTOR).min(source.len());
            let bytes = &source[start..(start + sector.len()).min(source.len())];
            sector[..bytes.len()].copy_from_slice(bytes);
        }
        self.seen = image.clone();
        self.synced = image;
    }
}

impl File for Mutex<Inode> {
    fn size(&self) -> io::Result<u64> {
        Ok(self.lock().seen.len() as u64)
    }
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let inode = self.lock();
        let bytes = inode.seen.get(offset as usize..offset as usize + buffer.len());
        buffer.copy_from_slice(bytes.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut inode = self.lock();
        let end = offset as usize + bytes.len();
        if inode.seen.len() < end {
            inode.seen.resize(end, 0);
        }
        inode.seen[offset as usize..end].copy_from_slice(bytes);
        Ok(())
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.lock().seen.resize(len as usize, 0);
        Ok(())
    }
    fn allocate(&self, len: u64) -> io::Result<()> {
        let mut inode = self.lock();
        let len = inode.seen.len().max(len as usize);
        inode.seen.resize(len, 0);
        Ok(())
    }
    fn fdatasync(&self) -> io::Result<()> {
        let mut inode = self.lock();
        inode.synced = inode.seen.clone();
        Ok(())
    }
}

impl Disk for CrashDisk {
    fn create(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        let node = Node::default();
        self.change(Change::Link(path.to_path_buf(), Arc::clone(&node)));
        Ok(node)
    }
    fn open(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        Ok(self.node(path)?)
    }
    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let names = self.0.lock();
        let inside = names.seen.keys().filter(|path| path.parent() == Some(dir));
        Ok(inside.map(|path| path.file_name().unwrap().to_string_lossy().into_owned()).collect())
    }
    fn create_dir(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }
    fn exists(&self, path: &Path) -> bool {
        self.0.lock().seen.keys().any(|known| known.starts_with(path))
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.change(Change::Rename(from.to_path_buf(), to.to_path_buf()));
        Ok(())
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        self.change(Change::Unlink(path.to_path_buf()));
        Ok(())
    }
    fn remove_dir_all(&self, dir: &Path) -> io::Result<()> {
        let known: Vec<_> = self.0.lock().seen.keys().cloned().collect();
        for path in known.into_iter().filter(|path| path.starts_with(dir)) {
            self.change(Change::Unlink(path));
        }
        Ok(())
    }
    fn fsync_dir(&self, _: &Path) -> io::Result<()> {
        let mut names = self.0.lock();
        names.changes.clear();
        names.synced = names.seen.clone();
        Ok(())
    }
}

const METADATA: Metadata = Metadata { node_id: 1, cluster_id: 2 };
const OPTIONS: Options = Options { segment_bytes: 24 << 10, fill_ahead: false };

/// What a log should hold: the entries from `first` on, and the state.
#[derive(Clone, Debug, Default, PartialEq)]
struct Model {
    entries: Vec<(u64, u64)>,
    state: HardState,
}

impl Model {
    fn entry(&mut self, entry: &Entry) {
        self.entries.retain(|(index, _)| *index < entry.index);
        self.entries.push((entry.index, entry.term));
    }

    /// Where the log was purged or lost its last state, the reader knows less or concludes more.
    fn explains(&self, recovered: &Recovered) -> bool {
        let table = &recovered.table;
        let last = self.entries.last().copied().unwrap_or_default();
        let known = self.entries.iter().filter(|(index, _)| *index >= table.first_index());
        let mut state = self.state.clone();
        if last.1 > state.term {
            state = HardState { term: last.1, vote: 0, commit: state.commit };
        }
        (table.last_index(), table.last_term()) == last
            && known.clone().all(|(index, term)| table.term(*index) == Some(*term))
            && known.count() as u64 == table.last_index() + 1 - table.first_index()
            && recovered.hard_state == state
    }
}

/// A log that is written, synced, purged and crashed at random.
struct Trial {
    chance: Chance,
    disk: CrashDisk,
    term: u64,
    model: Model,
    /// What the log may hold after a crash: the state at the last sync and after each record since.
    possible: Vec<Model>,
    purged: u64,
}

impl Trial {
    fn batch(&mut self) -> Batch {
        let last = self.model.entries.last().map_or(0, |(index, _)| *index);
        let commit = self.model.state.commit;
        if self.chance.below(8) == 0 {
            self.term += 1;
        }
        let conflict = self.chance.below(6) == 0 && last > commit;
        let back = if conflict { self.chance.below(last - commit) + 1 } else { 0 };
        if back > 0 {
            self.term += 1;
        }
        let first = last + 1 - back;
        let count = self.chance.below(12);
        let mut batch = Batch::default();
        for index in first..first + count {
            let length = self.chance.below(1500) as usize;
            let data = Bytes::from(vec![index as u8 | 1; length]);
            let entry = Entry { index, term: self.term, data, ..Entry::default() };
            self.model.entry(&entry);
            self.possible.push(self.model.clone());
            batch.entries.push(entry);
        }
        let last = self.model.entries.last().map_or(0, |(index, _)| *index);
        let commit = commit + self.chance.below(last - commit.min(last) + 1);
        let state = HardState { term: self.term, vote: 1, commit: commit.min(last) };
        self.model.state = state.clone();
        self.possible.push(self.model.clone());
        batch.hard_state = Some(state);
        batch
    }

    fn purge(&mut self, writer: &mut Writer) {
        let commit = self.model.state.commit;
        let Some((_, term)) = self.model.entries.iter().find(|(index, _)| *index == commit) else {
            return;
        };
        let record =
            SnapshotRecord { index: commit, term: *term, conf_state: Some(ConfState::default()) };
        let below = commit.saturating_sub(5);
        writer.purge(below, &record).unwrap();
        self.purged = self.purged.max(below);
    }

    fn life(&mut self, dir: &Path, seed: u64) {
        let disk: Arc<dyn Disk> = Arc::new(self.disk.clone());
        let (mut writer, _, recovered) = open(&disk, dir, OPTIONS)
            .unwrap_or_else(|error| panic!("seed {seed}: the log does not open: {error}"));
        assert!(recovered.table.first_index() <= self.purged + 1, "seed {seed}");
        let found = self.possible.iter().find(|model| model.explains(&recovered));
        let Some(found) = found else {
            let table = &recovered.table;
            panic!(
                "seed {seed}: the log holds {}..={} with {:?}, possible were {:#?}",
                table.first_index(),
                table.last_index(),
                recovered.hard_state,
                self.possible
            );
        };
        self.model = Model { state: recovered.hard_state.clone(), ..found.clone() };
        // What was found once may be acknowledged, so it must not be lost any more.
        self.possible = vec![self.model.clone()];
        self.term = self.term.max(self.model.state.term);
        for _ in 0..self.chance.below(20) {
            let batch = self.batch();
            writer.append(&batch).unwrap();
            match self.chance.below(4) {
                0 => {}
                1 => drop(writer.write().unwrap()),
                _ => {
                    writer.write().unwrap();
                    writer.sync().unwrap();
                    self.possible = vec![self.model.clone()];
                }
            }
            if self.chance.below(10) == 0 {
                self.purge(&mut writer);
            }
        }
        drop(writer);
        // Sometimes only the process dies: the next one finds what was never synced.
        if self.chance.below(3) > 0 {
            self.disk.crash(&mut self.chance);
        }
    }
}

#[test]
fn a_power_cut_loses_nothing_that_was_synced() {
    let dir = Path::new("/member/wal");
    for seed in 0..300 {
        let disk = CrashDisk::default();
        create(&disk, dir, METADATA, &Batch::default(), OPTIONS).unwrap();
        let mut trial = Trial {
            chance: Chance(seed << 32),
            disk,
            term: 1,
            model: Model::default(),
            possible: vec![Model::default()],
            purged: 0,
        };
        trial.disk.crash(&mut trial.chance);
        for _ in 0..8 {
            trial.life(dir, seed);
        }
    }
}

#[test]
fn a_log_is_made_as_a_whole_or_not_at_all() {
    let dir = Path::new("/member/wal");
    for seed in 0..100 {
        let chance = &mut Chance(seed << 32);
        let disk = CrashDisk::default();
        let entry = Entry { index: 1, term: 1, ..Entry::default() };
        let batch = Batch { entries: vec![entry], ..Batch::default() };
        // The power goes before the parent directory is synced.
        create(&disk, dir, METADATA, &batch, OPTIONS).unwrap();
        disk.0.lock().synced.clear();
        disk.crash(chance);
        if exists(&disk, dir) {
            let disk: Arc<dyn Disk> = Arc::new(disk);
            assert_eq!(open(&disk, dir, OPTIONS).unwrap().2.table.last_index(), 1);
        } else {
            create(&disk, dir, METADATA, &batch, OPTIONS).unwrap();
        }
    }
}
