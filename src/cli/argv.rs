//! Reading a command line the way etcdctl's libraries (cobra and pflag) do.
//!
//! Flags may stand anywhere, mixed with arguments and even before the subcommand they belong to;
//! subcommands may be abbreviated as long as they are unique, flags may not; a value follows its
//! flag after `=` or as the next word. Arguments and values are bytes: neither keys nor the names
//! of locks and files need be UTF-8, and a name that was made valid would be another name. What
//! must be text is refused when it is not.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use clap::{Arg, Command};

use super::exit::{Exit, Failure};
use super::hints;
pub(super) use super::kind::{FlagKind, default_of, kind_of};
use super::spec::Program;
use crate::{go, types};

pub(super) type Word = Vec<u8>;

/// One flag with its value after parsing.
#[derive(Clone, Debug)]
pub(super) struct Flag {
    pub name: String,
    pub short: Option<char>,
    /// A second letter for the same flag.
    pub alias: Option<char>,
    pub kind: FlagKind,
    /// The given values, or else the default; exactly one unless the flag is a list.
    pub values: Vec<Word>,
    pub changed: bool,
    /// Whether a parent command defines it.
    pub inherited: bool,
    pub required: bool,
    /// Whether the value is read, and refused, in rusd's way.
    is_kind: bool,
}

impl Flag {
    fn new(arg: &Arg, inherited: bool, is_kind: bool) -> Option<Self> {
        let name = arg.get_long()?.to_string();
        let kind = kind_of(arg);
        let default = default_of(arg);
        let values = match kind {
            FlagKind::Bool if default.is_empty() => vec!["false".into()],
            _ => vec![default.into()],
        };
        let required = arg.is_required_set();
        Some(Self {
            name,
            short: arg.get_short(),
            alias: arg.get_all_short_aliases().and_then(|all| all.first().copied()),
            kind,
            values,
            changed: false,
            inherited,
            required,
            is_kind,
        })
    }

    pub(super) fn has_letter(&self, letter: u8) -> bool {
        [self.short, self.alias].contains(&Some(letter as char))
    }

    /// The flag as error messages name it.
    fn shown(&self) -> String {
        match self.short {
            Some(short) => format!("-{short}, --{}", self.name),
            None => format!("--{}", self.name),
        }
    }

    /// Sets the value. The error is the reason alone, for rusd what the flag takes; the caller adds
    /// the flag.
    pub(super) fn set(&mut self, given: &[u8]) -> Result<(), String> {
        let values = match self.is_kind {
            true => self.kind.read_kindly(given)?,
            false => self.kind.read(given)?,
        };
        match self.kind {
            FlagKind::Strings if self.changed => self.values.extend(values),
            _ => self.values = values,
        }
        self.changed = true;
        Ok(())
    }

    /// The value as Go prints it.
    pub(super) fn display(&self) -> Word {
        match self.kind {
            FlagKind::Strings => [b"[".as_slice(), &self.values.join(&b' '), b"]"].concat(),
            FlagKind::Duration => {
                let nanos = go::parse_duration(&self.values[0]).unwrap_or_default();
                go::duration(std::time::Duration::from_nanos(nanos.unsigned_abs())).into()
            }
            _ => self.values.first().cloned().unwrap_or_default(),
        }
    }
}

/// The flags of one command line, by name. A flag that the command does not have reads as zero.
#[derive(Clone, Debug, Default)]
pub(super) struct Flags {
    flags: BTreeMap<String, Flag>,
    /// Whether values are read, and mistakes told, in rusd's way.
    is_kind: bool,
}

impl Flags {
    /// The flags of the last command of `path`, and the ones that it inherits from its parents.
    pub(super) fn of(path: &[&Command]) -> Self {
        let mut flags = BTreeMap::new();
        let is_kind = path.first().is_some_and(|root| root.get_name() == Program::Rusd.name());
        for (depth, command) in path.iter().enumerate() {
            let own = depth + 1 == path.len();
            for arg in command.get_arguments() {
                if (own || arg.is_global_set())
                    && let Some(flag) = Flag::new(arg, !own, is_kind)
                {
                    flags.insert(flag.name.clone(), flag);
                }
            }
        }
        Self { flags, is_kind }
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
        self.flags.values_mut().find(|flag| flag.has_letter(short))
    }

