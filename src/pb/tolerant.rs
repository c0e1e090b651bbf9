//! Decodes requests that Go's protobuf accepts and prost does not.
//!
//! - A known field with an unexpected wire type is an error in prost. In Go it is an unknown field,
//!   which is ignored.
//! - prost accepts a hundred messages or groups within each other, Go ten thousand. etcd therefore
//!   runs transactions that are nested deeper than prost can decode.
//!
//! prost decodes first, so that what it accepts costs nothing more. Of a request that it refuses, a
//! copy is made without the fields that Go would ignore, by a table that the build makes from the
//! .proto files. The copy is made without recursion: only `transaction` recurses, and its depth is
//! bounded.

use bytes::Bytes;
use prost::encoding::{WireType, decode_key, decode_varint};
use prost::{DecodeError, Message};

use super::request_op::Request;
use super::shapes::{self, Field, Shaped};
use super::{Compare, RequestOp, TxnRequest};

/// Levels of messages that Go's protobuf accepts, and levels of groups within a group.
const DEPTH_MAX: usize = 10_000;

const VARINT: u8 = 0;
const FIXED_64: u8 = 1;
const LENGTH_DELIMITED: u8 = 2;
const GROUP: u8 = 3;
const GROUP_END: u8 = 4;
const FIXED_32: u8 = 5;

/// The reason why bytes are no message, in Go's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    #[error("proto: cannot parse invalid wire-format data")]
    Wire,
    #[error("proto: exceeded maximum recursion depth")]
    Recursion,
    #[error("string field contains invalid UTF-8")]
    Text,
    /// Nested deeper than the caller of `transaction` allows.
    #[error("transactions are nested too deep")]
    Nesting,
}

impl From<DecodeError> for Malformed {
    /// For bytes that `clean` made: prost can object to nothing in them but strings that are not
    /// UTF-8.
    fn from(_: DecodeError) -> Self {
        Self::Text
    }
}

/// What happens to transactions that are nested deeper than is allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Below {
    /// Those at the first level below it become empty.
    Cut,
    Refused,
}

/// Decodes a message of a type that does not contain itself.
pub fn message<M: Message + Default + Shaped>(bytes: Bytes) -> Result<M, Malformed> {
    M::decode(bytes.clone()).or_else(|_| Ok(M::decode(clean(&bytes, M::SHAPE)?)?))
}

/// Decodes a transaction with up to `depth_max` levels of nested ones; `below` says what happens to
/// deeper ones. What prost accepts, a hundred levels of messages, is neither cut nor refused.
pub fn transaction(bytes: Bytes, depth_max: usize, below: Below) -> Result<TxnRequest, Malformed> {
    TxnRequest::decode(bytes.clone()).or_else(|_| {
        let mut txn = TxnRequest::default();
        level(clean(&bytes, TxnRequest::SHAPE)?, Depth { left: depth_max, below }, &mut txn)?;
        Ok(txn)
    })
}

#[derive(Clone, Copy)]
struct Depth {
    left: usize,
    below: Below,
}

/// Takes the next field off `rest`: its number and its value, which shares the buffer. Expects the
/// output of `clean` and a message whose fields are all messages or bytes.
fn next_field(rest: &mut Bytes) -> Result<Option<(u32, Bytes)>, Malformed> {
    if rest.is_empty() {
        return Ok(None);
    }
    let (number, WireType::LengthDelimited) = decode_key(rest)? else {
        return Err(Malformed::Wire);
    };
    let length = usize::try_from(decode_varint(rest)?).ok();
    let length = length.filter(|length| *length <= rest.len()).ok_or(Malformed::Wire)?;
    Ok(Some((number, rest.split_to(length))))
}

/// Adds the encoded fields to a transaction. Each level skips over its fields without reading or
/// copying what is in them, so time and memory are linear in the request at any depth.
fn level(mut rest: Bytes, depth: Depth, txn: &mut TxnRequest) -> Result<(), Malformed> {
    while let Some((number, value)) = next_field(&mut rest)? {
        match number {
            COMPARE => txn.compare.push(Compare::decode(value)?),
            SUCCESS => txn.success.push(operation(value, depth)?),
            FAILURE => txn.failure.push(operation(value, depth)?),
            _ => return Err(Malformed::Wire),
        }
    }
    Ok(())
}

/// The fields of `TxnRequest`.
const COMPARE: u32 = 1;
const SUCCESS: u32 = 2;
const FAILURE: u32 = 3;
/// The field of `RequestOp` and `ResponseOp` that holds a transaction.
pub(super) const NESTED: u32 = 4;

