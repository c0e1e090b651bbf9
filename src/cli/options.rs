//! A command's flags as help, the manual and completions show them.

use clap::{Arg, Command, ValueHint};

use super::argv::{FlagKind, default_of, kind_of};

/// The heading of flags that have none of their own.
const TITLE: &str = "Options";

/// Longest list of values that stands in the place of a flag's type.
const VALUES_SHOWN_MAX: usize = 26;

pub(super) struct Shown {
    /// Such as `-w, --write-out`.
    pub names: String,
    /// What stands for its value; empty for a switch.
    pub value: String,
    /// What it does, and the values that it takes if they are few.
    pub help: String,
    pub default: String,
    /// The environment variable that stands for it.
    pub variable: Option<String>,
}

/// The flags by heading, in the order of their definition.
pub(super) fn by_heading<'a>(args: impl Iterator<Item = &'a Arg>) -> Vec<(String, Vec<Shown>)> {
    let mut groups: Vec<(String, Vec<Shown>)> = Vec::new();
    for arg in args.filter(|arg| arg.get_long().is_some()) {
        let title = arg.get_help_heading().unwrap_or(TITLE);
        let flag = shown(arg);
        match groups.iter_mut().find(|(found, _)| found == title) {
            Some((_, flags)) => flags.push(flag),
            None => groups.push((title.to_owned(), vec![flag])),
        }
    }
    groups
}

/// The flags that a command defines and shows. For the last command of a path, those of its parents
/// are added that it inherits, but for the root's.
pub(super) fn own<'a>(path: &[&'a Command]) -> impl Iterator<Item = &'a Arg> + use<'a> {
    let (last, parents) =
        path.split_last().map_or((None, path), |(last, rest)| (Some(*last), rest));
    let parents: Vec<&Command> = parents.iter().skip(1).copied().collect();
    let inherited = parents.into_iter().flat_map(Command::get_arguments);
    let inherited = inherited.filter(|arg| arg.is_global_set());
    last.into_iter()
        .flat_map(Command::get_arguments)
        .chain(inherited)
        .filter(|arg| !arg.is_hide_set())
}

fn shown(arg: &Arg) -> Shown {
    let long = arg.get_long().unwrap_or_default();
    let names = match arg.get_short() {
        Some(short) => format!("-{short}, --{long}"),
        None => format!("--{long}"),
    };
    let mut help = arg.get_help().map(ToString::to_string).unwrap_or_default();
    let values: Vec<String> =
        arg.get_possible_values().iter().map(|value| value.get_name().to_owned()).collect();
    let list = values.join("|");
    let mut value = placeholder(arg);
    let is_switch = value.is_empty();
    if !is_switch && !values.is_empty() {
        let is_told = values.iter().all(|value| help.contains(value.as_str()));
        // A list with `=` holds examples.
        let are_all = values.iter().all(|value| !value.contains('='));
        if list.len() <= VALUES_SHOWN_MAX && values.len() > 1 {
            value = list;
        } else if !is_told && are_all {
            help = format!("{}. One of {}.", help.trim_end_matches('.'), values.join(", "));
        }
    }
    let variable = arg.get_env().and_then(|name| name.to_str()).map(str::to_owned);
    Shown { names, value, help, default: default_of(arg), variable }
}

fn placeholder(arg: &Arg) -> String {
    if let Some([_, unit, ..]) = arg.get_value_names() {
        return unit.to_string();
    }
    match kind_of(arg) {
        FlagKind::Bool => "",
        FlagKind::Bytes if is_path(arg) => "path",
        FlagKind::Bytes | FlagKind::String => "text",
        FlagKind::Strings => "list",
        FlagKind::Int | FlagKind::Uint => "number",
        _ => arg.get_value_names().and_then(|names| names.first()).map_or("", |name| name.as_str()),
    }
    .to_owned()
}

/// Whether a flag names a file or directory.
pub(super) fn is_path(arg: &Arg) -> bool {
    arg.get_value_hint() == ValueHint::AnyPath
}

/// A command's short description, without etcdctl's advice.
pub(super) fn about(command: &Command) -> String {
    let about = command.get_about().map(ToString::to_string).unwrap_or_default();
    about.split(". Use `").next().unwrap_or_default().to_owned()
}

/// What a command's help and manual say first.
pub(super) fn long_about(command: &Command) -> String {
    let long = command.get_long_about().map(ToString::to_string).unwrap_or_default();
    if long.trim().is_empty() { about(command) } else { long.trim().to_owned() }
}

/// The line that shows a command's arguments, with the names of its parents.
pub(super) fn usage(path: &[&Command]) -> String {
    let Some((last, parents)) = path.split_last() else { return String::new() };
    let mut words: Vec<String> =
        parents.iter().map(|command| command.get_name().to_owned()).collect();
    if last.get_subcommands().next().is_some() {
        words.push(format!("{} <command>", last.get_name()));
        return words.join(" ");
    }
    let line = last.get_overridden_usage().map(ToString::to_string).unwrap_or_default();
    let has_options = ["[options]", "[flags]"].iter().any(|word| line.contains(word));
    let name = last.get_name();
    words.push(match line.strip_prefix(name) {
        Some(rest) if !has_options && own(path).next().is_some() => {
            format!("{name} [options]{rest}")
        }
        _ => line,
    });
    words.join(" ")
}

/// A part of a description.
pub(super) enum Paragraph {
    /// Running text.
    Text(String),
    /// Lines that stay as they are: those of a shell, of a list or of a table.
    Lines(Vec<String>),
}

/// The paragraphs of a text, which empty lines separate.
pub(super) fn paragraphs(text: &str) -> Vec<Paragraph> {
    let parts = text.trim().split("\n\n").filter(|part| !part.trim().is_empty());
    let paragraph = |part: &str| {
        let lines: Vec<String> = part.lines().map(|line| line.trim_end().to_owned()).collect();
        match part.lines().any(|line| line.starts_with([' ', '$'])) {
            true => Paragraph::Lines(lines),
            false => Paragraph::Text(lines.join(" ")),
        }
    };
    parts.map(paragraph).collect()
}
