//! Reading a command line the way etcdctl's libraries (cobra and pflag) do.
//!
//! Flags may stand anywhere, mixed with arguments and even before the subcommand they belong to;
//! subcommands may be abbreviated as long as they are unique, flags may not; a value follows its
//! flag after `=` or as the next word. Arguments are bytes: keys need not be UTF-8.

use std::collections::BTreeMap;

use clap::{Arg, ArgAction, Command};

use super::go;

pub(super) type Word = Vec<u8>;

/// What a flag takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Bool,
    String,
    Strings,
    Int,
    Uint,
    Duration,
}

/// One flag as it stands after parsing.
#[derive(Clone, Debug)]
pub(super) struct Flag {
    pub name: String,
    pub short: Option<char>,
    pub kind: Kind,
    /// The values given, or the default; one unless the flag is a list.
    pub values: Vec<String>,
    pub changed: bool,
    /// Whether it comes from a parent command.
    pub inherited: bool,
    pub required: bool,
}

impl Flag {
    fn new(arg: &Arg, inherited: bool) -> Option<Self> {
        let name = arg.get_long()?.to_string();
        let kind = kind_of(arg);
        let default = default_of(arg);
        let values = match kind {
            Kind::Bool if default.is_empty() => vec!["false".into()],
            _ => vec![default],
        };
        let required = arg.is_required_set();
        Some(Self {
            name,
            short: arg.get_short(),
            kind,
            values,
            changed: false,
            inherited,
            required,
        })
    }

    /// How messages name the flag.
    fn shown(&self) -> String {
        match self.short {
            Some(short) => format!("-{short}, --{}", self.name),
            None => format!("--{}", self.name),
        }
    }

    /// Takes a value; the error is the reason alone.
    pub(super) fn set(&mut self, text: &str) -> Result<(), String> {
        let values = match self.kind {
            Kind::Bool => vec![go::parse_bool(text)?.to_string()],
            Kind::String => vec![text.to_string()],
            Kind::Strings if self.changed => [self.values.clone(), go::parse_csv(text)?].concat(),
            Kind::Strings => go::parse_csv(text)?,
            Kind::Int => vec![go::parse_int(text, 0)?.to_string()],
            Kind::Uint => vec![go::parse_uint(text, 0)?.to_string()],
            Kind::Duration => {
                go::parse_duration(text)?;
                vec![text.to_string()]
            }
        };
        self.values = values;
        self.changed = true;
        Ok(())
    }

    /// The value as Go prints it.
    pub(super) fn display(&self) -> String {
        match self.kind {
            Kind::Strings => format!("[{}]", self.values.join(" ")),
            Kind::Duration => {
                let nanos = go::parse_duration(&self.values[0]).unwrap_or_default();
                go::duration(std::time::Duration::from_nanos(nanos.unsigned_abs()))
            }
            _ => self.values.first().cloned().unwrap_or_default(),
        }
    }
}

pub(super) fn kind_of(arg: &Arg) -> Kind {
    let name = arg.get_value_names().and_then(|names| names.first()).map(|name| name.as_str());
    match name {
        Some("strings") => Kind::Strings,
        Some("int") => Kind::Int,
        Some("uint") => Kind::Uint,
        Some("duration") => Kind::Duration,
        Some("string") => Kind::String,
        _ => Kind::Bool,
    }
}

pub(super) fn default_of(arg: &Arg) -> String {
    if matches!(arg.get_action(), ArgAction::SetTrue) {
        return String::new();
    }
    arg.get_default_values()
        .first()
        .map(|value| value.to_string_lossy().into_owned())
        .unwrap_or_default()
}

/// The flags of one command line, by name. Asking for a flag that the command does not have gives
/// its zero value.
#[derive(Clone, Debug, Default)]
pub(super) struct Flags {
    flags: BTreeMap<String, Flag>,
}

