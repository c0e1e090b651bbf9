//! The log. An input's parts are a segment's beginning, records with the right checksum, and bytes.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use prost::Message;
use prost::encoding::encode_varint;
use rusd::limits::RAFT_NUMBER_MAX;
use rusd::raft::log::{Batch, Disk, Error, Metadata, Options, SnapshotRecord, identity, open};
use rusd::raft::{ConfState, Entry};

use super::disk::Memory;
use super::{Notes, Shape, Target};
use crate::mutate::{Part, join, parts};

const DIR: &str = "/member/wal";
const OPTIONS: Options = Options { segment_bytes: 4096, fill_ahead: false };

/// Kinds of parts; 1 to 5 are records of that kind.
const SEGMENT: u8 = 0;
const RAW: u8 = 6;
const ZEROS: u8 = 7;
const CUT: u8 = 8;
const KINDS: u8 = 9;

#[derive(Default)]
pub struct Log;

/// Puts an input together as files.
fn files(input: &[u8]) -> Memory {
    let disk = Memory::default();
    let (mut name, mut bytes, mut crc) = (segment_name(&[]), Vec::new(), 0);
    for Part { kind, bytes: data } in parts(input) {
        match kind % KINDS {
            SEGMENT => {
                store(&disk, &name, &bytes);
                (name, bytes) = (segment_name(&data), Vec::new());
            }
            RAW => bytes.extend(data),
            ZEROS => bytes.resize(bytes.len() + 16 * data.len(), 0),
            CUT => bytes.truncate(bytes.len().saturating_sub(data.len())),
            record => frame(record, &data, &mut crc, &mut bytes),
        }
    }
    store(&disk, &name, &bytes);
    disk
}

/// Sixteen bytes are a number and an index; anything else is a name.
fn segment_name(data: &[u8]) -> String {
    match data.as_chunks::<8>() {
        ([], []) => segment_name(&[0; 16]),
        ([sequence, index], []) => {
            let number = |bytes: &[u8; 8]| u64::from_le_bytes(*bytes);
            format!("{:016x}-{:016x}.wal", number(sequence), number(index))
        }
        _ => String::from_utf8_lossy(data).replace(['/', '\0', '.'], "_") + ".wal",
    }
}

fn store(disk: &Memory, name: &str, bytes: &[u8]) {
    if !bytes.is_empty() {
        disk.create(&Path::new(DIR).join(name)).unwrap().write_at(bytes, 0).unwrap();
    }
}

fn frame(kind: u8, data: &[u8], crc: &mut u32, out: &mut Vec<u8>) {
    // A record of the checksum holds the one so far.
    if kind != 4 {
        *crc = crc32c::crc32c_append(*crc, data);
    }
    let mut record = vec![8, kind, 16];
    encode_varint(u64::from(*crc), &mut record);
    if !data.is_empty() {
        record.push(0x1a);
        encode_varint(data.len() as u64, &mut record);
        record.extend(data);
    }
    let padding = (8 - record.len() % 8) % 8;
    let word = record.len() as u64 | if padding == 0 { 0 } else { (0x80 | padding as u64) << 56 };
    out.extend(word.to_le_bytes());
    out.extend(&record);
    out.resize(out.len() + padding, 0);
}

fn entry(index: u64, term: u64) -> Part {
    let data = Bytes::from(vec![b'd'; index as usize % 9]);
    Part::new(2, Entry { index, term, data, ..Entry::default() }.encode_to_vec())
}

fn head(sequence: u64, index: u64) -> Vec<Part> {
    let metadata = Metadata { node_id: 7, cluster_id: 9 }.encode_to_vec();
    vec![
        Part::new(SEGMENT, [sequence.to_le_bytes(), index.to_le_bytes()].concat()),
        Part::new(4, []),
        Part::new(1, metadata),
    ]
}

