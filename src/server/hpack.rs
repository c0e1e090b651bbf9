//! HTTP/2 header blocks, changed so that h2 treats them as grpc-go does.
//!
//! gRPC clients put into `:authority` what they were dialled with: `unix:` paths with percent
//! signs, lists of addresses, `#initially=[http://127.0.0.1:2379]`. h2 insists on RFC 3986 and
//! resets each of their calls, while grpc-go never looks. The server does not use the value, so one
//! that h2 would refuse is replaced.
//!
//! In a path, h2 takes `#` for the beginning of a fragment and drops what follows, so a call of an
//! unknown method could become one of a known method. `#` is replaced by `?`, which leaves the
//! method unknown. A path, method or scheme that h2 would refuse becomes one that it accepts and
//! that names nothing.
//!
//! Fields for which h2 resets a call and at which grpc-go does not look, such as `te` with anything
//! but `trailers`, get another name. For bytes that no field may have, both reset the stream; but
//! h2 ends the whole connection if its parser finds them. Such a field is made harmless, and a
//! field for which h2 resets the stream is put behind it.
//!
//! A header block is compressed against a table that both sides keep, so bytes cannot be changed at
//! will. But an entry of the table counts by its length before compression. A replacement has the
//! same length as the value, so both tables go on holding the same number of entries, and later
//! blocks, which name an entry by its place, get the replacement without being changed. So no table
//! is kept here.
//!
//! An empty value has no replacement of its length; it gets one byte. h2's table, with such an
//! entry, is longer than the client's, and could drop an entry that the client still names. A table
//! that keeps entries for longer than the client's does no harm, since places count from the newest
//! entry. So clients are told of a smaller table than h2 has, and a client's choice of a still
//! smaller one is not passed on to h2.

use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderName, Method};

use super::huffman::expand;
use crate::limits::HEADER_TABLE_BYTES;

/// Place of `:authority` in the static table (RFC 7541, appendix A).
const AUTHORITY: usize = 1;
/// The place that says that a name is spelled out.
const SPELLED: usize = 0;

const NAME: &[u8] = b":authority";
/// The Huffman codes of all bytes that no field may have begin with at least so many ones.
const RARE_ONES: u32 = 9;
/// A field that enters no table and for which h2 resets the stream: `te: -`.
const REFUSED: &[u8] = b"\x00\x02te\x01-";

/// The header block as h2 should get it; None if nothing that can be read in it has to change.
pub(super) fn adapted(block: &[u8]) -> Option<Vec<u8>> {
    let mut changed: Option<Vec<u8>> = None;
    let mut copied = 0;
    let mut reader = Reader { block, at: 0, is_begun: false };
    // A field may continue in a CONTINUATION frame; the changes before that field count.
    while let Some(field) = reader.field() {
        let Some((from, replacement)) = field else { continue };
        let changed = changed.get_or_insert_with(|| Vec::with_capacity(block.len() + 16));
        changed.extend_from_slice(&block[copied..from]);
        changed.extend_from_slice(&replacement);
        copied = reader.at;
    }
    changed.map(|mut changed| {
        changed.extend_from_slice(&block[copied..]);
        changed
    })
}

struct Reader<'a> {
    block: &'a [u8],
    at: usize,
    /// Whether a field has come: a change of the table's size is allowed only before the first one.
    is_begun: bool,
}

/// The fields that are treated differently.
enum FieldKind {
    Authority,
    Path,
    Method,
    Scheme,
    /// h2 accepts no value but `trailers`; with another one the field gets this name.
    Te(Vec<u8>),
    /// h2 resets the stream for this field, so it gets this name.
    HiddenName(Vec<u8>),
    /// No field may have its name: it gets this one, and the stream is reset.
    InvalidName(Vec<u8>),
    Other,
}

impl FieldKind {
    /// Tells the kind by the place of the name in the tables, or by the name if it is spelled out.
    fn of(place: usize, name: Option<&[u8]>) -> Self {
        match (place, name) {
            (AUTHORITY, _) | (SPELLED, Some(NAME)) => Self::Authority,
            (2 | 3, _) | (SPELLED, Some(b":method")) => Self::Method,
            (4 | 5, _) | (SPELLED, Some(b":path")) => Self::Path,
            (6 | 7, _) | (SPELLED, Some(b":scheme")) => Self::Scheme,
            (8..=14, _) => Self::InvalidName(b"xstatus".to_vec()),
            (28, _) => Self::HiddenName(b"xontent-length".to_vec()),
            (57, _) => Self::HiddenName(b"xransfer-encoding".to_vec()),
            (SPELLED, Some(name)) => Self::of_name(name),
            _ => Self::Other,
        }
    }

