//! The stored form of a key-value pair: `mvccpb.KeyValue` in canonical encoding.
//!
//! Fields ascend and zero values are left out, as etcd's marshaller writes them. HashKV covers
//! these bytes, so they must be the same on every member and the same as etcd's.

use bytes::{BufMut, Bytes, BytesMut};
use prost::encoding::{decode_varint, encode_varint, encoded_len_varint};

use super::Error;

/// A borrowed view of an encoded pair.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pair<'a> {
    pub key: &'a [u8],
    pub create_revision: i64,
    pub mod_revision: i64,
    pub version: i64,
    pub value: &'a [u8],
    pub lease: i64,
}

const KEY: u32 = 1;
const CREATE_REVISION: u32 = 2;
const MOD_REVISION: u32 = 3;
const VERSION: u32 = 4;
const VALUE: u32 = 5;
const LEASE: u32 = 6;

impl<'a> Pair<'a> {
    /// The canonical encoding, which is what is stored.
    pub fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(self.encoded_len());
        self.put(&mut out);
        out.freeze()
    }

    /// As `encode`, as a part of `block`, which the pairs of a transaction share: to allocate memory
    /// for each, and to free it on another thread, takes longer than to write it.
    pub(super) fn encode_in(&self, block: &mut BytesMut) -> Bytes {
        block.reserve(self.encoded_len());
        self.put(block);
        block.split().freeze()
    }

    /// Appends the canonical encoding.
    pub(super) fn put(&self, out: &mut impl BufMut) {
        put_bytes(out, KEY, self.key);
        put_int(out, CREATE_REVISION, self.create_revision);
        put_int(out, MOD_REVISION, self.mod_revision);
        put_int(out, VERSION, self.version);
        put_bytes(out, VALUE, self.value);
        put_int(out, LEASE, self.lease);
    }

    /// Parses a pair. Stored bytes were verified by their checksum before, so an error means that
    /// another program has written them.
    pub fn parse(mut bytes: &'a [u8]) -> Result<Self, Error> {
        let malformed = || Error::Malformed("mvccpb.KeyValue");
        let mut pair = Self::default();
        while !bytes.is_empty() {
            let tag = decode_varint(&mut bytes).map_err(|_| malformed())?;
            let number = decode_varint(&mut bytes).map_err(|_| malformed())?;
            match (tag >> 3, tag & 7) {
                (field @ (1 | 5), 2) => {
                    let len = usize::try_from(number).map_err(|_| malformed())?;
                    if len > bytes.len() {
                        return Err(malformed());
                    }
                    let (data, rest) = bytes.split_at(len);
                    bytes = rest;
                    if field == 1 { pair.key = data } else { pair.value = data }
                }
                (2, 0) => pair.create_revision = number.cast_signed(),
                (3, 0) => pair.mod_revision = number.cast_signed(),
                (4, 0) => pair.version = number.cast_signed(),
                (6, 0) => pair.lease = number.cast_signed(),
                _ => return Err(malformed()),
            }
        }
        Ok(pair)
    }

    pub(super) fn encoded_len(&self) -> usize {
        let ints = [self.create_revision, self.mod_revision, self.version, self.lease];
        let ints = ints.iter().filter(|v| **v != 0);
        let ints: usize = ints.map(|v| 1 + encoded_len_varint(v.cast_unsigned())).sum();
        let data = [self.key, self.value];
        let data = data.iter().filter(|d| !d.is_empty());
        let data: usize = data.map(|d| 1 + encoded_len_varint(d.len() as u64) + d.len()).sum();
        ints + data
    }
}

fn put_bytes(out: &mut impl BufMut, field: u32, data: &[u8]) {
    if !data.is_empty() {
        out.put_u8(u8::try_from(field << 3 | 2).unwrap_or_default());
        encode_varint(data.len() as u64, out);
        out.put_slice(data);
    }
}

fn put_int(out: &mut impl BufMut, field: u32, value: i64) {
    if value != 0 {
        out.put_u8(u8::try_from(field << 3).unwrap_or_default());
        encode_varint(value.cast_unsigned(), out);
    }
}

/// The record of a tombstone: the key alone, as etcd stores it.
pub fn encode_tombstone(key: &[u8]) -> Bytes {
    Pair { key, ..Pair::default() }.encode()
}

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::*;
    use crate::pb::KeyValue;

    #[test]
    fn bytes_are_those_of_the_generated_message() {
        let mut block = BytesMut::with_capacity(50);
        for (value, lease, version) in [("", 0, 1), ("v", -1, 7), ("value", i64::MAX, i64::MAX)] {
            let message = KeyValue {
                key: Bytes::from_static(b"key"),
                create_revision: 2,
                mod_revision: 300,
                version,
                value: Bytes::from_static(value.as_bytes()),
                lease,
            };
            let pair = Pair {
                key: b"key",
                create_revision: 2,
                mod_revision: 300,
                version,
                value: value.as_bytes(),
                lease,
            };
            let bytes = pair.encode();
            assert_eq!(bytes.as_ref(), message.encode_to_vec());
            assert_eq!(pair.encode_in(&mut block), bytes);
            assert_eq!(Pair::parse(&bytes).unwrap(), pair);
        }
    }

    #[test]
    fn damaged_bytes_are_refused() {
        let bytes = Pair { key: b"key", value: b"value", ..Pair::default() }.encode();
        for cut in 1..bytes.len() {
            let parsed = Pair::parse(&bytes[..cut]);
            assert!(parsed.is_err() || parsed.unwrap().value.is_empty());
        }
        assert!(Pair::parse(&[0xff; 12]).is_err());
    }
}