    /// A value as it was given, empty if there is none.
    pub(super) fn bytes(&self, name: &str) -> &[u8] {
        self.get(name).and_then(|flag| flag.values.first()).map_or(b"", Vec::as_slice)
    }

    /// The path of a file or directory; None if it is empty.
    pub(super) fn path(&self, name: &str) -> Option<&Path> {
        Some(self.bytes(name)).filter(|path| !path.is_empty()).map(path_of)
    }

    /// A value of any bytes that becomes a string field of a request; fails unless it is UTF-8.
    pub(super) fn text(&self, name: &str) -> Result<String, Failure> {
        text_of(self.bytes(name))
    }

    /// The value of a flag of kind `String`; `set` has refused one that is not UTF-8.
    pub(super) fn string(&self, name: &str) -> &str {
        std::str::from_utf8(self.bytes(name)).unwrap_or_default()
    }

    pub(super) fn bool(&self, name: &str) -> bool {
        self.bytes(name) == b"true"
    }

    /// The values of a list; `set` has refused values that are not UTF-8.
    pub(super) fn strings(&self, name: &str) -> Vec<String> {
        let values = self.get(name).map(|flag| flag.values.as_slice()).unwrap_or_default();
        values.iter().filter_map(|value| String::from_utf8(value.clone()).ok()).collect()
    }

    pub(super) fn int(&self, name: &str) -> i64 {
        self.string(name).parse().unwrap_or_default()
    }

    pub(super) fn duration(&self, name: &str) -> std::time::Duration {
        let nanos = go::parse_duration(self.bytes(name)).unwrap_or_default();
        std::time::Duration::from_nanos(u64::try_from(nanos).unwrap_or_default())
    }

    pub(super) fn changed(&self, name: &str) -> bool {
        self.get(name).is_some_and(|flag| flag.changed)
    }

