//! The header in front of a stored record.
//!
//! | bytes | what |
//! |---|---|
//! | 0 | format of the record, 1 |
//! | 1 | flags: 1 tombstone, 2 in chunks |
//! | 2-3 | key id, little-endian; 0: not encrypted |
//! | 4-7 | CRC-32C, little-endian, over the revision key, bytes 0-3, bytes 8-11 and the record |
//! | 8-11 | length of the record, little-endian |
//! | 12- | the record, unless it is in chunks |
//!
//! The checksum covers the revision key, so that a record found under another revision is damage.

use super::schema::RevKey;

pub(super) const HEADER_BYTES: usize = 12;
const FORMAT: u8 = 1;
const TOMBSTONE: u8 = 1;
const CHUNKED: u8 = 2;

/// The fields of a header, which are verified only by `verify`.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub tombstone: bool,
    pub chunked: bool,
    pub record_bytes: usize,
    crc: u32,
    fields: [u8; 8],
}

/// The header of `record` under the revision key `key`.
pub(super) fn encode(
    key: &RevKey,
    tombstone: bool,
    chunked: bool,
    record: &[u8],
) -> [u8; HEADER_BYTES] {
    let flags = if tombstone { TOMBSTONE } else { 0 } | if chunked { CHUNKED } else { 0 };
    let size = u32::try_from(record.len()).unwrap_or(u32::MAX).to_le_bytes();
    let mut fields = [FORMAT, flags, 0, 0, 0, 0, 0, 0];
    fields[4..].copy_from_slice(&size);
    let mut header = [0; HEADER_BYTES];
    header[..4].copy_from_slice(&fields[..4]);
    header[4..8].copy_from_slice(&crc_of(key, &fields, record).to_le_bytes());
    header[8..].copy_from_slice(&size);
    header
}

/// Splits a stored value into its header and the bytes after it; the error says what is wrong. The
/// checksum is not verified: `Header::verify` does that, once the chunks are read.
pub(super) fn decode(value: &[u8]) -> Result<(Header, &[u8]), String> {
    let (head, rest) = value.split_first_chunk::<HEADER_BYTES>().ok_or("the header is cut off")?;
    let [format, flags, key_low, key_high, c0, c1, c2, c3, s0, s1, s2, s3] = *head;
    if format != FORMAT {
        return Err(format!("unknown record format {format}"));
    }
    if flags & !(TOMBSTONE | CHUNKED) != 0 {
        return Err(format!("unknown record flags {flags:#x}"));
    }
    if key_low != 0 || key_high != 0 {
        return Err("unknown key id".to_owned());
    }
    let header = Header {
        tombstone: flags & TOMBSTONE != 0,
        chunked: flags & CHUNKED != 0,
        record_bytes: u32::from_le_bytes([s0, s1, s2, s3]) as usize,
        crc: u32::from_le_bytes([c0, c1, c2, c3]),
        fields: [format, flags, key_low, key_high, s0, s1, s2, s3],
    };
    if !header.chunked && header.record_bytes != rest.len() {
        return Err(format!("{} bytes instead of {}", rest.len(), header.record_bytes));
    }
    Ok((header, rest))
}

impl Header {
    /// Verifies the checksum over revision key, header and the whole record.
    pub(super) fn verify(&self, key: &RevKey, record: &[u8]) -> Result<(), String> {
        if crc_of(key, &self.fields, record) == self.crc {
            Ok(())
        } else {
            Err("the checksum does not match".to_owned())
        }
    }
}

fn crc_of(key: &RevKey, fields: &[u8; 8], record: &[u8]) -> u32 {
    let crc = crc32c::crc32c_append(crc32c::crc32c(key), fields);
    crc32c::crc32c_append(crc, record)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(key: &RevKey, value: &[u8]) -> Result<bool, String> {
        let (header, record) = decode(value)?;
        header.verify(key, record)?;
        Ok(header.tombstone)
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        let key = [7; 12];
        for tombstone in [false, true] {
            let mut value = encode(&key, tombstone, false, b"a record").to_vec();
            value.extend_from_slice(b"a record");
            assert_eq!(check(&key, &value), Ok(tombstone));
            assert!(check(&[8; 12], &value).is_err(), "another revision");
            assert!(check(&key, &value[..value.len() - 1]).is_err(), "cut off");
            for bit in 0..value.len() * 8 {
                let mut flipped = value.clone();
                flipped[bit / 8] ^= 1 << (bit % 8);
                assert!(check(&key, &flipped).is_err(), "bit {bit}");
            }
        }
    }
}
