//! Progress bars on standard error. There is none in a pipe, on a terminal that cannot move its
//! cursor, and under etcd's names.
//!
//! A bar fits on one line: title and bar give way to the numbers where the terminal is narrow. It
//! is gone when its command ends, however that ends: an error drops it, and SIGINT and SIGTERM are
//! caught to clear the line, and then end the process as they would have without a bar.

use std::io;
use std::ops::Deref;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressState, ProgressStyle};
use parking_lot::Mutex;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use signal_hook::low_level::emulate_default_handler;
use tokio::task::AbortHandle;
use tokio::time::sleep;

use super::terminal;

/// The narrowest terminal with more than a percentage.
const NUMBERS_COLUMNS_MIN: usize = 56;
const BAR_COLUMNS_MAX: usize = 24;
const BAR_COLUMNS_MIN: usize = 6;
/// Columns of the widest numbers: sizes, rate and time left.
const NUMBERS_COLUMNS: usize = 48;
const TITLE_COLUMNS_MAX: usize = 40;

/// Interval of a spinner's turns.
const TICK: Duration = Duration::from_millis(100);

/// What a bar counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::cli) enum Unit {
    Bytes,
    Items,
    /// Milliseconds of a known time; what is done meanwhile stands in the message.
    Time,
}

/// Who ends the command at SIGINT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::cli) enum OnSignal {
    /// The signal does, once the bar is gone.
    End,
    /// The command catches signals itself.
    Ignore,
}

/// The bar that is drawn now, for whoever writes beside it.
pub(super) type Drawn = Arc<Mutex<Option<ProgressBar>>>;

/// A bar, cleared when this is dropped.
pub(in crate::cli) struct Progress {
    hand: Hand,
    drawn: Option<Drawn>,
    task: Option<AbortHandle>,
}

/// What moves a bar.
#[derive(Clone)]
pub(in crate::cli) struct Hand(ProgressBar);

impl Hand {
    pub(in crate::cli) fn set(&self, done: u64) {
        self.0.set_position(done);
    }

    /// The text of a bar over a time.
    pub(in crate::cli) fn say(&self, text: String) {
        self.0.set_message(text);
    }
}

impl Deref for Progress {
    type Target = Hand;

    fn deref(&self) -> &Hand {
        &self.hand
    }
}

impl Progress {
    pub(super) fn hidden() -> Self {
        Self { hand: Hand(ProgressBar::hidden()), drawn: None, task: None }
    }

    /// Draws a bar; a spinner if the total is not known.
    pub(super) fn draw(drawn: Drawn, total: u64, unit: Unit, title: &str) -> Self {
        let columns = terminal::width(&io::stderr());
        let title = fit(title, (columns / 4).min(TITLE_COLUMNS_MAX));
        let bar = if total == 0 { ProgressBar::new_spinner() } else { ProgressBar::new(total) };
        // Before anything is drawn, which the prefix does: a signal may come right behind it.
        *drawn.lock() = Some(bar.clone());
        let template = template(total > 0, unit, columns, title.chars().count());
        if let Ok(style) = ProgressStyle::with_template(&template) {
            bar.set_style(style.with_key("rate", rate).progress_chars("=> "));
        }
        bar.set_prefix(title);
        bar.enable_steady_tick(TICK);
        Self { hand: Hand(bar), drawn: Some(drawn), task: None }
    }

    /// Moves the bar now and then until it is dropped, by a task of the runtime.
    pub(in crate::cli) fn moved_by(mut self, step: impl Fn(&Hand) + Send + 'static) -> Self {
        let hand = self.hand.clone();
        let task = async move {
            loop {
                step(&hand);
                sleep(TICK).await;
            }
        };
        self.task = self.drawn.as_ref().map(|_| tokio::spawn(task).abort_handle());
        self
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
        self.hand.0.finish_and_clear();
        if let Some(drawn) = &self.drawn {
            *drawn.lock() = None;
        }
    }
}

fn rate(state: &ProgressState, out: &mut dyn std::fmt::Write) {
    // The error is ignored: a text takes what is written to it.
    let _ = write!(out, "{:.0}/s", state.per_sec());
}

/// indicatif's template for a bar that fits into the columns.
fn template(is_known: bool, unit: Unit, columns: usize, title: usize) -> String {
    if columns < NUMBERS_COLUMNS_MIN {
        return if is_known { "{percent}% {eta} left" } else { "{spinner} {elapsed}" }.to_owned();
    }
    let numbers = match (unit, is_known) {
        (Unit::Bytes, true) => "{decimal_bytes}/{decimal_total_bytes} {decimal_bytes_per_sec}",
        (Unit::Items, true) => "{human_pos}/{human_len} {rate}",
        (Unit::Time, true) => "{msg}",
        (Unit::Bytes, false) => {
            return "{spinner} {prefix} {decimal_bytes} {decimal_bytes_per_sec} {elapsed}".into();
        }
        (Unit::Items, false) => return "{spinner} {prefix} {human_pos} {rate} {elapsed}".into(),
        (Unit::Time, false) => return "{spinner} {prefix} {msg} {elapsed}".into(),
    };
    let room = columns.saturating_sub(NUMBERS_COLUMNS + title + 4).min(BAR_COLUMNS_MAX);
    let bar = match room {
        BAR_COLUMNS_MIN.. => format!("[{{bar:{room}}}] "),
        _ => String::new(),
    };
    format!("{{prefix}} {bar}{numbers} {{eta}} left")
}

/// The end of a title that is too long, since that is where paths differ.
fn fit(title: &str, columns: usize) -> String {
    let letters = title.chars().count();
    match letters > columns {
        true => {
            let kept = columns.saturating_sub(1);
            let tail: String = title.chars().skip(letters - kept).collect();
            format!("…{tail}")
        }
        false => title.to_owned(),
    }
}

/// From here on SIGINT and SIGTERM clear the bar that is drawn, and then end the process.
pub(super) fn clear_at_signals(drawn: Drawn) {
    // Without the handler a signal ends the process at once, and leaves the bar on its line.
    let Ok(mut signals) = Signals::new([SIGINT, SIGTERM]) else { return };
    thread::spawn(move || {
        for signal in signals.forever() {
            if let Some(bar) = drawn.lock().take() {
                bar.finish_and_clear();
            }
            let _ = emulate_default_handler(signal);
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_gives_way_to_the_numbers() {
        assert!(template(true, Unit::Bytes, 100, 10).contains("{bar:24}"));
        assert!(template(true, Unit::Bytes, 80, 20).contains("{bar:8}"));
        assert!(!template(true, Unit::Bytes, 70, 17).contains("bar"));
        assert_eq!(template(true, Unit::Bytes, 30, 7), "{percent}% {eta} left");
        assert_eq!(fit("/a/b/c", 4), "…b/c");
        assert_eq!(fit("/a", 4), "/a");
    }
}
