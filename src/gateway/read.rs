//! Turns a JSON document into a message's bytes, by the rules and with the error texts of Go's
//! protojson, which ignores unknown names here. Expects what `scan` has found to be JSON.
//!
//! Messages may be nested as deep as the document, so nothing here recurses. A message's length is
//! written where its place was kept, in as many bytes as any length within the document needs: a
//! varint may have needless bytes.

use base64::Engine as _;
use base64::alphabet::{STANDARD, URL_SAFE};
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use prost::encoding::{encode_varint, encoded_len_varint};

use super::number::{first_number, integer, word};
use crate::go;
use crate::pb::shapes::{self, Field, Kind};

/// Messages within each other that protojson accepts.
const DEPTH_MAX: usize = 10_000;

/// Encodes the message of this shape that the document is.
pub(super) fn message(shape: usize, document: &[u8]) -> Result<Vec<u8>, String> {
    let mut reader = Reader::new(document);
    let token = reader.token()?;
    if token.kind != Token::Open(b'{') {
        return Err(reader.unexpected(token));
    }
    let mut open = vec![Open::Message { shape, seen: Vec::new(), length_at: None }];
    let mut depth = 1;
    let mut out = Vec::with_capacity(document.len());
    while let Some(last) = open.last_mut() {
        let field = match last {
            Open::Message { shape, seen, length_at } => {
                let token = reader.token()?;
                match token.kind {
                    Token::Close => {
                        if let Some(at) = *length_at {
                            write_length(&mut out, at, reader.length_bytes);
                        }
                        depth -= 1;
                        open.pop();
                        continue;
                    }
                    Token::Text => match reader.field(*shape, token, seen)? {
                        Some(field) => field,
                        None => continue,
                    },
                    _ => return Err(reader.unexpected(token)),
                }
            }
            Open::List(_) if reader.next_begins_with(b']') => {
                reader.token()?;
                open.pop();
                continue;
            }
            Open::List(field) => *field,
        };
        let is_element = matches!(last, Open::List(_));
        if field.is_list && !is_element {
            let token = reader.token()?;
            if token.kind != Token::Open(b'[') {
                return Err(reader.unexpected(token));
            }
            open.push(Open::List(field));
            continue;
        }
        let Some(shape) = field.inner else {
            reader.scalar(field, &mut out)?;
            continue;
        };
        if depth == DEPTH_MAX {
            return Err("proto: exceeded max recursion depth".to_owned());
        }
        let token = reader.token()?;
        if token.kind != Token::Open(b'{') {
            return Err(reader.unexpected(token));
        }
        depth += 1;
        encode_key(field, &mut out);
        let length_at = Some(out.len());
        out.resize(out.len() + reader.length_bytes, 0);
        open.push(Open::Message { shape, seen: Vec::new(), length_at });
    }
    Ok(out)
}

