//! The head of one request, judged by the rules of Go's server and in its words.

use std::borrow::Cow;

use super::target;
use crate::http::is_host;
use crate::limits::{
    HTTP1_HEAD_LINES_MAX, HTTP1_HEAD_PASSED_BYTES_MAX, HTTP1_HEAD_TRIMMED_BYTES,
    HTTP1_LINE_SNIFFED_BYTES_MAX,
};

/// The answer to a head that is refused: the status line's text and the body. None just closes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::server) struct Refusal(Option<(&'static str, &'static str)>);

pub(super) const BAD: Refusal = refusal("400 Bad Request");
pub(super) const TOO_LARGE: Refusal = refusal("431 Request Header Fields Too Large");
/// etcd's answer to what is not HTTP, on a port that also serves gRPC.
pub(super) const SILENT: Refusal = Refusal(None);
const NO_HOST: Refusal = refusal("400 Bad Request: missing required Host header");
const BAD_HOST: Refusal = refusal("400 Bad Request: malformed Host header");
const BAD_NAME: Refusal = refusal("400 Bad Request: invalid header name");
const BAD_VERSION: Refusal =
    refusal("505 HTTP Version Not Supported: unsupported protocol version");
const ENCODED: Refusal = Refusal(Some(("501 Not Implemented", "Unsupported transfer encoding")));

/// Headers that something looks at, beside those of WebSockets. Of a long head, others do not pass.
const KNOWN: [&[u8]; 20] = [
    b"authorization",
    b"connection",
    b"content-length",
    b"content-type",
    b"cookie",
    b"expect",
    b"grpc-metadata-authorization",
    b"grpc-metadata-client-api-version",
    b"grpc-metadata-hasleader",
    b"grpc-metadata-token",
    b"grpc-metadata-traceparent",
    b"grpc-metadata-tracestate",
    b"grpc-timeout",
    b"host",
    b"origin",
    b"transfer-encoding",
    b"upgrade",
    b"x-forwarded-for",
    b"x-forwarded-host",
    b"x-http-method-override",
];
const OF_WEBSOCKETS: &[u8] = b"sec-websocket-";

const fn refusal(text: &'static str) -> Refusal {
    Refusal(Some((text, text)))
}

impl Refusal {
    pub(in crate::server) fn status(&self) -> &'static str {
        self.0.map_or("", |(status, _)| status)
    }

    /// The bytes of the answer.
    pub(in crate::server) fn answer(&self) -> Vec<u8> {
        let Some((status, body)) = self.0 else { return Vec::new() };
        let text = format!(
            "HTTP/1.1 {status}\r\nContent-Type: text/plain; charset=utf-8\r\nConnection: \
             close\r\n\r\n{body}"
        );
        text.into_bytes()
    }
}

/// What a body's length follows from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Length {
    Bytes(u64),
    Chunks,
}

/// A head that may pass.
pub(super) struct Judged {
    /// The head that passes in its place.
    pub changed: Option<Vec<u8>>,
    pub length: Length,
    pub is_post: bool,
    /// Whether the connection ends with the answer.
    pub is_last: bool,
    /// Whether the client would like to speak another protocol.
    pub asks_for_protocol: bool,
}

/// What is known of a head that is not complete: where its last line begins, and how far it was
/// searched for the line's end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Searched {
    pub line: usize,
    bytes: usize,
}

/// The end of a head, behind its empty line. The error is what is known then.
pub(super) fn end(bytes: &[u8], searched: Searched) -> Result<usize, Searched> {
    let Searched { mut line, bytes: mut from } = searched;
    while let Some(length) = bytes[from..].iter().position(|byte| *byte == b'\n') {
        let next = from + length + 1;
        if matches!(bytes[line..next], [b'\n'] | [b'\r', b'\n']) {
            return Ok(next);
        }
        (line, from) = (next, next);
    }
    Err(Searched { line, bytes: bytes.len() })
}

/// The refusal of a request whose head is not complete, if its first line tells. The line may be
/// incomplete itself.
pub(super) fn refused_line(bytes: &[u8], is_sniffed: bool) -> Option<Refusal> {
    let end = bytes.iter().position(|byte| *byte == b'\n');
    if is_sniffed && end.map_or(bytes.len(), |end| end + 1) > HTTP1_LINE_SNIFFED_BYTES_MAX {
        return Some(SILENT);
    }
    let (line, _) = Lines(&bytes[..=end?]).next_line()?;
    Request::of(line, is_sniffed).err()
}

