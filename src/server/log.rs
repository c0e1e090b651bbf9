//! Log lines as etcd writes them: one JSON object a line, or tab-separated for people. Under the
//! name rusd there is a third form, for people at a terminal (`human`).
//!
//! This is a whole `tracing` subscriber and not a layer: the server opens no spans, and events of
//! other crates are turned off at their call sites, so that what is not logged costs nothing. A
//! line is formatted first and written under the lock. A pipe, a socket or a terminal that takes
//! nothing for `LOG_WRITE_MAX` costs lines, and not the member: every thread that logs would wait
//! for it. The target `fatal` marks the last line before the process ends.

mod fields;
mod human;
mod output;
mod repeats;

use std::fs::OpenOptions;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use tracing::span::{Attributes, Id, Record};
use tracing::subscriber::Interest;
use tracing::{Event, Level, Metadata, Subscriber};

use super::config;
use super::journal;
use super::rotate::{Rotated, Rotation};
use crate::clock::{Clock, SystemClock};
use crate::go;
use crate::limits::{LOG_LINES_PER_SECOND, LOG_SAMPLER_PLACES};

use config::Form;
use fields::{Fields, quote};
use output::{Line, Output, Sink};
use repeats::{Passage, Repeats};

/// How often each message was logged in the current second, by the message's hash. Two messages may
/// share a place, which costs a line now and then; in return, the table never grows.
struct Sampler {
    places: Vec<(AtomicU64, AtomicU64)>,
}

impl Sampler {
    fn new() -> Self {
        Self { places: (0..LOG_SAMPLER_PLACES).map(|_| Default::default()).collect() }
    }

    /// Whether a line is written: the first hundred of a message in each second, then one in a
    /// hundred, which is etcd's sampling.
    fn passes(&self, level: config::Level, message: &str, second: u64) -> bool {
        let mut hasher = DefaultHasher::new();
        (level as u8, message).hash(&mut hasher);
        let place = (hasher.finish() % self.places.len() as u64) as usize;
        let (now, count) = &self.places[place];
        if now.swap(second, Ordering::Relaxed) != second {
            count.store(0, Ordering::Relaxed);
        }
        let before = count.fetch_add(1, Ordering::Relaxed);
        before < LOG_LINES_PER_SECOND || before.is_multiple_of(LOG_LINES_PER_SECOND)
    }
}

fn open(path: &str, rotation: Option<&Rotation>) -> Result<Sink, String> {
    let opened = match rotation {
        Some(rotation) => Rotated::open(Path::new(path), rotation.clone()).map(Sink::Rotated),
        None => OpenOptions::new().append(true).create(true).open(path).map(Sink::File),
    };
    opened.map_err(|error| format!("open sink {path:?}: open {path}: {}", go::reason(&error)))
}

pub(super) struct Logger {
    sampler: Sampler,
    /// None under the name etcd, whose log only has the sampler, and no fields of rusd's own.
    repeats: Option<Repeats>,
    level: config::Level,
    form: Form,
    outputs: Mutex<Vec<Output>>,
    clock: SystemClock,
}

impl Logger {
    pub(super) fn new(settings: &config::Log) -> Result<Self, String> {
        let outputs = settings
            .outputs
            .iter()
            .map(|output| match output.as_str() {
                "default" | "stderr" => Ok(Output::new(Sink::Stderr(io::stderr()))),
                "stdout" => Ok(Output::new(Sink::Stdout(io::stdout()))),
                journal::OUTPUT => Output::journal(),
                path => open(path, settings.rotation.as_ref()).map(Output::new),
            })
            .collect::<Result<Vec<_>, String>>()?;
        let (level, form) = (settings.level, settings.form);
        let (sampler, clock) = (Sampler::new(), SystemClock::new());
        let repeats = settings.sums_repeats.then(Repeats::default);
        Ok(Self { sampler, repeats, level, form, outputs: Mutex::new(outputs), clock })
    }

    /// Makes this the process's logger. A second one is ignored.
    pub(super) fn install(self) {
        drop(tracing::subscriber::set_global_default(self));
    }

    fn wants(&self, metadata: &Metadata<'_>) -> bool {
        let target = metadata.target();
        let is_ours = target.starts_with("rusd")
            || target == FATAL
            || (target == PEOPLE && self.form == Form::Human);
        is_ours && metadata.is_event() && level_of(metadata) >= self.level
    }

    fn write(&self, level: config::Level, caller: &str, fields: &Fields, now: u64) {
        let report = |lines| lost(lines, now, self.form);
        if self.form == Form::Human {
            for output in self.outputs.lock().iter_mut() {
                let text = human::line(level, fields, now, output.style());
                output.write(&Line { level, caller, text: &text }, report);
            }
            return;
        }
        let text = line(level, caller, fields, now, self.form);
        let line = Line { level, caller, text: &text };
        self.outputs.lock().iter_mut().for_each(|output| output.write(&line, report));
    }