/// What the reader is in the middle of.
enum Open {
    Message {
        shape: usize,
        /// The fields that the object has had, and whether each had a value.
        seen: Vec<(&'static Field, bool)>,
        /// Where the message's length belongs; None for the outermost.
        length_at: Option<usize>,
    },
    List(&'static Field),
}

fn encode_key(field: &Field, out: &mut Vec<u8>) {
    encode_varint(u64::from(field.number << 3 | u32::from(field.wire)), out);
}

fn write_length(out: &mut [u8], at: usize, length_bytes: usize) {
    let mut length = out.len() - at - length_bytes;
    for (number, byte) in (1..).zip(&mut out[at..at + length_bytes]) {
        let more = if number < length_bytes { 0x80 } else { 0 };
        *byte = (length & 0x7f) as u8 | more;
        length >>= 7;
    }
    debug_assert_eq!(length, 0, "a length does not fit into its place");
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Token {
    Open(u8),
    Close,
    /// A string, a name among them; `Reader::text` has what it stands for.
    Text,
    Number,
    Bool(bool),
    Null,
    End,
}

/// A token and its place in the document.
#[derive(Clone, Copy, Debug)]
struct Placed {
    kind: Token,
    start: usize,
    end: usize,
}

struct Reader<'d> {
    document: &'d [u8],
    at: usize,
    /// What the last string stands for, if it is not what stands in the document.
    unescaped: Option<String>,
    /// Bytes that the length of any message in the document needs.
    length_bytes: usize,
}

impl<'d> Reader<'d> {
    fn new(document: &'d [u8]) -> Self {
        // An element of three bytes, such as `-1`, may take eleven in a message.
        let length_bytes = encoded_len_varint(4 * document.len() as u64);
        Self { document, at: 0, unescaped: None, length_bytes }
    }

    /// Reads the next token; commas and colons are none.
    fn token(&mut self) -> Result<Placed, String> {
        self.skip_separators();
        let start = self.at;
        let kind = match self.peek() {
            None => Token::End,
            Some(open @ (b'{' | b'[')) => {
                self.at += 1;
                Token::Open(open)
            }
            Some(b'}' | b']') => {
                self.at += 1;
                Token::Close
            }
            Some(b'"') => {
                self.string()?;
                Token::Text
            }
            Some(first) => {
                self.at += word(&self.document[start..]).len();
                match first {
                    b't' => Token::Bool(true),
                    b'f' => Token::Bool(false),
                    b'n' => Token::Null,
                    _ => Token::Number,
                }
            }
        };
        Ok(Placed { kind, start, end: self.at })
    }

    fn skip_separators(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\r' | b'\n' | b',' | b':')) {
            self.at += 1;
        }
    }

    /// Whether the next token does, which is not read yet.
    fn next_begins_with(&mut self, byte: u8) -> bool {
        self.skip_separators();
        self.peek() == Some(byte)
    }

    fn peek(&self) -> Option<u8> {
        self.document.get(self.at).copied()
    }

    /// Passes a string and checks it more strictly than `scan` does.
    fn string(&mut self) -> Result<(), String> {
        let start = self.at;
        let inside = &self.document[start + 1..];
        let plain = |byte: &&u8| !matches!(byte, b'"' | b'\\');
        let run = inside.iter().take_while(plain).count();
        self.unescaped = None;
        if inside.get(run) == Some(&b'"') {
            self.at = start + run + 2;
            return match std::str::from_utf8(&inside[..run]) {
                Ok(_) => Ok(()),
                Err(_) => Err(self.syntax(start, "invalid UTF-8 in string")),
            };
        }
        let mut text = Vec::with_capacity(run + 64);
        let mut at = start + 1;
        loop {
            let rest = &self.document[at..];
            let run = rest.iter().take_while(plain).count();
            text.extend_from_slice(&rest[..run]);
            at += run;
            let [b'\\', escape, rest @ ..] = &self.document[at..] else { break };
            at += 2;
            text.push(match escape {
                b'b' => 8,
                b'f' => 12,
                b'n' => b'\n',
                b'r' => b'\r',
                b't' => b'\t',
                b'u' => {
                    let (character, bytes) = unicode(rest).map_err(|shown| match shown {
                        Some(shown) => {
                            let shown = go::quote(shown);
                            let what = format!("invalid escape code {shown} in string");
                            self.syntax(start, &what)
                        }
                        None => "proto: unexpected EOF".to_owned(),
                    })?;
                    at += bytes;
                    text.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
                    continue;
                }
                other => *other,
            });
        }
        self.at = at + 1;
        match String::from_utf8(text) {
            Ok(text) => self.unescaped = Some(text),
            Err(_) => return Err(self.syntax(start, "invalid UTF-8 in string")),
        }
        Ok(())
    }

    /// What the string that was read last stands for.
    fn text(&self, token: Placed) -> &str {
        match &self.unescaped {
            Some(text) => text,
            // `string` has checked it.
            None => std::str::from_utf8(&self.document[token.start + 1..token.end - 1])
                .unwrap_or_default(),
        }
    }

    /// The field whose name was read, unless its value is null or it is unknown: then the value is
    /// passed, too.
    fn field(
        &mut self,
        shape: usize,
        token: Placed,
        seen: &mut Vec<(&'static Field, bool)>,
    ) -> Result<Option<&'static Field>, String> {
        let name = self.text(token);
        let fields = shapes::fields(shape);
        let by_json_name = fields.iter().find(|field| field.json_name == name);
        let Some(field) = by_json_name.or_else(|| fields.iter().find(|field| field.name == name))
        else {
            return self.pass().map(|()| None);
        };
        if seen.iter().any(|(had, _)| had.number == field.number) {
            return Err(self.error(token.start, &format!("duplicate field {}", self.raw(token))));
        }
        let is_set = !self.next_begins_with(b'n');
        if is_set
            && let Some(oneof) = field.oneof
            && seen.iter().any(|(had, is_set)| *is_set && had.oneof == Some(oneof))
        {
            let name = self.raw(token);
            let what = format!("error parsing {name}, oneof {oneof} is already set");
            return Err(self.error(token.start, &what));
        }
        seen.push((field, is_set));
        if is_set { Ok(Some(field)) } else { self.pass().map(|()| None) }
    }

    /// Passes the next value, whatever it is.
    fn pass(&mut self) -> Result<(), String> {
        let mut depth = 0_usize;
        loop {
            match self.token()?.kind {
                Token::Open(_) => depth += 1,
                Token::Close => depth -= 1,
                Token::End => return Ok(()),
                _ => {}
            }
            if depth == 0 {
                return Ok(());
            }
        }
    }

    /// Reads a value and encodes it as the field's, or as one of them.
    fn scalar(&mut self, field: &Field, out: &mut Vec<u8>) -> Result<(), String> {
        let token = self.token()?;
        let number = |reader: &Self| match token.kind {
            Token::Number => integer(reader.raw(token).as_bytes()),
            Token::Text => {
                let text = reader.text(token);
                let is_trimmed = text.trim() == text;
                first_number(text.as_bytes()).filter(|_| is_trimmed).and_then(integer)
            }
            _ => None,
        };
        let value = match (field.kind, token.kind) {
            (Kind::Bool, Token::Bool(value)) => Some(u64::from(value)),
            (Kind::Int32, _) => {
                number(self).and_then(|n| i32::try_from(n).ok()).map(|n| i64::from(n) as u64)
            }
            (Kind::Int64, _) => number(self).and_then(|n| i64::try_from(n).ok()).map(|n| n as u64),
            (Kind::Uint32, _) => number(self).and_then(|n| u32::try_from(n).ok()).map(u64::from),
            (Kind::Uint64, _) => number(self).and_then(|n| u64::try_from(n).ok()),
            (Kind::Enum(names), Token::Text) => {
                let name = self.text(token);
                match names.iter().find(|(_, known)| *known == name) {
                    Some((number, _)) => Some(i64::from(*number) as u64),
                    None => return Ok(()),
                }
            }
            (Kind::Enum(_), Token::Number) => {
                number(self).and_then(|n| i32::try_from(n).ok()).map(|n| i64::from(n) as u64)
            }
            (Kind::String, Token::Text) => {
                let text = self.text(token).as_bytes();
                encode_key(field, out);
                encode_varint(text.len() as u64, out);
                out.extend_from_slice(text);
                return Ok(());
            }
            (Kind::Bytes, Token::Text) => match decoded(self.text(token)) {
                Some(bytes) => {
                    encode_key(field, out);
                    encode_varint(bytes.len() as u64, out);
                    out.extend_from_slice(&bytes);
                    return Ok(());
                }
                None => None,
            },
            _ => None,
        };
        let Some(value) = value else {
            let (kind, name, value) = (kind_name(field.kind), field.json_name, self.raw(token));
            let what = format!("invalid value for {kind} field {name}: {value}");
            return Err(self.error(token.start, &what));
        };
        encode_key(field, out);
        encode_varint(value, out);
        Ok(())
    }

    fn raw(&self, token: Placed) -> std::borrow::Cow<'d, str> {
        String::from_utf8_lossy(&self.document[token.start..token.end])
    }