impl Flags {
    /// All flags of the last command of a path, its parents' inherited ones included.
    pub(super) fn of(path: &[&Command]) -> Self {
        let mut flags = BTreeMap::new();
        for (depth, command) in path.iter().enumerate() {
            let own = depth + 1 == path.len();
            for arg in command.get_arguments() {
                if (own || arg.is_global_set())
                    && let Some(flag) = Flag::new(arg, !own)
                {
                    flags.insert(flag.name.clone(), flag);
                }
            }
        }
        Self { flags }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Flag> {
        self.flags.values()
    }

    pub(super) fn get(&self, name: &str) -> Option<&Flag> {
        self.flags.get(name)
    }

    pub(super) fn get_mut(&mut self, name: &str) -> Option<&mut Flag> {
        self.flags.get_mut(name)
    }

    fn by_short(&mut self, short: u8) -> Option<&mut Flag> {
        self.flags.values_mut().find(|flag| flag.short == Some(short as char))
    }

    fn first(&self, name: &str) -> &str {
        self.get(name).and_then(|flag| flag.values.first()).map_or("", String::as_str)
    }

    pub(super) fn bool(&self, name: &str) -> bool {
        self.first(name) == "true"
    }

    pub(super) fn string(&self, name: &str) -> &str {
        self.first(name)
    }

    pub(super) fn strings(&self, name: &str) -> Vec<String> {
        self.get(name).map(|flag| flag.values.clone()).unwrap_or_default()
    }

    pub(super) fn int(&self, name: &str) -> i64 {
        self.first(name).parse().unwrap_or_default()
    }

    pub(super) fn duration(&self, name: &str) -> std::time::Duration {
        let nanos = go::parse_duration(self.first(name)).unwrap_or_default();
        std::time::Duration::from_nanos(u64::try_from(nanos).unwrap_or_default())
    }

    pub(super) fn changed(&self, name: &str) -> bool {
        self.get(name).is_some_and(|flag| flag.changed)
    }

    /// Reads words into flags; what is left are the arguments.
    pub(super) fn parse(&mut self, words: &[Word]) -> Result<Vec<Word>, FlagError> {
        let mut arguments = Vec::new();
        let mut rest = words;
        while let Some((word, tail)) = rest.split_first() {
            rest = tail;
            match word.as_slice() {
                b"--" => {
                    arguments.extend_from_slice(rest);
                    break;
                }
                [b'-', b'-', name @ ..] => rest = self.long(name, rest)?,
                [b'-', _, ..] => rest = self.shorts(&word[1..], rest)?,
                _ => arguments.push(word.clone()),
            }
        }
        Ok(arguments)
    }

    fn long<'a>(&mut self, word: &[u8], rest: &'a [Word]) -> Result<&'a [Word], FlagError> {
        let text = lossy(word);
        if text.starts_with(['-', '=']) {
            return Err(FlagError::Message(format!("bad flag syntax: --{text}")));
        }
        let (name, given) = match text.split_once('=') {
            Some((name, value)) => (name, Some(value.to_string())),
            None => (text.as_str(), None),
        };
        let Some(flag) = self.get_mut(name) else {
            if name == "help" {
                return help(given.as_deref(), rest);
            }
            return Err(FlagError::Message(format!("unknown flag: --{name}")));
        };
        match (given, flag.kind, rest.split_first()) {
            (Some(value), ..) => set(flag, &value).map(|()| rest),
            (None, Kind::Bool, _) => set(flag, "true").map(|()| rest),
            (None, _, Some((value, rest))) => set(flag, &lossy(value)).map(|()| rest),
            (None, _, None) => Err(FlagError::Message(format!("flag needs an argument: --{name}"))),
        }
    }

    fn shorts<'a>(&mut self, letters: &[u8], rest: &'a [Word]) -> Result<&'a [Word], FlagError> {
        let mut letters = letters;
        while let Some((&letter, tail)) = letters.split_first() {
            let shown = lossy(letters);
            let Some(flag) = self.by_short(letter) else {
                if letter == b'h' {
                    return Err(FlagError::Help);
                }
                let letter = letter as char;
                let text = format!("unknown shorthand flag: '{letter}' in -{shown}");
                return Err(FlagError::Message(text));
            };
            match (tail, flag.kind, rest.split_first()) {
                ([b'=', value @ ..], ..) if !value.is_empty() => {
                    return set(flag, &lossy(value)).map(|()| rest);
                }
                (_, Kind::Bool, _) => set(flag, "true")?,
                ([], _, Some((value, rest))) => return set(flag, &lossy(value)).map(|()| rest),
                ([], _, None) => {
                    let letter = letter as char;
                    let text = format!("flag needs an argument: '{letter}' in -{shown}");
                    return Err(FlagError::Message(text));
                }
                (value, ..) => return set(flag, &lossy(value)).map(|()| rest),
            }
            letters = tail;
        }
        Ok(rest)
    }
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum FlagError {
    Help,
    Message(String),
}

