//! Help and usage texts: under etcd's names in the layout of etcdctl's, under our own in that of
//! [`own`].

mod own;

use std::io;

use clap::{Arg, Command};

use super::argv::{FlagKind, default_of, kind_of};
use super::spec::{GROUPS, Program};
use super::terminal;
use crate::limits::{HELP_COLUMNS, HELP_COLUMNS_MAX};

/// The help of the last command of a path.
pub(super) fn help(program: Program, path: &[&Command]) -> String {
    if program == Program::Rusd {
        return own::page(path, width());
    }
    let command = path[path.len() - 1];
    let mut out = String::new();
    let about = command.get_long_about().or(command.get_about()).map(ToString::to_string);
    let about = about.unwrap_or_default();
    if !about.is_empty() && program != Program::Etcdutl {
        out.push_str(about.trim_end());
        out.push_str("\n\n");
    }
    out.push_str(&usage(program, path));
    if program != Program::Etcdutl {
        let name = program.name();
        out.push_str(&format!(
            "Use \"{name} options\" for a list of global command-line options (applies to all \
             commands).\n"
        ));
    }
    out
}

/// The text of `options`: the flags that every command has.
pub(super) fn options(program: Program, root: &Command) -> String {
    if program == Program::Rusd {
        return own::globals(root, width());
    }
    let globals: Vec<_> = root.get_arguments().collect();
    let title = "The following options can be passed to any command:\n\n";
    format!("{title}{}", flags(&globals, None))
}

/// The columns of the terminal, within what can be read; the usual ones where there is none.
fn width() -> usize {
    match terminal::width(&io::stdout()) {
        usize::MAX => HELP_COLUMNS,
        columns => columns.clamp(HELP_COLUMNS / 2, HELP_COLUMNS_MAX),
    }
}

/// The usage of the last command of a path.
pub(super) fn usage(program: Program, path: &[&Command]) -> String {
    if program == Program::Rusd {
        return own::short(path);
    }
    let command = path[path.len() - 1];
    let names: Vec<_> = path.iter().map(|command| command.get_name()).collect();
    let names = names.join(" ");
    let parents = path[..path.len() - 1].iter().map(|command| format!("{} ", command.get_name()));
    let runs = command.get_subcommands().next().is_none();
    let mut out = String::from("Usage:");
    if runs {
        let line = command.get_overridden_usage().map(ToString::to_string).unwrap_or_default();
        let flags = if command.get_name() == "completion" { "" } else { " [flags]" };
        out.push_str(&format!("\n  {}{line}{flags}", parents.collect::<String>()));
    } else {
        out.push_str(&format!("\n  {names} [command]"));
    }
    if let Some(examples) = command.get_after_help() {
        out.push_str(&format!("\n\nExamples:\n{examples}"));
    }
    if !runs {
        out.push_str(&commands(program, command, path.len() == 1));
    }
    let hidden_help = path.len() == 1 && program != Program::Etcdutl;
    let own: Vec<_> = command.get_arguments().filter(|arg| shown(arg)).collect();
    if !own.is_empty() || !hidden_help {
        let help = Some(format!("help for {}", command.get_name()));
        out.push_str("\n\nFlags:\n");
        out.push_str(flags(&own, help.filter(|_| !hidden_help)).trim_end());
    }
    let parents = &path[..path.len() - 1];
    let inherited: Vec<_> = parents
        .iter()
        .flat_map(|command| command.get_arguments())
        .filter(|arg| shown(arg) && arg.is_global_set())
        .collect();
    if !inherited.is_empty() {
        out.push_str("\n\nGlobal Flags:\n");
        out.push_str(flags(&inherited, None).trim_end());
    }
    if !runs {
        out.push_str(&format!(
            "\n\nUse \"{names} [command] --help\" for more information about a command."
        ));
    }
    out.push('\n');
    out
}

fn shown(arg: &Arg) -> bool {
    arg.get_long().is_some() && !arg.is_hide_set()
}

fn commands(program: Program, command: &Command, is_root: bool) -> String {
    let mut all: Vec<_> = command.get_subcommands().collect();
    all.sort_by_key(|command| command.get_name());
    let width = all.iter().map(|command| command.get_name().len()).max().unwrap_or(0).max(11);
    let line = |command: &Command| {
        let about = command.get_about().map(ToString::to_string).unwrap_or_default();
        format!("\n  {:width$} {about}", command.get_name())
    };
    if !is_root || program == Program::Etcdutl {
        let lines: String = all.into_iter().map(line).collect();
        return format!("\n\nAvailable Commands:{lines}");
    }
    let group = |(title, names): &(&str, &[&str])| {
        let members = all.iter().filter(|command| names.contains(&command.get_name()));
        let lines: String = members.map(|command| line(command)).collect();
        if lines.is_empty() { lines } else { format!("\n\n{title}{lines}") }
    };
    GROUPS.iter().map(group).collect()
}

/// All flags, sorted, one per line; `help` is the text for `--help`, which commands do not define.
fn flags(args: &[&Arg], help: Option<String>) -> String {
    let mut rows: Vec<_> = args.iter().map(|arg| row(arg)).collect();
    if let Some(text) = help {
        rows.push(("help".into(), "  -h, --help".into(), text));
    }
    rows.sort();
    let width = rows.iter().map(|(_, left, _)| left.chars().count()).max().unwrap_or(0) + 3;
    rows.iter().map(|(_, left, right)| format!("{left:width$}{right}\n")).collect()
}

fn row(arg: &Arg) -> (String, String, String) {
    let name = arg.get_long().unwrap_or_default().to_string();
    let short = match arg.get_short() {
        Some(short) => format!("  -{short}, "),
        None => "      ".into(),
    };
    let kind = kind_of(arg);
    let value = match kind {
        FlagKind::Bool => "",
        FlagKind::Bytes | FlagKind::String => " string",
        FlagKind::Strings => " strings",
        FlagKind::Int | FlagKind::Size | FlagKind::Seconds => " int",
        FlagKind::Uint => " uint",
        FlagKind::Duration => " duration",
    };
    let is_text = matches!(kind, FlagKind::Bytes | FlagKind::String);
    let default = default_of(arg);
    let default = match (kind, default.as_str()) {
        (_, "" | "0" | "0s") if !is_text => String::new(),
        (_, "") => String::new(),
        (_, text) if is_text => format!(" (default \"{text}\")"),
        (FlagKind::Strings, text) => format!(" (default [{text}])"),
        (_, text) => format!(" (default {text})"),
    };
    let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
    (name.clone(), format!("{short}--{name}{value}"), format!("{help}{default}"))
}
