//! The revisions that die with each of several compactions, collected in one pass over the keys.

use crate::types::Revision;

/// The fate of revisions under several compactions, in ascending order.
pub(super) struct DoomedRevisions {
    pub(super) points: Vec<CompactionEffect>,
}

/// The effect of one compaction.
pub(super) struct CompactionEffect {
    pub(super) revision: i64,
    /// Revisions that die with this compaction and not with an earlier one.
    pub(super) dead: Vec<Revision>,
    /// Whether any key keeps a revision at or below it.
    pub(super) is_any_kept: bool,
    /// Position in `dead` of the first revision that the pass over the rows (`of`) has not reached.
    pub(super) next: usize,
}

impl DoomedRevisions {
    pub(super) fn new(revisions: impl Iterator<Item = i64>) -> Self {
        let fate =
            |revision| CompactionEffect { revision, dead: Vec::new(), is_any_kept: false, next: 0 };
        Self { points: revisions.map(fate).collect() }
    }

    /// Applies each compaction in turn to one key: `compact` gets its revision and the list of dead
    /// revisions, and returns whether it keeps a revision at or below it.
    pub(super) fn compact(&mut self, mut compact: impl FnMut(i64, &mut Vec<Revision>) -> bool) {
        for point in &mut self.points {
            point.is_any_kept |= compact(point.revision, &mut point.dead);
        }
    }

    /// Whether each compaction is known to keep some revision of some key.
    pub(super) fn keeps_any(&self) -> bool {
        self.points.iter().all(|point| point.is_any_kept)
    }

    #[cfg(test)]
    pub(super) fn dead(&self) -> Vec<Vec<Revision>> {
        self.points.iter().map(|point| point.dead.clone()).collect()
    }

    pub(super) fn sort(&mut self) {
        for point in &mut self.points {
            point.dead.sort_unstable();
        }
    }

    pub(super) fn has(&self, rev: Revision) -> bool {
        self.points.iter().any(|point| point.dead.binary_search(&rev).is_ok())
    }

    /// Position of the compaction with which a row dies. Must be called with ascending revisions.
    pub(super) fn of(&mut self, rev: Revision) -> Option<usize> {
        self.points.iter_mut().position(|point| {
            while point.dead.get(point.next).is_some_and(|dead| *dead < rev) {
                point.next += 1;
            }
            point.dead.get(point.next) == Some(&rev)
        })
    }
}
