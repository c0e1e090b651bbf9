//! `--decode`: values of Kubernetes and JSON, made readable.
//!
//! Kubernetes stores `k8s\0` and a protobuf message `runtime.Unknown`: the object's apiVersion and
//! kind, and the object itself as a second message. The metadata has the same fields in every kind
//! and is shown by name; everything else by field number, since the rest of the schema differs from
//! kind to kind and from release to release. Values come from anybody: whatever is not understood
//! is shown as the bytes that it is.

use std::collections::BTreeMap;

use super::record::{Fields, Value, opaque};
use crate::go;

/// How deep messages are looked into. Deeper ones are shown as bytes.
const DEPTH_MAX: usize = 24;

type Entries = Vec<(String, Value)>;

const MAGIC: &[u8] = b"k8s\0";

/// What a value was found to be.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Decoded {
    Kubernetes(Value),
    Json(Value),
}

impl Decoded {
    pub(super) fn value(&self) -> &Value {
        match self {
            Self::Kubernetes(value) | Self::Json(value) => value,
        }
    }

    /// The lines that a person reads, ended by a line break.
    pub(super) fn lines(&self) -> String {
        match self {
            Self::Kubernetes(value) => value.yaml(),
            Self::Json(value) => value.json_lines() + "\n",
        }
    }
}

/// Decodes a value; None if it is neither Kubernetes' nor a JSON object or list.
pub(super) fn decode(bytes: &[u8]) -> Option<Decoded> {
    if let Some(message) = bytes.strip_prefix(MAGIC) {
        return unknown(message).map(Decoded::Kubernetes);
    }
    if !matches!(bytes.trim_ascii_start().first(), Some(b'{' | b'[')) {
        return None;
    }
    serde_json::from_slice(bytes).ok().map(Decoded::Json)
}

/// `runtime.Unknown`: type (1), object (2), encoding (3) and content type (4) of the object.
fn unknown(message: &[u8]) -> Option<Value> {
    let parts = parse(message)?;
    let kind = parts.iter().find_map(|part| part.bytes_of(1)).and_then(parse).unwrap_or_default();
    let text = |parts: &[Part<'_>], number| {
        let bytes = parts.iter().find_map(|part| part.bytes_of(number)).unwrap_or_default();
        shown_text(bytes).map_or_else(|| opaque(bytes), Value::Text)
    };
    let mut fields =
        Fields::new().with("apiVersion", text(&kind, 1)).with("kind", text(&kind, 2)).end();
    let raw = parts.iter().find_map(|part| part.bytes_of(2)).unwrap_or_default();
    let object = match parse(raw) {
        Some(object) => self::object(&object),
        None => vec![("rawBase64".to_owned(), opaque(raw))],
    };
    if let Value::Map(fields) = &mut fields {
        for (number, name) in [(3, "contentEncoding"), (4, "contentType")] {
            if parts.iter().any(|part| part.bytes_of(number).is_some_and(|it| !it.is_empty())) {
                fields.push((name.to_owned(), text(&parts, number)));
            }
        }
        fields.extend(object);
    }
    Some(fields)
}

