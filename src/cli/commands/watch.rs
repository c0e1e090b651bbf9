//! `watch`: prints events as they come, runs a command for each, or takes watches from standard
//! input.

use std::env;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};

use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::Command;

use super::lock::{exit_text, spawn_error};
use super::txn::split;
use crate::cli::argv::{FlagError, Flags, Word};
use crate::cli::context::Context;
use crate::cli::exit::{Exit, Failure, Outcome};
use crate::cli::explain;
use crate::cli::spec::Program;
use crate::client::{Progress, WatchBatch, WatchSpec, Watcher, prefix_end};
use crate::go;
use crate::pb::Event;

const KEY_VARIABLE: &str = "ETCDCTL_WATCH_KEY";
const END_VARIABLE: &str = "ETCDCTL_WATCH_RANGE_END";

/// Key and range end from the environment, used in the place of arguments.
#[derive(Default)]
struct Defaults {
    key: Vec<u8>,
    end: Vec<u8>,
}

pub(super) async fn run(mut context: Context) -> Outcome {
    let variable = |name| env::var_os(name).map(OsString::into_vec).unwrap_or_default();
    let defaults = Defaults { key: variable(KEY_VARIABLE), end: variable(END_VARIABLE) };
    if defaults.key.is_empty() && !defaults.end.is_empty() {
        return Err(Failure::arguments(format!(
            "{KEY_VARIABLE} is empty but got {END_VARIABLE}={}",
            go::quote(&defaults.end)
        )));
    }
    if context.flags.bool("interactive") {
        return interactive(context, &defaults).await;
    }
    let raw = raw_words(&context.words);
    let (args, command) = arguments(&raw, &context.args, &defaults)?;
    let client = context.client().await?;
    let spec = watch_spec(&args, &context.flags).map_err(Failure::arguments)?;
    let mut watcher = Watcher::new(&client, true);
    watcher.add(spec);
    while let Some(batch) = watcher.next().await {
        show(&context, &batch).await?;
        execute(&context, &batch, &command).await?;
        if context.printer.closed() {
            return Ok(());
        }
    }
    Err(Failure::new(Exit::Interrupted, "watch is canceled by the server"))
}

/// The words behind the first `watch` of the command line, with flags and `--` as they were given;
/// all words if the command was abbreviated.
fn raw_words(words: &[Word]) -> Vec<Word> {
    let at = words.iter().position(|word| word == b"watch");
    words[at.map_or(0, |at| at + 1)..].to_vec()
}

/// Splits the command line into the watch's arguments and the command behind `--`.
fn arguments(
    raw: &[Word],
    parsed: &[Word],
    defaults: &Defaults,
) -> Result<(Vec<Word>, Vec<Word>), Failure> {
    let separator = raw.iter().position(|word| word == b"--");
    if separator.is_some_and(|at| at + 1 == raw.len()) {
        return Err(Failure::arguments(NO_COMMAND));
    }
    let key_given = !defaults.key.is_empty();
    match separator {
        None if raw.is_empty() && !key_given => return Err(Failure::arguments(BAD_NUMBER)),
        None if key_given && !parsed.is_empty() => return Err(Failure::arguments(CONFLICT)),
        Some(at) if key_given && parsed.len() > raw.len() - at - 1 => {
            return Err(Failure::arguments(CONFLICT));
        }
        _ => {}
    }
    Ok(with_command(raw, parsed.to_vec(), separator, defaults))
}

const BAD_NUMBER: &str = "bad number of arguments";
const NO_COMMAND: &str = "bad number of arguments (found separator --, but no commands)";
const CONFLICT: &str = "bad number of arguments (found conflicting environment key)";

