//! A watcher that wants everything in its range, goes on elsewhere when its member fails, and
//! changes members when it likes.

use std::sync::Arc;

use bytes::Bytes;
use rusd::types::KeyRange;
use rusd::watch::{Hub, Item, Next, Stream, WatchSpec};

use super::{Event, World};
use crate::clock::{Chance, MILLI};
use crate::oracle::Oracle;

pub struct Watcher {
    range: KeyRange,
    /// The first revision that it does not have.
    next: i64,
    /// Where it is in the list of all changes.
    cursor: usize,
    stream: Option<(usize, Stream)>,
}

impl Watcher {
    pub fn new(number: u64, chance: &mut Chance) -> Self {
        let key = Bytes::from(format!("k{}", chance.below(8)));
        let range = match number {
            0 => KeyRange::new("k".into(), "l".into()),
            1 => KeyRange::new("k2".into(), "k6".into()),
            _ => KeyRange::single(key),
        };
        Self { range, next: 1, cursor: 0, stream: None }
    }

    /// Its member ended.
    pub fn lose(&mut self, member: usize) {
        self.stream.take_if(|(at, _)| *at == member);
    }

    /// Makes sure that it watches somewhere, and says where.
    fn attach<'a>(
        &mut self,
        member: usize,
        chance: &mut Chance,
        hub: impl FnOnce(usize) -> Option<&'a Arc<Hub>>,
    ) -> Option<usize> {
        if self.stream.is_some() && chance.one_in(60) {
            self.stream = None;
        }
        if let Some((at, _)) = &self.stream {
            return Some(*at);
        }
        let stream = hub(member)?.stream();
        let spec = WatchSpec {
            range: self.range.clone(),
            start_revision: self.next,
            watch_id: 0,
            no_put: false,
            no_delete: false,
            prev_kv: chance.one_in(2),
        };
        stream.create(spec).unwrap();
        self.stream = Some((member, stream));
        Some(member)
    }

    /// Takes what is there, or only a part of it, and says how many items that were.
    fn take(&mut self, oracle: &mut Oracle, chance: &mut Chance) -> u64 {
        let mut took = 0;
        let most = if chance.one_in(4) { chance.below(3) } else { 1000 };
        while took < most {
            let Some((_, stream)) = &self.stream else { break };
            if chance.one_in(20) {
                stream.request_progress();
            }
            match stream.next() {
                Next::Item(item) => {
                    took += 1;
                    self.see(item, oracle);
                }
                Next::CatchUp => match stream.catch_up() {
                    Ok(()) => {}
                    // A read of the store that the seed lets fail: the stream is tried again.
                    Err(error) if error.to_string().contains("(os error 5)") => {
                        self.stream = None;
                        break;
                    }
                    Err(error) => panic!("{error}"),
                },
                Next::Wait => break,
            }
        }
        took
    }

    fn see(&mut self, item: Item, oracle: &mut Oracle) {
        match item {
            Item::Events { changes, .. } => {
                self.cursor = oracle.observed(&self.range, self.cursor, &changes);
                let last = changes.last().map_or(0, |change| change.revision.main);
                self.next = self.next.max(last + 1);
            }
            Item::Progress { revision, .. } => {
                oracle.complete(&self.range, self.cursor, revision);
                self.next = self.next.max(revision + 1);
            }
            Item::Compacted { compact_revision, .. } => {
                assert!(self.next < compact_revision, "a watch from {} was ended", self.next);
                assert!(compact_revision <= oracle.model.compacted);
                self.next = compact_revision;
                self.cursor = oracle.cursor(compact_revision);
                self.stream = None;
            }
            Item::Created { .. } | Item::Canceled { .. } => {}
        }
    }

    /// At the end it must have everything.
    pub fn finish(&self, oracle: &Oracle, revision: i64) {
        oracle.complete(&self.range, self.cursor, revision);
    }
}

impl World {
    pub fn watch(&mut self, number: usize) {
        let delay = MILLI + self.chance.below(60 * MILLI);
        self.at(delay, Event::Watch(number));
        let alive = |at: &usize| self.members[*at].life.is_some();
        let up: Vec<usize> = (0..self.members.len()).filter(alive).collect();
        if up.is_empty() {
            return;
        }
        let member = *self.chance.pick(&up);
        let watcher = &mut self.watchers[number];
        let on = watcher.attach(member, &mut self.chance, |at| {
            self.members[at].life.as_ref().map(|life| life.node.unguarded().hub())
        });
        if let Some(on) = on {
            let took = watcher.take(&mut self.oracle, &mut self.chance);
            if took > 0 {
                self.events += 1;
                self.note(took);
                self.tell(|| format!("watcher {number} on m{on} took {took}"));
            }
        }
    }
}