    fn unexpected(&self, token: Placed) -> String {
        self.syntax(token.start, &format!("unexpected token {}", self.raw(token)))
    }

    fn syntax(&self, at: usize, what: &str) -> String {
        format!("proto: syntax error {}: {what}", self.place(at))
    }

    fn error(&self, at: usize, what: &str) -> String {
        format!("proto: {}: {what}", self.place(at))
    }

    /// Line and column, which counts characters.
    fn place(&self, at: usize) -> String {
        let before = &self.document[..at];
        let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
        let begin = before.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        let column = String::from_utf8_lossy(&before[begin..]).chars().count() + 1;
        format!("(line {line}:{column})")
    }
}

/// The character of the escape `\u` whose digits `rest` begins with, and how many bytes of `rest`
/// it takes. The error is what Go shows of it; None if it expects another escape and the document
/// has no room for one.
fn unicode(rest: &[u8]) -> Result<(char, usize), Option<Vec<u8>>> {
    let code = |digits: &[u8]| {
        let digits = digits.first_chunk::<4>().and_then(|digits| std::str::from_utf8(digits).ok());
        digits.and_then(|digits| u32::from_str_radix(digits, 16).ok())
    };
    // `scan` has seen the digits of each escape.
    let first = code(rest).unwrap_or_default();
    if let Some(character) = char::from_u32(first) {
        return Ok((character, 4));
    }
    let next = rest[4..].first_chunk::<6>().ok_or(None)?;
    let shown = || Some(next.to_vec());
    let second = match next {
        [b'\\', b'u', digits @ ..] => code(digits).ok_or_else(shown)?,
        _ => return Err(shown()),
    };
    if !(0xd800..0xdc00).contains(&first) || !(0xdc00..0xe000).contains(&second) {
        return Err(shown());
    }
    let joined = 0x10000 + ((first - 0xd800) << 10) + (second - 0xdc00);
    char::from_u32(joined).map(|character| (character, 10)).ok_or_else(shown)
}

