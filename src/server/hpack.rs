//! Header blocks of HTTP/2, made such that h2 treats them as grpc-go does.
//!
//! gRPC clients send what they were dialled with: `unix:` paths with percent signs, lists of addresses,
//! `#initially=[http://127.0.0.1:2379]`. h2 insists on RFC 3986 and resets each of their calls, while
//! grpc-go never looks. Nothing here needs the value, so one that h2 would refuse is replaced.
//!
//! h2 takes `#` for the begin of a fragment and drops what follows, so a call of a method that nobody has
//! would be one of a method that is there. It becomes `?`, with which the name stays as unknown. A path,
//! method or scheme that h2 would refuse becomes one that it takes and that nobody has.
//!
//! Fields that h2 resets a call for and grpc-go does not look at, such as `te` with anything but
//! `trailers`, get another name. For bytes that no field may have, both reset the stream; but h2 ends the
//! whole connection where its parser finds them. Such a field is made harmless, and another one is put
//! behind it for which h2 resets the stream.
//!
//! A header block is compressed against a table that both sides keep, so bytes cannot be changed at
//! will. But what enters the table counts by its length before compression. The replacement has the
//! same length, so both tables go on holding the same number of entries, and later blocks, which name
//! an entry by its place, get the replacement without being touched. No table is needed here.
//!
//! Nothing has the length of an empty value. Its replacement has one byte, so our table, with such an
//! entry, is the longer one, and would drop an entry that the client still names. But a table that keeps
//! entries for longer than the client's does no harm: places count from the newest. So clients are told
//! of a smaller table than h2 has, and when they say how small theirs is, h2 does not hear of it.

use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderName, Method};

use crate::limits::HEADER_TABLE_BYTES;

/// The place of the authority in the static table.
const AUTHORITY: usize = 1;
/// A name that is spelled out.
const SPELLED: usize = 0;

/// Bits of each symbol's code; the codes are canonical, so that these say all (RFC 7541, appendix B).
#[rustfmt::skip]
const CODE_BITS: [u8; 256] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28,
    28, 28, 28, 28, 28, 28, 28, 28, 6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6,
    5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10, 13, 6, 7, 7, 7, 7, 7, 7,
    7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6,
    15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5, 6, 7, 6, 5, 5, 6, 7, 7,
    7, 7, 7, 15, 11, 14, 13, 28, 20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23,
    24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24, 22, 21, 20, 22, 22, 23, 23, 21,
    23, 22, 22, 24, 21, 22, 23, 23, 21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23,
    26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25, 19, 21, 26, 27, 27, 26, 27, 24,
    21, 21, 26, 26, 28, 27, 27, 27, 20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23,
    26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26,
];
const CODE_BITS_MAX: usize = 30;
/// How many codes have each length.
const COUNTS: [usize; CODE_BITS_MAX + 1] = counts();
/// The symbols by the lengths of their codes, and where each length begins.
const SYMBOLS: [u8; 256] = symbols();
const BEGINS: [usize; CODE_BITS_MAX + 1] = begins();
const FIRSTS: [usize; CODE_BITS_MAX + 1] = firsts();

const NAME: &[u8] = b":authority";
/// A longer text is none of the names that matter, whatever its bytes say.
const NAME_BYTES_MAX: usize = (NAME.len() * CODE_BITS_MAX).div_ceil(8);
/// With so many ones the codes begin of all bytes that no field may have, and that of `#`.
const RARE_ONES: u32 = 9;
/// A field that enters no table and for which h2 resets the stream: `te: -`.
const REFUSED: &[u8] = b"\x00\x02te\x01-";

/// The code that a byte begins with, if that is a whole one: its symbol and its bits, or none.
const SHORT: [(u8, u8); 256] = short();

/// The header block as h2 should have it; None if it can stay as it is, or cannot be read.
pub(super) fn tolerated(block: &[u8]) -> Option<Vec<u8>> {
    let mut changed: Option<Vec<u8>> = None;
    let mut copied = 0;
    let mut reader = Reader { block, at: 0, is_begun: false };
    // Another frame may go on in the middle of a field; what was found before counts.
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
    /// Whether a field has come: the size of the table may only be said before.
    is_begun: bool,
}

/// What a field is, as far as it matters.
enum Kind {
    Authority,
    Path,
    Method,
    Scheme,
    /// h2 wants `trailers` for it, or another name, which is this one.
    Te(Vec<u8>),
    /// h2 must not see it; this name goes.
    Renamed(Vec<u8>),
    /// No field may have its name; this one may.
    Misnamed(Vec<u8>),
    Other,
}

