//! Lines for a person at a terminal.
//!
//! ```text
//!   12:03:04 INFO  m1 (8211f1d0f64f3269) leads in term 2
//!   12:03:09 WARN  m2 (91bc3c398fb3c146) cannot be reached: Connection refused
//!                  hint: see the handbook, "Member unreachable"
//! ```
//!
//! The time is local, and the server's first line says so. A message has its cause behind a colon,
//! then its fields; `hint` has a line of its own. Lines are folded at the terminal's width. Nothing
//! that came from outside reaches the terminal as a control character.
//!
//! etcd's lines with dozens of fields and the raft library's steps are details: they are shown at
//! the level debug, and lines with the target `people` say in short what matters of them.

use std::fmt::Write as _;

use serde_json::Value;
use time::{OffsetDateTime, UtcOffset};

use super::fields::Fields;
use crate::server::config::Level;
use crate::types::is_obeyed;

/// How an output shows lines. The default is that of a file: neither coloured nor folded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Style {
    pub(super) has_colours: bool,
    pub(super) columns: Option<usize>,
}

/// Columns of the time and the level, where the text begins.
const INDENT: usize = 15;
/// On a terminal that is narrower, folded lines would be a column of single words.
const COLUMNS_MIN: usize = INDENT + 20;
/// As many columns as two spaces between a message and its fields.
const GAP: &str = "  ";

/// Messages that are details for a person: what they say is in a line for people, or is of use only
/// with the lines around it.
const DETAILS: &[&str] = &[
    "Running: ",
    "starting an etcd server",
    "Initialize and start etcd server",
    "server has already been initialized",
    "'data-dir' was empty; using default",
    "it isn't recommended to use default name, please set a value for --name. Note that etcd \
     might run into issue when multiple members have the same default name",
    "addresses that were not given follow from other flags",
    "configuring peer listeners",
    "configuring client listeners",
    "now serving peer/client/metrics",
    "ready to serve client requests",
    "serving client traffic insecurely; this is strongly discouraged!",
    "serving client traffic securely",
    "published local member to cluster through raft",
    "updating cluster version using v3 API",
    "set initial cluster version",
    "updated storage version",
    "recognized and used environment variable",
    "closed etcd server",
    "failed to get cluster response",
    "added member",
    "simple token is not cryptographically signed",
    "index checkpoint written",
    "scrubbed the store; all checksums are right",
    "reading a peer's stream",
    "prober detected unhealthy status",
    "notifying init daemon",
    "successfully notified init daemon",
];

/// Whether a line is not shown, since it is a detail and the log's own level is not debug.
pub(super) fn is_detail(level: Level, shown: Level, fields: &Fields) -> bool {
    let is_of_raft = level == Level::Info && fields.pairs.iter().any(|(name, _)| name == "logger");
    let message = fields.message.as_str();
    let is_told = DETAILS.contains(&message) || message.starts_with("lost a peer's stream");
    // A connection that says nothing is a probe: of a load balancer, or of `rusd doctor`.
    let is_probe = message.starts_with("rejected connection on client endpoint")
        && fields.get("error").is_some_and(|error| error == "EOF");
    shown > Level::Debug && level < Level::Error && (is_of_raft || is_told || is_probe)
}

/// A call's line in words: etcd's has its parts in ten fields.
fn call(level: Level, fields: &Fields) -> Option<Fields> {
    if fields.message != "request stats" {
        return None;
    }
    let head = if level == Level::Debug { "request" } else { "slow request" };
    let method = fields.get("response type").unwrap_or_default();
    let method = method.rsplit('.').next().unwrap_or_default();
    let mut message = format!("{head}: {method}");
    if let Some(content) = fields.get("request content").filter(|it| !it.is_empty()) {
        let _ = write!(message, " {}", content.trim_end());
    }
    let took = short(&fields.get("time spent").unwrap_or_default());
    let _ = write!(message, " took {took}");
    let is_shown = |name: &str| matches!(name, "remote" | "user" | "logger" | "repeated");
    let pairs = fields.pairs.iter().filter(|(name, _)| is_shown(name)).cloned().collect();
    Some(Fields { message, pairs })
}

/// Go's duration with three decimals at most.
fn short(duration: &str) -> String {
    let Some((whole, rest)) = duration.split_once('.') else { return duration.to_owned() };
    let unit = rest.trim_start_matches(|c: char| c.is_ascii_digit());
    let decimals: String = rest[..rest.len() - unit.len()].chars().take(3).collect();
    format!("{whole}.{decimals}{unit}")
}