fn state(term: u64, vote: u64, commit: u64) -> Part {
    let mut bytes = Vec::new();
    for (tag, value) in [(8, term), (16, vote), (24, commit)] {
        bytes.push(tag);
        encode_varint(value, &mut bytes);
    }
    Part::new(3, bytes)
}

fn snapshot(index: u64, term: u64) -> Part {
    let conf_state = Some(ConfState { voters: vec![1, 2], ..ConfState::default() });
    Part::new(5, SnapshotRecord { index, term, conf_state }.encode_to_vec())
}

impl Target for Log {
    fn seeds(&mut self) -> Vec<Vec<u8>> {
        let mut one = head(0, 0);
        one.extend([snapshot(0, 0), entry(1, 1), entry(2, 1), state(1, 7, 2), entry(3, 2)]);
        let mut torn = one.clone();
        torn.extend([state(2, 7, 3), entry(4, 2), Part::new(CUT, [0; 5])]);
        let mut two = one.clone();
        two.extend([state(2, 7, 3)]);
        two.extend(head(1, 4));
        two.extend([state(2, 7, 3), entry(4, 2), entry(3, 3), state(3, 0, 3), snapshot(3, 3)]);
        two.push(Part::new(ZEROS, [0; 9]));
        let mut purged = head(4, 90);
        purged.extend([snapshot(60, 2), state(2, 7, 90), entry(91, 2), snapshot(100, 5)]);
        purged.extend([entry(101, 5), Part::new(RAW, [1, 0, 0, 0, 0, 0, 0, 0x87])]);
        [one, torn, two, purged].iter().map(|parts| join(parts)).collect()
    }

    fn shape(&self) -> Shape {
        Shape::Parts(|kind| (1..=5).contains(&(kind % KINDS)))
    }

    fn memory_max(&self, length: usize) -> usize {
        // The table has room for entries from the start.
        (16 << 20) + 512 * length
    }

    fn run(&mut self, input: &[u8], notes: &mut Notes) {
        let disk: Arc<dyn Disk> = Arc::new(files(input));
        let dir = Path::new(DIR);
        notes.number("identity", u64::from(identity(disk.as_ref(), dir).is_ok()));
        let opened = open(&disk, dir, OPTIONS);
        let (mut writer, mut reader, recovered) = match opened {
            Ok(opened) => opened,
            // The file's name is the input's.
            Err(Error::Damage { what, .. }) => return notes.text(&what),
            Err(error) => return notes.text(&error.to_string()),
        };
        if recovered.repair.is_some() {
            notes.text("repaired");
        }
        let table = &recovered.table;
        let (first, last) = (table.first_index(), table.last_index());
        notes.number("entries", last.saturating_sub(first));
        if last >= RAFT_NUMBER_MAX {
            return;
        }
        let wanted: Vec<_> = (first..=last)
            .take(1000)
            .filter_map(|index| Some((index, table.term(index)?, table.place(index)?)))
            .collect();
        let count = wanted.len();
        let read =
            reader.read(wanted.into_iter(), u64::MAX).expect("what was recovered can be read");
        assert_eq!(read.len(), count);
        // It goes on where it ended.
        let term = table.last_term().max(recovered.hard_state.term);
        let next =
            Entry { index: last + 1, term, data: Bytes::from_static(b"new"), ..Entry::default() };
        let batch = Batch { entries: vec![next], ..Batch::default() };
        writer.append(&batch).and_then(|_| writer.write()).expect("it can be written");
        writer.sync().unwrap();
        drop((writer, reader));
        let (_writer, _reader, again) = open(&disk, dir, OPTIONS).expect("it opens again");
        assert_eq!(again.table.last_index(), last + 1);
        assert_eq!(again.table.first_index(), first);
        assert_eq!(again.hard_state.commit, recovered.hard_state.commit);
        assert_eq!(again.snapshots, recovered.snapshots);
        assert!(again.repair.is_none(), "it was repaired once");
    }
}