    /// Parses words into flags, and returns the words that are arguments.
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
        if let [b'-' | b'=', ..] = word {
            return Err(FlagError::message("bad flag syntax: --", word));
        }
        let (name, given) = match word.iter().position(|byte| *byte == b'=') {
            Some(at) => (&word[..at], Some(&word[at + 1..])),
            None => (word, None),
        };
        let is_kind = self.is_kind;
        let known = std::str::from_utf8(name).ok().and_then(|name| self.get_mut(name));
        let Some(flag) = known else {
            if name == b"help" {
                return help(given, rest);
            }
            return Err(self.unknown(&[b"--", name].concat(), "unknown flag: ", b""));
        };
        match (given, flag.kind, rest.split_first()) {
            (Some(value), ..) => set(flag, value).map(|()| rest),
            (None, FlagKind::Bool, _) => set(flag, b"true").map(|()| rest),
            (None, _, Some((value, rest))) => set(flag, value).map(|()| rest),
            (None, _, None) => {
                let text = [b"flag needs an argument: --", name].concat();
                Err(FlagError::Message(if is_kind { hints::no_value(flag.shown()) } else { text }))
            }
        }
    }

    fn shorts<'a>(&mut self, letters: &[u8], rest: &'a [Word]) -> Result<&'a [Word], FlagError> {
        let mut letters = letters;
        while let Some((&letter, tail)) = letters.split_first() {
            let is_kind = self.is_kind;
            let what = |what: &str| format!("{what}: '{}' in -", letter as char);
            let Some(flag) = self.by_short(letter) else {
                if letter == b'h' {
                    return Err(FlagError::Help);
                }
                let shown = [b'-', letter];
                return Err(self.unknown(&shown, &what("unknown shorthand flag"), letters));
            };
            match (tail, flag.kind, rest.split_first()) {
                ([b'=', value @ ..], ..) if !value.is_empty() => {
                    return set(flag, value).map(|()| rest);
                }
                (_, FlagKind::Bool, _) => set(flag, b"true")?,
                ([], _, Some((value, rest))) => return set(flag, value).map(|()| rest),
                ([], _, None) if is_kind => {
                    return Err(FlagError::Message(hints::no_value(flag.shown())));
                }
                ([], _, None) => {
                    return Err(FlagError::message(&what("flag needs an argument"), letters));
                }
                (value, ..) => return set(flag, value).map(|()| rest),
            }
            letters = tail;
        }
        Ok(rest)
    }

    /// The error for a flag that the command does not have, `shown` as it was given: in pflag's
    /// words, or in rusd's with the name that may be meant.
    fn unknown(&self, shown: &[u8], what: &str, letters: &[u8]) -> FlagError {
        match (self.is_kind, letters) {
            (true, _) => FlagError::Message(hints::unknown_flag(shown, self.flags.keys())),
            (false, []) => FlagError::message(what, shown),
            (false, letters) => FlagError::message(what, letters),
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum FlagError {
    Help,
    Message(Word),
}

impl FlagError {
    fn message(what: &str, word: &[u8]) -> Self {
        Self::Message([what.as_bytes(), word].concat())
    }
}

/// Handles `--help`, a bool that every command has without defining it.
fn help<'a>(given: Option<&[u8]>, rest: &'a [Word]) -> Result<&'a [Word], FlagError> {
    match go::parse_bool(given.unwrap_or(b"true")) {
        Ok(true) => Err(FlagError::Help),
        Ok(false) => Ok(rest),
        Err(reason) => {
            let value = go::quote(given.unwrap_or_default());
            let text = format!("invalid argument {value} for \"-h, --help\" flag: {reason}");
            Err(FlagError::Message(text.into()))
        }
    }
}

fn set(flag: &mut Flag, value: &[u8]) -> Result<(), FlagError> {
    flag.set(value).map_err(|reason| {
        let (value, name) = (go::quote(value), flag.shown());
        if flag.is_kind {
            return FlagError::Message(hints::wrong_value(&name, &value, &reason));
        }
        let text = format!("invalid argument {value} for \"{name}\" flag: {reason}");
        FlagError::Message(text.into())
    })
}

/// A word as a string field of a request. Fails, as the encoding in etcd's client does, unless it
/// is UTF-8.
pub(super) fn text_of(word: &[u8]) -> Result<String, Failure> {
    String::from_utf8(word.to_vec()).map_err(|_| Failure::new(Exit::Error, NOT_UTF8))
}

const NOT_UTF8: &str = "rpc error: code = Internal desc = grpc: error while marshaling: string field \
                        contains invalid UTF-8";

pub(super) fn path_of(word: &[u8]) -> &Path {
    Path::new(OsStr::from_bytes(word))
}

/// The command that a command line names.
pub(super) struct FoundCommand<'a> {
    /// The commands from the root down to the one that is named.
    pub path: Vec<&'a Command>,
    /// The flags and arguments: all words but the names of the commands.
    pub words: Vec<Word>,
}

impl<'a> FoundCommand<'a> {
    pub(super) fn command(&self) -> &'a Command {
        self.path[self.path.len() - 1]
    }
}

/// Finds the subcommand that the words name, level by level.
pub(super) fn find<'a>(root: &'a Command, words: &[Word]) -> FoundCommand<'a> {
    let mut found = FoundCommand { path: vec![root], words: words.to_vec() };
    loop {
        let flags = Flags::of(&found.path);
        let Some(at) = first_argument(&flags, &found.words) else { return found };
        let Some(next) = subcommand(found.command(), &found.words[at]) else { return found };
        found.words.remove(at);
        found.path.push(next);
    }
}

