//! Answers as records: one JSON object a line, or YAML. Both show keys and values as text where
//! they are text, and ids in hexadecimal; etcd's own JSON has base64 and decimal ids.
//!
//! Fields keep their order, which `serde_json::Value` would sort.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde::ser::{Serialize, SerializeMap as _, SerializeSeq as _, Serializer};

use crate::types;

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    Null,
    Bool(bool),
    Int(i64),
    Uint(u64),
    Float(f64),
    Text(String),
    List(Vec<Value>),
    Map(Vec<(String, Value)>),
}

/// The records of one answer.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Records {
    One(Value),
    Many(Vec<Value>),
    /// Some of the records of an answer that goes on.
    Some(Vec<Value>),
}

impl Records {
    pub(super) fn jsonl(&self) -> String {
        let (Self::Many(all) | Self::Some(all)) = self else {
            let Self::One(one) = self else { return String::new() };
            return one.json() + "\n";
        };
        all.iter().map(|one| one.json() + "\n").collect()
    }

    pub(super) fn yaml(&self) -> String {
        let mut out = String::new();
        match self {
            Self::Some(all) if all.is_empty() => {}
            Self::One(one) => block(&mut out, one, 0),
            Self::Many(all) | Self::Some(all) => block(&mut out, &Value::List(all.clone()), 0),
        }
        out
    }
}

/// A record under construction.
#[derive(Default)]
pub(super) struct Fields(Vec<(String, Value)>);

impl Fields {
    pub(super) fn new() -> Self {
        Self::default()
    }

    pub(super) fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.0.push((name.to_owned(), value.into()));
        self
    }

    pub(super) fn maybe(self, name: &str, value: Option<impl Into<Value>>) -> Self {
        match value {
            Some(value) => self.with(name, value),
            None => self,
        }
    }

    /// Bytes as text, or in base64 under the name `…Base64` if they are no UTF-8.
    pub(super) fn bytes(self, name: &str, bytes: &[u8]) -> Self {
        match std::str::from_utf8(bytes) {
            Ok(text) => self.with(name, text),
            Err(_) => self.with(&format!("{name}Base64"), STANDARD.encode(bytes)),
        }
    }

    pub(super) fn id(self, name: &str, id: u64) -> Self {
        self.with(name, format!("{id:x}"))
    }

    pub(super) fn end(self) -> Value {
        Value::Map(self.0)
    }
}

impl Value {
    /// The value as JSON on one line.
    pub(super) fn json(&self) -> String {
        // Cannot fail: keys are texts, and JSON has null for numbers that are none.
        serde_json::to_string(self).unwrap_or_default()
    }

    /// The value as JSON on indented lines.
    pub(super) fn json_lines(&self) -> String {
        serde_json::to_string_pretty(self).unwrap_or_default()
    }

    /// The value as YAML, ended by a line break.
    pub(super) fn yaml(&self) -> String {
        let mut out = String::new();
        block(&mut out, self, 0);
        out
    }
}

/// Bytes that are no text, in base64.
pub(super) fn opaque(bytes: &[u8]) -> Value {
    Value::Text(STANDARD.encode(bytes))
}

macro_rules! from {
    ($($kind:ty => $variant:ident),* $(,)?) => {$(
        impl From<$kind> for Value {
            fn from(value: $kind) -> Self {
                Self::$variant(value.into())
            }
        }
    )*};
}

from!(bool => Bool, i64 => Int, u64 => Uint, u32 => Uint, f64 => Float, &str => Text, String => Text,
      &String => Text, Vec<Value> => List);

impl From<&[String]> for Value {
    fn from(texts: &[String]) -> Self {
        Self::List(texts.iter().map(Self::from).collect())
    }
}

impl From<&serde_json::Value> for Value {
    fn from(value: &serde_json::Value) -> Self {
        Self::deserialize(value).unwrap_or(Self::Null)
    }
}