/// Bytes from base64 in either alphabet, padded or not, as Go decodes it.
fn decoded(text: &str) -> Option<Vec<u8>> {
    const fn engine(alphabet: &base64::alphabet::Alphabet, is_padded: bool) -> GeneralPurpose {
        let mode = match is_padded {
            true => DecodePaddingMode::RequireCanonical,
            false => DecodePaddingMode::RequireNone,
        };
        let config = GeneralPurposeConfig::new()
            .with_decode_allow_trailing_bits(true)
            .with_decode_padding_mode(mode);
        GeneralPurpose::new(alphabet, config)
    }
    const ENGINES: [[GeneralPurpose; 2]; 2] = [
        [engine(&STANDARD, false), engine(&STANDARD, true)],
        [engine(&URL_SAFE, false), engine(&URL_SAFE, true)],
    ];
    let is_url = text.contains(['-', '_']);
    let is_padded = text.len().is_multiple_of(4);
    let engine = &ENGINES[usize::from(is_url)][usize::from(is_padded)];
    if text.contains(['\r', '\n']) {
        return engine.decode(text.replace(['\r', '\n'], "")).ok();
    }
    engine.decode(text).ok()
}

fn kind_name(kind: Kind) -> &'static str {
    match kind {
        Kind::Bool => "bool",
        Kind::Int32 => "int32",
        Kind::Int64 => "int64",
        Kind::Uint32 => "uint32",
        Kind::Uint64 => "uint64",
        Kind::String => "string",
        Kind::Bytes => "bytes",
        Kind::Message => "message",
        Kind::Enum(_) => "enum",
    }
}

#[cfg(test)]
mod tests {
    use prost::Message as _;

    use super::*;
    use crate::pb::shapes::Shaped;
    use crate::pb::{Compare, RangeRequest, TxnRequest, WatchRequest, compare, watch_request};

    fn range(document: &str) -> Result<RangeRequest, String> {
        let bytes = message(RangeRequest::SHAPE, document.as_bytes())?;
        Ok(RangeRequest::decode(&bytes[..]).unwrap())
    }