/// Decodes an operation. By protobuf's rules for a oneof the last request counts, and consecutive
/// parts of a transaction are merged.
fn operation(bytes: Bytes, depth: Depth) -> Result<RequestOp, Malformed> {
    let mut rest = bytes.clone();
    // `parts`: where the parts of a final transaction begin; None if another request comes last.
    // `others`: where the requests behind the last transaction begin.
    let (mut parts, mut others) = (None, 0);
    loop {
        let start = bytes.len() - rest.len();
        let Some((number, _)) = next_field(&mut rest)? else { break };
        if number == NESTED {
            parts.get_or_insert(start);
            others = bytes.len() - rest.len();
        } else {
            parts = None;
        }
    }
    let Some(parts) = parts else { return Ok(RequestOp::decode(bytes.slice(others..))?) };
    let mut txn = TxnRequest::default();
    match depth {
        Depth { left: 0, below: Below::Refused } => return Err(Malformed::Nesting),
        Depth { left: 0, below: Below::Cut } => {}
        Depth { left, below } => {
            let mut rest = bytes.slice(parts..);
            // A transaction has only lists, so merging its parts means appending each one.
            while let Some((_, part)) = next_field(&mut rest)? {
                level(part, Depth { left: left - 1, below }, &mut txn)?;
            }
        }
    }
    Ok(RequestOp { request: Some(Request::RequestTxn(Box::new(txn))) })
}

/// A message that `clean` is in the middle of.
struct OpenMessage {
    shape: usize,
    /// Its end in the input.
    end: usize,
    /// Position of its length in the output, and the number of bytes that it takes.
    length_at: usize,
    length_bytes: usize,
}

/// A copy of a message of this shape without the fields that Go's protobuf takes for unknown ones.
///
/// The length of a message that becomes shorter is written in as many bytes as before, since a
/// varint may have needless bytes: the copy then needs one pass and nothing is moved.
fn clean(bytes: &[u8], shape: usize) -> Result<Bytes, Malformed> {
    let mut out = Vec::with_capacity(bytes.len());
    let mut reader = Reader { bytes, at: 0, end: bytes.len() };
    let root = OpenMessage { shape, end: bytes.len(), length_at: 0, length_bytes: 0 };
    let mut open = vec![root];
    while let Some(message) = open.last() {
        if reader.at == message.end {
            let begin = message.length_at + message.length_bytes;
            let mut length = out.len() - begin;
            for (at, byte) in (1..).zip(&mut out[message.length_at..begin]) {
                let more = if at < message.length_bytes { 0x80 } else { 0 };
                *byte = (length & 0x7f) as u8 | more;
                length >>= 7;
            }
            open.pop();
            continue;
        }
        reader.end = message.end;
        let start = reader.at;
        let (number, wire) = reader.key()?;
        let known = shapes::field(message.shape, number);
        match known.filter(|field| field.takes(wire)) {
            Some(&Field { inner: Some(shape), .. }) => {
                let key_bytes = reader.at - start;
                let length = reader.length()?;
                if open.len() == DEPTH_MAX {
                    return Err(Malformed::Recursion);
                }
                let length_bytes = reader.at - start - key_bytes;
                let length_at = out.len() + key_bytes;
                open.push(OpenMessage { shape, end: reader.at + length, length_at, length_bytes });
                out.extend_from_slice(&bytes[start..reader.at]);
            }
            Some(_) => {
                reader.skip(number, wire)?;
                out.extend_from_slice(&bytes[start..reader.at]);
            }
            None => reader.skip(number, wire)?,
        }
    }
    Ok(out.into())
}

/// Reads the fields of a message that ends at `end`.
struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    end: usize,
}

