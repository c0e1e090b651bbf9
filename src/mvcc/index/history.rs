//! The history of one key: generations of revisions, and what compaction keeps of them.

use std::num::NonZeroU32;

use smallvec::{SmallVec, smallvec};

use super::Restored;
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
    /// Main revision of its first put.
    pub(super) created: i64,
    /// Number of puts and the closing tombstone since the generation began, compacted ones too.
    pub(super) version: i64,
    pub(super) revisions: SmallVec<[Packed; 2]>,
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

    fn put(&mut self, revision: Packed) {
        if self.is_empty() {
            (self.created, self.version) = (revision.main, 0);
        }
        self.revisions.push(revision);
        self.version += 1;
    }
}

/// The state of one key at some revision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyState {
    pub modified: Revision,
    /// Its sub number is not kept, and is always 0.
    pub created: Revision,
    pub version: i64,
}

/// All revisions of one key that are not compacted away.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum History {
    /// A key that exists and has one revision, as most keys of a store that is compacted. They take
    /// no memory beside the 24 bytes.
    Short(Short),
    /// Any other; never what `Short` can hold.
    Long(Box<Long>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Short {
    main: i64,
    created: i64,
    sub: u32,
    version: NonZeroU32,
}

const _: () = assert!(size_of::<History>() == 24);

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Long {
    /// Closed generations, oldest first.
    #[expect(clippy::box_collection, reason = "8 bytes instead of 24 for most keys")]
    pub(super) closed: Option<Box<Vec<Generation>>>,
    /// The open generation; empty while the key is deleted.
    pub(super) open: Generation,
}

impl Short {
    fn modified(&self) -> Packed {
        Packed { main: self.main, sub: self.sub }
    }

    fn expanded(&self) -> Long {
        let (created, version) = (self.created, i64::from(self.version.get()));
        let revisions = smallvec![self.modified()];
        Long { closed: None, open: Generation { created, version, revisions } }
    }
}

impl History {
    /// The history of a key that is put for the first time.
    pub(super) fn new(revision: Packed) -> Self {
        Self::with(revision, revision.main, 1)
    }

    /// The history of a key of which one revision is known.
    fn with(revision: Packed, created: i64, version: i64) -> Self {
        let Packed { main, sub } = revision;
        match u32::try_from(version).ok().and_then(NonZeroU32::new) {
            Some(version) => Self::Short(Short { main, created, sub, version }),
            None => {
                let open = Generation { created, version, revisions: smallvec![revision] };
                Self::Long(Box::new(Long { closed: None, open }))
            }
        }
    }

    /// The history of these generations, of which all but `open` are closed.
    pub(super) fn of(closed: Vec<Generation>, open: Generation) -> Self {
        let closed = (!closed.is_empty()).then(|| Box::new(closed));
        let mut history = Self::Long(Box::new(Long { closed, open }));
        history.shorten();
        history
    }

    /// The history of a key of which this is the first row that is read. Earlier ones may be
    /// compacted away, so creation and version come from the pair.
    pub(super) fn restored(revision: Packed, row: Restored) -> Self {
        match row {
            Restored::Put { created, version } => Self::with(revision, created, version),
            // The puts of this generation are compacted away, and its creation is unknown; only the
            // tombstone is left.
            Restored::Tombstone => {
                let revisions = smallvec![revision];
                let generation = Generation { created: 0, version: 1, revisions };
                Self::of(vec![generation], Generation::default())
            }
        }
    }

    /// Adds the next row that is read. Rows come in revision order.
    pub(super) fn restore(&mut self, revision: Packed, row: Restored) {
        match row {
            Restored::Put { .. } => {
                self.put(revision);
            }
            // There is no second tombstone in a row: a deletion of a missing key writes no row.
            Restored::Tombstone => {
                self.tombstone(revision);
            }
        }
    }

    /// Calls `change` with all fields of the history.
    fn change<T>(&mut self, change: impl FnOnce(&mut Long) -> T) -> T {
        let outcome = match self {
            Self::Long(long) => change(long),
            Self::Short(short) => {
                let mut long = Box::new(short.expanded());
                let outcome = change(&mut long);
                *self = Self::Long(long);
                outcome
            }
        };
        self.shorten();
        outcome
    }

    /// Makes the history short if it can be.
    fn shorten(&mut self) {
        if let Self::Long(long) = self
            && long.closed.is_none()
            && let [revision] = long.open.revisions[..]
        {
            *self = Self::with(revision, long.open.created, long.open.version);
        }
    }

    /// Calls `f` with all fields of the history.
    pub(super) fn with_long<T>(&self, f: impl FnOnce(&Long) -> T) -> T {
        match self {
            Self::Short(short) => f(&short.expanded()),
            Self::Long(long) => f(long),
        }
    }

    pub(super) fn is_live(&self) -> bool {
        match self {
            Self::Short(_) => true,
            Self::Long(long) => !long.open.is_empty(),
        }
    }

    /// Adds a put. Returns the main revision of the first put of the generation, and the version.
    pub(super) fn put(&mut self, revision: Packed) -> (i64, i64) {
        self.change(|long| {
            long.open.put(revision);
            (long.open.created, long.open.version)
        })
    }

    /// Ends the open generation with a tombstone; false if there is none.
    pub(super) fn tombstone(&mut self, revision: Packed) -> bool {
        if !self.is_live() {
            return false;
        }
        self.change(|long| {
            long.open.put(revision);
            let generation = std::mem::take(&mut long.open);
            let closed = long.closed.get_or_insert_with(|| Box::new(Vec::with_capacity(1)));
            closed.push(generation);
        });
        true
    }

    /// The key's state at `main`; None if it does not exist then.
    pub(super) fn get(&self, main: i64) -> Option<KeyState> {
        match self {
            Self::Short(short) => (short.main <= main).then(|| KeyState {
                modified: short.modified().revision(),
                created: Revision::new(short.created, 0),
                version: i64::from(short.version.get()),
            }),
            Self::Long(long) => long.get(main),
        }
    }

    /// Removes the revisions that a compaction at `main` dooms and appends them to `dead`. Returns
    /// the revision at or below `main` that is kept, if any: the newest one, which may be a
    /// tombstone only at `main` itself.
    pub(super) fn compact(&mut self, main: i64, dead: &mut Vec<Revision>) -> Option<Revision> {
        match self {
            Self::Short(short) => (short.main <= main).then(|| short.modified().revision()),
            Self::Long(long) => {
                let survivor = long.compact(main, dead);
                self.shorten();
                survivor
            }
        }
    }

    /// The revision at or below `main` that etcd's HashKV covers: as `compact` keeps it, but never
    /// a tombstone (etcd's `keyIndex.keep`).
    pub(super) fn kept(&self, main: i64) -> Option<Revision> {
        match self {
            Self::Short(short) => (short.main <= main).then(|| short.modified().revision()),
            Self::Long(long) => long.kept(main),
        }
    }

    /// Whether there is a change at exactly this revision.
    pub(super) fn holds(&self, revision: Revision) -> bool {
        self.with_long(|long| {
            long.closed().iter().chain([&long.open]).any(|generation| {
                let revisions = &generation.revisions;
                revisions.binary_search_by_key(&revision, |packed| packed.revision()).is_ok()
            })
        })
    }

    /// Whether no revision is left, so that the key's entry goes.
    pub(super) fn is_empty(&self) -> bool {
        match self {
            Self::Short(_) => false,
            Self::Long(long) => long.open.is_empty() && long.closed().is_empty(),
        }
    }

    /// Whether there is more than one revision, or a tombstone: otherwise no compaction removes
    /// anything.
    pub(super) fn has_past(&self) -> bool {
        match self {
            Self::Short(_) => false,
            Self::Long(long) => long.closed.is_some() || long.open.revisions.len() > 1,
        }
    }

    /// Main revision of the newest change that is not compacted away; 0 if there is none.
    pub(super) fn newest(&self) -> i64 {
        match self {
            Self::Short(short) => short.main,
            Self::Long(long) => {
                let closed = long.closed().last().map_or(0, Generation::last_main);
                long.open.last_main().max(closed)
            }
        }
    }
}

impl Long {
    pub(super) fn closed(&self) -> &[Generation] {
        self.closed.as_deref().map_or(&[], Vec::as_slice)
    }

    fn get(&self, main: i64) -> Option<KeyState> {
        let generation = self.generation_at(main)?;
        let at = generation.position_at(main)?;
        let newer = generation.revisions.len() - at - 1;
        Some(KeyState {
            modified: generation.revisions[at].revision(),
            created: Revision::new(generation.created, 0),
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

    fn compact(&mut self, main: i64, dead: &mut Vec<Revision>) -> Option<Revision> {
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

    fn kept(&self, main: i64) -> Option<Revision> {
        let (at, position) = self.survivor(main);
        let closed = self.closed();
        let generation = closed.get(at).unwrap_or(&self.open);
        let position = position?;
        let is_tombstone = at < closed.len() && position + 1 == generation.revisions.len();
        (!is_tombstone).then(|| generation.revisions[position].revision())
    }
}