    fn of_name(name: &[u8]) -> Self {
        let other = || [&b"x"[..], &name[1..]].concat();
        match name {
            b"te" => Self::Te(other()),
            b"content-length" | b"transfer-encoding" | b"upgrade" | b"keep-alive"
            | b"proxy-connection" => Self::HiddenName(other()),
            b":protocol" => Self::Other,
            _ if is_name(name) => Self::Other,
            _ => Self::InvalidName(vec![b'x'; name.len().max(1)]),
        }
    }
}

fn is_name(name: &[u8]) -> bool {
    let is_plain = |byte: &u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.');
    !name.is_empty() && name.iter().all(is_plain) || HeaderName::from_lowercase(name).is_ok()
}

/// Whether this is a byte that no value may have, for grpc-go and for h2.
fn is_refused(byte: u8) -> bool {
    byte < b' ' && byte != b'\t' || byte == 0x7f
}

/// The value with `other` in the place of each byte that `takes` refuses.
fn with_only(value: &[u8], takes: impl Fn(u8) -> bool, other: u8) -> Vec<u8> {
    value.iter().map(|byte| if takes(*byte) { *byte } else { other }).collect()
}

impl FieldKind {
    /// Another value of the same length for a field that h2 checks, or of one byte if it is empty;
    /// None if h2 accepts the value.
    fn adapted(&self, value: Text<'_>) -> Option<Vec<u8>> {
        let value = match self {
            Self::Authority | Self::Path | Self::Method | Self::Scheme => value.decoded()?,
            _ => return None,
        };
        let adapted = match self {
            Self::Authority => authority(&value),
            Self::Path => path(&value),
            Self::Method => method(&value),
            _ => scheme(&value),
        }?;
        Some(if adapted.is_empty() { self.shortest().to_vec() } else { adapted })
    }

    fn shortest(&self) -> &'static [u8] {
        match self {
            Self::Path => b"/",
            _ => b"-",
        }
    }
}

fn authority(value: &[u8]) -> Option<Vec<u8>> {
    let takes = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'.';
    Authority::try_from(value).is_err().then(|| with_only(value, takes, b'-'))
}

fn path(value: &[u8]) -> Option<Vec<u8>> {
    let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"/._-".contains(byte);
    let is_rooted = value.first() == Some(&b'/');
    if is_rooted && value.iter().all(is_plain) || value == b"*" {
        return None;
    }
    if !is_rooted {
        // A path without a second slash names no method.
        let mut other = vec![b'-'; value.len()];
        if let Some(first) = other.first_mut() {
            *first = b'/';
        }
        return Some(other);
    }
    let other = with_only(value, |byte| byte != b'#', b'?');
    if PathAndQuery::try_from(other.as_slice()).is_ok() && std::str::from_utf8(&other).is_ok() {
        return (other != value).then_some(other);
    }
    // No method has `-` in its name.
    Some(with_only(&other, |byte| is_plain(&byte), b'-'))
}

fn method(value: &[u8]) -> Option<Vec<u8>> {
    if value == b"CONNECT" {
        // h2 takes CONNECT for no request; in lower case it is an unknown method.
        return Some(value.to_ascii_lowercase());
    }
    let takes = |byte: u8| byte.is_ascii_alphanumeric();
    Method::from_bytes(value).is_err().then(|| with_only(value, takes, b'-'))
}

fn scheme(value: &[u8]) -> Option<Vec<u8>> {
    Scheme::try_from(value).is_err().then(|| vec![b'x'; value.len()])
}

