//! Lines that repeat: the first few are written, and the rest are counted and summed up in one line
//! when their time is over.
//!
//! What counts as a repeat is a line of the same place in the code with the same message and error
//! but for their numbers. Warnings and errors are held back, and what the raft library says; other
//! lines tell of changes, each of which somebody may look for. So do the lines about leaders,
//! `raft.node: …`. The last line of a process is never held back.
//!
//! Times are those of a clock that never goes back: by the wall clock, a step of it would hold lines
//! back until the old time comes again.

use std::collections::HashMap;
use std::time::Duration;

use parking_lot::Mutex;

use super::fields::Fields;
use crate::go;
use crate::limits::{
    LOG_REPEATS_PASSED, LOG_REPEATS_PLACES, LOG_REPEATS_WINDOW, LOG_SLOW_REQUESTS_PASSED,
    LOG_SLOW_SYNC_WINDOW,
};
use crate::server::config::Level;

/// What becomes of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Passage {
    /// It is written, and counts among the first few.
    Counted,
    /// It is not written now.
    Held,
    /// Lines of its kind are not summed up.
    Free,
}

/// Lines of one message that were held back.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Held {
    pub(super) level: Level,
    pub(super) caller: String,
    pub(super) message: String,
    /// Empty if the lines have none.
    pub(super) error: String,
    /// When the first of them was written.
    pub(super) began: Duration,
    pub(super) count: u64,
    /// The longest `took` among them; zero if they have none.
    pub(super) worst: Duration,
}

impl Held {
    /// The line about them: the message, how often, and the worst time among them if they have one.
    pub(super) fn fields(&self, now: Duration) -> Fields {
        let seconds = now.saturating_sub(self.began).as_secs();
        let message = format!("{}: repeated {} times in {seconds} s", self.message, self.count);
        let mut fields = Fields { message, ..Fields::default() };
        if !self.error.is_empty() {
            fields.string("error", &self.error);
        }
        fields.raw("repeated", &self.count.to_string());
        if !self.worst.is_zero() {
            fields.string("worst", &go::duration(self.worst));
        }
        fields
    }
}

struct Window {
    ends: Duration,
    passed: u64,
    held: Held,
}

#[derive(Default)]
pub(super) struct Repeats(Mutex<HashMap<(String, String, String), Window>>);

/// How etcd's lines about leaders begin, each of which scripts count.
const OF_LEADERS: &str = "raft.node: ";

/// How many lines of a message are written in which time. A slow disk is slow at each write, so one
/// line is enough until the next sum; slow requests differ by what they ask for.
fn allowance(message: &str) -> (u64, Duration) {
    match message {
        "slow fdatasync" => (1, LOG_SLOW_SYNC_WINDOW),
        "apply request took too long" | "request stats" => {
            (LOG_SLOW_REQUESTS_PASSED, LOG_REPEATS_WINDOW)
        }
        _ => (LOG_REPEATS_PASSED, LOG_REPEATS_WINDOW),
    }
}

/// Messages that differ in a term or an index count as one.
fn without_numbers(message: &str) -> String {
    message.chars().filter(|c| !c.is_ascii_digit()).collect()
}