/// Whether the bytes begin with a line that asks for HTTP/1.
pub(super) fn is_http1(bytes: &[u8]) -> bool {
    let line = Lines(bytes).next_line();
    line.is_some_and(|(line, _)| Request::of(line, true) != Err(SILENT))
}

/// Judges a head that begins here and its length, if it is complete, passes as it is and has nothing
/// odd; None if it needs a closer look. Most heads do not, and each byte is looked at once.
pub(super) fn plain(bytes: &[u8]) -> Option<(usize, Judged)> {
    let mut at = line_end(bytes)?;
    let request = Request::of(&bytes[..at], false).ok()?;
    let mut seen = Seen::default();
    loop {
        let rest = &bytes[at + 2..];
        if rest.starts_with(b"\r\n") {
            at += 4;
            break;
        }
        let colon = rest.iter().position(|byte| !is_token(*byte))?;
        if colon == 0 || rest[colon] != b':' {
            return None;
        }
        let end = colon + 1 + line_end(&rest[colon + 1..])?;
        seen.note(&rest[..colon], &rest[colon + 1..end]).ok()?;
        at += 2 + end;
    }
    let judged = seen.judged(&request).ok()?;
    (!is_changed(&seen, &request, at)).then_some((at, judged))
}

/// Judges a complete head.
pub(super) fn judge(head: &[u8], is_sniffed: bool) -> Result<Judged, Refusal> {
    if is_sniffed && let Some(SILENT) = refused_line(head, true) {
        return Err(SILENT);
    }
    let (line, rest) = Lines(head).next_line().ok_or(BAD)?;
    let request = Request::of(line, is_sniffed)?;
    if matches!(rest.first(), Some(b' ' | b'\t')) {
        return Err(BAD);
    }
    let mut seen = Seen::default();
    for field in Fields(Lines(rest)) {
        seen.look(&field?)?;
    }
    let judged = seen.judged(&request)?;
    if !is_changed(&seen, &request, head.len()) {
        return Ok(judged);
    }
    let changed = request.written(Fields(Lines(rest)), is_long(&seen, head.len()))?;
    Ok(Judged { changed: Some(changed), ..judged })
}

fn is_long(seen: &Seen, bytes: usize) -> bool {
    seen.lines > HTTP1_HEAD_LINES_MAX || bytes > HTTP1_HEAD_TRIMMED_BYTES
}

/// Whether hyper gets another head.
fn is_changed(seen: &Seen, request: &Request<'_>, bytes: usize) -> bool {
    seen.is_folded
        || is_long(seen, bytes)
        || request.target.is_some()
        || request.minor > 1
        || request.minor == 0 && seen.encodings > 0
}

/// The place of the line's end, if nothing before it is a control character.
fn line_end(bytes: &[u8]) -> Option<usize> {
    let end = bytes.iter().position(|byte| is_refused(*byte))?;
    bytes[end..].starts_with(b"\r\n").then_some(end)
}

/// The lines of a head.
#[derive(Clone, Copy)]
struct Lines<'a>(&'a [u8]);

impl<'a> Lines<'a> {
    /// The first line without its end, and what is behind it.
    fn next_line(self) -> Option<(&'a [u8], &'a [u8])> {
        if self.0.is_empty() {
            return None;
        }
        let end = self.0.iter().position(|byte| *byte == b'\n').unwrap_or(self.0.len());
        let line = &self.0[..end];
        let rest = self.0.get(end + 1..).unwrap_or_default();
        Some((line.strip_suffix(b"\r").unwrap_or(line), rest))
    }
}

/// The first line of a request.
#[derive(PartialEq, Eq, Debug)]
struct Request<'a> {
    method: &'a [u8],
    raw_target: &'a [u8],
    /// The target that passes in its place.
    target: Option<Vec<u8>>,
    major: u8,
    minor: u8,
}

