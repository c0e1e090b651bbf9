//! Shell completion: small scripts that ask the program itself, through the hidden command
//! `__complete`, and the answers.
//!
//! The protocol is cobra's, so scripts made for etcdctl keep working: one completion a line, its
//! description after a tab, at the end `:` and a number whose bit 4 means "no file names" and bit 2
//! "no blank behind it".
//!
//! Commands, flags and values come from the definition of commands. Under the name rusd, arguments
//! are completed as well: [`live`] asks the cluster for keys, members, users and so on.

mod live;
mod scripts;

use clap::{Arg, Command};

use super::argv::{FlagKind, Flags, Word, find};
use super::options::{about, is_path};
use super::printer::Printer;
use super::spec::{Program, starts_by_itself};
use crate::go;
use live::Names;

const FILES: u32 = 0;
const NO_SPACE: u32 = 2;
const NO_FILES: u32 = 4;

/// The script for the arguments of `completion`, or an error text about them.
pub(super) fn check(program: Program, args: &[Word]) -> Result<String, String> {
    let [shell] = args else {
        return Err(format!("accepts 1 arg(s), received {}", args.len()));
    };
    let known = std::str::from_utf8(shell).ok().and_then(|shell| scripts::script(program, shell));
    known.ok_or_else(|| {
        let name = program.name();
        format!("invalid argument {} for \"{name} completion\"", go::quote(shell))
    })
}

/// Prints the completions of a command line whose last word is unfinished.
pub(super) fn complete(
    program: Program,
    root: &Command,
    words: &[Word],
    described: bool,
    printer: &Printer,
) {
    let (last, before) = match words.split_last() {
        Some((last, before)) => (last.as_slice(), before),
        None => (b"".as_slice(), words),
    };
    let line = Line::new(program, root, before, last);
    let (choices, directive) = line.choices();
    for (choice, description) in choices {
        if described && !description.is_empty() {
            printer.line(format!("{choice}\t{description}"));
        } else {
            printer.line(choice);
        }
    }
    printer.line(format!(":{directive}"));
    let name = match directive {
        FILES => "ShellCompDirectiveDefault",
        NO_FILES => "ShellCompDirectiveNoFileComp",
        _ => "ShellCompDirectiveNoSpace, ShellCompDirectiveNoFileComp",
    };
    printer.err(format!("Completion ended with directive: {name}\n"));
}

/// What to offer, with descriptions, which may be empty.
type Choices = Vec<(String, String)>;

/// A command line that is being typed.
struct Line<'a> {
    program: Program,
    /// The commands that it names so far.
    path: Vec<&'a Command>,
    /// All words before the last one.
    before: &'a [Word],
    /// Those that are no names of commands.
    words: Vec<Word>,
    last: &'a [u8],
}

impl<'a> Line<'a> {
    fn new(program: Program, root: &'a Command, before: &'a [Word], last: &'a [u8]) -> Self {
        let found = find(root, before);
        Self { program, path: found.path, before, words: found.words, last }
    }