    #[test]
    fn values_are_read_in_every_form() {
        let expected = RangeRequest {
            key: "foo".into(),
            range_end: "\u{ff}".to_owned().into(),
            limit: 10,
            sort_order: 1,
            keys_only: true,
            ..RangeRequest::default()
        };
        for document in [
            r#"{"key":"Zm9v","range_end":"w78=","limit":10,"sort_order":"ASCEND","keys_only":true}"#,
            r#"{"key":"Zm9v","rangeEnd":"w78","limit":"10","sortOrder":1,"keysOnly":true}"#,
            r#"{"\u006bey":"Zm9v","rangeEnd":"w78=","limit":1e1,"sortOrder":"ASCEND","keysOnly":true}"#,
            r#"{"key":"Zm\n9v","rangeEnd":"w78=","limit":"100e-1","sortOrder":1.0,"keys_only":true}"#,
            r#" {"none":{"a":[{},"]"],"b":1}, "key" : "Zm9v","rangeEnd":"w78=","limit":10.0,
                "sortOrder":1,"keysOnly":true,"revision":null,"sort_target":"NONE"} "#,
        ] {
            assert_eq!(range(document.trim()).as_ref(), Ok(&expected), "{document}");
        }
        assert_eq!(range(r#"{"key":"-_8="}"#).unwrap().key, &b"\xfb\xff"[..]);
        let negative = range(r#"{"limit":-1,"revision":"-9223372036854775808"}"#).unwrap();
        assert_eq!((negative.limit, negative.revision), (-1, i64::MIN));
    }

    #[test]
    fn faults_have_protojsons_texts() {
        for (document, why) in [
            (r#"{"key":5}"#, "(line 1:8): invalid value for bytes field key: 5"),
            (r#"{"key":"!!"}"#, "(line 1:8): invalid value for bytes field key: \"!!\""),
            (
                "{\n \"range_end\":\"x=\"}",
                "(line 2:14): invalid value for bytes field rangeEnd: \"x=\"",
            ),
            (r#"{"limit":1.5}"#, "(line 1:10): invalid value for int64 field limit: 1.5"),
            (r#"{"limit":" 1"}"#, "(line 1:10): invalid value for int64 field limit: \" 1\""),
            (r#"{"limit":1e20}"#, "(line 1:10): invalid value for int64 field limit: 1e20"),
            (r#"{"sortOrder":true}"#, "(line 1:14): invalid value for enum field sortOrder: true"),
            (r#"{"key":"","key":""}"#, "(line 1:11): duplicate field \"key\""),
            (r#"{"key":[]}"#, "(line 1:8): invalid value for bytes field key: ["),
            ("[]", "syntax error (line 1:1): unexpected token ["),
            ("null", "syntax error (line 1:1): unexpected token null"),
            (r#"{"é":"\ud800"}"#, "unexpected EOF"),
            (
                r#"{"é":"\ud800xxxxxx"}"#,
                r#"syntax error (line 1:6): invalid escape code "xxxxxx" in string"#,
            ),
        ] {
            assert_eq!(range(document), Err(format!("proto: {why}")), "{document}");
        }
        let invalid = message(RangeRequest::SHAPE, b"{\"none\":\"\xff\"}");
        let why = "proto: syntax error (line 1:9): invalid UTF-8 in string";
        assert_eq!(invalid, Err(why.to_owned()));
    }

    #[test]
    fn a_oneof_has_one_member() {
        let txn = |document: &str| message(TxnRequest::SHAPE, document.as_bytes());
        let why = "proto: (line 1:28): error parsing \"request_range\", oneof \
                   etcdserverpb.RequestOp.request is already set";
        let both = r#"{"success":[{"requestPut":{},"request_range":{}}]}"#;
        assert_eq!(txn(both), Err(why.replace("1:28", "1:30")));
        assert!(txn(r#"{"success":[{"requestPut":null,"request_range":{}}]}"#).is_ok());
        let one = txn(r#"{"compare":[{"target":"MOD","key":"YQ==","mod_revision":"0"}]}"#);
        let one = TxnRequest::decode(&one.unwrap()[..]).unwrap();
        let compare = Compare {
            target: 2,
            key: "a".into(),
            target_union: Some(compare::TargetUnion::ModRevision(0)),
            ..Compare::default()
        };
        assert_eq!(one.compare, [compare]);
    }

    #[test]
    fn a_message_may_be_longer_than_its_document() {
        let document = format!(r#"{{"create_request":{{"filters":[{}]}}}}"#, ["-1"; 12].join(","));
        let encoded = message(WatchRequest::SHAPE, document.as_bytes()).unwrap();
        let watch = WatchRequest::decode(&encoded[..]).unwrap();
        let Some(watch_request::RequestUnion::CreateRequest(create)) = watch.request_union else {
            panic!("{watch:?}");
        };
        assert_eq!(create.filters, [-1; 12]);
    }

    #[test]
    fn depth_costs_no_stack() {
        let (open, close) = (r#"{"success":[{"requestTxn":"#, "}]}");
        let document = |depth| format!("{}{{}}{}", open.repeat(depth), close.repeat(depth));
        assert!(message(TxnRequest::SHAPE, document(DEPTH_MAX / 2 - 1).as_bytes()).is_ok());
        let deep = message(TxnRequest::SHAPE, document(DEPTH_MAX).as_bytes());
        assert_eq!(deep, Err("proto: exceeded max recursion depth".to_owned()));
    }
}