/// Puts the key of the environment in front, and removes the words of the command from the parsed
/// arguments. The command begins at the last argument that equals its first word: etcdctl's rule,
/// which cuts wrongly if a later argument of the command is the same word.
fn with_command(
    raw: &[Word],
    parsed: Vec<Word>,
    separator: Option<usize>,
    defaults: &Defaults,
) -> (Vec<Word>, Vec<Word>) {
    let mut args = Vec::new();
    if !defaults.key.is_empty() {
        args.push(defaults.key.clone());
        args.extend(Some(defaults.end.clone()).filter(|end| !end.is_empty()));
    }
    args.extend(parsed);
    let Some(separator) = separator else { return (args, Vec::new()) };
    let command = raw[separator + 1..].to_vec();
    let cut = args.iter().rposition(|word| Some(word) == command.first());
    args.truncate(cut.unwrap_or(args.len()));
    (args, command)
}

fn watch_spec(args: &[Word], flags: &Flags) -> Result<WatchSpec, String> {
    let [key, rest @ ..] = args else { return Err(BAD_NUMBER.into()) };
    let prefix = flags.bool("prefix");
    let range_end = match rest {
        [_] if prefix => return Err("`range_end` and `--prefix` are mutually exclusive".into()),
        [end] => end.clone(),
        _ if prefix => prefix_end(key),
        _ => Vec::new(),
    };
    let key = if prefix && key.is_empty() { vec![0] } else { key.clone() };
    Ok(WatchSpec {
        key: key.into(),
        range_end: range_end.into(),
        revision: flags.int("rev"),
        prev_kv: flags.bool("prev-kv"),
        progress_notify: flags.bool("progress-notify"),
    })
}

async fn show(context: &Context, batch: &WatchBatch) -> Outcome {
    if batch.canceled {
        let mut reason = batch.error().unwrap_or_default();
        if context.program == Program::Rusd {
            reason = explain::reason(&reason);
        }
        context.printer.err(format!("watch was canceled ({reason})\n"));
    }
    if let Progress::UpTo(revision) = batch.progress() {
        context.display.watch_progress(revision);
    }
    context.display.watch(batch)
}

async fn execute(context: &Context, batch: &WatchBatch, command: &[Word]) -> Outcome {
    for event in &batch.events {
        let [program, words @ ..] = command else { return Ok(()) };
        let status = Command::new(OsStr::from_bytes(program))
            .args(words.iter().map(|word| OsStr::from_bytes(word)))
            .envs(variables(batch, event))
            .stdin(std::process::Stdio::null())
            .status()
            .await;
        let reason = match status {
            Ok(status) if status.success() => continue,
            Ok(status) => exit_text(status).into(),
            Err(error) => spawn_error(program, &error),
        };
        let shown: Vec<_> = command.iter().map(go::quote).collect();
        let shown = format!("command [{}] error (", shown.join(" "));
        context.printer.err([shown.as_bytes(), &reason, b")\n"].concat());
        return Err(Failure::silent(Exit::Error));
    }
    Ok(())
}

