//! bbolt files, with pages of 512 bytes so that they are short.

use rusd::bbolt::{Bucket, DIGEST_BYTES, Error, Item, Reader, Writer, trailer};
use sha2::{Digest, Sha256};

use super::{Notes, Target};

const PAGE: usize = 512;

pub struct Bbolt;

type Pairs = Vec<(Vec<u8>, Vec<u8>)>;

/// Like FNV-1a in the format.
fn checksum(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

fn page(id: u64, flags: u16, count: usize, overflow: u32, body: &[u8]) -> Vec<u8> {
    let mut page = id.to_le_bytes().to_vec();
    page.extend(flags.to_le_bytes());
    page.extend((count as u16).to_le_bytes());
    page.extend(overflow.to_le_bytes());
    page.extend(body);
    page
}

fn meta(id: u64, root: u64, pages: u64, txid: u64) -> Vec<u8> {
    let mut body = 0xED0C_DAED_u32.to_le_bytes().to_vec();
    body.extend(2_u32.to_le_bytes());
    body.extend((PAGE as u32).to_le_bytes());
    body.extend(0_u32.to_le_bytes());
    for number in [root, 0, u64::MAX, pages, txid] {
        body.extend(number.to_le_bytes());
    }
    body.extend(checksum(&body).to_le_bytes());
    page(id, 4, 0, 0, &body)
}

/// A leaf's elements: flags, key, value.
fn leaf(id: u64, elements: &[(u32, &[u8], Vec<u8>)]) -> Vec<u8> {
    let (mut heads, mut data) = (Vec::new(), Vec::new());
    for (number, (flags, key, value)) in elements.iter().enumerate() {
        let position = (elements.len() - number) * 16 + data.len();
        for field in [*flags, position as u32, key.len() as u32, value.len() as u32] {
            heads.extend(field.to_le_bytes());
        }
        data.extend_from_slice(key);
        data.extend_from_slice(value);
    }
    page(id, 2, elements.len(), 0, &[heads, data].concat())
}

fn branch(id: u64, children: &[(&[u8], u64)]) -> Vec<u8> {
    let (mut heads, mut data) = (Vec::new(), Vec::new());
    for (number, (key, child)) in children.iter().enumerate() {
        let position = (children.len() - number) * 16 + data.len();
        heads.extend((position as u32).to_le_bytes());
        heads.extend((key.len() as u32).to_le_bytes());
        heads.extend(child.to_le_bytes());
        data.extend_from_slice(key);
    }
    page(id, 1, children.len(), 0, &[heads, data].concat())
}

fn bucket(root: u64, inline: &[u8]) -> Vec<u8> {
    let mut value = root.to_le_bytes().to_vec();
    value.extend(1_u64.to_le_bytes());
    value.extend(inline);
    value
}

fn file(root: u64, pages: &[Vec<u8>]) -> Vec<u8> {
    let count = pages.len() as u64 + 2;
    let mut file = Vec::new();
    for page in [meta(0, root, count, 3), meta(1, root, count, 4)].iter().chain(pages) {
        file.extend(page);
        file.resize(file.len().next_multiple_of(PAGE), 0);
    }
    file
}

/// All pairs of a bucket, those of buckets within it included. A sound file has each page once, so
/// this ends; one that is not checked may repeat itself, and is followed a little.
fn walk(
    reader: &Reader<&[u8]>,
    of: &Bucket,
    is_checked: bool,
    depth: usize,
    out: &mut Vec<(Vec<u8>, Pairs)>,
) -> Result<Pairs, Error> {
    let (mut pairs, mut inner) = (Pairs::new(), Vec::new());
    let mut cursor = reader.cursor(of);
    while let Some((key, item)) = cursor.next()? {
        match item {
            Item::Value(value) => pairs.push((key.to_vec(), value.to_vec())),
            Item::Bucket(bucket) => inner.push((key.to_vec(), bucket)),
        }
    }
    for (name, bucket) in inner {
        if is_checked || depth < 4 && out.len() < 64 {
            let pairs = walk(reader, &bucket, is_checked, depth + 1, out)?;
            if depth == 0 {
                out.push((name, pairs));
            }
        }
    }
    Ok(pairs)
}

fn run(writer: &mut Writer, buckets: &[(Vec<u8>, Pairs)]) -> Result<(), Error> {
    for (name, pairs) in buckets {
        writer.begin(name)?;
        for (key, value) in pairs {
            writer.put(key, value)?;
        }
        writer.end()?;
    }
    Ok(())
}

fn write(buckets: &[(Vec<u8>, Pairs)]) -> Result<Vec<u8>, Error> {
    let mut measuring = Writer::measure();
    run(&mut measuring, buckets)?;
    let plan = measuring.finish()?;
    let mut writer = Writer::write(plan);
    run(&mut writer, buckets)?;
    writer.finish()?;
    let file = writer.take();
    assert_eq!(file.len() as u64, plan.file_bytes());
    Ok(file)
}

impl Target for Bbolt {
    fn seeds(&mut self) -> Vec<Vec<u8>> {
        let value = |text: &str| text.as_bytes().to_vec();
        let inline = leaf(0, &[(0, b"k", value("v")), (0, b"l", value("w"))]);
        let small = file(2, &[leaf(2, &[(1, b"key", bucket(0, &inline))])]);
        let left = leaf(3, &[(0, b"a", value("1")), (0, b"b", vec![7; 90])]);
        let right = leaf(4, &[(0, b"m", value("2")), (0, b"n", value(""))]);
        let root = leaf(2, &[(1, b"big", bucket(5, b"")), (1, b"key", bucket(0, &inline))]);
        let large = file(2, &[root, left, right, branch(5, &[(b"a", 3), (b"m", 4)])]);
        let mut wide = leaf(3, &[(0, b"x", vec![9; 700])]);
        wide[12] = 1;
        let wide = file(2, &[leaf(2, &[(1, b"w", bucket(3, b""))]), wide]);
        let mut signed = small.clone();
        signed.extend(Sha256::digest(&small));
        let nested = leaf(0, &[(1, b"in", bucket(0, &inline)), (1, b"too", bucket(0, &inline))]);
        let nested = file(2, &[leaf(2, &[(1, b"key", bucket(0, &nested))])]);
        // The second element has the first one's value.
        let mut shared = leaf(2, &[(1, b"a", bucket(0, &inline)), (1, b"b", Vec::new())]);
        let (value, at) = (bucket(0, &inline).len() as u32, 16 + 16);
        let key = u32::from_le_bytes(shared[at + 4..at + 8].try_into().unwrap()) - 1 - value;
        shared[at + 4..at + 8].copy_from_slice(&key.to_le_bytes());
        shared[at + 12..at + 16].copy_from_slice(&value.to_le_bytes());
        vec![small, large, wide, signed, nested, file(2, &[shared])]
    }

    fn words(&self) -> &'static [&'static [u8]] {
        &[&[2, 0, 0, 0, 0, 0, 0, 0], &[3, 0, 0, 0, 0, 0, 0, 0], &[1, 0, 0, 0], &[16, 0, 0, 0]]
    }

    fn mend(&self, input: &mut Vec<u8>) {
        for at in [0, PAGE, 1024, 4096] {
            if let Some(body) = input.get_mut(at + 16..at + 80) {
                let sum = checksum(&body[..56]);
                body[56..].copy_from_slice(&sum.to_le_bytes());
            }
        }
        if input.len() % PAGE >= DIGEST_BYTES {
            let end = input.len() / PAGE * PAGE;
            let digest = Sha256::digest(&input[..end]);
            input.truncate(end);
            input.extend(digest);
        }
    }

    fn run(&mut self, input: &[u8], notes: &mut Notes) {
        if let Ok(Some(trailer)) = trailer(&input) {
            notes.number("trailer", u64::from(trailer.is_right()));
        }
        let reader = Reader::open(input);
        notes.result("open", &reader);
        let Ok(reader) = reader else { return };
        let checked = reader.check();
        notes.result("check", &checked);
        notes.number("bytes", reader.used_bytes());
        let mut buckets = Vec::new();
        let walked = walk(&reader, &reader.root(), checked.is_ok(), 0, &mut buckets);
        notes.result("walk", &walked);
        let _ = reader.bucket(b"key");
        if checked.is_err() {
            return;
        }
        walked.expect("a file that was checked can be walked");
        notes.number("buckets", buckets.len() as u64);
        buckets.sort();
        let written = write(&buckets).expect("what was read can be written");
        let again = Reader::open(written.as_slice()).unwrap();
        again.check().expect("what was written is sound");
        let mut found = Vec::new();
        walk(&again, &again.root(), true, 0, &mut found).unwrap();
        assert!(found == buckets, "it is read otherwise than it was written");
    }
}