    fn command(&self) -> &'a Command {
        self.path[self.path.len() - 1]
    }

    fn is_own(&self) -> bool {
        self.program == Program::Rusd
    }

    /// The flags that the command takes.
    fn args(&self) -> Vec<&'a Arg> {
        let depth = self.path.len() - 1;
        let has_globals = !(self.is_own() && starts_by_itself(&self.path));
        self.path
            .iter()
            .enumerate()
            .flat_map(|(at, command)| {
                command.get_arguments().filter(move |arg| at == depth || arg.is_global_set())
            })
            .filter(|arg| has_globals || !arg.is_hide_set())
            .collect()
    }

    fn choices(&self) -> (Choices, u32) {
        let Ok(last) = std::str::from_utf8(self.last) else {
            // Names are UTF-8, so none begins with other bytes.
            return (Vec::new(), FILES);
        };
        if self.is_own() && self.before.iter().any(|word| word == b"--") {
            // Behind it stand arguments alone, such as a program that `lock` starts.
            return (Vec::new(), FILES);
        }
        if let Some((name, value)) = last.strip_prefix("--").and_then(|flag| flag.split_once('=')) {
            return self.values_of(name, value);
        }
        let flags = Flags::of(&self.path);
        if let Some(flag) = self.before.last().and_then(|word| std::str::from_utf8(word).ok())
            && let Some(name) = flag.strip_prefix("--").or(by_short(&flags, flag).as_deref())
            && flags.get(name).is_some_and(|flag| flag.kind != FlagKind::Bool)
        {
            return self.values_of(name, last);
        }
        if last.starts_with('-') {
            return (self.flag_names(last), NO_FILES);
        }
        if self.is_own() && self.path.get(1).is_some_and(|command| command.get_name() == "help") {
            let about = find(self.path[0], &self.words);
            return (self.subcommands(about.command(), last), NO_FILES);
        }
        let command = self.command();
        if command.get_subcommands().next().is_some() {
            return (self.subcommands(command, last), NO_FILES);
        }
        match command.get_positionals().next() {
            Some(argument) if self.words.is_empty() => (possible(argument, last), NO_FILES),
            _ if self.is_own() => self.argument(flags, last),
            _ => (Vec::new(), FILES),
        }
    }

    /// All values that a flag can have; the shell picks those that match.
    fn values_of(&self, name: &str, value: &str) -> (Choices, u32) {
        let args = self.args();
        let arg = args.iter().find(|arg| arg.get_long() == Some(name));
        let fixed = arg.map(|arg| possible(arg, "")).unwrap_or_default();
        let Some(arg) = arg.filter(|_| self.is_own()) else { return (fixed, FILES) };
        if !fixed.is_empty() {
            return (fixed, NO_FILES);
        }
        match Names::of_flag(name) {
            _ if is_path(arg) => (Vec::new(), FILES),
            None => (Vec::new(), NO_FILES),
            // A list goes on behind its last comma.
            Some(Names::Endpoints) => {
                let (list, part) = value.split_at(value.rfind(',').map_or(0, |at| at + 1));
                let found = self.live(Names::Endpoints, part);
                let whole = found.into_iter().map(|(name, told)| (format!("{list}{name}"), told));
                (whole.collect(), NO_FILES)
            }
            Some(names) => ended(self.live(names, value)),
        }
    }

    /// What the next argument may be.
    fn argument(&self, mut flags: Flags, last: &str) -> (Choices, u32) {
        let Ok(args) = flags.parse(&self.words) else { return (Vec::new(), FILES) };
        match Names::of_argument(self.command(), args.len()) {
            Names::None => (Vec::new(), NO_FILES),
            Names::Files => (Vec::new(), FILES),
            Names::Words(words) => {
                let fitting = words.into_iter().filter(|word| word.starts_with(last));
                (fitting.map(|word| (word, String::new())).collect(), NO_FILES)
            }
            names => ended(self.live(names, last)),
        }
    }

    /// Asks the cluster that the words and variables name.
    fn live(&self, names: Names, last: &str) -> Choices {
        live::ask(names, &self.path, &self.words, last)
    }

    fn subcommands(&self, command: &Command, last: &str) -> Choices {
        let told = |command: &Command| match self.is_own() {
            true => about(command),
            false => command.get_about().map(ToString::to_string).unwrap_or_default(),
        };
        let mut names: Choices = command
            .get_subcommands()
            .filter(|command| command.get_name().starts_with(last))
            .map(|command| (command.get_name().to_string(), told(command)))
            .collect();
        names.sort();
        names
    }

    fn flag_names(&self, last: &str) -> Choices {
        let shows_globals = self.is_own();
        let mut names: Choices = self
            .args()
            .iter()
            .filter(|arg| shows_globals || !arg.is_hide_set())
            .filter_map(|arg| {
                let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
                Some((format!("--{}", arg.get_long()?), help))
            })
            .collect();
        let name = self.command().get_name();
        names.push(("--help".into(), format!("help for {name}")));
        names.retain(|(name, _)| name.starts_with(last));
        names.sort();
        names
    }
}