/// The fields of an object: metadata by name, if the first field can be that, and the others.
fn object(parts: &[Part<'_>]) -> Entries {
    let named = parts.first().and_then(|part| part.bytes_of(1)).and_then(parse);
    let metadata = named.as_deref().and_then(metadata);
    let rest = if metadata.is_some() { &parts[1..] } else { parts };
    let mut fields: Entries =
        metadata.into_iter().map(|value| ("metadata".to_owned(), value)).collect();
    fields.extend(numbered(rest, 0));
    fields
}

/// `metav1.ObjectMeta`; None if the message cannot be one.
fn metadata(parts: &[Part<'_>]) -> Option<Value> {
    let mut fields = Vec::new();
    let mut maps = [("labels", Entries::new()), ("annotations", Entries::new())];
    let (mut managed, mut others) = (0u64, Vec::new());
    let mut finalizers = Vec::new();
    for part in parts {
        let name = match part.number {
            1 => "name",
            2 => "generateName",
            3 => "namespace",
            4 => "selfLink",
            5 => "uid",
            6 => "resourceVersion",
            7 => "generation",
            8 => "creationTimestamp",
            9 => "deletionTimestamp",
            10 => "deletionGracePeriodSeconds",
            17 => {
                managed += 1;
                continue;
            }
            _ => "",
        };
        let value = match (part.number, part.data) {
            (1..=6 | 14, Data::Bytes(bytes)) => Value::Text(shown_text(bytes)?),
            (7 | 10, Data::Number(number)) => number_of(number),
            (8 | 9, Data::Bytes(bytes)) => time(bytes)?,
            (11 | 12, Data::Bytes(bytes)) => {
                let map = &mut maps[part.number as usize - 11].1;
                map.push(pair(bytes)?);
                continue;
            }
            (1..=10 | 14, _) => return None,
            _ => {
                others.push(*part);
                continue;
            }
        };
        match (part.number, value) {
            // Kubernetes writes empty fields, too.
            (_, Value::Text(text)) if text.is_empty() => {}
            (14, value) => finalizers.push(value),
            (_, value) => fields.push((name.to_owned(), value)),
        }
    }
    if !finalizers.is_empty() {
        fields.push(("finalizers".to_owned(), Value::List(finalizers)));
    }
    for (name, map) in maps {
        if !map.is_empty() {
            fields.push((name.to_owned(), Value::Map(map)));
        }
    }
    fields.extend(numbered(&others, 0));
    if managed > 0 {
        // Who set which field: long, and seldom what is looked for.
        fields.push(("managedFieldsCount".to_owned(), Value::Uint(managed)));
    }
    if fields.is_empty() { None } else { Some(Value::Map(fields)) }
}

/// `metav1.Time`: seconds since 1970, as RFC 3339 if there is such a date.
fn time(bytes: &[u8]) -> Option<Value> {
    let parts = parse(bytes)?;
    let seconds = parts.iter().find(|part| part.number == 1);
    let Some(Data::Number(seconds)) = seconds.map(|part| part.data) else {
        return Some(Value::Text(String::new()));
    };
    // Dates before 1970 and after 2554 are no dates of objects, and stay numbers.
    Some(match seconds.checked_mul(1_000_000_000).map(go::timestamp) {
        Some(text) => Value::Text(text.split('.').next().unwrap_or_default().to_owned() + "Z"),
        None => number_of(seconds),
    })
}

/// An entry of a map from text to text.
fn pair(bytes: &[u8]) -> Option<(String, Value)> {
    let parts = parse(bytes)?;
    let text = |number| {
        let bytes = parts.iter().find_map(|part| part.bytes_of(number)).unwrap_or_default();
        shown_text(bytes)
    };
    Some((text(1)?, Value::Text(text(2)?)))
}

/// Fields under their numbers; what occurs more than once is a list.
fn numbered(parts: &[Part<'_>], depth: usize) -> Entries {
    let mut order: Vec<u32> = Vec::new();
    let mut values: BTreeMap<u32, Vec<Value>> = BTreeMap::new();
    for part in parts {
        let value = match part.data {
            Data::Number(number) => number_of(number),
            Data::Bytes(bytes) => field(bytes, depth),
        };
        let all = values.entry(part.number).or_default();
        if all.is_empty() {
            order.push(part.number);
        }
        all.push(value);
    }
    let one = |number: u32| {
        let mut all = values.remove(&number).unwrap_or_default();
        let value = match (all.len(), all.pop()) {
            (1, Some(value)) => value,
            (_, last) => {
                all.extend(last);
                Value::List(all)
            }
        };
        (number.to_string(), value)
    };
    order.into_iter().map(one).collect()
}

/// A field with a length: text, a message, or bytes. The wire format does not tell which.
fn field(bytes: &[u8], depth: usize) -> Value {
    if let Some(text) = shown_text(bytes) {
        return Value::Text(text);
    }
    match parse(bytes).filter(|_| depth < DEPTH_MAX) {
        Some(parts) => Value::Map(numbered(&parts, depth + 1)),
        None => opaque(bytes),
    }
}

/// A varint is as a rule a small number or a negative one.
fn number_of(number: u64) -> Value {
    Value::Int(number.cast_signed())
}

/// The bytes as text, if they are. A text that begins with a control character is a message as a
/// rule: a line break is also the tag of the first field.
fn shown_text(bytes: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(bytes).ok()?;
    let is_odd = |letter: char| letter.is_control() && !matches!(letter, '\n' | '\t' | '\r');
    let begins_odd = text.starts_with(char::is_control);
    (!begins_odd && !text.contains(is_odd)).then(|| text.to_owned())
}

#[derive(Clone, Copy, Debug)]
struct Part<'a> {
    number: u32,
    data: Data<'a>,
}

#[derive(Clone, Copy, Debug)]
enum Data<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

impl<'a> Part<'a> {
    fn bytes_of(&self, number: u32) -> Option<&'a [u8]> {
        match self.data {
            Data::Bytes(bytes) if self.number == number => Some(bytes),
            _ => None,
        }
    }
}

/// The fields of a protobuf message; None if the bytes are none.
fn parse(mut rest: &[u8]) -> Option<Vec<Part<'_>>> {
    let mut parts = Vec::new();
    while !rest.is_empty() {
        let tag = varint(&mut rest)?;
        let number = u32::try_from(tag >> 3).ok().filter(|number| *number > 0)?;
        let data = match tag & 7 {
            0 => Data::Number(varint(&mut rest)?),
            1 => Data::Number(u64::from_le_bytes(*take::<8>(&mut rest)?)),
            5 => Data::Number(u32::from_le_bytes(*take::<4>(&mut rest)?).into()),
            2 => {
                let length = usize::try_from(varint(&mut rest)?).ok()?;
                let (bytes, tail) = rest.split_at_checked(length)?;
                rest = tail;
                Data::Bytes(bytes)
            }
            // Groups, which nobody has used for long.
            _ => return None,
        };
        parts.push(Part { number, data });
    }
    Some(parts)
}