impl Kind {
    /// By the place of its name in the tables, or by the name if that is spelled out.
    fn of(place: usize, name: Option<&[u8]>) -> Self {
        match (place, name) {
            (AUTHORITY, _) | (SPELLED, Some(NAME)) => Self::Authority,
            (2 | 3, _) | (SPELLED, Some(b":method")) => Self::Method,
            (4 | 5, _) | (SPELLED, Some(b":path")) => Self::Path,
            (6 | 7, _) | (SPELLED, Some(b":scheme")) => Self::Scheme,
            (8..=14, _) => Self::Misnamed(b"xstatus".to_vec()),
            (28, _) => Self::Renamed(b"xontent-length".to_vec()),
            (57, _) => Self::Renamed(b"xransfer-encoding".to_vec()),
            (SPELLED, Some(name)) => Self::of_name(name),
            _ => Self::Other,
        }
    }

    fn of_name(name: &[u8]) -> Self {
        let other = || [&b"x"[..], &name[1..]].concat();
        match name {
            b"te" => Self::Te(other()),
            b"content-length" | b"transfer-encoding" | b"upgrade" | b"keep-alive"
            | b"proxy-connection" => Self::Renamed(other()),
            b":protocol" => Self::Other,
            _ if is_name(name) => Self::Other,
            _ => Self::Misnamed(vec![b'x'; name.len().max(1)]),
        }
    }
}

fn is_name(name: &[u8]) -> bool {
    let is_plain = |byte: &u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.');
    !name.is_empty() && name.iter().all(is_plain) || HeaderName::from_lowercase(name).is_ok()
}

/// What no value may have, for grpc-go and for h2.
fn is_refused(byte: u8) -> bool {
    byte < b' ' && byte != b'\t' || byte == 0x7f
}

/// The value with something harmless in the place of each byte that is not taken.
fn with_only(value: &[u8], takes: impl Fn(u8) -> bool, other: u8) -> Vec<u8> {
    value.iter().map(|byte| if takes(*byte) { *byte } else { other }).collect()
}

