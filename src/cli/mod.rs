//! The command line: etcdctl, etcdutl and rusd's own commands.
//!
//! ```text
//! words ─ argv::find ─> command ─ Flags::parse ─> Context ─ commands::… ─> Display ─> Printer
//!            └──────── spec: the one definition ────────┘         └─ client
//! ```
//!
//! `spec` defines every command and flag once; parsing (`argv`), help, completions and the man pages
//! read it. A command gets a `Context` and returns an `Outcome`; only the `Printer` touches
//! standard output and error. etcdctl's words, formats, codes and complaints are a contract; where
//! it panics, rusd answers an error with the same code.
//!
//! Under its own name rusd is kinder: `kind` takes values with units, `hints` tells mistakes of the
//! command line, `explain` every other error. Which of the two a program is, is decided where a
//! failure is printed, where a value is read, and in `Context`.

mod argv;
mod commands;
mod completion;
mod confirm;
mod context;
mod decode;
mod exit;
mod explain;
mod format;
mod grid;
mod help;
mod hints;
mod json;
mod kind;
mod man;
mod options;
mod printer;
mod record;
mod shell;
mod size;
mod spec;
mod table;
mod terminal;

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::process::ExitCode;

use argv::{FlagError, Flags, FoundCommand, Word, find};
use context::Context;
use exit::{Exit, Failure};
use printer::Printer;

use crate::{go, types};

pub use spec::Program;

/// The etcd release whose behaviour this program has.
pub const ETCD_VERSION: &str = "3.7.1";
/// Its API version.
pub const API_VERSION: &str = "3.7";

/// Runs a program with its arguments, `argv[0]` not included.
pub fn main(program: Program, arguments: Vec<OsString>) -> ExitCode {
    let words: Vec<Word> = arguments.into_iter().map(OsString::into_vec).collect();
    let printer = Printer::new(program);
    let exit = match dispatch(program, &words, &printer) {
        Ok(()) => written(&printer),
        Err(failure) => {
            let (exit, message) = match program {
                Program::Rusd => explain::failure(failure),
                _ => (failure.exit, failure.message.map(|message| message.bytes().to_vec())),
            };
            if let Some(message) = message {
                printer.err([b"Error: ", message.as_slice(), b"\n"].concat());
            }
            exit
        }
    };
    ExitCode::from(exit.code())
}

/// The exit of a command that succeeded: an error if its output could not be written.
fn written(printer: &Printer) -> Exit {
    let Some(error) = printer.failure() else { return Exit::Success };
    printer.err(format!("Error: write /dev/stdout: {}\n", go::reason(&error)));
    Exit::Error
}

/// For the fuzzer: parses any words and lines as commands, without running them, and decodes lines as
/// values. Returns how many were understood.
pub fn count_understood(program: Program, words: &[Vec<u8>], lines: &[Vec<u8>]) -> usize {
    let root = spec::root(program);
    let found = find(&root, words);
    let mut flags = Flags::of(&found.path);
    let first = argv::first_argument(&flags, &found.words);
    let near = first.map(|at| argv::suggestions(found.command(), &found.words[at]));
    let arguments = flags.parse(&found.words).unwrap_or_default();
    let shown: usize = flags.iter().map(|flag| flag.display().len()).sum();
    let decoded = lines.iter().filter_map(|line| decode::decode(line));
    let decoded: usize = decoded.map(|decoded| decoded.lines().len().min(1)).sum();
    let lines = lines.iter().filter(|line| commands::understands(line)).count();
    arguments.len() + shown + lines + decoded + near.map_or(0, |near| near.len())
}

fn dispatch(program: Program, words: &[Word], printer: &Printer) -> exit::Outcome {
    let root = spec::root(program);
    if let Some(request @ (b"__complete" | b"__completeNoDesc")) = words.first().map(Vec::as_slice)
    {
        let described = request == b"__complete";
        completion::complete(program, &root, &words[1..], described, printer);
        return Ok(());
    }
    let found = find(&root, words);
    let mut flags = Flags::of(&found.path);
    if program == Program::Rusd
        && matches!(words, [word] if [b"--version".as_slice(), b"-V"].contains(&word.as_slice()))
    {
        return version(flags, printer);
    }
    let parsed = flags.parse(&found.words);
    // Set before the first complaint, which may have a colour.
    let coloured = printer.set_colour(flags.bytes("color"));
    let is_group = found.command().get_subcommands().next().is_some();
    if (found.path.len() == 1 || program == Program::Rusd && is_group)
        && let Some(at) = argv::first_argument(&flags, &found.words)
    {
        return unknown_command(program, &found, at, printer);
    }
    let args = match parsed {
        Ok(args) => args,
        Err(FlagError::Help) => return show_help(program, &found, printer),
        Err(FlagError::Message(message)) => return misused(program, &found, &message, printer),
    };
    if let Err(message) = coloured {
        return misused(program, &found, message.as_bytes(), printer);
    }
    let path: Vec<_> = found.path[1..].iter().map(|command| command.get_name()).collect();
    match path.as_slice() {
        ["help"] => return help_of(program, &root, &args, printer),
        ["options"] => {
            printer.out(help::options(program, &root));
            return Ok(());
        }
        ["completion"] => {
            let script = completion::check(program, &args);
            let wrong = |text: String| misused(program, &found, text.as_bytes(), printer);
            return script.map_or_else(wrong, |script| {
                printer.out(script);
                Ok(())
            });
        }
        ["man"] => return man::run(&root, &flags, &args, printer),
        ["hashkv"] if program == Program::Etcdutl && args.len() != 1 => {
            let text = format!("accepts 1 arg(s), received {}", args.len());
            return misused(program, &found, text.as_bytes(), printer);
        }
        _ if is_group || path.is_empty() => return show_help(program, &found, printer),
        _ => {}
    }
    if let Some(message) = missing(&flags) {
        return misused(program, &found, message.as_bytes(), printer);
    }
    if program == Program::Rusd
        && let Some(missing) = hints::missing_argument(&usage_of(found.command()), args.len())
    {
        let message = format!("missing argument {missing}");
        return misused(program, &found, message.as_bytes(), printer);
    }
    let context = Context::new(program, flags, args, words.to_vec(), printer.clone());
    commands::run(&path, context)
}