    /// Logs how often the lines were repeated that were held back, where their time is over.
    fn tell_repeats(&self, ends_all: bool) {
        let Some(repeats) = &self.repeats else { return };
        let now = self.clock.now();
        for held in repeats.ended(now, ends_all) {
            let fields = held.fields(now);
            self.write(held.level, &held.caller, &fields, self.clock.unix_nanos());
        }
    }
}

/// The zone of the times that people are shown.
pub(super) fn zone() -> String {
    human::zone(SystemClock::new().unix_nanos())
}

/// Logs what repeats were held back, where their time is over; all of them if `ends_all`. Called
/// once a second, since nothing else may be logged for long.
pub(super) fn tell_repeats(ends_all: bool) {
    tracing::dispatcher::get_default(|subscriber| {
        if let Some(logger) = subscriber.downcast_ref::<Logger>() {
            logger.tell_repeats(ends_all);
        }
    });
}

/// A field whose value is a JSON list of names and values, each of which becomes a field of its
/// own: an event of `tracing` has at most 32 fields, and some lines have more.
pub(super) const FIELDS: &str = "fields";

/// The target of the line that says why the process ends.
pub(super) const FATAL: &str = "fatal";

/// The target of lines that are for people at a terminal alone: JSON says the same in etcd's words.
pub(super) const PEOPLE: &str = "people";

fn level_of(metadata: &Metadata<'_>) -> config::Level {
    if metadata.target() == FATAL {
        return config::Level::Fatal;
    }
    match *metadata.level() {
        Level::ERROR => config::Level::Error,
        Level::WARN => config::Level::Warn,
        Level::INFO => config::Level::Info,
        _ => config::Level::Debug,
    }
}

fn level_name(level: config::Level) -> &'static str {
    match level {
        config::Level::Debug => "debug",
        config::Level::Info => "info",
        config::Level::Warn => "warn",
        config::Level::Error => "error",
        config::Level::Fatal => "fatal",
    }
}