fn take<'a, const N: usize>(rest: &mut &'a [u8]) -> Option<&'a [u8; N]> {
    let (bytes, tail) = rest.split_first_chunk()?;
    *rest = tail;
    Some(bytes)
}

fn varint(rest: &mut &[u8]) -> Option<u64> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let [byte] = *take::<1>(rest)?;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::split_mix;

    /// A field with a length.
    fn part(number: u8, bytes: &[u8]) -> Vec<u8> {
        let mut out = vec![number << 3 | 2];
        let mut length = bytes.len();
        while length >= 0x80 {
            out.push(length as u8 | 0x80);
            length >>= 7;
        }
        out.push(length as u8);
        out.extend_from_slice(bytes);
        out
    }

    fn pod() -> Vec<u8> {
        let labels = part(11, &[part(1, b"app"), part(2, b"web")].concat());
        let created = part(8, &[8, 0x80, 0xa6, 0xd5, 0xb9, 6]);
        let metadata = [part(1, b"a"), part(3, b"default"), created, labels].concat();
        let container = part(2, &[part(1, b"main"), part(2, b"nginx:1")].concat());
        let spec = [container.clone(), container, vec![4 << 3, 30]].concat();
        let raw = [part(1, &metadata), part(2, &spec)].concat();
        let kind = [part(1, b"v1"), part(2, b"Pod")].concat();
        [MAGIC, &part(1, &kind), &part(2, &raw), &part(3, b""), &part(4, b"")].concat()
    }

    #[test]
    fn a_pod_is_shown_with_its_metadata_by_name() {
        let decoded = decode(&pod()).unwrap();
        let text = "\
apiVersion: \"v1\"
kind: \"Pod\"
metadata:
  name: \"a\"
  namespace: \"default\"
  creationTimestamp: \"2024-11-14T01:31:44Z\"
  labels:
    app: \"web\"
\"2\":
  \"2\":
    - \"1\": \"main\"
      \"2\": \"nginx:1\"
    - \"1\": \"main\"
      \"2\": \"nginx:1\"
  \"4\": 30
";
        assert_eq!(decoded.lines(), text);
    }

    #[test]
    fn json_keeps_its_order() {
        let decoded = decode(br#" {"b":1,"a":[true,null,1.5,"x"]}"#).unwrap();
        assert_eq!(decoded.value().json(), r#"{"b":1,"a":[true,null,1.5,"x"]}"#);
        assert!(decoded.lines().starts_with("{\n  \"b\": 1,"));
        for other in [b"plain".as_slice(), b"12", b"\"x\"", b"{", b"", b"k8s", b"\xff"] {
            assert_eq!(decode(other), None, "{other:?}");
        }
    }

    #[test]
    fn no_bytes_make_it_fail_or_grow() {
        let whole = pod();
        let mut random = 7;
        for round in 0..20_000u64 {
            let mut bytes = whole.clone();
            for _ in 0..=round % 4 {
                random = split_mix(random);
                let at = random as usize % bytes.len();
                match random >> 60 {
                    0..8 => bytes[at] ^= 1 << (random >> 56 & 7),
                    8..12 => bytes.truncate(at.max(4)),
                    _ => {
                        let piece = whole[..at.min(whole.len())].to_vec();
                        bytes.splice(at..at, piece).for_each(drop);
                    }
                }
            }
            if let Some(decoded) = decode(&bytes) {
                let length = decoded.lines().len();
                assert!(length <= 4000 + 80 * bytes.len(), "{length} of {bytes:?}");
                assert!(!decoded.value().json().is_empty());
            }
        }
        // Messages within messages, deeper than anybody looks.
        let mut deep = vec![8, 1];
        for _ in 0..20_000 {
            deep = part(1, &deep);
        }
        let deep = [MAGIC, &part(2, &deep)].concat();
        assert!(decode(&deep).unwrap().lines().len() < 2 * deep.len());
        // Many finalizers behind many names.
        let many = [part(1, b"a").repeat(200_000), part(14, b"b").repeat(200_000)].concat();
        let many = [MAGIC, &part(2, &part(1, &many))].concat();
        assert!(decode(&many).unwrap().lines().len() < 4 * many.len());
        let json = ["[".repeat(100_000), "]".repeat(100_000)].concat();
        assert_eq!(decode(json.as_bytes()), None);
    }
}
