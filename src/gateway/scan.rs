//! Finds the end of each JSON document in a stream of bytes, by the rules and with the error texts
//! of Go's encoding/json. What is in a document is read afterwards, by `read`.

use crate::go;

/// Arrays and objects that may be open within each other.
const DEPTH_MAX: usize = 10_000;

/// What the next byte may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Value,
    /// A value, or the end of the array.
    FirstElement,
    Name,
    /// A name, or the end of the object.
    FirstName,
    AfterValue,
    Text,
    Escape,
    /// Hexadecimal digits of an escape that are still to come.
    Hex(u8),
    Minus,
    /// After a zero, which no digit follows.
    Zero,
    Digits,
    Point,
    Fraction,
    Exponent,
    ExponentSign,
    ExponentDigits,
    /// Within a word, after so many letters.
    Word(Word, u8),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Word {
    True,
    False,
    Null,
}

impl Word {
    fn text(self) -> &'static str {
        match self {
            Self::True => "true",
            Self::False => "false",
            Self::Null => "null",
        }
    }
}

impl State {
    /// How many of the next bytes leave the state as it is. Most bytes of a large document do: they
    /// are within texts, or digits of a number.
    fn run(self, bytes: &[u8]) -> usize {
        let plain = |byte: &&u8| **byte >= b' ' && !matches!(**byte, b'"' | b'\\');
        match self {
            Self::Text => bytes.iter().take_while(plain).count(),
            Self::Digits => bytes.iter().take_while(|byte| byte.is_ascii_digit()).count(),
            _ => 0,
        }
    }
}

/// What an open array or object expects behind a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Open {
    Array,
    /// The value was a name.
    Name,
    /// The value was that of a name.
    Pair,
}

/// The state of a document that has arrived in part.
#[derive(Debug)]
pub(super) struct Scanner {
    state: State,
    open: Vec<Open>,
}

enum Step {
    To(State),
    /// The document ended with this byte.
    Ended,
    /// The document ended before this byte.
    EndedBefore,
}

impl Default for Scanner {
    fn default() -> Self {
        Self { state: State::Value, open: Vec::new() }
    }
}

impl Scanner {
    /// Looks at the next bytes. Returns how many of them belong to the document once it has ended,
    /// and expects the next one then.
    pub(super) fn feed(&mut self, bytes: &[u8]) -> Result<Option<usize>, String> {
        let mut at = 0;
        // A variable of its own can stay in a register, which halves the time that escapes take.
        let mut state = self.state;
        while let Some(&byte) = bytes.get(at) {
            let run = state.run(&bytes[at..]);
            if run > 0 {
                at += run;
                continue;
            }
            let end = match self.step(state, byte)? {
                Step::To(next) => {
                    state = next;
                    at += 1;
                    continue;
                }
                Step::Ended => at + 1,
                Step::EndedBefore => at,
            };
            *self = Self::default();
            return Ok(Some(end));
        }
        self.state = state;
        Ok(None)
    }

    /// Whether a document has ended with the last byte, once no more come; `None` if there is none.
    pub(super) fn finish(&mut self) -> Result<Option<()>, String> {
        if self.state == State::Value && self.open.is_empty() {
            return Ok(None);
        }
        match self.step(self.state, b' ') {
            Ok(Step::EndedBefore) => {
                *self = Self::default();
                Ok(Some(()))
            }
            _ => Err("unexpected EOF".to_owned()),
        }
    }

    fn step(&mut self, state: State, byte: u8) -> Result<Step, String> {
        let is_space = matches!(byte, b' ' | b'\t' | b'\r' | b'\n');
        Ok(Step::To(match state {
            State::AfterValue => return self.after_value(byte),
            State::Value | State::FirstElement | State::Name | State::FirstName if is_space => {
                state
            }
            State::FirstElement if byte == b']' => return Ok(self.close()),
            State::Value | State::FirstElement => match byte {
                b'{' => self.push(byte, Open::Name, State::FirstName)?,
                b'[' => self.push(byte, Open::Array, State::FirstElement)?,
                b'"' => State::Text,
                b'-' => State::Minus,
                b'0' => State::Zero,
                b'1'..=b'9' => State::Digits,
                b't' => State::Word(Word::True, 1),
                b'f' => State::Word(Word::False, 1),
                b'n' => State::Word(Word::Null, 1),
                _ => return invalid(byte, "looking for beginning of value"),
            },
            State::FirstName if byte == b'}' => return Ok(self.close()),
            State::FirstName | State::Name => match byte {
                b'"' => State::Text,
                _ => return invalid(byte, "looking for beginning of object key string"),
            },
            State::Text | State::Escape | State::Hex(_) => text(state, byte)?,
            State::Word(word, at) => match word.text().as_bytes().get(usize::from(at)) {
                Some(expected) if *expected != byte => {
                    let (word, expected) = (word.text(), char::from(*expected));
                    return invalid(byte, &format!("in literal {word} (expecting '{expected}')"));
                }
                _ if usize::from(at) + 1 >= word.text().len() => State::AfterValue,
                _ => State::Word(word, at + 1),
            },
            _ => match number(state, byte)? {
                Some(state) => state,
                None => return self.after_value(byte),
            },
        }))
    }

