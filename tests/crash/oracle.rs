//! What the clients know: which writes they tried, which were acknowledged and at which revision.
//!
//! Every write carries a value of its own, so that an event names the write it came from.

use std::collections::{BTreeMap, HashMap};
use std::sync::Mutex;

use rusd::pb::{Event, EventType, KeyValue};

/// The changes of one revision, as a watcher saw them: key and value, or None for a deletion.
pub(super) type Changes = Vec<(Vec<u8>, Option<Vec<u8>>)>;

#[derive(Default)]
pub(super) struct Oracle {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Tried writes by value, with the revision once it is acknowledged.
    tried: HashMap<Vec<u8>, Option<i64>>,
    /// Where a write was seen. It happened once or, without acknowledgement, perhaps not at all.
    seen: HashMap<Vec<u8>, i64>,
    history: BTreeMap<i64, Changes>,
    acknowledged: i64,
}

impl Oracle {
    pub(super) fn try_write(&self, value: &[u8]) {
        let before = self.state.lock().unwrap().tried.insert(value.to_vec(), None);
        assert!(before.is_none(), "a value is used twice");
    }

    pub(super) fn acknowledge(&self, value: &[u8], revision: i64) {
        let mut state = self.state.lock().unwrap();
        state.tried.insert(value.to_vec(), Some(revision));
        state.acknowledged = state.acknowledged.max(revision);
    }

    /// The newest acknowledged revision.
    pub(super) fn acknowledged(&self) -> i64 {
        self.state.lock().unwrap().acknowledged
    }

    /// The newest revision that a watcher saw.
    pub(super) fn seen(&self) -> i64 {
        self.state.lock().unwrap().history.last_key_value().map_or(1, |(revision, _)| *revision)
    }

    pub(super) fn writes(&self) -> usize {
        self.state.lock().unwrap().seen.len()
    }

    /// Takes in the events of a live or resumed watcher, which continue where it ended before.
    pub(super) fn watch(&self, events: &[Event]) {
        for (revision, changes) in by_revision(events) {
            let mut state = self.state.lock().unwrap();
            let last = state.history.last_key_value().map_or(1, |(revision, _)| *revision);
            assert_eq!(revision, last + 1, "the watcher has a gap or a repetition");
            for value in changes.iter().filter_map(|(_, value)| value.clone()) {
                assert!(state.tried.contains_key(&value), "a value that nobody wrote");
                let before = state.seen.insert(value, revision);
                assert!(before.is_none_or(|before| before == revision), "a write happened twice");
            }
            state.history.insert(revision, changes);
        }
    }

    /// Compares history from `first` on, read again, with what the watcher saw live.
    pub(super) fn compare_history(&self, first: i64, events: &[Event]) {
        let state = self.state.lock().unwrap();
        let replay = by_revision(events);
        assert!(state.history.range(first..).eq(replay.iter()), "history has changed");
    }

    /// To be asked when the watcher has caught up: every acknowledged write is where it was.
    pub(super) fn judge(&self, current: i64, pairs: &[KeyValue], compacted: i64) {
        assert!(current >= self.acknowledged(), "the revision {current} fell back");
        assert_eq!(current, self.seen());
        let state = self.state.lock().unwrap();
        for (value, revision) in state.tried.iter().filter_map(|(value, at)| Some((value, (*at)?)))
        {
            assert_eq!(state.seen.get(value), Some(&revision), "an acknowledged write is lost");
        }
        let mut expected: BTreeMap<&[u8], (i64, &[u8])> = BTreeMap::new();
        for (revision, changes) in &state.history {
            for (key, value) in changes {
                match value {
                    Some(value) => expected.insert(key, (*revision, value)),
                    None => expected.remove(key.as_slice()),
                };
            }
        }
        let found = pairs.iter().map(|kv| (&kv.key[..], (kv.mod_revision, &kv.value[..])));
        assert!(found.eq(expected), "the keys are not what history makes of them ({compacted})");
    }
}

fn by_revision(events: &[Event]) -> BTreeMap<i64, Changes> {
    let mut revisions: BTreeMap<i64, Changes> = BTreeMap::new();
    for event in events {
        let kv = event.kv.as_ref().unwrap();
        let put = event.r#type() == EventType::Put;
        let change = (kv.key.to_vec(), put.then(|| kv.value.to_vec()));
        revisions.entry(kv.mod_revision).or_default().push(change);
    }
    revisions
}
