//! The scripts' language: a command is a line of words, with the deeper indented lines below it.
//!
//! A word is bytes; `"..."` holds spaces, `\0`, `\n`, `\\`, `\"` and `\xNN` hold what else a line
//! cannot. `name=value` is an option, and a few bare words are flags; in quotes both are plain.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::str::FromStr;

use bytes::Bytes;

/// Words that stand alone: options without a value.
const FLAGS: [&str; 9] =
    ["asc", "brief", "count", "desc", "ignore_lease", "ignore_value", "keys", "physical", "prev"];

#[derive(Debug, Default)]
pub(super) struct Command {
    words: VecDeque<Bytes>,
    options: BTreeMap<String, Bytes>,
    flags: BTreeSet<String>,
    pub below: Vec<Command>,
}

impl Command {
    /// The commands that start at the least indentation, each with those below it.
    pub(super) fn parse(lines: &[String]) -> Result<Vec<Self>, String> {
        let indentation = |line: &str| line.len() - line.trim_start().len();
        let Some(first) = lines.first() else { return Ok(Vec::new()) };
        let outer = indentation(first);
        let mut commands = Vec::new();
        let mut start = 0;
        while start < lines.len() {
            if indentation(&lines[start]) != outer {
                return Err(format!("{:?} is indented less than its block", lines[start]));
            }
            let below = lines[start + 1..].iter().take_while(|line| indentation(line) > outer);
            let end = start + 1 + below.count();
            let mut command = Self::parse_line(lines[start].trim())?;
            command.below = Self::parse(&lines[start + 1..end])?;
            commands.push(command);
            start = end;
        }
        Ok(commands)
    }

    fn parse_line(line: &str) -> Result<Self, String> {
        let mut command = Self::default();
        let mut rest = line;
        while !rest.is_empty() {
            let is_quoted = rest.starts_with('"');
            let (word, after) = split_word(rest)?;
            rest = after.trim_start();
            let option = word.split_once('=').filter(|(name, _)| {
                !name.is_empty() && name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_')
            });
            match option {
                _ if is_quoted => command.words.push_back(unescape(word)?),
                Some((name, value)) => {
                    command.options.insert(name.to_owned(), unescape(value)?);
                }
                None if FLAGS.contains(&word) => {
                    command.flags.insert(word.to_owned());
                }
                None => command.words.push_back(unescape(word)?),
            }
        }
        Ok(command)
    }

    pub(super) fn word(&mut self, what: &str) -> Result<Bytes, String> {
        self.words.pop_front().ok_or_else(|| format!("{what} is missing"))
    }

    pub(super) fn word_or_empty(&mut self) -> Bytes {
        self.words.pop_front().unwrap_or_default()
    }

    pub(super) fn text(&mut self, what: &str) -> Result<String, String> {
        Ok(String::from_utf8_lossy(&self.word(what)?).into_owned())
    }

    pub(super) fn number<T: FromStr>(&mut self, what: &str) -> Result<T, String> {
        let text = self.text(what)?;
        text.parse().map_err(|_| format!("{what}: {text:?} is no such number"))
    }

    pub(super) fn option(&mut self, name: &str) -> Option<String> {
        self.options.remove(name).map(|value| String::from_utf8_lossy(&value).into_owned())
    }

    /// The number of an option; 0 without it, as on the wire.
    pub(super) fn option_number(&mut self, name: &str) -> Result<i64, String> {
        let Some(text) = self.option(name) else { return Ok(0) };
        text.parse().map_err(|_| format!("{name}: {text:?} is no number"))
    }

    pub(super) fn flag(&mut self, name: &str) -> bool {
        self.flags.remove(name)
    }

    pub(super) fn words_left(&self) -> usize {
        self.words.len()
    }

    /// Fails if words or options are left over, so that a misspelled option is noticed.
    pub(super) fn end(&self) -> Result<(), String> {
        let words = self.words.iter().map(|word| word.escape_ascii().to_string());
        let unknown: Vec<String> =
            words.chain(self.options.keys().cloned()).chain(self.flags.iter().cloned()).collect();
        match unknown.is_empty() {
            true => Ok(()),
            false => Err(format!("what is {}?", unknown.join(", "))),
        }
    }
}

/// The first word without its quotes, and what follows it.
fn split_word(text: &str) -> Result<(&str, &str), String> {
    let Some(quoted) = text.strip_prefix('"') else {
        return Ok(text.split_at(text.find(' ').unwrap_or(text.len())));
    };
    let mut is_escaped = false;
    for (at, byte) in quoted.bytes().enumerate() {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' => is_escaped = true,
            b'"' => return Ok((&quoted[..at], &quoted[at + 1..])),
            _ => {}
        }
    }
    Err(format!("the quote in {text} has no end"))
}

fn unescape(word: &str) -> Result<Bytes, String> {
    let mut bytes = Vec::with_capacity(word.len());
    let mut rest = word.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'\\' {
            bytes.push(byte);
            continue;
        }
        match rest.next() {
            Some(b'0') => bytes.push(0),
            Some(b'n') => bytes.push(b'\n'),
            Some(byte @ (b'\\' | b'"')) => bytes.push(byte),
            Some(b'x') => {
                let digits = [rest.next().unwrap_or(b'?'), rest.next().unwrap_or(b'?')];
                let digits = String::from_utf8_lossy(&digits).into_owned();
                let byte = u8::from_str_radix(&digits, 16);
                bytes.push(byte.map_err(|_| format!("{word}: \\x{digits}"))?);
            }
            _ => return Err(format!("{word}: an escape that is not known")),
        }
    }
    Ok(bytes.into())
}
