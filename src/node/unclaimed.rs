//! What was read for streams that have not come for it: one budget for the member.
//!
//! A client that takes nothing is not looked at, also while its stream waits for a read that is
//! under way. So the outcome of such a read lies here until the stream comes for it, and what has
//! lain longest gives way to others: the stream then has it read again.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

#[derive(Default)]
pub(super) struct Unclaimed(Mutex<State>);

#[derive(Default)]
struct State {
    /// In the order in which they came.
    values: BTreeMap<u64, (usize, Weak<dyn GiveWay>)>,
    next: u64,
    bytes: usize,
}

impl State {
    /// Takes out the oldest values until one more of so many bytes has room.
    fn make_room(&mut self, bytes: usize, bytes_max: usize, gone: &mut Vec<Weak<dyn GiveWay>>) {
        let of_values = self.values.iter().map(|(number, (bytes, _))| (*bytes, *number));
        let largest = of_values.max().filter(|(largest, _)| *largest > bytes);
        let beside = largest.map_or(bytes, |(largest, _)| largest);
        while self.bytes.saturating_add(bytes) - beside > bytes_max {
            let is_kept = |number: &u64| largest.is_some_and(|(_, kept)| kept == *number);
            let oldest = self.values.keys().find(|number| !is_kept(number)).copied();
            let Some((bytes, oldest)) = oldest.and_then(|oldest| self.values.remove(&oldest))
            else {
                break;
            };
            self.bytes -= bytes;
            gone.push(oldest);
        }
    }
}

trait GiveWay: Send + Sync {
    /// Drops the value.
    fn give_way(&self);
}

/// A value that gives way to others until it is taken.
pub(super) struct Claim<T: Send> {
    number: u64,
    value: Arc<Mutex<Option<T>>>,
    all: Arc<Unclaimed>,
}

impl<T: Send> GiveWay for Mutex<Option<T>> {
    fn give_way(&self) {
        // Freed without the lock.
        let value = self.lock().take();
        drop(value);
    }
}

impl Unclaimed {
    /// Keeps a value of so many bytes. Older ones give way, as far as all together have more than
    /// `bytes_max`, beside the largest: where others read little all the time, a client would never
    /// come in time for a value that is larger than all may have.
    pub(super) fn keep<T: Send + 'static>(
        self: &Arc<Self>,
        value: T,
        bytes: usize,
        bytes_max: usize,
    ) -> Claim<T> {
        let value = Arc::new(Mutex::new(Some(value)));
        let kept: Weak<dyn GiveWay> = Arc::downgrade(&(Arc::clone(&value) as Arc<dyn GiveWay>));
        let mut gone = Vec::new();
        let number = {
            let mut state = self.0.lock();
            if state.bytes.saturating_add(bytes) > bytes_max {
                state.make_room(bytes, bytes_max, &mut gone);
            }
            let number = state.next;
            state.next += 1;
            state.bytes += bytes;
            state.values.insert(number, (bytes, kept));
            number
        };
        gone.iter().filter_map(Weak::upgrade).for_each(|oldest| oldest.give_way());
        Claim { number, value, all: Arc::clone(self) }
    }

    fn forget(&self, number: u64) {
        let mut state = self.0.lock();
        if let Some((bytes, _)) = state.values.remove(&number) {
            state.bytes -= bytes;
        }
    }

    #[cfg(test)]
    pub(super) fn bytes(&self) -> usize {
        self.0.lock().bytes
    }
}

impl<T: Send> Claim<T> {
    /// None if the value has given way.
    pub(super) fn take(self) -> Option<T> {
        self.value.lock().take()
    }
}

impl<T: Send> Drop for Claim<T> {
    fn drop(&mut self) {
        self.all.forget(self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_gives_way_and_the_largest_does_not_count() {
        let all = Arc::<Unclaimed>::default();
        let keep = |value: &'static str, bytes| all.keep(value, bytes, 10);
        let (first, second) = (keep("first", 4), keep("second", 4));
        assert_eq!((first.take(), all.bytes()), (Some("first"), 4));
        // The largest is the third one, beside which the others have room for ten bytes.
        let (third, fourth, fifth) = (keep("third", 6), keep("fourth", 5), keep("fifth", 1));
        assert_eq!(all.bytes(), 16);
        let sixth = keep("sixth", 5);
        assert_eq!((second.take(), fourth.take(), all.bytes()), (None, None, 12), "the oldest");
        let large = keep("large", 100);
        assert_eq!((third.take(), all.bytes()), (None, 106));
        let many: Vec<_> = (0..50).map(|_| keep("small", 1)).collect();
        assert_eq!(many.into_iter().filter_map(Claim::take).count(), 10);
        assert_eq!((fifth.take(), sixth.take()), (None, None));
        let larger = keep("larger", 101);
        assert_eq!((large.take(), larger.take()), (None, Some("larger")));
        let nothing = keep("nothing", 0);
        assert_eq!((nothing.take(), all.bytes()), (Some("nothing"), 0));
        assert!(all.0.lock().values.is_empty());
    }
}
