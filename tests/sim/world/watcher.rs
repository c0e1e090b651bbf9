//! A client with one or two watchers on a stream that want everything in their ranges. It goes on
//! elsewhere when its member fails, and changes members when it likes. Between being told to read
//! history, reading it and taking it, it may leave time, in which the member goes on.

use std::sync::Arc;

use bytes::Bytes;
use rusd::mvcc::ReadCheck;
use rusd::types::KeyRange;
use rusd::watch::{Hub, Item, Next, Piece, Stream, WatchSpec};

use super::{Event, World};
use crate::clock::{Chance, MILLI};
use crate::oracle::Oracle;

/// What one watcher has seen.
struct Seen {
    range: KeyRange,
    /// Its id on the stream.
    id: i64,
    /// The first revision that it does not have.
    next: i64,
    /// Where it is in the list of all changes.
    cursor: usize,
}

/// How far the stream is with reading history.
enum History {
    None,
    IsToBeRead,
    Read(Piece),
}

pub struct Watcher {
    seen: Vec<Seen>,
    stream: Option<(usize, Stream)>,
    history: History,
}

impl Watcher {
    pub fn new(number: u64, chance: &mut Chance) -> Self {
        let key = Bytes::from(format!("k{}", chance.below(8)));
        let range = match number {
            0 => KeyRange::new("k".into(), "l".into()),
            1 => KeyRange::new("k2".into(), "k6".into()),
            _ => KeyRange::single(key),
        };
        let other = KeyRange::new("k1".into(), "k5".into());
        let ranges = if chance.one_in(2) { vec![range, other] } else { vec![range] };
        let seen = |range| Seen { range, id: 0, next: 1, cursor: 0 };
        let seen = ranges.into_iter().map(seen).collect();
        Self { seen, stream: None, history: History::None }
    }

    /// Its member ended.
    pub fn lose(&mut self, member: usize) {
        if self.stream.as_ref().is_some_and(|(at, _)| *at == member) {
            self.leave();
        }
    }

    fn leave(&mut self) {
        (self.stream, self.history) = (None, History::None);
    }

    /// After a read of the store that the seed lets fail, a new stream is tried.
    fn fail(&mut self, error: &rusd::mvcc::Error) {
        assert!(error.to_string().contains("(os error 5)"), "{error}");
        self.leave();
    }

    /// Makes sure that it watches somewhere, and says where.
    fn attach<'a>(
        &mut self,
        member: usize,
        chance: &mut Chance,
        hub: impl FnOnce(usize) -> Option<&'a Arc<Hub>>,
    ) -> Option<usize> {
        if self.stream.is_some() && chance.one_in(60) {
            self.leave();
        }
        if let Some((at, _)) = &self.stream {
            return Some(*at);
        }
        let stream = hub(member)?.stream();
        for seen in &mut self.seen {
            let spec = WatchSpec {
                range: seen.range.clone(),
                start_revision: seen.next,
                watch_id: 0,
                no_put: false,
                no_delete: false,
                prev_kv: chance.one_in(2),
            };
            seen.id = stream.create(spec).unwrap();
        }
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
            match std::mem::replace(&mut self.history, History::None) {
                History::None => match stream.next() {
                    Next::Item(item) => {
                        took += 1;
                        self.see(item, oracle);
                    }
                    Next::CatchUp => self.history = History::IsToBeRead,
                    Next::Wait => break,
                },
                History::IsToBeRead => match stream.read_piece(&ReadCheck::default()) {
                    Ok(piece) => self.history = History::Read(piece),
                    Err(error) => self.fail(&error),
                },
                // It may have had to give way.
                History::Read(_) if chance.one_in(10) => {}
                History::Read(piece) => match stream.take_piece(piece) {
                    Ok(()) => {}
                    Err(error) => self.fail(&error),
                },
            }
            if !matches!(self.history, History::None) && chance.one_in(4) {
                break;
            }
        }
        took
    }

    fn see(&mut self, item: Item, oracle: &mut Oracle) {
        match item {
            Item::Events { watch_id, changes, .. } => {
                let seen = self.seen.iter_mut().find(|seen| seen.id == watch_id).unwrap();
                seen.cursor = oracle.observed(&seen.range, seen.cursor, &changes);
                let last = changes.last().map_or(0, |change| change.revision.main);
                seen.next = seen.next.max(last + 1);
            }
            Item::Progress { revision, .. } => {
                for seen in &mut self.seen {
                    oracle.complete(&seen.range, seen.cursor, revision);
                    seen.next = seen.next.max(revision + 1);
                }
            }
            Item::Compacted { watch_id, compact_revision } => {
                let seen = self.seen.iter_mut().find(|seen| seen.id == watch_id).unwrap();
                assert!(seen.next < compact_revision, "a watch from {} was ended", seen.next);
                assert!(compact_revision <= oracle.model.compacted);
                seen.next = compact_revision;
                seen.cursor = oracle.cursor(compact_revision);
                self.leave();
            }
            Item::Created { .. } | Item::Canceled { .. } => {}
        }
    }

    /// At the end it must have everything.
    pub fn finish(&self, oracle: &Oracle, revision: i64) {
        for seen in &self.seen {
            oracle.complete(&seen.range, seen.cursor, revision);
        }
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