impl Reader<'_> {
    fn varint(&mut self) -> Result<u64, Malformed> {
        let mut rest = &self.bytes[self.at..self.end];
        let before = rest.len();
        let number = decode_varint(&mut rest).map_err(|_| Malformed::Wire)?;
        self.at += before - rest.len();
        Ok(number)
    }

    /// A field's number and wire type.
    fn key(&mut self) -> Result<(u32, u8), Malformed> {
        let key = self.varint()?;
        // Field numbers have 29 bits, and 0 is none.
        match u32::try_from(key).map(|key| key >> 3) {
            Ok(number @ 1..) => Ok((number, (key & 7) as u8)),
            _ => Err(Malformed::Wire),
        }
    }

    /// The length of the next value; an error if the message ends before the value does.
    fn length(&mut self) -> Result<usize, Malformed> {
        let length = usize::try_from(self.varint()?).ok();
        length.filter(|length| *length <= self.end - self.at).ok_or(Malformed::Wire)
    }

    /// Skips the value of a field; in the case of a group, everything up to its end.
    fn skip(&mut self, number: u32, wire: u8) -> Result<(), Malformed> {
        let mut groups: Vec<u32> = Vec::new();
        let (mut number, mut wire) = (number, wire);
        loop {
            let count = match wire {
                VARINT => self.varint().map(|_| 0)?,
                FIXED_64 => 8,
                LENGTH_DELIMITED => self.length()?,
                FIXED_32 => 4,
                GROUP if groups.len() > DEPTH_MAX => return Err(Malformed::Wire),
                GROUP => {
                    groups.push(number);
                    0
                }
                GROUP_END if groups.pop() == Some(number) => 0,
                _ => return Err(Malformed::Wire),
            };
            if count > self.end - self.at {
                return Err(Malformed::Wire);
            }
            self.at += count;
            if groups.is_empty() {
                return Ok(());
            }
            (number, wire) = self.key()?;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pb::{PutRequest, RangeRequest, WatchRequest};

    fn field(number: u8, value: &[u8]) -> Vec<u8> {
        let mut bytes = vec![number << 3 | LENGTH_DELIMITED];
        prost::encoding::encode_varint(value.len() as u64, &mut bytes);
        [bytes, value.to_vec()].concat()
    }

    fn range(bytes: &[u8]) -> Result<RangeRequest, Malformed> {
        message(Bytes::copy_from_slice(bytes))
    }

    fn txn(bytes: &[u8]) -> Result<TxnRequest, Malformed> {
        transaction(Bytes::copy_from_slice(bytes), 3, Below::Refused)
    }

    #[test]
    fn a_field_of_another_wire_type_is_ignored() {
        let key = RangeRequest { key: "k".into(), ..Default::default() };
        let right = field(1, b"k");
        // The key as a number, as 64 and 32 bits, as a group; the limit as bytes.
        let group = [&b"\x0b\x08\x01\x13\x14"[..], &field(9, b"x"), b"\x0c"].concat();
        for wrong in [&b"\x08\x01"[..], b"\x0912345678", b"\x0d1234", &group, &field(3, b"abc")] {
            assert_eq!(range(&[wrong, &right].concat()), Ok(key.clone()), "{wrong:?}");
            assert_eq!(range(&[&right, wrong].concat()), Ok(key.clone()), "{wrong:?}");
        }
        assert_eq!(range(b"\x08\x01"), Ok(RangeRequest::default()));
        // Unknown groups, nested deeper than prost accepts.
        let deep = |count| [[0xa3, 0x06].repeat(count), [0xa4, 0x06].repeat(count)].concat();
        for count in [2000, DEPTH_MAX + 1] {
            assert_eq!(range(&[&right[..], &deep(count)].concat()), Ok(key.clone()));
        }
        let deeper = [&right[..], &deep(DEPTH_MAX + 2)].concat();
        assert_eq!(range(&deeper), Err(Malformed::Wire));
    }

    #[test]
    fn messages_around_an_ignored_field_get_their_new_lengths() {
        let value = vec![b'v'; 300];
        // Between key and value: a lease of 200 bytes.
        let put = [field(1, b"k"), field(3, &[7; 200]), field(2, &value)].concat();
        let bytes = [field(2, &field(2, &put)), b"\x10\x01".to_vec(), field(3, &field(2, &put))];
        let put = PutRequest { key: "k".into(), value: value.into(), ..Default::default() };
        let op = vec![RequestOp { request: Some(Request::RequestPut(put)) }];
        let expected = TxnRequest { compare: vec![], success: op.clone(), failure: op };
        assert_eq!(txn(&bytes.concat()), Ok(expected));
        // Filters of a watch, unpacked and packed.
        for filters in [&b"\x28\x00\x28\x01"[..], &field(5, &[0, 1])] {
            let create = [&field(1, b"k")[..], filters, b"\x08\x01"].concat();
            let request: WatchRequest = message(field(1, &create).into()).unwrap();
            let expected = field(1, &[&field(1, b"k")[..], &field(5, &[0, 1])].concat());
            assert_eq!(request.encode_to_vec(), expected);
        }
    }

    #[test]
    fn what_is_malformed_is_said_in_gos_words() {
        let nothing_after: [&[u8]; 10] = [
            b"\x0a\xc8a",
            b"\x18\xff",
            b"\x0b\x08\x01",
            b"\x0c",
            b"\x0b\x14",
            b"\x0e",
            b"\x0f\x00",
            b"\x02\x00",
            b"\xfa\xff\xff\xff\xff\x01\x01a",
            b"\x09123",
        ];
        for bytes in nothing_after {
            assert_eq!(range(bytes), Err(Malformed::Wire), "{bytes:?}");
        }
        let user = message::<super::super::AuthUserAddRequest>(field(1, b"\xc3\x28").into());
        assert_eq!(user, Err(Malformed::Text));
        // A length beyond the end of its message.
        assert_eq!(txn(&[field(2, b"\x12\x05"), vec![0; 20]].concat()), Err(Malformed::Wire));
    }

    fn nested(depth: usize, leaf: &[u8]) -> Vec<u8> {
        (0..depth).fold(leaf.to_vec(), |txn, _| field(2, &field(4, &txn)))
    }

    fn depth(txn: &TxnRequest) -> usize {
        match txn.success.first().and_then(|op| op.request.as_ref()) {
            Some(Request::RequestTxn(txn)) => 1 + depth(txn),
            _ => 0,
        }
    }

    #[test]
    fn transactions_go_as_deep_as_is_allowed() {
        let leaf = field(2, &field(2, &field(1, b"k")));
        let decoded = |levels, below| transaction(nested(levels, &leaf).into(), 90, below);
        for levels in [0, 49, 50, 51, 90] {
            for below in [Below::Cut, Below::Refused] {
                let txn = decoded(levels, below).unwrap();
                assert_eq!(depth(&txn), levels);
                assert_eq!(txn.encode_to_vec(), nested(levels, &leaf));
            }
        }
        for levels in [91, 92, 1000, 4998] {
            assert_eq!(depth(&decoded(levels, Below::Cut).unwrap()), 91);
            assert_eq!(decoded(levels, Below::Refused), Err(Malformed::Nesting));
        }
        for levels in [4999, 20_000] {
            assert_eq!(decoded(levels, Below::Cut), Err(Malformed::Recursion));
        }
    }

    #[test]
    fn parts_of_one_transaction_are_one_at_any_depth() {
        let put = |key: &[u8]| field(2, &field(2, &field(1, key)));
        let twice = field(2, &[field(4, &put(b"a")), field(4, &put(b"b"))].concat());
        let last = [field(4, &put(b"a")), field(2, &field(1, b"b")), field(4, &put(b"c"))];
        let replaced = [field(4, &put(b"a")), field(2, &field(1, b"b"))].concat();
        for op in [twice, field(2, &last.concat()), field(2, &replaced)] {
            let shallow = TxnRequest::decode(&op[..]).unwrap();
            let mut deep = transaction(nested(60, &op).into(), 90, Below::Refused).unwrap();
            for _ in 0..60 {
                let Some(Request::RequestTxn(txn)) = deep.success.remove(0).request else {
                    panic!("{deep:?}")
                };
                deep = *txn;
            }
            assert_eq!(deep, shallow);
        }
    }

    /// The transaction of each level comes in three parts: an empty one, the next level, and a put.
    #[test]
    fn no_level_of_a_transaction_is_copied_by_itself() {
        let value = [b'v'; 100];
        let put = field(2, &field(2, &field(2, &value)));
        let parts = |txn: &[u8]| [field(4, b""), field(4, txn), field(4, &put)].concat();
        let bytes = (0..80).fold(put.clone(), |txn, _| field(2, &parts(&txn)));
        let length = bytes.len();
        let txn = transaction(bytes.into(), 90, Below::Refused).unwrap();
        let (mut values, mut pending) = (Vec::new(), vec![&txn]);
        while let Some(txn) = pending.pop() {
            for op in &txn.success {
                match op.request.as_ref().unwrap() {
                    Request::RequestPut(put) => values.push(put.value.as_ptr() as usize),
                    Request::RequestTxn(txn) => pending.push(txn),
                    other => panic!("{other:?}"),
                }
            }
        }
        values.sort_unstable();
        assert_eq!(values.len(), 81);
        // Decoded values share the buffer that they were decoded from. All are within the length of
        // the request, so there was one buffer.
        assert!(values[80] - values[0] < length, "{values:?}");
    }
}