    fn push(&mut self, byte: u8, open: Open, state: State) -> Result<State, String> {
        if self.open.len() == DEPTH_MAX {
            return invalid(byte, "exceeded max depth");
        }
        self.open.push(open);
        Ok(state)
    }

    /// Ends the innermost array or object.
    fn close(&mut self) -> Step {
        self.open.pop();
        if self.open.is_empty() { Step::Ended } else { Step::To(State::AfterValue) }
    }

    fn after_value(&mut self, byte: u8) -> Result<Step, String> {
        if matches!(byte, b' ' | b'\t' | b'\r' | b'\n') && !self.open.is_empty() {
            return Ok(Step::To(State::AfterValue));
        }
        let (open, state) = match (self.open.last(), byte) {
            (None, _) => return Ok(Step::EndedBefore),
            (Some(Open::Array), b']') | (Some(Open::Pair), b'}') => return Ok(self.close()),
            (Some(Open::Array), b',') => (Open::Array, State::Value),
            (Some(Open::Array), _) => return invalid(byte, "after array element"),
            (Some(Open::Name), b':') => (Open::Pair, State::Value),
            (Some(Open::Name), _) => return invalid(byte, "after object key"),
            (Some(Open::Pair), b',') => (Open::Name, State::Name),
            (Some(Open::Pair), _) => return invalid(byte, "after object key:value pair"),
        };
        if let Some(last) = self.open.last_mut() {
            *last = open;
        }
        Ok(Step::To(state))
    }
}

/// What follows a byte within a string.
fn text(state: State, byte: u8) -> Result<State, String> {
    Ok(match state {
        State::Text => match byte {
            b'"' => State::AfterValue,
            b'\\' => State::Escape,
            0..b' ' => return invalid(byte, "in string literal"),
            _ => State::Text,
        },
        State::Escape => match byte {
            b'b' | b'f' | b'n' | b'r' | b't' | b'\\' | b'/' | b'"' => State::Text,
            b'u' => State::Hex(4),
            _ => return invalid(byte, "in string escape code"),
        },
        State::Hex(left) => match (byte.is_ascii_hexdigit(), left) {
            (true, 1) => State::Text,
            (true, _) => State::Hex(left - 1),
            (false, _) => return invalid(byte, "in \\u hexadecimal character escape"),
        },
        other => other,
    })
}

/// What follows a byte of a number; None if the number has ended before it.
fn number(state: State, byte: u8) -> Result<Option<State>, String> {
    let is_digit = byte.is_ascii_digit();
    Ok(Some(match state {
        State::Minus => match byte {
            b'0' => State::Zero,
            b'1'..=b'9' => State::Digits,
            _ => return invalid(byte, "in numeric literal"),
        },
        State::Digits if is_digit => State::Digits,
        State::Zero | State::Digits => match byte {
            b'.' => State::Point,
            b'e' | b'E' => State::Exponent,
            _ => return Ok(None),
        },
        State::Point if is_digit => State::Fraction,
        State::Point => return invalid(byte, "after decimal point in numeric literal"),
        State::Fraction => match byte {
            b'0'..=b'9' => State::Fraction,
            b'e' | b'E' => State::Exponent,
            _ => return Ok(None),
        },
        State::Exponent if matches!(byte, b'+' | b'-') => State::ExponentSign,
        State::Exponent | State::ExponentSign if is_digit => State::ExponentDigits,
        State::Exponent | State::ExponentSign => {
            return invalid(byte, "in exponent of numeric literal");
        }
        State::ExponentDigits if is_digit => State::ExponentDigits,
        State::ExponentDigits => return Ok(None),
        other => other,
    }))
}