/// A line, or several if there is a hint or the line is folded.
pub(super) fn line(level: Level, fields: &Fields, unix_nanos: u64, style: Style) -> String {
    let (name, colour) = match level {
        Level::Debug => ("DEBUG", "2"),
        Level::Info => ("INFO ", "32"),
        Level::Warn => ("WARN ", "33"),
        Level::Error => ("ERROR", "31"),
        Level::Fatal => ("FATAL", "1;31"),
    };
    let paint = |text: &str, colour: &str| match style.has_colours {
        true => format!("\x1b[{colour}m{text}\x1b[0m"),
        false => text.to_owned(),
    };
    let told = call(level, fields);
    let fields = told.as_ref().unwrap_or(fields);
    let mut message = shown(&fields.message);
    if let Some(error) = fields.get("error").filter(|error| !error.is_empty()) {
        let _ = write!(message, ": {}", shown(&error));
    }
    let mut text = format!("{} {} ", paint(&clock(unix_nanos), "2"), paint(name, colour));
    let mut page = Page::new(&mut text, style.columns);
    page.words(&message, str::to_owned);
    let told = ["error", "hint", "logger"];
    for (name, value) in fields.pairs.iter().filter(|(name, _)| !told.contains(&name.as_str())) {
        let value = value_of(value);
        if !value.is_empty() {
            let field = format!("{}={value}", shown(name));
            page.stand_apart(field.chars().count());
            page.words(&field, |word| paint(word, "2"));
        }
    }
    text.push('\n');
    if let Some(hint) = fields.get("hint").filter(|hint| !hint.is_empty()) {
        let _ = write!(text, "{:INDENT$}", "");
        let mut page = Page::new(&mut text, style.columns);
        page.words(&format!("hint: {}", shown(&hint)), str::to_owned);
        text.push('\n');
    }
    text
}

/// Writes words from column `INDENT` on, and goes to that column again where the next word would
/// not fit.
struct Page<'a> {
    text: &'a mut String,
    columns: usize,
    at: usize,
    gap: &'static str,
}

impl<'a> Page<'a> {
    fn new(text: &'a mut String, columns: Option<usize>) -> Self {
        let columns = columns.filter(|columns| *columns >= COLUMNS_MIN).unwrap_or(usize::MAX);
        Self { text, columns, at: INDENT, gap: "" }
    }

    /// Sets what follows apart. It has `length` columns, and begins a line of its own rather than
    /// be cut in two.
    fn stand_apart(&mut self, length: usize) {
        self.gap = GAP;
        let fits_alone = INDENT + length <= self.columns;
        if fits_alone && self.at.saturating_add(GAP.len() + length) > self.columns {
            self.turn();
        }
    }

    fn turn(&mut self) {
        let _ = write!(self.text, "\n{:INDENT$}", "");
        (self.at, self.gap) = (INDENT, "");
    }

    fn words(&mut self, words: &str, paint: impl Fn(&str) -> String) {
        for word in words.split(' ') {
            let length = word.chars().count();
            if self.at > INDENT && self.at.saturating_add(self.gap.len() + length) > self.columns {
                self.turn();
            }
            self.text.push_str(self.gap);
            self.text.push_str(&paint(word));
            self.at += self.gap.len() + length;
            self.gap = " ";
        }
    }
}

/// A field's value, a string without its quotation marks unless it looks like something else.
fn value_of(json: &str) -> String {
    match serde_json::from_str(json) {
        Ok(Value::String(text)) if text.contains(['"', '=']) || text.contains(GAP) => {
            shown(&serde_json::Value::from(text).to_string())
        }
        Ok(Value::String(text)) => shown(&text),
        Ok(Value::Array(list)) if list.iter().all(Value::is_string) => {
            let texts: Vec<String> = list.iter().filter_map(Value::as_str).map(shown).collect();
            texts.join(", ")
        }
        _ => shown(json),
    }
}

/// A text without control characters, nor those that change the direction of what follows or have no
/// width.
fn shown(text: &str) -> String {
    let is_odd = |c: char| c.is_control() || is_obeyed(c) || matches!(c, '\u{200c}' | '\u{200d}');
    if !text.contains(is_odd) {
        return text.to_owned();
    }
    let mut plain = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        match c {
            '\n' => plain.push_str("; "),
            c if is_odd(c) => plain.extend(c.escape_unicode()),
            c => plain.push(c),
        }
    }
    plain
}

fn local(unix_nanos: u64) -> OffsetDateTime {
    let seconds = i64::try_from(unix_nanos / 1_000_000_000).unwrap_or_default();
    let time = OffsetDateTime::from_unix_timestamp(seconds).unwrap_or(OffsetDateTime::UNIX_EPOCH);
    UtcOffset::local_offset_at(time).map_or(time, |offset| time.to_offset(offset))
}