impl Serialize for Value {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Null => serializer.serialize_unit(),
            Self::Bool(value) => serializer.serialize_bool(*value),
            Self::Int(value) => serializer.serialize_i64(*value),
            Self::Uint(value) => serializer.serialize_u64(*value),
            Self::Float(value) => serializer.serialize_f64(*value),
            Self::Text(text) => serializer.serialize_str(text),
            Self::List(items) => {
                let mut list = serializer.serialize_seq(Some(items.len()))?;
                items.iter().try_for_each(|item| list.serialize_element(item))?;
                list.end()
            }
            Self::Map(fields) => {
                let mut map = serializer.serialize_map(Some(fields.len()))?;
                fields.iter().try_for_each(|(name, value)| map.serialize_entry(name, value))?;
                map.end()
            }
        }
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Reader)
    }
}

struct Reader;

impl<'de> Visitor<'de> for Reader {
    type Value = Value;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("any value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Int(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Uint(value))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Value::Float(value))
    }

    fn visit_str<E>(self, text: &str) -> Result<Value, E> {
        Ok(Value::Text(text.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Value::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut map = Vec::new();
        while let Some(entry) = entries.next_entry()? {
            map.push(entry);
        }
        Ok(Value::Map(map))
    }
}

/// Writes a value as lines of YAML, indented.
fn block(out: &mut String, value: &Value, indent: usize) {
    let margin = " ".repeat(indent);
    match value {
        Value::List(items) if !items.is_empty() => {
            for item in items {
                let mut lines = String::new();
                block(&mut lines, item, indent + 2);
                // The first line has `- ` in place of two of its blanks.
                out.push_str(&margin);
                out.push_str("- ");
                out.push_str(&lines[indent + 2..]);
            }
        }
        Value::Map(fields) if !fields.is_empty() => {
            for (name, value) in fields {
                out.push_str(&margin);
                out.push_str(&plain_or_quoted(name));
                out.push(':');
                match value {
                    Value::List(items) if !items.is_empty() => {
                        out.push('\n');
                        block(out, value, indent + 2);
                    }
                    Value::Map(inner) if !inner.is_empty() => {
                        out.push('\n');
                        block(out, value, indent + 2);
                    }
                    _ => out.push_str(&format!(" {}\n", scalar(value))),
                }
            }
        }
        _ => out.push_str(&format!("{margin}{}\n", scalar(value))),
    }
}

fn scalar(value: &Value) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::Bool(value) => value.to_string(),
        Value::Int(value) => value.to_string(),
        Value::Uint(value) => value.to_string(),
        Value::Float(_) => float(&value.json()),
        Value::Text(text) => quoted(text),
        Value::List(_) => "[]".to_owned(),
        Value::Map(_) => "{}".to_owned(),
    }
}

/// A number such as `1e22` with the point and the sign without which YAML 1.1 reads a text.
fn float(json: &str) -> String {
    let Some((digits, exponent)) = json.split_once('e') else { return json.to_owned() };
    let point = if digits.contains('.') { "" } else { ".0" };
    let sign = if exponent.starts_with(['-', '+']) { "" } else { "+" };
    format!("{digits}{point}e{sign}{exponent}")
}

/// A text in double quotes, the one form of YAML in which any text can be written. Texts are always
/// quoted: without quotes `no`, `1e3` and `2001-01-01` would be other things.
fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for letter in text.chars() {
        match letter {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\0'..='\x1f' | '\x7f' => out.push_str(&format!("\\x{:02x}", letter as u32)),
            '\u{fffe}' | '\u{ffff}' => out.push_str(&format!("\\u{:04x}", letter as u32)),
            letter if types::is_obeyed(letter) => {
                out.push_str(&format!("\\U{:08x}", letter as u32));
            }
            letter => out.push(letter),
        }
    }
    out.push('"');
    out
}

