//! The rows of a snapshot: restored, read by a member that starts, written out again.

use std::fs::File;
use std::path::Path;

use rusd::bbolt::{Item, Reader, Writer};
use rusd::offline::{Archive, Restore, TargetDirs, export};
use rusd::store::Bucket;
use rusd::transfer::{Source, hash_kv};

use super::grpc::{Grpc, auth_calls, key_value_calls};
use super::member::Member;
use super::{Notes, Shape, Target, file, scratch};
use crate::mutate::{Part, join, parts};

pub struct State {
    dir: tempfile::TempDir,
}

/// The name of a part's bucket; those of history are the likeliest.
fn bucket(kind: u8) -> &'static str {
    match usize::from(kind % 12) {
        at @ 0..9 => Bucket::ALL[at].name(),
        9 | 10 => "key",
        _ => "other",
    }
}

/// A part holds a key's length, the key and the value.
fn rows(input: &[u8]) -> Vec<(&'static str, Vec<u8>, Vec<u8>)> {
    let mut rows = Vec::new();
    for part in parts(input) {
        let [length, rest @ ..] = part.bytes.as_slice() else { continue };
        let (key, value) = rest.split_at(usize::from(*length).min(rest.len()));
        if !key.is_empty() {
            rows.push((bucket(part.kind), key.to_vec(), value.to_vec()));
        }
    }
    rows.sort();
    rows.dedup_by(|a, b| (a.0, &a.1) == (b.0, &b.1));
    rows
}

fn write(rows: &[(&str, Vec<u8>, Vec<u8>)]) -> Vec<u8> {
    let mut names: Vec<&str> = Bucket::ALL.iter().map(|bucket| bucket.name()).collect();
    names.extend(["key", "other"]);
    names.sort_unstable();
    let run = |mut writer: Writer| {
        for name in &names {
            writer.begin(name.as_bytes()).unwrap();
            for (_, key, value) in rows.iter().filter(|row| row.0 == *name) {
                writer.put(key, value).unwrap();
            }
            writer.end().unwrap();
        }
        (writer.finish().unwrap(), writer.take())
    };
    let (plan, _) = run(Writer::measure());
    run(Writer::write(plan)).1
}

/// The state of a member that was used a little, as parts.
fn used() -> Vec<Part> {
    let mut member = Member::new(1);
    let mut notes = Notes::default();
    for call in key_value_calls().iter().chain(&auth_calls()) {
        Grpc::call(&mut member, None, call, &mut notes);
    }
    member.settle();
    while member.steps.commit().unwrap() {}
    let mut snapshot = member.steps.snapshots().open().unwrap();
    let mut bytes = Vec::new();
    while let Some(piece) = snapshot.next_piece().unwrap() {
        bytes.extend(piece);
    }
    let reader = Reader::open(bytes.as_slice()).unwrap();
    let mut parts = Vec::new();
    for kind in 0..10 {
        let Some(bucket) = reader.bucket(bucket(kind).as_bytes()).unwrap() else { continue };
        let mut cursor = reader.cursor(&bucket);
        while let Some((key, item)) = cursor.next().unwrap() {
            let Item::Value(value) = item else { continue };
            parts.push(Part::new(kind, [&[key.len() as u8][..], key, value].concat()));
        }
    }
    parts
}

impl State {
    pub fn new() -> Self {
        Self { dir: scratch() }
    }

    fn restore(&self, path: &Path, to: &Path, bump: Option<i64>) -> Result<(), String> {
        let url = "http://127.0.0.1:2380".to_owned();
        let restore = Restore {
            snapshot: path,
            place: TargetDirs { data_dir: to, wal_dir: None },
            name: "default",
            cluster: &[("default".to_owned(), vec![url])],
            token: "t",
            skip_hash_check: true,
            bump_revision: bump,
        };
        restore.run().map(drop).map_err(|error| error.to_string())
    }
}

impl Target for State {
    fn seeds(&mut self) -> Vec<Vec<u8>> {
        let used = used();
        let history: Vec<Part> = used.iter().filter(|part| part.kind == 9).cloned().collect();
        let users: Vec<Part> = used.iter().filter(|part| part.kind < 9).cloned().collect();
        vec![join(&used), join(&history), join(&users), join(&[])]
    }

    fn shape(&self) -> Shape {
        Shape::Parts(|_| false)
    }

    fn words(&self) -> &'static [&'static [u8]] {
        &[
            b"consistent_index",
            b"term",
            b"confState",
            b"scheduledCompactRev",
            b"finishedCompactRev",
            b"storageVersion",
            b"3.7.0",
            b"clusterVersion",
            b"downgrade",
            b"authEnabled",
            b"authRevision",
            b"\x01",
            b"_",
            b"t",
            b"\0\0\0\0\0\0\0\x05_\0\0\0\0\0\0\0\x01",
            b"root",
            b"{\"id\":1}",
            b"\"peerURLs\":",
            b"{\"voters\":[1]}",
            b"\xff\xff\xff\xff\xff\xff\xff\xff",
            b"\x7f\xff\xff\xff\xff\xff\xff\xff",
        ]
    }

    fn length_max(&self) -> usize {
        4 << 10
    }

    fn memory_max(&self, length: usize) -> usize {
        (64 << 20) + 512 * length
    }

    fn run(&mut self, input: &[u8], notes: &mut Notes) {
        let rows = rows(input);
        notes.number("rows", rows.len() as u64);
        let path = file(self.dir.path(), "snapshot.db", &write(&rows));
        let hash = hash_kv(&Source::File(&File::open(&path).unwrap()), 0);
        notes.result("hash", &hash);
        let to = self.dir.path().join("member");
        let _ = std::fs::remove_dir_all(&to);
        let bump =
            input.first().filter(|byte| **byte & 0x40 != 0).map(|byte| i64::from(*byte) << 20);
        let restored = self.restore(&path, &to, bump);
        notes.result("restored", &restored);
        if restored.is_err() {
            return;
        }
        let archive = Archive::open_member(&to, None);
        notes.result("opened", &archive);
        let archive = archive.expect("what was restored can be opened");
        let found = archive.hash_kv(0);
        notes.result("found", &found);
        if let (Ok(hash), Ok(found), None) = (&hash, &found, bump) {
            assert_eq!((hash.hash, hash.revision), (found.hash, found.revision));
        }
        drop(archive);
        let out = self.dir.path().join("out.db");
        let _ = std::fs::remove_file(&out);
        export(&to, None, &out).expect("it can be written out");
        let reader = Reader::open(File::open(&out).unwrap()).unwrap();
        reader.check().expect("what was written out is sound");
    }
}