/// `--help` is a bool that every command has.
fn help<'a>(given: Option<&str>, rest: &'a [Word]) -> Result<&'a [Word], FlagError> {
    match go::parse_bool(given.unwrap_or("true")) {
        Ok(true) => Err(FlagError::Help),
        Ok(false) => Ok(rest),
        Err(reason) => {
            let value = go::quote(given.unwrap_or_default().as_bytes());
            let text = format!("invalid argument {value} for \"-h, --help\" flag: {reason}");
            Err(FlagError::Message(text))
        }
    }
}

fn set(flag: &mut Flag, value: &str) -> Result<(), FlagError> {
    flag.set(value).map_err(|reason| {
        let (value, name) = (go::quote(value.as_bytes()), flag.shown());
        FlagError::Message(format!("invalid argument {value} for \"{name}\" flag: {reason}"))
    })
}

pub(super) fn lossy(word: &[u8]) -> String {
    String::from_utf8_lossy(word).into_owned()
}

/// Where a command line leads.
pub(super) struct Found<'a> {
    /// The commands from the root down.
    pub path: Vec<&'a Command>,
    /// The words that are left for flags and arguments.
    pub words: Vec<Word>,
}

impl<'a> Found<'a> {
    pub(super) fn command(&self) -> &'a Command {
        self.path[self.path.len() - 1]
    }
}

/// Walks down the subcommands that the words name.
pub(super) fn find<'a>(root: &'a Command, words: &[Word]) -> Found<'a> {
    let mut found = Found { path: vec![root], words: words.to_vec() };
    loop {
        let flags = Flags::of(&found.path);
        let Some(at) = first_argument(&flags, &found.words) else { return found };
        let Some(next) = subcommand(found.command(), &found.words[at]) else { return found };
        found.words.remove(at);
        found.path.push(next);
    }
}

/// The position of the first word that is neither a flag nor its value; none after `--`.
pub(super) fn first_argument(flags: &Flags, words: &[Word]) -> Option<usize> {
    let mut at = 0;
    while at < words.len() {
        match words[at].as_slice() {
            b"--" => return None,
            [b'-', b'-', name @ ..] if !name.contains(&b'=') => {
                let flag = flags.get(&lossy(name));
                let alone = name == b"help" || flag.is_some_and(|flag| flag.kind == Kind::Bool);
                at += if alone { 1 } else { 2 };
            }
            [b'-', letter] if *letter != b'=' => {
                let mut all = flags.iter();
                let flag = all.find(|flag| flag.short == Some(*letter as char));
                let alone = *letter == b'h' || flag.is_some_and(|flag| flag.kind == Kind::Bool);
                at += if alone { 1 } else { 2 };
            }
            [b'-', ..] | [] => at += 1,
            _ => return Some(at),
        }
    }
    None
}