impl<'a> Request<'a> {
    fn of(line: &'a [u8], is_sniffed: bool) -> Result<Self, Refusal> {
        let malformed = if is_sniffed { SILENT } else { BAD };
        let mut parts = line.splitn(3, |byte| *byte == b' ');
        let (Some(method), Some(raw_target), Some(version)) =
            (parts.next(), parts.next(), parts.next())
        else {
            return Err(malformed);
        };
        let &[b'H', b'T', b'T', b'P', b'/', major, b'.', minor] = version else {
            return Err(malformed);
        };
        if !major.is_ascii_digit() || !minor.is_ascii_digit() || is_sniffed && major != b'1' {
            return Err(malformed);
        }
        if method.is_empty() || !method.iter().all(|byte| is_token(*byte)) {
            return Err(BAD);
        }
        let target = target::adapted(method, raw_target).map_err(|()| BAD)?;
        Ok(Self { method, raw_target, target, major: major - b'0', minor: minor - b'0' })
    }

    /// Writes the head anew; of a long one only the headers that are looked at.
    fn written(&self, fields: Fields<'_>, is_long: bool) -> Result<Vec<u8>, Refusal> {
        let mut out = self.method.to_vec();
        out.push(b' ');
        out.extend_from_slice(self.target.as_deref().unwrap_or(self.raw_target));
        out.extend_from_slice(if self.minor == 0 { b" HTTP/1.0\r\n" } else { b" HTTP/1.1\r\n" });
        let mut lines = 0;
        for field in fields {
            let Field { name, value, .. } = field?;
            // As in Go, a transfer encoding of HTTP/1.0 does not count.
            let is_void = self.minor == 0 && name.eq_ignore_ascii_case(b"transfer-encoding");
            if is_void || is_long && !is_known(name) {
                continue;
            }
            lines += 1;
            for part in [name, b": ", value.trim_ascii(), b"\r\n"] {
                out.extend_from_slice(part);
            }
            if lines > HTTP1_HEAD_LINES_MAX || out.len() > HTTP1_HEAD_PASSED_BYTES_MAX {
                return Err(TOO_LARGE);
            }
        }
        out.extend_from_slice(b"\r\n");
        Ok(out)
    }
}

/// A header, its lines joined.
struct Field<'a> {
    name: &'a [u8],
    value: Cow<'a, [u8]>,
    is_folded: bool,
}

/// The headers of a head, up to its empty line.
struct Fields<'a>(Lines<'a>);

impl<'a> Iterator for Fields<'a> {
    type Item = Result<Field<'a>, Refusal>;

    fn next(&mut self) -> Option<Self::Item> {
        let (line, mut rest) = self.0.next_line().filter(|(line, _)| !line.is_empty())?;
        let Some(colon) = line.iter().position(|byte| *byte == b':') else {
            return Some(Err(BAD));
        };
        let (name, value) = (&line[..colon], &line[colon + 1..]);
        let is_folded = matches!(rest.first(), Some(b' ' | b'\t'));
        let mut value = Cow::Borrowed(value);
        while matches!(rest.first(), Some(b' ' | b'\t')) {
            let Some((line, behind)) = Lines(rest).next_line() else { break };
            let joined = value.to_mut();
            joined.push(b' ');
            joined.extend_from_slice(trimmed(line));
            rest = behind;
        }
        self.0 = Lines(rest);
        Some(Ok(Field { name, value, is_folded }))
    }
}

/// What the headers say.
#[derive(Default)]
struct Seen {
    lines: usize,
    is_folded: bool,
    hosts: usize,
    is_host: bool,
    has_bad_name: bool,
    encodings: usize,
    is_chunked: bool,
    length: Option<u64>,
    has_bad_length: bool,
    has_bad_trailer: bool,
    closes: bool,
    stays: bool,
    upgrades: bool,
}

impl Seen {
    fn look(&mut self, field: &Field<'_>) -> Result<(), Refusal> {
        let Field { name, value, is_folded } = field;
        for byte in *name {
            self.has_bad_name |= *byte == b' ';
            if !is_token(*byte) && *byte != b' ' {
                return Err(BAD);
            }
        }
        if name.is_empty() || value.iter().any(|byte| is_refused(*byte)) {
            return Err(BAD);
        }
        self.is_folded |= is_folded;
        self.note(name, value)
    }