/// The local time of day.
pub(super) fn clock(unix_nanos: u64) -> String {
    let time = local(unix_nanos);
    format!("{:02}:{:02}:{:02}", time.hour(), time.minute(), time.second())
}

/// The zone of the times: `UTC`, or `UTC+02:00`.
pub(super) fn zone(unix_nanos: u64) -> String {
    let offset = local(unix_nanos).offset();
    let (hours, minutes, _) = offset.as_hms();
    let sign = if offset.is_negative() { '-' } else { '+' };
    match offset.is_utc() {
        true => "UTC".to_owned(),
        false => format!("UTC{sign}{:02}:{:02}", hours.abs(), minutes.abs()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(message: &str, pairs: &[(&str, &str)]) -> Fields {
        let pairs = pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        Fields { message: message.to_owned(), pairs: pairs.collect() }
    }

    #[test]
    fn a_line_has_the_cause_then_the_fields_then_the_hint() {
        let of = fields(
            "it failed",
            &[
                ("name", "\"m1\""),
                ("error", "\"no such file\""),
                ("urls", "[\"http://a:1\",\"http://b:2\"]"),
                ("why", "\"two words\""),
                ("empty", "\"\""),
                ("hint", "\"do it\""),
            ],
        );
        let text = line(Level::Warn, &of, 0, Style::default());
        assert_eq!(
            &text[8..],
            " WARN  it failed: no such file  name=m1  urls=http://a:1, http://b:2  why=two words\n               hint: do it\n"
        );
    }

    #[test]
    fn what_comes_from_outside_cannot_command_the_terminal() {
        let of = fields(
            "a\u{1b}[2Jb",
            &[("k", "\"x\\u001b]0;t\\u0007\\u202e\\u009b\\u061c\\udb40\\udc41\"")],
        );
        let text = line(Level::Info, &of, 0, Style { has_colours: true, columns: Some(80) });
        let plain = text.replace("\x1b[2m", "").replace("\x1b[32m", "").replace("\x1b[0m", "");
        assert!(
            !plain
                .trim_end()
                .chars()
                .any(|c| c.is_control() || "\u{202e}\u{61c}\u{e0041}".contains(c)),
            "{plain:?}"
        );
        assert!(plain.contains("a\\u{1b}[2Jb"), "{plain:?}");
    }

    #[test]
    fn a_line_is_folded_at_the_terminals_width() {
        let words = "word ".repeat(40);
        let of = fields(words.trim(), &[("key", "\"value\"")]);
        let text = line(Level::Info, &of, 0, Style { has_colours: false, columns: Some(60) });
        assert!(text.lines().count() > 3);
        assert!(text.lines().all(|line| line.chars().count() <= 60), "{text}");
        assert!(text.lines().skip(1).all(|line| line.starts_with(&" ".repeat(INDENT))), "{text}");
    }

    #[test]
    fn a_slow_request_says_who_asked_for_what() {
        let of = fields(
            "request stats",
            &[
                ("start time", "\"2026-11-29T19:40:28.867177Z\""),
                ("time spent", "\"4.997432092s\""),
                ("remote", "\"127.0.0.1:59894\""),
                ("user", "\"alice\""),
                ("response type", "\"/etcdserverpb.KV/Range\""),
                ("request count", "-1"),
                ("request content", "\"key:\\\"greeting\\\" \""),
            ],
        );
        let text = line(Level::Warn, &of, 0, Style::default());
        let wanted = " WARN  slow request: KV/Range key:\"greeting\" took 4.997s  \
                      remote=127.0.0.1:59894  user=alice\n";
        assert_eq!(&text[8..], wanted);
        assert_eq!(short("250µs"), "250µs");
    }

    #[test]
    fn a_probe_is_a_detail_and_a_failed_handshake_is_none() {
        let message = "rejected connection on client endpoint";
        let of = |error| fields(message, &[("error", error)]);
        assert!(is_detail(Level::Warn, Level::Info, &of("\"EOF\"")));
        assert!(!is_detail(
            Level::Warn,
            Level::Info,
            &of("\"remote error: tls: bad certificate\"")
        ));
    }

    #[test]
    fn details_are_shown_at_debug_alone() {
        let of_raft = fields("1 became follower", &[("logger", "\"raft\"")]);
        assert!(is_detail(Level::Info, Level::Info, &of_raft));
        assert!(!is_detail(Level::Warn, Level::Info, &of_raft));
        assert!(!is_detail(Level::Info, Level::Debug, &of_raft));
        assert!(is_detail(Level::Info, Level::Info, &fields("Running: ", &[])));
    }
}
