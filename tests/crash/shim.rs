//! Power cuts, made from a killed process.
//!
//! `tests/common/shim.c` is preloaded into the process and keeps a journal of what each write replaced
//! and of what was synced. After a kill, `power_cut` takes unsynced changes back: all of them, or sector by
//! sector at random, or from some write on, and likewise unsynced creations, renames and removals of
//! files. What was synced stays: that is all that a program may rely on.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, OpenOptions};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use rusd::clock::split_mix;

pub(super) use super::preload::build;

const SECTOR: u64 = 512;
const ENTRY_BYTES: usize = 48;

/// A stream of numbers that a seed repeats.
pub(super) struct Chance(u64);

impl Chance {
    pub(super) fn new(seed: u64) -> Self {
        Self(split_mix(seed))
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        split_mix(self.0)
    }

    pub(super) fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }
}

/// Makes `command` run under the shim, with a fresh journal; dies at the given operation, if any.
pub(super) fn preload(command: &mut Command, library: &Path, dir: &Path, kill_at: Option<u64>) {
    let journal = journal_of(dir);
    forget(dir);
    command.env("LD_PRELOAD", library).env("SHIM_DIR", dir).env("SHIM_JOURNAL", &journal);
    command.env("SHIM_MARKS", dir);
    if let Some(operation) = kill_at {
        command.env("SHIM_KILL_AT", operation.to_string());
    }
}

/// Number of syncs, and of writes that are durable at once, since the process began.
pub(super) fn syncs(dir: &Path) -> usize {
    let bytes = fs::read(journal_of(dir)).unwrap();
    let (mut rest, mut count) = (bytes.as_slice(), 0);
    while let Some((entry, after)) = rest.split_at_checked(ENTRY_BYTES) {
        let length = u64::from_ne_bytes(entry[32..40].try_into().unwrap());
        let Some((_, after)) = after.split_at_checked(length as usize) else { break };
        count += usize::from(matches!(entry[0], b's' | b'd' | b'D'));
        rest = after;
    }
    count
}

/// While this file exists, the disk is full for the process under the shim.
pub(super) fn full_mark(dir: &Path) -> PathBuf {
    dir.with_extension("full")
}

fn journal_of(dir: &Path) -> PathBuf {
    dir.with_extension("journal")
}

/// Removes the journal and what it kept.
fn forget(dir: &Path) {
    let journal = journal_of(dir);
    let name = journal.file_name().unwrap().to_str().unwrap().to_owned();
    for entry in fs::read_dir(dir.parent().unwrap()).unwrap() {
        let path = entry.unwrap().path();
        if path.file_name().unwrap().to_str().is_some_and(|found| found.starts_with(&name)) {
            fs::remove_file(path).unwrap();
        }
    }
}

/// A write, with the bytes that it replaced.
struct Write {
    number: u64,
    offset: u64,
    old_size: u64,
    old: Vec<u8>,
    durable: bool,
}

enum NameChange {
    Create { path: PathBuf },
    Rename { from: PathBuf, to: PathBuf, backup: Option<PathBuf> },
    Unlink { path: PathBuf, backup: Option<PathBuf> },
}

impl NameChange {
    fn dir(&self) -> &Path {
        match self {
            Self::Create { path } | Self::Unlink { path, .. } => path.parent().unwrap(),
            Self::Rename { to, .. } => to.parent().unwrap(),
        }
    }

    fn undo(&self) {
        // The file may have gone on under another name, or be gone: then there is nothing to undo.
        let _ = match self {
            Self::Create { path } => fs::remove_file(path),
            Self::Rename { from, to, backup } => fs::rename(to, from)
                .and_then(|()| backup.as_ref().map_or(Ok(()), |backup| fs::rename(backup, to))),
            Self::Unlink { path, backup } => {
                backup.as_ref().map_or(Ok(()), |backup| fs::rename(backup, path))
            }
        };
    }
}

#[derive(Default)]
struct Journal {
    writes: HashMap<u64, Vec<Write>>,
    names: Vec<(u64, NameChange)>,
}

impl Journal {
    fn read(path: &Path) -> Self {
        let bytes = fs::read(path).unwrap_or_default();
        let mut journal = Self::default();
        let mut rest = bytes.as_slice();
        while let Some((entry, after)) = rest.split_at_checked(ENTRY_BYTES) {
            let word = |at: usize| u64::from_ne_bytes(entry[at..at + 8].try_into().unwrap());
            let Some((bytes, after)) = after.split_at_checked(word(32) as usize) else { break };
            journal.take(entry[0], word(8), word(16), word(24), word(40), bytes);
            rest = after;
        }
        journal
    }