fn invalid<T>(byte: u8, context: &str) -> Result<T, String> {
    let shown = match byte {
        b'\'' => r"'\''".to_owned(),
        b'"' => "'\"'".to_owned(),
        _ => {
            let quoted = go::quote(char::from(byte).to_string());
            format!("'{}'", &quoted[1..quoted.len() - 1])
        }
    };
    Err(format!("invalid character {shown} {context}"))
}

/// Names and values of a document that is an object, the values as they stand there; None for any
/// other document. Errors are those of Go's `json.Unmarshal`, which wants one document alone.
pub fn members(document: &str) -> Result<Option<Vec<(String, &str)>>, String> {
    // The space ends a number or a word, as the end of the text does.
    let spaced = format!("{document} ");
    let end = Scanner::default().feed(spaced.as_bytes())?;
    let end = end.ok_or("unexpected end of JSON input")?.min(document.len());
    if let Some(byte) = document[end..].trim_start_matches(SPACE).bytes().next() {
        invalid(byte, "after top-level value")?;
    }
    let Some(mut rest) = document.trim_matches(SPACE).strip_prefix('{') else { return Ok(None) };
    let mut members = Vec::new();
    loop {
        rest = rest.trim_start_matches(SEPARATORS);
        if rest.starts_with('}') {
            return Ok(Some(members));
        }
        let mut next = || -> Result<&str, String> {
            rest = rest.trim_start_matches(SEPARATORS);
            let end = Scanner::default().feed(rest.as_bytes())?;
            let (value, after) = rest.split_at(end.unwrap_or(rest.len()));
            rest = after;
            Ok(value)
        };
        let name = serde_json::from_str(next()?).map_err(|error| error.to_string())?;
        members.push((name, next()?));
    }
}

const SPACE: [char; 4] = [' ', '\t', '\r', '\n'];
/// What stands between the values of a document that is known to be JSON.
const SEPARATORS: [char; 6] = [' ', '\t', '\r', '\n', ',', ':'];

#[cfg(test)]
mod tests {
    use super::*;

    fn one(text: &str) -> Result<Option<usize>, String> {
        // Byte by byte, and at once.
        let whole = Scanner::default().feed(text.as_bytes());
        let mut scanner = Scanner::default();
        let mut parts = Ok(None);
        for (at, byte) in text.bytes().enumerate() {
            parts = scanner.feed(&[byte]).map(|end| end.map(|end| at + end));
            if parts != Ok(None) {
                break;
            }
        }
        assert_eq!(whole, parts, "{text}");
        whole
    }

    #[test]
    fn a_document_ends_where_go_ends_it() {
        for (text, end) in [
            ("{}x", Some(2)),
            (r#" {"a": [1, {"b": "\"}\\"}]}{"#, Some(27)),
            ("5 ", Some(1)),
            ("-0.5e+1}", Some(7)),
            ("true", None),
            ("\"x\"5", Some(3)),
            ("[", None),
            ("", None),
        ] {
            assert_eq!(one(text), Ok(end), "{text}");
        }
        for (text, end) in [("true", Ok(Some(()))), ("  ", Ok(None)), ("12", Ok(Some(())))] {
            let mut scanner = Scanner::default();
            scanner.feed(text.as_bytes()).unwrap();
            assert_eq!(scanner.finish(), end, "{text}");
        }
        let mut scanner = Scanner::default();
        scanner.feed(b"{\"key\":").unwrap();
        assert_eq!(scanner.finish(), Err("unexpected EOF".to_owned()));
    }

    #[test]
    fn faults_have_gos_texts() {
        for (text, why) in [
            ("x", "'x' looking for beginning of value"),
            ("\u{ef}", "'Ã' looking for beginning of value"),
            ("{,", "',' looking for beginning of object key string"),
            ("{\"a\",", "',' after object key"),
            ("{\"a\":1]", "']' after object key:value pair"),
            ("[1}", "'}' after array element"),
            ("\"\n", r"'\n' in string literal"),
            (r#""\x"#, "'x' in string escape code"),
            (r#""\u12g"#, r"'g' in \u hexadecimal character escape"),
            ("-x", "'x' in numeric literal"),
            ("1.x", "'x' after decimal point in numeric literal"),
            ("1e+x", "'x' in exponent of numeric literal"),
            ("nul'", r"'\'' in literal null (expecting 'l')"),
            ("[01", "'1' after array element"),
        ] {
            assert_eq!(one(text), Err(format!("invalid character {why}")));
        }
        let deep = "[".repeat(DEPTH_MAX + 1);
        assert_eq!(one(&deep), Err("invalid character '[' exceeded max depth".to_owned()));
    }
}