/// The position of the first word that is neither a flag nor a flag's value; None if `--` comes
/// first.
pub(super) fn first_argument(flags: &Flags, words: &[Word]) -> Option<usize> {
    let mut at = 0;
    while at < words.len() {
        match words[at].as_slice() {
            b"--" => return None,
            [b'-', b'-', name @ ..] if !name.contains(&b'=') => {
                let flag = std::str::from_utf8(name).ok().and_then(|name| flags.get(name));
                let alone = name == b"help" || flag.is_some_and(|flag| flag.kind == FlagKind::Bool);
                at += if alone { 1 } else { 2 };
            }
            [b'-', letter] if *letter != b'=' => {
                let flag = flags.iter().find(|flag| flag.has_letter(*letter));
                let alone = *letter == b'h' || flag.is_some_and(|flag| flag.kind == FlagKind::Bool);
                at += if alone { 1 } else { 2 };
            }
            [b'-', ..] | [] => at += 1,
            _ => return Some(at),
        }
    }
    None
}

/// The subcommand with this name, or the only one whose name begins with `word`.
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

/// The subcommands that a mistyped word may mean, by cobra's rules.
pub(super) fn suggestions(command: &Command, word: &[u8]) -> Vec<String> {
    let Ok(word) = std::str::from_utf8(word) else { return Vec::new() };
    let typed = word.to_lowercase();
    command
        .get_subcommands()
        .map(Command::get_name)
        .filter(|name| types::distance(&typed, name) <= 2 || name.starts_with(&typed))
        .map(str::to_string)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::spec::{Program, root};

    fn words(text: &str) -> Vec<Word> {
        text.split_whitespace().map(|word| word.as_bytes().to_vec()).collect()
    }

    /// Compares the path, the arguments and one flag's value with the expected ones.
    fn check(line: &str, path: &str, arguments: &str, flag: (&str, &str)) {
        let root = root(Program::Etcdctl);
        let found = find(&root, &words(line));
        let names: Vec<_> = found.path[1..].iter().map(|command| command.get_name()).collect();
        assert_eq!(names.join(" "), path, "{line}");
        let mut flags = Flags::of(&found.path);
        assert_eq!(flags.parse(&found.words), Ok(words(arguments)), "{line}");
        let shown = flags.get(flag.0).map(Flag::display);
        assert_eq!(shown.as_deref(), Some(flag.1.as_bytes()), "{line}");
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
        assert_eq!(suggestions(&root, b"gte"), ["get"]);
        assert!(suggestions(&root, b"bogus").is_empty());
    }

    /// Parses words, and returns the flags or the error.
    fn parsed(program: Program, words: &[&[u8]]) -> Result<Flags, FlagError> {
        let root = root(program);
        let words: Vec<Word> = words.iter().map(|word| word.to_vec()).collect();
        let found = find(&root, &words);
        let mut flags = Flags::of(&found.path);
        flags.parse(&found.words).map(|_| flags)
    }

    #[test]
    fn values_stay_the_bytes_that_they_were() {
        let all: Vec<u8> = (1..=255).collect();
        let given = [b"--prefix=".as_slice(), &all].concat();
        let flags = parsed(Program::Etcdctl, &[b"make-mirror", b"x", &given]).unwrap();
        assert_eq!(flags.bytes("prefix"), all);
        let flags = parsed(Program::Etcdctl, &[b"get", b"--cacert", b"\xff/ca", b"k"]).unwrap();
        assert_eq!(flags.path("cacert"), Some(path_of(b"\xff/ca")));
        let refused = parsed(Program::Etcdctl, &[b"get", b"--endpoints", b"\xff:1", b"k"]);
        let text = "invalid argument \"\\xff:1\" for \"--endpoints\" flag: not valid UTF-8";
        assert_eq!(refused.unwrap_err(), FlagError::Message(text.into()));
        let unknown = parsed(Program::Etcdctl, &[b"get", b"--fo\xff"]).unwrap_err();
        assert_eq!(unknown, FlagError::Message(b"unknown flag: --fo\xff".to_vec()));
    }
}
