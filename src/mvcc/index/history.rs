//! The history of one key: generations of revisions, and what compaction keeps of them.

use smallvec::SmallVec;

use crate::types::Revision;

/// A revision in 12 bytes. The sub number has 32 bits: it is smaller than the number of changes of
/// one request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C, packed(4))]
pub(super) struct Packed {
    pub(super) main: i64,
    pub(super) sub: u32,
}

impl Packed {
    pub(super) fn new(revision: Revision) -> Self {
        Self { main: revision.main, sub: u32::try_from(revision.sub).unwrap_or(u32::MAX) }
    }

    pub(super) fn revision(self) -> Revision {
        Revision::new(self.main, i64::from(self.sub))
    }
}

/// The life of a key from a put to the next tombstone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Generation {
    pub(super) created: Packed,
    /// Number of puts and the closing tombstone since the generation began, compacted ones too.
    pub(super) version: i64,
    pub(super) revisions: SmallVec<[Packed; 1]>,
}

impl Generation {
    pub(super) fn is_empty(&self) -> bool {
        self.revisions.is_empty()
    }

    /// Main revision of the last change; 0 for an empty generation.
    pub(super) fn last_main(&self) -> i64 {
        self.revisions.last().map_or(0, |last| last.main)
    }

    /// Position of the newest revision at or below `main`.
    fn position_at(&self, main: i64) -> Option<usize> {
        self.revisions.iter().rposition(|revision| { revision.main } <= main)
    }
}

/// The state of one key at some revision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyState {
    pub modified: Revision,
    pub created: Revision,
    pub version: i64,
}

/// All revisions of one key that are not compacted away.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct History {
    /// Closed generations, oldest first.
    #[expect(clippy::box_collection, reason = "8 bytes instead of 24 for most keys")]
    pub(super) closed: Option<Box<Vec<Generation>>>,
    /// The open generation; empty while the key is deleted.
    pub(super) open: Generation,
}

impl History {
    pub(super) fn is_live(&self) -> bool {
        !self.open.is_empty()
    }

    pub(super) fn closed(&self) -> &[Generation] {
        self.closed.as_deref().map_or(&[], Vec::as_slice)
    }

    /// Adds a put, or the tombstone that ends the generation.
    pub(super) fn put(&mut self, revision: Packed) {
        if self.open.is_empty() {
            self.open.created = revision;
            self.open.version = 0;
        }
        self.open.revisions.push(revision);
        self.open.version += 1;
    }

    /// Ends the open generation; false if there is none.
    pub(super) fn tombstone(&mut self, revision: Packed) -> bool {
        if self.open.is_empty() {
            return false;
        }
        self.put(revision);
        let generation = std::mem::take(&mut self.open);
        self.closed.get_or_insert_default().push(generation);
        true
    }

    /// The key's state at `main`; None if it does not exist then.
    pub(super) fn get(&self, main: i64) -> Option<KeyState> {
        let generation = self.generation_at(main)?;
        let at = generation.position_at(main)?;
        let newer = generation.revisions.len() - at - 1;
        Some(KeyState {
            modified: generation.revisions[at].revision(),
            created: generation.created.revision(),
            version: generation.version - i64::try_from(newer).unwrap_or(i64::MAX),
        })
    }

    fn generation_at(&self, main: i64) -> Option<&Generation> {
        if let Some(first) = self.open.revisions.first()
            && { first.main } <= main
        {
            return Some(&self.open);
        }
        for generation in self.closed().iter().rev() {
            if generation.last_main() <= main {
                return None;
            }
            if { generation.revisions[0].main } <= main {
                return Some(generation);
            }
        }
        None
    }

    /// The first generation that reaches `main` or beyond, and the position in it of the newest
    /// revision at or below `main`.
    fn survivor(&self, main: i64) -> (usize, Option<usize>) {
        let closed = self.closed();
        let at = closed.iter().position(|g| g.last_main() >= main).unwrap_or(closed.len());
        let generation = closed.get(at).unwrap_or(&self.open);
        (at, generation.position_at(main))
    }

    /// Removes the revisions that a compaction at `main` dooms and appends them to `dead`. Returns
    /// the revision at or below `main` that is kept, if any: the newest one, which may be a
    /// tombstone only at `main` itself.
    pub(super) fn compact(&mut self, main: i64, dead: &mut Vec<Revision>) -> Option<Revision> {
        let (at, position) = self.survivor(main);
        if let Some(closed) = &mut self.closed {
            for generation in closed.drain(..at) {
                dead.extend(generation.revisions.iter().map(|r| r.revision()));
            }
        }
        let closed = self.closed.as_deref_mut().filter(|closed| !closed.is_empty());
        let generation = match closed {
            Some(closed) => &mut closed[0],
            None => &mut self.open,
        };
        let survivor = position.map(|position| {
            dead.extend(generation.revisions.drain(..position).map(Packed::revision));
            generation.revisions[0].revision()
        });
        generation.revisions.shrink_to_fit();
        if self.closed().is_empty() {
            self.closed = None;
        }
        survivor
    }

    /// The revision at or below `main` that etcd's HashKV covers: as `compact` keeps it, but never
    /// a tombstone (etcd's `keyIndex.keep`).
    pub(super) fn kept(&self, main: i64) -> Option<Revision> {
        let (at, position) = self.survivor(main);
        let closed = self.closed();
        let generation = closed.get(at).unwrap_or(&self.open);
        let position = position?;
        let is_tombstone = at < closed.len() && position + 1 == generation.revisions.len();
        (!is_tombstone).then(|| generation.revisions[position].revision())
    }

    /// Whether no revision is left, so that the key's entry goes.
    pub(super) fn is_empty(&self) -> bool {
        self.open.is_empty() && self.closed().is_empty()
    }

    /// Whether there is more than one revision, or a tombstone: otherwise no compaction removes
    /// anything.
    pub(super) fn has_past(&self) -> bool {
        self.closed.is_some() || self.open.revisions.len() > 1
    }

    /// Main revision of the newest change that is not compacted away; 0 if there is none.
    pub(super) fn newest(&self) -> i64 {
        let closed = self.closed().last().map_or(0, Generation::last_main);
        self.open.last_main().max(closed)
    }
}