impl Repeats {
    pub(super) fn pass(
        &self,
        level: Level,
        caller: &str,
        fields: &Fields,
        now: Duration,
    ) -> Passage {
        let is_summed = match level {
            Level::Fatal => false,
            Level::Warn | Level::Error => true,
            Level::Debug | Level::Info => {
                !fields.message.starts_with(OF_LEADERS)
                    && fields.pairs.iter().any(|(name, _)| name == "logger")
            }
        };
        if !is_summed {
            return Passage::Free;
        }
        let (passed_max, window) = allowance(&fields.message);
        let mut windows = self.0.lock();
        let error = fields.get("error").unwrap_or_default();
        let key = (caller.to_owned(), without_numbers(&fields.message), without_numbers(&error));
        if !windows.contains_key(&key) && windows.len() >= LOG_REPEATS_PLACES {
            // So many messages at once are no repeats of one; the sampler bounds them.
            return Passage::Free;
        }
        let ends = now.saturating_add(window);
        let window = windows.entry(key).or_insert_with(|| {
            let (caller, message) = (caller.to_owned(), fields.message.clone());
            let (began, count, worst) = (now, 0, Duration::ZERO);
            let held = Held { level, caller, message, error, began, count, worst };
            Window { ends, passed: 0, held }
        });
        if window.passed < passed_max {
            window.passed += 1;
            return Passage::Counted;
        }
        window.held.count += 1;
        let took = fields.get("took").and_then(|took| go::parse_duration(took).ok());
        let took = Duration::from_nanos(took.and_then(|it| u64::try_from(it).ok()).unwrap_or(0));
        window.held.worst = window.held.worst.max(took);
        Passage::Held
    }

    /// Ends what is over at `now`, or all, and returns what was held back in it.
    pub(super) fn ended(&self, now: Duration, ends_all: bool) -> Vec<Held> {
        let mut windows = self.0.lock();
        let over = windows.extract_if(|_, window| ends_all || window.ends <= now);
        let mut held: Vec<Held> =
            over.map(|(_, window)| window.held).filter(|held| held.count > 0).collect();
        held.sort_by_key(|held| held.began);
        held
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn fields(message: &str, took: Option<&str>) -> Fields {
        let mut fields = Fields { message: message.to_owned(), ..Fields::default() };
        took.into_iter().for_each(|took| fields.raw("took", &format!("\"{took}\"")));
        fields
    }

    #[test]
    fn repeats_are_held_back_and_summed_up() {
        let repeats = Repeats::default();
        let one = fields("x", None);
        let said = |now| repeats.pass(Level::Warn, "a.rs:1", &one, now);
        let passed = (0..422).filter(|_| said(SECOND) == Passage::Counted).count();
        assert_eq!(passed, 10);
        assert_eq!(repeats.pass(Level::Warn, "b.rs:1", &one, SECOND), Passage::Counted);
        assert_eq!(repeats.ended(60 * SECOND, false), []);
        let held = repeats.ended(61 * SECOND, false);
        assert_eq!((held.len(), held[0].count), (1, 412));
        let line = held[0].fields(61 * SECOND);
        assert_eq!(line.message, "x: repeated 412 times in 60 s");
        assert_eq!(said(62 * SECOND), Passage::Counted);
    }

    #[test]
    fn of_slow_syncs_the_worst_is_told() {
        let repeats = Repeats::default();
        for took in ["1s", "1.2s", "3.5s", "2s"] {
            repeats.pass(Level::Warn, "a.rs:1", &fields("slow fdatasync", Some(took)), SECOND);
        }
        let held = repeats.ended(Duration::ZERO, true);
        assert_eq!((held[0].count, held[0].worst), (3, Duration::from_millis(3500)));
    }

    #[test]
    fn what_tells_of_a_change_and_the_last_line_are_never_held() {
        let repeats = Repeats::default();
        for _ in 0..100 {
            for level in [Level::Info, Level::Fatal] {
                let passage = repeats.pass(level, "a.rs:1", &fields("x", None), Duration::ZERO);
                assert_eq!(passage, Passage::Free);
            }
            let mut elected = fields("raft.node: 1f elected leader 2e at term 3", None);
            elected.string("logger", "raft");
            let passage = repeats.pass(Level::Info, "a.rs:2", &elected, Duration::ZERO);
            assert_eq!(passage, Passage::Free);
        }
    }

    #[test]
    fn the_table_does_not_grow_without_end() {
        let repeats = Repeats::default();
        for number in 0..2 * LOG_REPEATS_PLACES {
            let line = fields(&"x".repeat(number), None);
            repeats.pass(Level::Warn, "a.rs:1", &line, Duration::ZERO);
        }
        assert_eq!(repeats.0.lock().len(), LOG_REPEATS_PLACES);
    }
}