impl Subscriber for Logger {
    fn register_callsite(&self, metadata: &'static Metadata<'static>) -> Interest {
        if self.wants(metadata) { Interest::always() } else { Interest::never() }
    }

    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        self.wants(metadata)
    }

    fn max_level_hint(&self) -> Option<tracing::level_filters::LevelFilter> {
        use tracing::level_filters::LevelFilter;
        Some(match self.level {
            config::Level::Debug => LevelFilter::DEBUG,
            config::Level::Info => LevelFilter::INFO,
            config::Level::Warn => LevelFilter::WARN,
            config::Level::Error | config::Level::Fatal => LevelFilter::ERROR,
        })
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        fields.settle(self.repeats.is_some());
        let (level, now) = (level_of(event.metadata()), self.clock.unix_nanos());
        if self.form == Form::Human && human::is_detail(level, self.level, &fields) {
            return;
        }
        let caller = caller(event.metadata());
        self.tell_repeats(level == config::Level::Fatal);
        let passage = match &self.repeats {
            Some(repeats) => repeats.pass(level, &caller, &fields, self.clock.now()),
            None => Passage::Free,
        };
        let passes = match passage {
            Passage::Held => false,
            Passage::Counted => true,
            Passage::Free => self.sampler.passes(level, &fields.message, now / 1_000_000_000),
        };
        if passes {
            self.write(level, &caller, &fields, now);
        }
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

/// The line that says that others were lost.
fn lost(lines: u64, unix_nanos: u64, form: Form) -> String {
    let message = "lines of this log were lost, since nobody took them".to_owned();
    let mut fields = Fields { message, ..Fields::default() };
    fields.raw("lines", &lines.to_string());
    line(config::Level::Warn, "server/log.rs", &fields, unix_nanos, form)
}

fn line(
    level: config::Level,
    caller: &str,
    fields: &Fields,
    unix_nanos: u64,
    form: Form,
) -> String {
    let (name, time) = (level_name(level), go::timestamp(unix_nanos));
    match form {
        Form::Human => human::line(level, fields, unix_nanos, human::Style::default()),
        Form::Json => {
            let mut line = format!("{{\"level\":\"{name}\",\"ts\":\"{time}\",\"caller\":");
            quote(&mut line, caller);
            line.push_str(",\"msg\":");
            quote(&mut line, &fields.message);
            if !fields.pairs.is_empty() {
                line.push(',');
                line.push_str(&fields.text(",", ":"));
            }
            line.push_str("}\n");
            line
        }
        Form::Console => {
            let mut line = format!("{time}\t{name}\t{caller}\t{}", fields.message);
            if !fields.pairs.is_empty() {
                line.push_str("\t{");
                line.push_str(&fields.text(", ", ": "));
                line.push('}');
            }
            line.push('\n');
            line
        }
    }
}

/// Directory, file and line of the place that logs.
fn caller(metadata: &Metadata<'_>) -> String {
    let file = metadata.file().unwrap_or("unknown");
    let start = file.rmatch_indices('/').nth(1).map_or(0, |(at, _)| at + 1);
    format!("{}:{}", &file[start..], metadata.line().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::{BufRead as _, Read as _};

    use super::output::PIECE_BYTES;
    use super::*;
    use crate::server::journal::Journal;

    fn logged(format: &str, log: impl FnOnce()) -> String {
        let file = tempfile::NamedTempFile::new().unwrap();
        let path = file.path().to_str().unwrap().to_owned();
        let settings = config::Log {
            level: config::Level::Info,
            form: if format == "json" { Form::Json } else { Form::Console },
            outputs: vec![path.clone()],
            rotation: None,
            sums_repeats: false,
        };
        tracing::subscriber::with_default(Logger::new(&settings).unwrap(), log);
        let mut text = String::new();
        File::open(path).unwrap().read_to_string(&mut text).unwrap();
        text
    }

    #[test]
    fn a_line_is_etcds_json() {
        let text = logged("json", || {
            let urls = vec!["http://a:1".to_owned()];
            tracing::info!("data-dir" = "d \"x\"", count = 3, urls = ?urls, error = %"e", "hello {}", 1);
            tracing::debug!("not this");
        });
        let line: serde_json::Value = serde_json::from_str(text.trim()).unwrap();
        assert_eq!(line["level"], "info");
        assert_eq!(line["msg"], "hello 1");
        assert_eq!(line["data-dir"], "d \"x\"");
        assert_eq!(line["count"], 3);
        assert_eq!(line["urls"], serde_json::json!(["http://a:1"]));
        assert_eq!(line["error"], "e");
        assert!(line["caller"].as_str().unwrap().starts_with("server/log.rs:"));
        assert_eq!(line["ts"].as_str().unwrap().len(), 27);
        assert!(text.starts_with("{\"level\":\"info\",\"ts\":\""));
    }

    #[test]
    fn a_line_may_have_more_fields_than_an_event() {
        let many: Vec<(String, u32)> = (0..40).map(|n| (format!("n{n}"), n)).collect();
        let text = logged("json", || {
            tracing::info!(fields = %serde_json::json!(many), last = true, "hello");
        });
        let line: serde_json::Value = serde_json::from_str(text.trim()).unwrap();
        assert_eq!((&line["n0"], &line["n39"]), (&0.into(), &39.into()));
        assert_eq!(line["last"], true);
        assert!(line["fields"].is_null());
    }

    #[test]
    fn a_console_line_is_tab_separated() {
        let text = logged("console", || tracing::warn!(a = 1, b = "x", "hello"));
        let parts: Vec<&str> = text.trim_end().split('\t').collect();
        assert_eq!((parts[1], parts[3], parts[4]), ("warn", "hello", "{\"a\": 1, \"b\": \"x\"}"));
    }

    fn plain(text: &str) -> Line<'_> {
        Line { level: config::Level::Info, caller: "x", text }
    }

    #[test]
    fn what_the_journal_does_not_take_goes_elsewhere() {
        let root = tempfile::tempdir().unwrap();
        let (socket, path) = (root.path().join("socket"), root.path().join("log"));
        let listener = std::os::unix::net::UnixDatagram::bind(&socket).unwrap();
        let mut output = Output::new(open(path.to_str().unwrap(), None).unwrap());
        output.journal = Some(Journal::open(&socket, "etcd").unwrap());
        output.write(&plain("one\n"), |_| String::new());
        let mut bytes = [0; 100];
        assert!(listener.recv(&mut bytes).unwrap() > 0);
        drop(listener);
        output.write(&plain("two\n"), |_| String::new());
        assert_eq!(std::fs::read_to_string(path).unwrap(), "two\n");
    }

    #[test]
    fn a_log_that_nobody_takes_loses_lines_and_stops_nobody() {
        let (reader, writer) = io::pipe().unwrap();
        let mut output = Output::new(Sink::File(File::from(std::os::fd::OwnedFd::from(writer))));
        let long = format!("{}\n", "x".repeat(3 * PIECE_BYTES));
        for _ in 0..100 {
            output.write(&plain(&long), |_| String::new());
        }
        assert!(output.lost > 0);
        let mut reader = io::BufReader::new(reader);
        let mut line = String::new();
        let mut whole = 0;
        // What fits in the pipe ends in the middle of a line.
        while whole + output.lost < 100 {
            line.clear();
            reader.read_line(&mut line).unwrap();
            assert_eq!(line, long);
            whole += 1;
        }
        output.write(&plain("again\n"), |lines| lost(lines, 0, Form::Json));
        drop(output);
        let rest: Vec<String> = reader.lines().map(Result::unwrap).collect();
        let [cut @ .., said, again] = &rest[..] else { panic!("{rest:?}") };
        assert!(cut.len() <= 1 && cut.iter().all(|line| line.len() < long.len()));
        let said: serde_json::Value = serde_json::from_str(said).unwrap();
        assert_eq!(said["lines"], 100 - whole);
        assert_eq!(again, "again");
    }

    #[test]
    fn a_flood_of_one_message_is_thinned_and_others_pass() {
        let sampler = Sampler::new();
        let flood =
            |second| (0..1000).filter(|_| sampler.passes(config::Level::Warn, "x", second)).count();
        assert_eq!(flood(1), 100 + 9);
        assert!(sampler.passes(config::Level::Warn, "y", 1));
        assert_eq!(flood(2), 100 + 9);
    }
}