/// `--version` and `-V` in the place of a command.
fn version(flags: Flags, printer: &Printer) -> exit::Outcome {
    let context = Context::new(Program::Rusd, flags, Vec::new(), Vec::new(), printer.clone());
    commands::run(&["version"], context)
}

fn show_help(program: Program, found: &FoundCommand<'_>, printer: &Printer) -> exit::Outcome {
    printer.out(help::help(program, &found.path));
    Ok(())
}

/// `help PATH…`.
fn help_of(
    program: Program,
    root: &clap::Command,
    args: &[Word],
    printer: &Printer,
) -> exit::Outcome {
    let found = find(root, args);
    if found.path.len() == 1 && !args.is_empty() {
        if program == Program::Rusd {
            return unknown_command(program, &found, 0, printer);
        }
        let names: Vec<_> = args.iter().map(|word| go::backquote(word)).collect();
        printer.err(format!("Unknown help topic [{}]\n", names.join(" ")));
        printer.err(help::usage(program, &found.path));
        return Ok(());
    }
    show_help(program, &found, printer)
}

fn unknown_command(
    program: Program,
    found: &FoundCommand<'_>,
    at: usize,
    printer: &Printer,
) -> exit::Outcome {
    let (name, typed) = (program.name(), &found.words[at]);
    if program == Program::Rusd {
        let names = found.command().get_subcommands().map(clap::Command::get_name);
        let word = std::str::from_utf8(typed).unwrap_or_default();
        let parent = path_of(found);
        let text = hints::unknown_command(&go::quote(typed), &parent, types::nearest(word, names));
        let stop = if text.ends_with('?') { "" } else { "." };
        let text = format!("{text}{stop} '{parent} --help' lists all");
        return Err(Failure::new(Exit::Usage, text));
    }
    let mut text = format!("unknown command {} for \"{name}\"", go::quote(typed));
    let near = argv::suggestions(found.command(), typed);
    if !near.is_empty() {
        let lines: String = near.iter().map(|name| format!("\t{name}\n")).collect();
        text.push_str(&format!("\n\nDid you mean this?\n{lines}"));
    }
    printer.err(format!("Error: {text}\nRun '{name} --help' for usage.\n"));
    fail(program, text.as_bytes())
}

/// Prints an error about flags or arguments, with the usage.
fn misused(
    program: Program,
    found: &FoundCommand<'_>,
    message: &[u8],
    printer: &Printer,
) -> exit::Outcome {
    if program == Program::Rusd {
        let (path, usage) = (path_of(found), usage_of(found.command()));
        let parent = path.rsplit_once(' ').map_or("rusd", |(parent, _)| parent);
        let usage = match found.path.len() {
            1 => format!("{path} <command>"),
            _ => format!("{parent} {usage}"),
        };
        let behind = match found.command().get_name() {
            "lock" if message.starts_with(b"unknown flag") => hints::BEHIND_DASHES,
            _ => "",
        };
        let tail =
            format!("{behind}\nUsage: {usage}\n'{path} --help' shows the flags and examples.\n");
        printer.err([b"Error: ", message, tail.as_bytes()].concat());
        return Err(Failure::silent(Exit::Usage));
    }
    let usage = help::usage(program, &found.path);
    printer.err([b"Error: ", message, b"\n", usage.as_bytes(), b"\n"].concat());
    fail(program, message)
}

/// The names of the commands from the root down to the one that was found.
fn path_of(found: &FoundCommand<'_>) -> String {
    found.path.iter().map(|command| command.get_name()).collect::<Vec<_>>().join(" ")
}

fn usage_of(command: &clap::Command) -> String {
    command.get_overridden_usage().map(ToString::to_string).unwrap_or_default()
}

/// The outcome of a misuse. etcdutl prints the error a second time, so rusd does under that name.
fn fail(program: Program, message: &[u8]) -> exit::Outcome {
    match program {
        Program::Etcdutl => Err(Failure::bytes(Exit::Error, message)),
        _ => Err(Failure::silent(Exit::Error)),
    }
}

fn missing(flags: &Flags) -> Option<String> {
    let names: Vec<_> = flags
        .iter()
        .filter(|flag| flag.required && !flag.changed)
        .map(|flag| format!("\"{}\"", flag.name))
        .collect();
    if names.is_empty() {
        return None;
    }
    Some(format!("required flag(s) {} not set", names.join(", ")))
}