impl Kind {
    /// Another value for a field that h2 looks into; None if it takes this one. What is empty becomes longer.
    fn tolerated(&self, value: Text<'_>) -> Option<Vec<u8>> {
        let value = match self {
            Self::Authority | Self::Path | Self::Method | Self::Scheme => value.decoded()?,
            _ => return None,
        };
        let tolerated = match self {
            Self::Authority => authority(&value),
            Self::Path => path(&value),
            Self::Method => method(&value),
            _ => scheme(&value),
        }?;
        Some(if tolerated.is_empty() { self.shortest().to_vec() } else { tolerated })
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
        // Without a second slash it names no method.
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
    // No method has this in its name, wherever it stands.
    Some(with_only(&other, |byte| is_plain(&byte), b'-'))
}

fn method(value: &[u8]) -> Option<Vec<u8>> {
    if value == b"CONNECT" {
        // For h2 it is no request.
        return Some(value.to_ascii_lowercase());
    }
    let takes = |byte: u8| byte.is_ascii_alphanumeric();
    Method::from_bytes(value).is_err().then(|| with_only(value, takes, b'-'))
}

fn scheme(value: &[u8]) -> Option<Vec<u8>> {
    Scheme::try_from(value).is_err().then(|| vec![b'x'; value.len()])
}

impl<'a> Reader<'a> {
    /// Reads one field. If it must change: what from which place to its end is to be replaced, and
    /// by what.
    fn field(&mut self) -> Option<Option<(usize, Vec<u8>)>> {
        let start = self.at;
        let first = *self.block.get(start)?;
        if first & 0x80 != 0 {
            self.is_begun = true;
            // Both name and value; the static table's authority is empty.
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
            SPELLED => self.string()?.name(),
            _ => None,
        };
        let kind = Kind::of(place, name.as_deref());
        let from = self.at;
        let value = self.string()?;
        let refused = value.refused();
        let is_refused = refused.is_some() || matches!(kind, Kind::Misnamed(_));
        let new_value = kind.tolerated(value).or(refused);
        if matches!(kind, Kind::Authority) && !enters_table && value.bytes.is_empty() {
            // One that enters the table cannot go.
            return Some(Some((start, Vec::new())));
        }
        let new_name = match kind {
            Kind::Renamed(name) | Kind::Misnamed(name) => Some(name),
            Kind::Te(name) => value.decoded().is_none_or(|it| it != b"trailers").then_some(name),
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

    /// An integer with so many bits in its first byte.
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
    fn name(self) -> Option<Vec<u8>> {
        if self.bytes.len() <= NAME_BYTES_MAX { self.decoded() } else { None }
    }

    /// A value of the same length without what no value may have; None if this has nothing of it.
    fn refused(self) -> Option<Vec<u8>> {
        // Hardly any value has that many ones in a row, so hardly any is expanded.
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

    /// None if its compression is wrong.
    fn decoded(self) -> Option<Vec<u8>> {
        if self.is_compressed { expand(self.bytes) } else { Some(self.bytes.to_vec()) }
    }
}

/// A string that is not compressed.
fn put_string(to: &mut Vec<u8>, text: &[u8]) {
    put_length(to, text.len());
    to.extend_from_slice(text);
}

/// The length of a string that is not compressed.
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

const fn counts() -> [usize; CODE_BITS_MAX + 1] {
    let mut counts = [0; CODE_BITS_MAX + 1];
    let mut symbol = 0;
    while symbol < CODE_BITS.len() {
        counts[CODE_BITS[symbol] as usize] += 1;
        symbol += 1;
    }
    counts
}

const fn begins() -> [usize; CODE_BITS_MAX + 1] {
    let mut begins = [0; CODE_BITS_MAX + 1];
    let mut length = 1;
    while length < begins.len() {
        begins[length] = begins[length - 1] + COUNTS[length - 1];
        length += 1;
    }
    begins
}

const fn symbols() -> [u8; 256] {
    let mut symbols = [0; 256];
    let mut ends = begins();
    let mut symbol = 0;
    while symbol < CODE_BITS.len() {
        let end = &mut ends[CODE_BITS[symbol] as usize];
        symbols[*end] = symbol as u8;
        *end += 1;
        symbol += 1;
    }
    symbols
}

/// The first code of each length.
const fn firsts() -> [usize; CODE_BITS_MAX + 1] {
    let mut firsts = [0; CODE_BITS_MAX + 1];
    let mut length = 1;
    while length < firsts.len() {
        firsts[length] = (firsts[length - 1] + COUNTS[length - 1]) << 1;
        length += 1;
    }
    firsts
}

const fn short() -> [(u8, u8); 256] {
    let mut short = [(0, 0); 256];
    let mut byte = 0;
    while byte < short.len() {
        let mut length = 1;
        while length <= 8 {
            let code = byte >> (8 - length);
            if code >= FIRSTS[length] && code < FIRSTS[length] + COUNTS[length] {
                let symbol = SYMBOLS[BEGINS[length] + code - FIRSTS[length]];
                short[byte] = (symbol, length as u8);
                break;
            }
            length += 1;
        }
        byte += 1;
    }
    short
}

/// The symbol whose code these bits begin with, and its length; None if there is none.
fn symbol(bits: u64) -> Option<(u8, usize)> {
    let (symbol, length) = SHORT[(bits >> 56) as usize];
    if length > 0 {
        return Some((symbol, usize::from(length)));
    }
    (9..=CODE_BITS_MAX).find_map(|length| {
        let place = ((bits >> (64 - length)) as usize).checked_sub(FIRSTS[length])?;
        (place < COUNTS[length]).then(|| (SYMBOLS[BEGINS[length] + place], length))
    })
}

/// Undoes Huffman's coding.
fn expand(bytes: &[u8]) -> Option<Vec<u8>> {
    #[cfg(test)]
    tests::EXPANDED.set(tests::EXPANDED.get() + bytes.len());
    let mut text = Vec::with_capacity(bytes.len() * 8 / 5);
    // Bits that are not used, from the highest on, and how many they are.
    let (mut bits, mut have) = (0_u64, 0);
    let mut rest = bytes.iter();
    loop {
        while have <= 56
            && let Some(byte) = rest.next()
        {
            bits |= u64::from(*byte) << (56 - have);
            have += 8;
        }
        match symbol(bits) {
            Some((symbol, length)) if length <= have => {
                text.push(symbol);
                bits <<= length;
                have -= length;
            }
            // The last byte is filled up with ones, fewer than a byte has.
            _ => return (have < 8 && bits.leading_ones() as usize == have).then_some(text),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    thread_local! {
        /// Compressed bytes that were expanded on this thread.
        pub(super) static EXPANDED: Cell<usize> = const { Cell::new(0) };
    }

    #[test]
    fn what_does_not_matter_is_not_expanded() {
        let long = "x".repeat(5000);
        let name_and_value = [string(long.as_bytes(), true), string(long.as_bytes(), true)];
        let fields = [
            [&[0x7a][..], &string(long.as_bytes(), true)].concat(),
            [&[0x40][..], &name_and_value.concat()].concat(),
        ];
        EXPANDED.set(0);
        assert_eq!(tolerated(&fields.concat()), None);
        assert_eq!(EXPANDED.get(), 0);
        // The longest codes that a name of this length can have.
        assert!(compressed(NAME).len() <= NAME_BYTES_MAX);
    }

    fn compressed(text: &[u8]) -> Vec<u8> {
        // Canonical codes: by length, then by symbol.
        let mut order: Vec<u8> = (0..=255).collect();
        order.sort_by_key(|symbol| (CODE_BITS[usize::from(*symbol)], *symbol));
        let mut codes = [0_u32; 256];
        let (mut next, mut bits) = (0, 0);
        for symbol in order {
            next <<= CODE_BITS[usize::from(symbol)] - bits;
            bits = CODE_BITS[usize::from(symbol)];
            codes[usize::from(symbol)] = next;
            next += 1;
        }
        let mut out: Vec<bool> = Vec::new();
        for byte in text {
            let at = usize::from(*byte);
            out.extend((0..CODE_BITS[at]).rev().map(|bit| codes[at] >> bit & 1 == 1));
        }
        out.resize(out.len().next_multiple_of(8), true);
        out.chunks(8)
            .map(|bits| bits.iter().fold(0, |byte, bit| byte << 1 | u8::from(*bit)))
            .collect()
    }

    fn string(text: &[u8], compress: bool) -> Vec<u8> {
        let mut out = Vec::new();
        let bytes = if compress { compressed(text) } else { text.to_vec() };
        put_length(&mut out, bytes.len());
        out[0] |= u8::from(compress) << 7;
        [out, bytes].concat()
    }

    #[test]
    fn the_examples_of_the_rfc_expand() {
        let example = b"\xf1\xe3\xc2\xe5\xf2\x3a\x6b\xa0\xab\x90\xf4\xff";
        assert_eq!(expand(example).unwrap(), b"www.example.com");
        assert_eq!(expand(b"\xa8\xeb\x10\x64\x9c\xbf").unwrap(), b"no-cache");
        assert_eq!(expand(b"").unwrap(), b"");
        assert_eq!(expand(b"\xff"), None, "a whole byte of filling");
        assert_eq!(expand(b"\xff\xff\xff\xff"), None, "the end of all strings");
        let all: Vec<u8> = (0..=255).collect();
        assert_eq!(expand(&compressed(&all)).unwrap(), all);
    }

    #[test]
    fn what_h2_would_refuse_is_replaced_by_as_many_bytes() {
        let refused: [&[u8]; 8] = [
            b"#initially=[http://127.0.0.1:2379]",
            b"%2Ftmp%2Fx.sock",
            b"127.0.0.1:1,127.0.0.1:2",
            b"etcd/a",
            b"::1",
            b"a\xff\xfeb",
            b"a b",
            &[b'%'; 300],
        ];
        for value in refused {
            for (first, name) in [(0x41, None), (0x40, Some(":authority")), (1, None), (0x11, None)]
            {
                for compress in [false, true] {
                    let name = name.map_or(Vec::new(), |name| string(name.as_bytes(), compress));
                    let head = [&[0x83, 0x86, first][..], &name].concat();
                    let tail = [&[0x44][..], &string(b"/a/b", compress)].concat();
                    let block = [&head[..], &string(value, compress), &tail].concat();
                    let changed = tolerated(&block).unwrap();
                    let middle = &changed[head.len()..changed.len() - tail.len()];
                    let mut reader = Reader { block: middle, at: 0, is_begun: true };
                    let new = reader.string().unwrap().decoded().unwrap();
                    assert_eq!(new.len(), value.len());
                    assert!(Authority::try_from(new.as_slice()).is_ok(), "{new:?}");
                    assert!(changed.starts_with(&head) && changed.ends_with(&tail));
                }
            }
        }
    }

    #[test]
    fn a_path_has_no_fragment() {
        for (value, expected) in [("/a/b#c", Some("/a/b?c")), ("#", Some("/")), ("/a/b?c", None)] {
            for (first, name) in [(0x44, None), (0x40, Some(":path")), (4, None), (0x15, None)] {
                for compress in [false, true] {
                    let name = name.map_or(Vec::new(), |name| string(name.as_bytes(), compress));
                    let head = [&[0x83, 0x86, first][..], &name].concat();
                    let block = [&head[..], &string(value.as_bytes(), compress)].concat();
                    let expected = expected
                        .map(|value| [&head[..], &string(value.as_bytes(), false)].concat());
                    assert_eq!(tolerated(&block), expected, "{value} {first}");
                }
            }
        }
        // Wherever its code lies in the bytes.
        for before in ["", "a", "aa", "aaa", "aaaa", "aaaaa", "aaaaaa", "aaaaaaa"] {
            for between in ["", "0", "u", "?", "~"] {
                let value = format!("/{before}{between}#{between}");
                let block = [&[0x44][..], &string(value.as_bytes(), true)].concat();
                let expected = string(value.replace('#', "?").as_bytes(), false);
                assert_eq!(tolerated(&block).unwrap()[1..], expected, "{value}");
            }
        }
    }

    #[test]
    fn an_empty_one_goes() {
        assert_eq!(tolerated(b"\x83\x81\x86").unwrap(), b"\x83\x86");
        assert_eq!(tolerated(b"\x83\x01\x00\x86").unwrap(), b"\x83\x86");
    }

    #[test]
    fn an_empty_one_that_enters_the_table_leaves_it_as_long() {
        assert_eq!(tolerated(b"\x83\x41\x00\x86").unwrap(), b"\x83\x41\x01-\x86");
        assert_eq!(tolerated(b"\x41\x80\x86").unwrap(), b"\x41\x01-\x86");
        let spelled = [&[0x40][..], &string(NAME, false), &[0x00]].concat();
        let expected = [&[0x40][..], &string(NAME, false), b"\x01-"].concat();
        assert_eq!(tolerated(&spelled).unwrap(), expected);
        // As many as fit into the client's table fit into h2's, with a byte more each.
        let each = 32 + NAME.len();
        assert!(HEADER_TABLE_BYTES as usize / each * (each + 1) + each <= 4096);
    }

    #[test]
    fn h2_does_not_hear_how_small_a_table_is() {
        let size = |bytes: u32| {
            let mut rest = bytes - 31;
            let mut update = vec![0x3f];
            while rest >= 128 {
                update.push((rest % 128) as u8 | 128);
                rest /= 128;
            }
            update.push(rest as u8);
            update
        };
        let small = size(HEADER_TABLE_BYTES);
        assert_eq!(tolerated(&[b"\x20", &small[..], b"\x83"].concat()).unwrap(), b"\x83");
        // One that was not allowed, and one that comes too late, are for h2 to refuse.
        assert_eq!(tolerated(&[&size(HEADER_TABLE_BYTES + 1)[..], b"\x83"].concat()), None);
        assert_eq!(tolerated(&[b"\x83", &small[..]].concat()), None);
    }

    /// Name and value of each field that a block spells out.
    fn fields(block: &[u8]) -> Vec<(Vec<u8>, Vec<u8>)> {
        let mut reader = Reader { block, at: 0, is_begun: true };
        let mut fields = Vec::new();
        while reader.at < block.len() {
            assert_eq!(block[reader.at] & 0xbf, 0, "a field with a known name");
            reader.at += 1;
            let mut next = || reader.string().unwrap().decoded().unwrap();
            fields.push((next(), next()));
        }
        fields
    }

    #[test]
    fn what_no_field_may_have_resets_the_stream_alone() {
        // A name and a value, and what becomes of them.
        type Case = (&'static [u8], &'static [u8], &'static [u8], &'static [u8]);
        let cases: [Case; 9] = [
            (b"x", b"a\0b", b"x", b"a-b"),
            (b"x", b"a\r\nb: c", b"x", b"a--b: c"),
            (b"token", b"a\x7f", b"token", b"a-"),
            (b"x", b"\x01", b"x", b"-"),
            (b"Upper", b"x", b"xxxxx", b"x"),
            (b"a b", b"\0", b"xxx", b"-"),
            (b"x\0", b"", b"xx", b""),
            (b":foo", b"x", b"xxxx", b"x"),
            (b"", b"x", b"x", b"x"),
        ];
        for (name, value, new_name, new_value) in cases {
            for (first, compress) in [(0x40, true), (0x40, false), (0, true), (0, false)] {
                let field = [&[first][..], &string(name, compress), &string(value, compress)];
                let changed = tolerated(&field.concat()).unwrap();
                let expected =
                    [(new_name.to_vec(), new_value.to_vec()), (b"te".to_vec(), b"-".to_vec())];
                assert_eq!(fields(&changed), expected, "{name:?}: {value:?}");
                assert_eq!(changed[0], first, "it enters the table as before");
            }
        }
        // A name that is known, and bytes that are rare and allowed.
        let known = [&[0x7a][..], &string(b"a\nb", true)].concat();
        let expected = [&[0x7a][..], &string(b"a-b", false), REFUSED].concat();
        assert_eq!(tolerated(&known).unwrap(), expected);
        for value in [&b"a\tb"[..], b"\xff\xfe", b"~~~"] {
            assert_eq!(tolerated(&[&[0x7a][..], &string(value, true)].concat()), None);
        }
    }

    #[test]
    fn what_grpc_go_does_not_look_at_gets_another_name() {
        for name in ["te", "transfer-encoding", "upgrade", "keep-alive", "proxy-connection"] {
            let spelled = [&[0x40][..], &string(name.as_bytes(), true), &string(b"x", true)];
            let changed = tolerated(&spelled.concat()).unwrap();
            let new_name = format!("x{}", &name[1..]).into_bytes();
            assert_eq!(fields(&changed), [(new_name, b"x".to_vec())]);
        }
        for (first, name) in [(28, "xontent-length"), (57, "xransfer-encoding")] {
            let known = [&[0x40 | first][..], &string(b"3", false)].concat();
            let expected = [(name.into(), b"3".to_vec())];
            assert_eq!(fields(&tolerated(&known).unwrap()), expected);
        }
        let trailers = [&[0][..], &string(b"te", true), &string(b"trailers", true)].concat();
        assert_eq!(tolerated(&trailers), None);
    }

    #[test]
    fn what_h2_takes_for_no_request_is_one_that_nobody_serves() {
        // The place of a name, a value, and what becomes of it.
        type Case = (u8, &'static [u8], Option<&'static [u8]>);
        let cases: [Case; 14] = [
            (4, b"/a b/c", Some(b"/a-b/c")),
            (4, b"x", Some(b"/")),
            (4, b"x/a/b", Some(b"/----")),
            (4, b"", Some(b"/")),
            (4, b"*", None),
            (4, b"/\xc3\xa9/b", None),
            (4, b"/\xff/b", Some(b"/-/b")),
            (2, b"P T", Some(b"P-T")),
            (2, b"", Some(b"-")),
            (2, b"CONNECT", Some(b"connect")),
            (2, b"PUT", None),
            (6, b"1$", Some(b"xx")),
            (6, b"", None),
            (6, b"ftp", None),
        ];
        for (place, value, expected) in cases {
            for first in [place, 0x40 | place] {
                let changed = tolerated(&[&[first][..], &string(value, true)].concat());
                let expected = expected.map(|value| [&[first][..], &string(value, false)].concat());
                assert_eq!(changed, expected, "{place}: {value:?}");
            }
        }
    }

    #[test]
    fn what_is_right_or_cannot_be_read_stays() {
        let right = [&[0x83, 0x41][..], &string(b"127.0.0.1:2379", true)].concat();
        assert_eq!(tolerated(&right), None);
        assert_eq!(tolerated(&[&[0x41][..], &string(b"[::1]:2379", false)].concat()), None);
        // Another field may say what it likes.
        assert_eq!(tolerated(&[&[0x7a][..], &string(b"::1", false)].concat()), None);
        let cut = [&[0x83, 0x41][..], &string(b"etcd/a", false)].concat();
        for length in 0..cut.len() {
            assert_eq!(tolerated(&cut[..length]), None, "{length}");
        }
        for block in
            [&b"\x41\xff"[..], b"\x41\x7f\xff\xff\xff\xff\xff\xff", b"\xff\xff\xff\xff\xff\xff"]
        {
            assert_eq!(tolerated(block), None);
        }
        // A change before the cut counts.
        let block = [&cut[..], b"\x44\x05/a"].concat();
        assert_eq!(tolerated(&block).unwrap(), b"\x83\x41\x06etcd-a\x44\x05/a");
    }
}