fn variables(batch: &WatchBatch, event: &Event) -> [(&'static str, String); 4] {
    let kv = event.kv.clone().unwrap_or_default();
    let kind = event.r#type().as_str_name();
    [
        ("ETCD_WATCH_REVISION", batch.header.revision.to_string()),
        ("ETCD_WATCH_EVENT_TYPE", go::quote(kind.as_bytes())),
        ("ETCD_WATCH_KEY", go::quote(&kv.key)),
        ("ETCD_WATCH_VALUE", go::quote(&kv.value)),
    ]
}

/// Runs watches that are read from standard input, all on one stream.
async fn interactive(mut context: Context, defaults: &Defaults) -> Outcome {
    let client = context.client().await?;
    let mut watcher = Watcher::new(&client, true);
    let mut commands: Vec<Vec<Word>> = Vec::new();
    let mut input = BufReader::new(tokio::io::stdin()).split(b'\n');
    loop {
        let line = tokio::select! {
            biased;
            Some(batch) = watcher.next() => {
                show(&context, &batch).await?;
                execute(&context, &batch, &commands[batch.watch]).await?;
                if context.printer.closed() {
                    return Ok(());
                }
                continue;
            }
            line = input.next_segment() => line,
        };
        let Ok(Some(line)) = line else {
            let text = "error reading watch request line: EOF";
            return Err(Failure::new(Exit::InvalidInput, text));
        };
        match request(&line, defaults) {
            Ok(Some((spec, command))) => {
                watcher.add(spec);
                commands.push(command);
            }
            Ok(None) => watcher.request_progress(),
            Err(Refusal::Said(text)) => {
                context.printer.err([b"Invalid command", text.as_slice(), b"\n"].concat());
            }
            Err(Refusal::Fatal(failure)) => return Err(failure),
        }
    }
}

enum Refusal {
    /// The text is printed, and the next line is read.
    Said(Word),
    Fatal(Failure),
}

/// Whether an interactive watch accepts the line.
pub(super) fn understands(line: &[u8]) -> bool {
    request(line, &Defaults::default()).is_ok()
}

/// Parses a line: a watch with its command, or None for `progress`.
fn request(line: &[u8], defaults: &Defaults) -> Result<Option<(WatchSpec, Vec<Word>)>, Refusal> {
    let said = |before: &str, why: &str| {
        let why = format!(" ({why})");
        Refusal::Said([before.as_bytes(), line, why.as_bytes()].concat())
    };
    let words = split(line).map_err(Refusal::Fatal)?;
    match words.first().map(Vec::as_slice) {
        None => return Err(said(": ", "watch and progress supported")),
        Some(b"progress") => return Ok(None),
        Some(b"watch") => {}
        Some(_) => return Err(said(" ", "only support watch")),
    }
    if words.len() < 2 && defaults.key.is_empty() {
        return Err(said(" ", "command type or key is not provided"));
    }
    let words = &words[1..];
    let fatal = |text: &str| Refusal::Fatal(Failure::arguments(text));
    let separator = words.iter().position(|word| word == b"--");
    if separator.is_some_and(|at| at + 1 == words.len()) {
        return Err(fatal(NO_COMMAND));
    }
    let root = crate::cli::spec::root(crate::cli::Program::Etcdctl);
    let Some(command) = root.find_subcommand("watch") else { return Err(fatal(BAD_NUMBER)) };
    let mut flags = Flags::of(&[command]);
    let parsed = flags.parse(words).map_err(|error| match error {
        FlagError::Help => fatal("pflag: help requested"),
        FlagError::Message(text) => Refusal::Fatal(Failure::bytes(Exit::BadArguments, text)),
    })?;
    match (separator, defaults.key.is_empty()) {
        (None, true) if parsed.is_empty() => return Err(fatal(BAD_NUMBER)),
        (None, false) if !parsed.is_empty() => return Err(fatal(CONFLICT)),
        _ => {}
    }
    let (args, command) = with_command(words, parsed, separator, defaults);
    match watch_spec(&args, &flags) {
        Ok(spec) => Ok(Some((spec, command))),
        Err(text) => Err(said(" ", &text)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<Word> {
        text.split_whitespace().map(|word| word.as_bytes().to_vec()).collect()
    }

    #[test]
    fn a_command_is_cut_at_the_last_repeat_of_its_first_word() {
        let none = Defaults { key: Vec::new(), end: Vec::new() };
        let raw = words("k -- echo a echo");
        let (args, command) = arguments(&raw, &words("k echo a echo"), &none).unwrap();
        assert_eq!(args, words("k echo a"));
        assert_eq!(command, words("echo a echo"));
    }

    #[test]
    fn the_environments_key_stands_in_front() {
        let defaults = Defaults { key: b"w".to_vec(), end: b"x".to_vec() };
        let raw = words("-- echo hi");
        let (args, command) = arguments(&raw, &words("echo hi"), &defaults).unwrap();
        assert_eq!((args, command), (words("w x"), words("echo hi")));
        let conflict = arguments(&words("k -- echo"), &words("k echo"), &defaults).unwrap_err();
        assert_eq!(conflict.message.unwrap_or_default().to_string(), CONFLICT);
    }
}