/// Names that end with a slash go on, so no blank follows them.
fn ended(names: Choices) -> (Choices, u32) {
    let goes_on = names.iter().any(|(name, _)| name.ends_with('/'));
    (names, if goes_on { NO_FILES | NO_SPACE } else { NO_FILES })
}

fn by_short(flags: &Flags, word: &str) -> Option<String> {
    let letter = *word.strip_prefix('-')?.as_bytes().first()?;
    flags.iter().find(|flag| flag.has_letter(letter)).map(|flag| flag.name.clone())
}

fn possible(arg: &Arg, last: &str) -> Choices {
    arg.get_possible_values()
        .iter()
        .map(|value| value.get_name().to_string())
        .filter(|name| name.starts_with(last))
        .map(|name| (name, String::new()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::spec::root;

    fn of(program: Program, line: &str) -> (Vec<String>, u32) {
        let root = root(program);
        let words: Vec<Word> = line.split(' ').map(|word| word.as_bytes().to_vec()).collect();
        let (last, before) = words.split_last().unwrap();
        let (choices, directive) = Line::new(program, &root, before, last).choices();
        (choices.into_iter().map(|(name, _)| name).collect(), directive)
    }

    #[test]
    fn commands_flags_and_values_complete() {
        let names = |line| of(Program::Etcdctl, line);
        assert_eq!(names("le"), (vec!["lease".into()], NO_FILES));
        assert_eq!(names("lease g"), (vec!["grant".into()], NO_FILES));
        assert_eq!(names("get --keys"), (vec!["--keys-only".into()], NO_FILES));
        assert_eq!(names("get -w j").0.len(), 5);
        assert_eq!(names("get --order="), (vec!["ASCEND".into(), "DESCEND".into()], FILES));
        assert_eq!(names("completion z"), (vec!["zsh".into()], NO_FILES));
        assert_eq!(names("get a"), (Vec::new(), FILES));
        assert_eq!(names("get --endp"), (Vec::new(), NO_FILES));
    }

    #[test]
    fn under_our_name_servers_flags_files_and_fixed_words_complete() {
        let names = |line| of(Program::Rusd, line);
        let one = |name: &str, directive| (vec![name.to_owned()], directive);
        assert_eq!(names("ser"), one("serve", NO_FILES));
        assert_eq!(names("serve --initial-cluster-s"), one("--initial-cluster-state", NO_FILES));
        let states = vec!["new".to_owned(), "existing".to_owned()];
        assert_eq!(names("serve --initial-cluster-state "), (states, NO_FILES));
        assert_eq!(names("serve --log-level=").0.len(), 6);
        assert_eq!(names("serve --data-dir "), (Vec::new(), FILES));
        assert_eq!(names("serve --name "), (Vec::new(), NO_FILES));
        // The server does not take the client's flags.
        assert!(names("serve --command-t").0.is_empty());
        assert_eq!(names("gateway start --listen"), one("--listen-addr", NO_FILES));
        assert_eq!(names("get --endp"), one("--endpoints", NO_FILES));
        assert_eq!(names("bench r"), one("range", NO_FILES));
        assert_eq!(names("bench put --val"), one("--val-size", NO_FILES));
        assert_eq!(names("role grant-permission r readw"), one("readwrite", NO_FILES));
        assert_eq!(names("snapshot save b"), (Vec::new(), FILES));
        assert_eq!(names("lock l -- s"), (Vec::new(), FILES));
        assert_eq!(names("completion el"), one("elvish", NO_FILES));
        assert_eq!(names("help lease gr"), one("grant", NO_FILES));
        assert_eq!(names("help ser"), one("serve", NO_FILES));
        assert_eq!(names("man op"), one("operate", NO_FILES));
    }
}
