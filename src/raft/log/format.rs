//! The bytes of a segment: frames, records, the checksum that rolls through all of them.

use bytes::Bytes;
use prost::Message as _;
use prost::encoding::{encode_varint, encoded_len_varint};
use raft::eraftpb::{ConfState, Entry, HardState};

/// Length of the little-endian word before each record: 56 bits of length, and in the highest byte
/// the number of padding bytes, as in etcd's `encodeFrameSize`.
pub(super) const FRAME_BYTES: usize = 8;
/// The bytes that a disk writes as a whole; a torn write leaves some sectors untouched.
pub(super) const SECTOR_BYTES: usize = 512;
const LENGTH_BITS: u64 = 56;
const LENGTH_MASK: u64 = (1 << LENGTH_BITS) - 1;

/// The type of a record. The numbers are those of etcd's WAL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RecordKind {
    Metadata = 1,
    Entry = 2,
    State = 3,
    Crc = 4,
    Snapshot = 5,
}

impl RecordKind {
    fn of(number: i64) -> Option<Self> {
        [Self::Metadata, Self::Entry, Self::State, Self::Crc, Self::Snapshot]
            .into_iter()
            .find(|kind| *kind as i64 == number)
    }
}

/// The member and the cluster that the log belongs to; stands at the head of every segment.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct Metadata {
    #[prost(uint64, required, tag = "1")]
    pub node_id: u64,
    #[prost(uint64, required, tag = "2")]
    pub cluster_id: u64,
}

/// Says that a state up to an index is kept outside the log, and which configuration holds there.
#[derive(Clone, PartialEq, prost::Message)]
pub struct SnapshotRecord {
    #[prost(uint64, required, tag = "1")]
    pub index: u64,
    #[prost(uint64, required, tag = "2")]
    pub term: u64,
    #[prost(message, optional, tag = "3")]
    pub conf_state: Option<ConfState>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct WireRecord {
    #[prost(int64, required, tag = "1")]
    kind: i64,
    #[prost(uint32, required, tag = "2")]
    crc: u32,
    #[prost(bytes = "bytes", tag = "3")]
    data: Bytes,
}

/// Appends framed records to a buffer and rolls the checksum.
pub(super) struct Encoder {
    pub(super) buffer: Vec<u8>,
    pub(super) crc: u32,
}

impl Encoder {
    pub(super) fn new(crc: u32) -> Self {
        Self { buffer: Vec::new(), crc }
    }

    pub(super) fn crc_record(&mut self) {
        self.record(RecordKind::Crc, &[], &[]);
    }

    pub(super) fn metadata(&mut self, metadata: &Metadata) {
        self.record(RecordKind::Metadata, &metadata.encode_to_vec(), &[]);
    }

    pub(super) fn state(&mut self, state: &HardState) {
        self.record(RecordKind::State, &state.encode_to_vec(), &[]);
    }

    pub(super) fn snapshot(&mut self, snapshot: &SnapshotRecord) {
        self.record(RecordKind::Snapshot, &snapshot.encode_to_vec(), &[]);
    }

    /// Appends an entry. The fields before its data are encoded apart, so that the data is copied
    /// only once.
    pub(super) fn entry(&mut self, entry: &Entry) {
        let mut head = [0_u8; 48];
        let mut rest = &mut head[..];
        prost::encoding::int32::encode(1, &entry.entry_type, &mut rest);
        prost::encoding::uint64::encode(2, &entry.term, &mut rest);
        prost::encoding::uint64::encode(3, &entry.index, &mut rest);
        if !entry.data.is_empty() {
            bytes::BufMut::put_u8(&mut rest, 0x22);
            encode_varint(entry.data.len() as u64, &mut rest);
        }
        let unused = rest.len();
        let used = head.len() - unused;
        self.record(RecordKind::Entry, &head[..used], &entry.data);
    }