    fn take(
        &mut self,
        kind: u8,
        inode: u64,
        number: u64,
        offset: u64,
        old_size: u64,
        bytes: &[u8],
    ) {
        let writes = self.writes.entry(inode).or_default();
        let mut paths = bytes.split(|byte| *byte == 0).map(|path| String::from_utf8_lossy(path));
        let mut path = || PathBuf::from(paths.next().unwrap().into_owned());
        match kind {
            b'w' => {
                let old = bytes.to_vec();
                writes.push(Write { number, offset, old_size, old, durable: false });
            }
            b's' => writes.iter_mut().filter(|w| w.number < number).for_each(|w| w.durable = true),
            b'd' => writes.iter_mut().filter(|w| w.number == number).for_each(|w| w.durable = true),
            b'c' => {
                // The inode's earlier life was another file.
                writes.clear();
                self.names.push((number, NameChange::Create { path: path() }));
            }
            b'r' => {
                let (from, to) = (path(), path());
                self.names.push((number, NameChange::Rename { from, to, backup: some(path()) }));
            }
            b'u' => {
                let (path, backup) = (path(), some(path()));
                self.names.push((number, NameChange::Unlink { path, backup }));
            }
            b'D' => {
                let dir = path();
                self.names.retain(|(at, change)| *at > number || change.dir() != dir);
            }
            other => panic!("unknown journal entry {other}"),
        }
    }
}

fn some(path: PathBuf) -> Option<PathBuf> {
    (!path.as_os_str().is_empty()).then_some(path)
}

/// Turns the directory of a killed process into what a power cut could have left of it. Returns the
/// number of writes that were not synced.
pub(super) fn power_cut(dir: &Path, chance: &mut Chance) -> usize {
    let journal = Journal::read(&journal_of(dir));
    let mut files = BTreeMap::new();
    walk(&fs::canonicalize(dir).unwrap(), &mut files);
    let mut unsynced = 0;
    for (path, inode) in &files {
        let Some(writes) = journal.writes.get(inode) else { continue };
        let lost: Vec<&Write> = writes.iter().filter(|write| !write.durable).collect();
        unsynced += lost.len();
        if !lost.is_empty() {
            take_back(path, &lost, chance);
        }
    }
    let undone = chance.below(journal.names.len() as u64 + 1) as usize;
    for (_, change) in journal.names.iter().rev().take(undone) {
        change.undo();
    }
    forget(dir);
    unsynced
}

fn walk(dir: &Path, files: &mut BTreeMap<PathBuf, u64>) {
    for entry in fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        let meta = entry.metadata().unwrap();
        if meta.is_dir() {
            walk(&entry.path(), files);
        } else {
            files.insert(entry.path(), meta.ino());
        }
    }
}

/// Takes unsynced writes of one file back, in reverse order, so that each sector ends with the
/// contents before some write: the first, none, or one between.
fn take_back(path: &Path, lost: &[&Write], chance: &mut Chance) {
    let file = OpenOptions::new().read(true).write(true).open(path).unwrap();
    let size = file.metadata().unwrap().len();
    let durable_size = lost[0].old_size;
    let mode = chance.below(4);
    let cut = chance.below(lost.len() as u64 + 1) as usize;
    // For each sector: the first write that it has lost. At `lost.len()` it has lost nothing.
    let mut lost_from: HashMap<u64, usize> = HashMap::new();
    for (at, write) in lost.iter().enumerate().rev() {
        let grown = if at + 1 < lost.len() { lost[at + 1].old_size } else { size };
        let end = (write.offset + write.old.len() as u64).max(grown.max(write.old_size));
        for sector in write.offset / SECTOR..end.div_ceil(SECTOR) {
            let from = *lost_from.entry(sector).or_insert_with(|| match mode {
                0 => 0,
                1 => lost.len(),
                2 => chance.below(lost.len() as u64 + 1) as usize,
                // Everything up to one write, which is torn.
                _ => cut + chance.below(2) as usize,
            });
            if at >= from {
                restore(&file, write, sector);
            }
        }
    }
    if size > durable_size && chance.below(2) == 0 {
        let kept = lost_from.iter().filter(|(_, from)| **from == lost.len());
        let end = kept.map(|(sector, _)| (sector + 1) * SECTOR).max().unwrap_or(0);
        file.set_len(end.clamp(durable_size, size)).unwrap();
    }
}

/// Puts back what a write replaced in one sector. What it added to the file reads as zeroes.
fn restore(file: &fs::File, write: &Write, sector: u64) {
    let old_end = write.offset + write.old.len() as u64;
    let size = file.metadata().unwrap().len();
    let start = write.offset.max(sector * SECTOR);
    let end = ((sector + 1) * SECTOR).min(size);
    if start < old_end {
        let slice = &write.old[(start - write.offset) as usize..];
        let slice = &slice[..slice.len().min((end.max(start) - start) as usize)];
        file.write_all_at(slice, start).unwrap();
    }
    let added = write.old_size.max(start);
    if added < end && write.old_size <= added {
        let zeroes = vec![0; (end - added) as usize];
        file.write_all_at(&zeroes, added).unwrap();
    }
}