/// A subcommand by its name or a unique beginning of it.
fn subcommand<'a>(command: &'a Command, word: &[u8]) -> Option<&'a Command> {
    let word = std::str::from_utf8(word).ok()?;
    let exact = command.get_subcommands().find(|command| command.get_name() == word);
    if exact.is_some() {
        return exact;
    }
    let mut matches =
        command.get_subcommands().filter(|command| command.get_name().starts_with(word));
    let first = matches.next()?;
    if matches.next().is_some() { None } else { Some(first) }
}

/// Names of subcommands near to a mistyped one.
pub(super) fn suggestions(command: &Command, word: &str) -> Vec<String> {
    let typed = word.to_lowercase();
    command
        .get_subcommands()
        .map(Command::get_name)
        .filter(|name| distance(&typed, name) <= 2 || name.starts_with(&typed))
        .map(str::to_string)
        .collect()
}

/// The Levenshtein distance.
fn distance(left: &str, right: &str) -> usize {
    let right: Vec<_> = right.chars().collect();
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (i, a) in left.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, b) in right.iter().enumerate() {
            let replaced = diagonal + usize::from(a != *b);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[right.len()]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::spec::{Program, root};

    fn words(text: &str) -> Vec<Word> {
        text.split_whitespace().map(|word| word.as_bytes().to_vec()).collect()
    }

    /// The path found, the arguments, and one flag's value.
    fn check(line: &str, path: &str, arguments: &str, flag: (&str, &str)) {
        let root = root(Program::Etcdctl);
        let found = find(&root, &words(line));
        let names: Vec<_> = found.path[1..].iter().map(|command| command.get_name()).collect();
        assert_eq!(names.join(" "), path, "{line}");
        let mut flags = Flags::of(&found.path);
        assert_eq!(flags.parse(&found.words), Ok(words(arguments)), "{line}");
        assert_eq!(flags.get(flag.0).map(Flag::display).as_deref(), Some(flag.1), "{line}");
    }

    #[test]
    fn flags_may_stand_anywhere() {
        check("-w json get a", "get", "a", ("write-out", "json"));
        check("get -wjson a b", "get", "a b", ("write-out", "json"));
        check("get a -w=json", "get", "a", ("write-out", "json"));
        check("--hex get a", "get", "a", ("hex", "true"));
        check("get a --prefix=false b", "get", "a b", ("prefix", "false"));
        check("get --prefix false", "get", "false", ("prefix", "true"));
        check("put k -- -1", "put", "k -1", ("lease", "0"));
        check("endpoint --cluster status", "endpoint status", "", ("cluster", "true"));
    }

    #[test]
    fn subcommands_may_be_abbreviated() {
        check("mem l", "member list", "", ("consistency", "l"));
        check("ge a", "get", "a", ("rev", "0"));
        check("e a", "", "e a", ("hex", "false"));
    }

    #[test]
    fn lists_accumulate() {
        let line = "--endpoints a,b get --endpoints c k";
        check(line, "get", "k", ("endpoints", "[a b c]"));
    }

    #[test]
    fn errors_are_pflags() {
        let root = root(Program::Etcdctl);
        for (line, message) in [
            ("get --bogus", "unknown flag: --bogus"),
            ("put neg -1", "unknown shorthand flag: '1' in -1"),
            ("get --rev", "flag needs an argument: --rev"),
            ("get -w", "flag needs an argument: 'w' in -w"),
            ("get --=x", "bad flag syntax: --=x"),
            (
                "get --rev=x",
                "invalid argument \"x\" for \"--rev\" flag: strconv.ParseInt: parsing \"x\": \
                 invalid syntax",
            ),
        ] {
            let found = find(&root, &words(line));
            let error = Flags::of(&found.path).parse(&found.words).unwrap_err();
            assert_eq!(error, FlagError::Message(message.into()), "{line}");
        }
    }

    #[test]
    fn near_names_are_suggested() {
        let root = root(Program::Etcdctl);
        assert_eq!(suggestions(&root, "gte"), ["get"]);
        assert!(suggestions(&root, "bogus").is_empty());
    }
}