impl<'a> Reader<'a> {
    /// Reads one field. None: it ends early or cannot be read. `Some(None)`: it stays. Otherwise
    /// the place where it begins, and what replaces it up to `self.at`.
    fn field(&mut self) -> Option<Option<(usize, Vec<u8>)>> {
        let start = self.at;
        let first = *self.block.get(start)?;
        if first & 0x80 != 0 {
            self.is_begun = true;
            // Such a field takes name and value from a table. The static table's authority is
            // empty, and h2 would refuse it, so it is dropped.
            let is_empty = self.integer(7)? == AUTHORITY;
            return Some(is_empty.then(|| (start, Vec::new())));
        }
        if first & 0xe0 == 0x20 {
            let is_known = self.integer(5)? <= HEADER_TABLE_BYTES as usize && !self.is_begun;
            return Some(is_known.then(|| (start, Vec::new())));
        }
        self.is_begun = true;
        let enters_table = first & 0x40 != 0;
        let place = self.integer(if enters_table { 6 } else { 4 })?;
        let name = match place {
            SPELLED => self.string()?.decoded(),
            _ => None,
        };
        let kind = FieldKind::of(place, name.as_deref());
        let from = self.at;
        let value = self.string()?;
        let refused = value.refused();
        let is_refused = refused.is_some() || matches!(kind, FieldKind::InvalidName(_));
        let new_value = kind.adapted(value).or(refused);
        if matches!(kind, FieldKind::Authority) && !enters_table && value.bytes.is_empty() {
            // Dropped. A field that enters the table has to stay, since later blocks name entries
            // by place.
            return Some(Some((start, Vec::new())));
        }
        let new_name = match kind {
            FieldKind::HiddenName(name) | FieldKind::InvalidName(name) => Some(name),
            FieldKind::Te(name) => {
                value.decoded().is_none_or(|it| it != b"trailers").then_some(name)
            }
            _ => None,
        };
        if new_name.is_none() && new_value.is_none() {
            return Some(None);
        }
        let mut field = Vec::with_capacity(self.at - start + REFUSED.len() + 4);
        match new_name {
            Some(name) => {
                field.push(first & if enters_table { 0x40 } else { 0xf0 });
                put_string(&mut field, &name);
            }
            None => field.extend_from_slice(&self.block[start..from]),
        }
        match new_value {
            Some(value) => put_string(&mut field, &value),
            None => field.extend_from_slice(&self.block[from..self.at]),
        }
        if is_refused {
            field.extend_from_slice(REFUSED);
        }
        Some(Some((start, field)))
    }

    /// Reads an integer that has `bits` bits in its first byte (RFC 7541, section 5.1); None if it
    /// is cut off or has more than five bytes.
    fn integer(&mut self, bits: u32) -> Option<usize> {
        let most = (1 << bits) - 1;
        let mut value = usize::from(*self.block.get(self.at)?) & most;
        self.at += 1;
        if value < most {
            return Some(value);
        }
        for shift in [0, 7, 14, 21] {
            let byte = *self.block.get(self.at)?;
            self.at += 1;
            value += usize::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }

    fn string(&mut self) -> Option<Text<'a>> {
        let is_compressed = self.block.get(self.at)? & 0x80 != 0;
        let length = self.integer(7)?;
        let bytes = self.block.get(self.at..self.at.checked_add(length)?)?;
        self.at += length;
        Some(Text { is_compressed, bytes })
    }
}

#[derive(Clone, Copy)]
struct Text<'a> {
    is_compressed: bool,
    bytes: &'a [u8],
}

impl Text<'_> {
    /// The value, with the same length, without bytes that no value may have; None if it has none
    /// of them.
    fn refused(self) -> Option<Vec<u8>> {
        // Only codes with so many ones stand for such bytes. Hardly any value has them, so hardly
        // any is expanded.
        let may_have = if self.is_compressed {
            let is_long =
                |pair: &[u8]| pair[0].trailing_ones() + pair[1].leading_ones() >= RARE_ONES;
            self.bytes.windows(2).any(is_long)
        } else {
            self.bytes.iter().any(|byte| is_refused(*byte))
        };
        let value = if may_have { self.decoded()? } else { return None };
        let has = value.iter().any(|byte| is_refused(*byte));
        has.then(|| with_only(&value, |byte| !is_refused(byte), b'-'))
    }

    /// The text before compression; None if it is not valid Huffman code.
    fn decoded(self) -> Option<Vec<u8>> {
        if self.is_compressed { expand(self.bytes) } else { Some(self.bytes.to_vec()) }
    }
}

/// Appends a string without compression.
fn put_string(to: &mut Vec<u8>, text: &[u8]) {
    put_length(to, text.len());
    to.extend_from_slice(text);
}

/// Appends the length of a string without compression.
fn put_length(to: &mut Vec<u8>, length: usize) {
    if length < 127 {
        to.push(length as u8);
        return;
    }
    to.push(127);
    let mut rest = length - 127;
    while rest >= 128 {
        to.push((rest % 128) as u8 | 128);
        rest /= 128;
    }
    to.push(rest as u8);
}

#[cfg(test)]
mod tests;