    /// Notes what a header says.
    fn note(&mut self, name: &[u8], value: &[u8]) -> Result<(), Refusal> {
        self.lines += 1;
        let value = trimmed(value);
        match name.len() {
            4 if name.eq_ignore_ascii_case(b"host") => {
                self.hosts += 1;
                self.is_host = is_host(value);
                if self.hosts > 1 {
                    return Err(BAD);
                }
            }
            7 if name.eq_ignore_ascii_case(b"upgrade") => self.upgrades = true,
            7 if name.eq_ignore_ascii_case(b"trailer") => {
                self.has_bad_trailer |= words(value).any(is_no_trailer);
            }
            10 if name.eq_ignore_ascii_case(b"connection") => {
                self.closes |= words(value).any(|word| word.eq_ignore_ascii_case(b"close"));
                self.stays |= words(value).any(|word| word.eq_ignore_ascii_case(b"keep-alive"));
            }
            14 if name.eq_ignore_ascii_case(b"content-length") => {
                let length = length(value);
                self.has_bad_length |=
                    length.is_none() || self.length.is_some() && self.length != length;
                self.length = length;
            }
            17 if name.eq_ignore_ascii_case(b"transfer-encoding") => {
                self.encodings += 1;
                self.is_chunked = value.eq_ignore_ascii_case(b"chunked");
            }
            _ => {}
        }
        Ok(())
    }

    /// What follows for the request, which passes as it is.
    fn judged(&self, request: &Request<'_>) -> Result<Judged, Refusal> {
        let length = self.length(request)?;
        if request.major != 1 {
            return Err(BAD_VERSION);
        }
        match self.hosts {
            0 if request.minor > 0 && request.method != b"CONNECT" => return Err(NO_HOST),
            1 if !self.is_host => return Err(BAD_HOST),
            _ if self.has_bad_name => return Err(BAD_NAME),
            _ => {}
        }
        Ok(Judged {
            changed: None,
            length,
            is_post: request.method == b"POST",
            is_last: self.closes || request.minor == 0 && !self.stays,
            asks_for_protocol: self.upgrades,
        })
    }

    /// The length of the body.
    fn length(&self, request: &Request<'_>) -> Result<Length, Refusal> {
        let is_encoded = self.encodings > 0 && (request.major, request.minor) >= (1, 1);
        if is_encoded && (self.encodings > 1 || !self.is_chunked) {
            return Err(ENCODED);
        }
        if self.has_bad_length || is_encoded && self.has_bad_trailer {
            return Err(BAD);
        }
        Ok(if is_encoded { Length::Chunks } else { Length::Bytes(self.length.unwrap_or(0)) })
    }
}

fn trimmed(line: &[u8]) -> &[u8] {
    let is_space = |byte: &u8| matches!(byte, b' ' | b'\t');
    let from = line.iter().position(|byte| !is_space(byte)).unwrap_or(line.len());
    let to = line.iter().rposition(|byte| !is_space(byte)).map_or(from, |at| at + 1);
    &line[from..to]
}

fn words(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|byte| *byte == b',').map(trimmed)
}

/// Whether a trailer must not have this name.
fn is_no_trailer(name: &[u8]) -> bool {
    let never: [&[u8]; 3] = [b"transfer-encoding", b"trailer", b"content-length"];
    never.iter().any(|never| never.eq_ignore_ascii_case(name))
}

/// The number that a Content-Length is.
fn length(value: &[u8]) -> Option<u64> {
    if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let length: u64 = std::str::from_utf8(value).ok()?.parse().ok()?;
    i64::try_from(length).is_ok().then_some(length)
}

fn is_known(name: &[u8]) -> bool {
    let beginning = &name[..name.len().min(OF_WEBSOCKETS.len())];
    beginning.eq_ignore_ascii_case(OF_WEBSOCKETS)
        || KNOWN.iter().any(|known| known.eq_ignore_ascii_case(name))
}

/// Whether no header's value may have a byte.
fn is_refused(byte: u8) -> bool {
    const IS_REFUSED: [bool; 256] = {
        let mut is_refused = [false; 256];
        let mut byte = 0;
        while byte < 32 {
            is_refused[byte] = byte != b'\t' as usize;
            byte += 1;
        }
        is_refused[0x7f] = true;
        is_refused
    };
    IS_REFUSED[usize::from(byte)]
}

/// Whether a byte may be in a method or a header's name.
fn is_token(byte: u8) -> bool {
    const IS_TOKEN: [bool; 256] = {
        let mut is_token = [false; 256];
        let mut byte = 0;
        while byte < 256 {
            let this = byte as u8;
            is_token[byte] = this.is_ascii_alphanumeric();
            byte += 1;
        }
        let others = b"!#$%&'*+-.^_`|~";
        let mut at = 0;
        while at < others.len() {
            is_token[others[at] as usize] = true;
            at += 1;
        }
        is_token
    };
    IS_TOKEN[usize::from(byte)]
}