/// A field's name, quoted if it could be something else than a text.
fn plain_or_quoted(name: &str) -> String {
    const OTHERS: [&str; 9] = ["true", "false", "null", "yes", "no", "on", "off", "y", "n"];
    let is_word = name.starts_with(|first: char| first.is_ascii_alphabetic())
        && name.chars().all(|letter| letter.is_ascii_alphanumeric() || letter == '_')
        && !OTHERS.contains(&name.to_ascii_lowercase().as_str());
    if is_word { name.to_owned() } else { quoted(name) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::split_mix;
    use yaml_rust2::{Yaml, YamlLoader};

    /// What a YAML parser makes of a value that was written.
    fn read(value: &Value) -> Yaml {
        let text = value.yaml();
        let mut all =
            YamlLoader::load_from_str(&text).unwrap_or_else(|why| panic!("{why}: {text}"));
        assert_eq!(all.len(), 1, "{text}");
        all.remove(0)
    }

    fn is_same(value: &Value, yaml: &Yaml) -> bool {
        match (value, yaml) {
            (Value::Null, Yaml::Null) => true,
            (Value::Bool(one), Yaml::Boolean(other)) => one == other,
            (Value::Int(one), Yaml::Integer(other)) => one == other,
            (Value::Text(one), Yaml::String(other)) => one == other,
            (Value::List(one), Yaml::Array(other)) => {
                one.len() == other.len() && one.iter().zip(other).all(|(a, b)| is_same(a, b))
            }
            (Value::Map(one), Yaml::Hash(other)) => {
                let names = one.iter().map(|(name, _)| name.as_str());
                names.eq(other.keys().filter_map(Yaml::as_str))
                    && one.iter().zip(other.values()).all(|((_, a), b)| is_same(a, b))
            }
            _ => false,
        }
    }

    fn random_text(random: &mut u64) -> String {
        const LETTERS: [&str; 24] = [
            "a", "yes", " ", ":", "- ", "#", "\"", "'", "\\", "\n", "\r", "\t", "\0", "\x1b",
            "\u{7f}", "\u{85}", "\u{2028}", "\u{feff}", "\u{202e}", "\u{fffe}", "ü", "漢", "😀",
            "{",
        ];
        let mut text = String::new();
        *random = split_mix(*random);
        for _ in 0..*random % 6 {
            *random = split_mix(*random);
            text.push_str(LETTERS[(*random >> 8) as usize % LETTERS.len()]);
        }
        text
    }

    fn random_value(random: &mut u64, depth: usize) -> Value {
        *random = split_mix(*random);
        match *random >> 32 & 7 {
            0 => Value::Null,
            1 => Value::Bool(true),
            2 => Value::Int((*random >> 40).cast_signed()),
            3 | 4 if depth < 4 => {
                Value::List((0..*random & 3).map(|_| random_value(random, depth + 1)).collect())
            }
            5 | 6 if depth < 4 => {
                let name = |at: u64, random: &mut u64| format!("{}{at}", random_text(random));
                let fields = 0..*random & 3;
                let field = |at| (name(at, random), random_value(random, depth + 1));
                Value::Map(fields.map(field).collect())
            }
            _ => Value::Text(random_text(random)),
        }
    }

    #[test]
    fn yaml_is_read_as_what_was_written() {
        for text in
            ["", "no", "1e3", "2001-01-01", "~", "null", "- a", "a: b", "\"", "\\x", "é\u{7f}"]
        {
            let value = Value::Map(vec![(text.to_owned(), Value::Text(text.to_owned()))]);
            assert!(is_same(&value, &read(&value)), "{text:?}: {}", value.yaml());
        }
        let mut random = 11;
        for _ in 0..3000 {
            let value = random_value(&mut random, 0);
            let yaml = read(&value);
            assert!(is_same(&value, &yaml), "{value:?}\n{}\n{yaml:?}", value.yaml());
        }
    }

    #[test]
    fn large_numbers_stay_numbers() {
        for (number, text) in [(1e22, "1.0e+22\n"), (-1.5e-9, "-1.5e-9\n"), (2.5, "2.5\n")] {
            assert_eq!(Value::Float(number).yaml(), text);
        }
    }

    #[test]
    fn bytes_that_are_no_text_have_another_name() {
        let record = Fields::new().bytes("key", b"a\0").bytes("value", b"\xff").id("id", 255).end();
        assert_eq!(record.json(), r#"{"key":"a\u0000","valueBase64":"/w==","id":"ff"}"#);
    }
}