    fn record(&mut self, kind: RecordKind, head: &[u8], body: &[u8]) {
        self.crc = crc32c::crc32c_append(crc32c::crc32c_append(self.crc, head), body);
        let data = head.len() + body.len();
        let mut record = 2 + 1 + encoded_len_varint(u64::from(self.crc));
        if data > 0 {
            record += 1 + encoded_len_varint(data as u64) + data;
        }
        let padding = (8 - record % 8) % 8;
        let mut frame = record as u64;
        if padding != 0 {
            frame |= (0x80 | padding as u64) << LENGTH_BITS;
        }
        let buffer = &mut self.buffer;
        buffer.reserve(FRAME_BYTES + record + padding);
        buffer.extend_from_slice(&frame.to_le_bytes());
        buffer.extend_from_slice(&[0x08, kind as u8, 0x10]);
        encode_varint(u64::from(self.crc), buffer);
        if data > 0 {
            buffer.push(0x1a);
            encode_varint(data as u64, buffer);
            buffer.extend_from_slice(head);
            buffer.extend_from_slice(body);
        }
        buffer.resize(buffer.len() + padding, 0);
    }
}

/// Upper bound of the bytes that an entry takes in a segment beside its data.
pub(super) const ENTRY_BYTES: u64 = 96;

/// Upper bound of the bytes that an entry takes in a segment.
pub(super) fn entry_bytes_max(entry: &Entry) -> u64 {
    entry.data.len() as u64 + ENTRY_BYTES
}

/// A record as read.
#[derive(Debug)]
pub(super) struct Record {
    pub(super) kind: RecordKind,
    pub(super) crc: u32,
    pub(super) data: Bytes,
    /// Where the next frame starts.
    pub(super) end: u64,
}

/// The result of decoding at an offset of a segment.
#[derive(Debug)]
pub(super) enum Decoded {
    Record(Record),
    /// The file ends here, or a zero length says that nothing was written from here on.
    End,
    Bad(Bad),
}

/// A record that is torn or damaged.
#[derive(Debug)]
pub(super) struct Bad {
    pub(super) what: String,
    /// An interrupted write may leave such a record.
    pub(super) torn: bool,
}

/// The bytes that the record at the beginning takes with its frame, as the frame says; None if the
/// frame is not there.
pub(super) fn framed_bytes(bytes: &[u8]) -> Option<u64> {
    let word = u64::from_le_bytes(*bytes.first_chunk()?);
    Some(FRAME_BYTES as u64 + (word & LENGTH_MASK) + padding(word))
}

fn padding(word: u64) -> u64 {
    if word >> 63 == 1 { (word >> LENGTH_BITS) & 7 } else { 0 }
}

/// Reads the record at `offset` and checks it against `crc`, the checksum of all records before it.
/// Without `crc` the record is not checked. `length_max` bounds the length that a record may claim.
pub(super) fn decode(segment: &Bytes, offset: u64, crc: Option<u32>, length_max: u64) -> Decoded {
    let length = segment.len() as u64;
    if offset + FRAME_BYTES as u64 > length {
        let rest = segment.get(offset as usize..).unwrap_or_default();
        if rest.iter().all(|byte| *byte == 0) {
            return Decoded::End;
        }
        return Decoded::Bad(Bad { what: "the file ends in a record's length".into(), torn: true });
    }
    let start = offset as usize + FRAME_BYTES;
    let mut word = [0; FRAME_BYTES];
    word.copy_from_slice(&segment[offset as usize..start]);
    let word = u64::from_le_bytes(word);
    if word == 0 {
        return Decoded::End;
    }
    let record_bytes = word & LENGTH_MASK;
    let padding = padding(word);
    if record_bytes > length_max {
        let what = format!("a record claims {record_bytes} bytes");
        return Decoded::Bad(Bad { what, torn: false });
    }
    let end = start as u64 + record_bytes + padding;
    if end > length {
        return Decoded::Bad(Bad { what: "the file ends in a record".into(), torn: true });
    }
    let framed = segment.slice(start..end as usize);
    let bad = |what: String| {
        Decoded::Bad(Bad { what, torn: has_zero_sector(&framed, start % SECTOR_BYTES) })
    };
    let record = match WireRecord::decode(framed.slice(..record_bytes as usize)) {
        Ok(record) => record,
        Err(error) => return bad(format!("a record cannot be decoded ({error})")),
    };
    let Some(kind) = RecordKind::of(record.kind) else {
        return bad(format!("a record of unknown type {}", record.kind));
    };
    if kind != RecordKind::Crc {
        let expected = crc.map(|crc| crc32c::crc32c_append(crc, &record.data));
        if expected.is_some_and(|expected| expected != record.crc) {
            return bad("a record's checksum does not fit".into());
        }
    }
    Decoded::Record(Record { kind, crc: record.crc, data: record.data, end })
}

/// Whether one of the sectors that the bytes cover, the first of which begins `within` bytes into
/// its sector, is all zero.
fn has_zero_sector(bytes: &[u8], within: usize) -> bool {
    let (first, rest) = bytes.split_at(bytes.len().min(SECTOR_BYTES - within));
    let zero = |sector: &[u8]| !sector.is_empty() && sector.iter().all(|byte| *byte == 0);
    zero(first) || rest.chunks(SECTOR_BYTES).any(zero)
}

/// A segment's file name: its number, and the index after the last one written before it.
pub(super) fn segment_name(sequence: u64, index: u64) -> String {
    format!("{sequence:016x}-{index:016x}.wal")
}

pub(super) fn parse_segment_name(name: &str) -> Option<(u64, u64)> {
    let (sequence, index) = name.strip_suffix(".wal")?.split_once('-')?;
    let number =
        |digits: &str| (digits.len() == 16).then(|| u64::from_str_radix(digits, 16).ok()).flatten();
    // A place has 32 bits for the segment's number.
    let sequence = number(sequence).filter(|sequence| *sequence <= u64::from(u32::MAX))?;
    Some((sequence, number(index)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_framed_as_etcd_frames_it() {
        let mut encoder = Encoder::new(0);
        encoder.crc_record();
        // Type 4, checksum 0, no data: four bytes and four of padding.
        assert_eq!(encoder.buffer, [4, 0, 0, 0, 0, 0, 0, 0x84, 8, 4, 16, 0, 0, 0, 0, 0]);
        let entry =
            Entry { term: 2, index: 3, data: Bytes::from_static(b"hi"), ..Entry::default() };
        encoder.buffer.clear();
        encoder.entry(&entry);
        let segment = Bytes::from(encoder.buffer.clone());
        assert_eq!(segment.len() % 8, 0);
        let Decoded::Record(record) = decode(&segment, 0, Some(0), 1 << 20) else {
            panic!("not a record")
        };
        assert_eq!(record.data, entry.encode_to_vec());
        assert_eq!(record.crc, crc32c::crc32c(&entry.encode_to_vec()));
        assert_eq!(record.end, segment.len() as u64);
    }

    #[test]
    fn names_are_read_back() {
        assert_eq!(segment_name(1, 255), "0000000000000001-00000000000000ff.wal");
        assert_eq!(parse_segment_name("0000000000000001-00000000000000ff.wal"), Some((1, 255)));
        assert_eq!(parse_segment_name("1-ff.wal"), None);
        assert_eq!(parse_segment_name("0000000100000000-00000000000000ff.wal"), None);
        assert_eq!(parse_segment_name("0000000000000001-00000000000000ff.tmp"), None);
    }
}
