//! Pins keep the rows of an answer that is read in pieces: between two pieces no view exists, so a
//! pin holds the epoch of the view that measured the answer, and sweeps wait for it as for a view.
//!
//! A view lasts as long as a read, a pin as long as a client takes. So a pin can be ended: by a
//! sweep that has waited long enough, and by a replacement of the state. A piece that is being read
//! has a view of its own and is still waited for; the next one fails with `Error::Expired`, before
//! a row could be missing.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use super::{Current, Error, Mvcc, ReadCheck, View};

/// What a pin holds until it is ended.
#[derive(Clone)]
struct Held {
    epoch: Arc<()>,
    current: Current,
    /// When a sweep that waits for the pin has seen it first.
    waited_since: Option<Duration>,
}

#[derive(Default)]
struct State {
    next: u64,
    held: BTreeMap<u64, Held>,
}

/// The pins of one state.
#[derive(Default)]
pub(super) struct Pins(Mutex<State>);

/// Keeps the rows that a view could read, until it is dropped or ended.
pub(super) struct Pin {
    number: u64,
    pins: Arc<Pins>,
}

impl Pins {
    /// Ends the pins of these epochs. Returns how many there were.
    pub(super) fn end(&self, is_old: impl Fn(&Arc<()>) -> bool) -> usize {
        let mut state = self.0.lock();
        let before = state.held.len();
        state.held.retain(|_, held| !is_old(&held.epoch));
        before - state.held.len()
    }

    /// Ends the pins for which a sweep has waited as long as `max`, and returns their number. A pin's time
    /// counts from when a sweep has seen it first, and not from the sweep's beginning: a range may be
    /// measured for longer than `max`, and its pin would end as soon as it is made.
    pub(super) fn end_waited(
        &self,
        now: Duration,
        max: Duration,
        is_waited_for: impl Fn(&Arc<()>) -> bool,
    ) -> usize {
        let mut state = self.0.lock();
        let before = state.held.len();
        state.held.retain(|_, held| {
            if !is_waited_for(&held.epoch) {
                return true;
            }
            now.saturating_sub(*held.waited_since.get_or_insert(now)) < max
        });
        before - state.held.len()
    }
}

impl Pin {
    /// A view of what is pinned. Fails with `Expired` once the pin was ended.
    pub(super) fn view<'a>(
        &self,
        mvcc: &'a Mvcc,
        wanted: &'a ReadCheck,
    ) -> Result<View<'a>, Error> {
        let held = self.pins.0.lock().held.get(&self.number).cloned();
        let Held { epoch, current, .. } = held.ok_or(Error::Expired)?;
        Ok(View { mvcc, current, wanted: Some(wanted), _epoch: Some(epoch) })
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        self.pins.0.lock().held.remove(&self.number);
    }
}

impl View<'_> {
    /// Pins what this view may read. The view of a transaction, which has no epoch, pins nothing:
    /// its pin has ended from the start.
    pub(super) fn pin(&self) -> Pin {
        let pins = Arc::clone(&self.mvcc.pins);
        let mut state = pins.0.lock();
        let number = state.next;
        state.next += 1;
        if let Some(epoch) = &self._epoch {
            let held = Held { epoch: Arc::clone(epoch), current: self.current, waited_since: None };
            state.held.insert(number, held);
        }
        drop(state);
        Pin { number, pins }
    }
}
