use sha2::{Digest, Sha256};

use super::page::{self, BUCKET_BYTES, ELEMENT_BYTES, HEADER_BYTES};
use super::*;

type Pairs = Vec<(Vec<u8>, Vec<u8>)>;
type Buckets = Vec<(Vec<u8>, Pairs)>;

/// A small generator of reproducible numbers.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963);
        (self.0 >> 33) % bound
    }

    fn bytes(&mut self, bytes: u64) -> Vec<u8> {
        (0..bytes).map(|_| self.below(256) as u8).collect()
    }
}

fn write(buckets: &Buckets) -> Vec<u8> {
    let mut measuring = Writer::measure();
    for (name, pairs) in buckets {
        measuring.begin(name).unwrap();
        for (key, value) in pairs {
            measuring.put_size(key, value.len()).unwrap();
        }
        measuring.end().unwrap();
    }
    let plan = measuring.finish().unwrap();
    assert_eq!(measuring.ready_bytes(), 0);
    let mut writer = Writer::write(plan);
    let mut file = Vec::new();
    for (name, pairs) in buckets {
        writer.begin(name).unwrap();
        for (key, value) in pairs {
            writer.put(key, value).unwrap();
            file.extend(writer.take());
        }
        writer.end().unwrap();
    }
    writer.finish().unwrap();
    file.extend(writer.take());
    assert_eq!(file.len() as u64, plan.file_bytes());
    file
}

fn pairs(reader: &Reader<&[u8]>, bucket: &Bucket) -> Result<Pairs, Error> {
    let mut found = Vec::new();
    let mut cursor = reader.cursor(bucket);
    while let Some((key, item)) = cursor.next()? {
        match item {
            Item::Value(value) => found.push((key.to_vec(), value.to_vec())),
            Item::Bucket(_) => found.push((key.to_vec(), b"a bucket".to_vec())),
        }
    }
    Ok(found)
}

fn read(file: &[u8]) -> Result<Buckets, Error> {
    let reader = Reader::open(file)?;
    reader.check()?;
    let mut names = Vec::new();
    let mut cursor = reader.cursor(&reader.root());
    while let Some((name, item)) = cursor.next()? {
        if let Item::Bucket(bucket) = item {
            names.push((name.to_vec(), bucket));
        }
    }
    names.into_iter().map(|(name, bucket)| Ok((name, pairs(&reader, &bucket)?))).collect()
}

fn some_buckets(random: &mut Random, pairs_max: u64, value_bytes_max: u64) -> Buckets {
    let mut buckets = Buckets::new();
    for _ in 0..random.below(6) {
        let size = 1 + random.below(12);
        let name = random.bytes(size);
        let mut pairs = Pairs::new();
        for _ in 0..random.below(pairs_max) {
            let key_bytes_max = if random.below(20) == 0 { 3000 } else { 30 };
            let key_bytes = 1 + random.below(key_bytes_max);
            let value_bytes = random.below(value_bytes_max);
            pairs.push((random.bytes(key_bytes), random.bytes(value_bytes)));
        }
        pairs.sort();
        pairs.dedup_by(|a, b| a.0 == b.0);
        buckets.push((name, pairs));
    }
    buckets.sort();
    buckets.dedup_by(|a, b| a.0 == b.0);
    buckets
}

#[test]
fn what_is_written_is_read() {
    for seed in 0..18 {
        let mut random = Random(seed);
        let pairs_max = [3, 40, 700][seed as usize % 3];
        let buckets = some_buckets(&mut random, pairs_max, [9, 300, 9000][seed as usize / 3 % 3]);
        assert_eq!(read(&write(&buckets)).unwrap(), buckets, "seed {seed}");
    }
}

#[test]
fn long_keys_make_branches_that_overflow() {
    for count in 1..12_u8 {
        let pairs: Pairs = (0..count).map(|n| (vec![n; 9000], vec![n; 10])).collect();
        let buckets = vec![(b"long".to_vec(), pairs)];
        assert_eq!(read(&write(&buckets)).unwrap(), buckets);
    }
    let mut writer = Writer::measure();
    writer.begin(b"b").unwrap();
    assert!(matches!(writer.put_size(b"", 1), Err(Error::KeySize(0))));
    assert!(matches!(writer.put_size(&[1; 32_769], 1), Err(Error::KeySize(32_769))));
    writer.put_size(b"k", 1).unwrap();
    assert!(matches!(writer.put_size(b"k", 1), Err(Error::Misuse(_))));
}

#[test]
fn a_second_run_over_other_pairs_is_refused() {
    let plan = Writer::measure().finish().unwrap();
    let mut writer = Writer::write(plan);
    writer.begin(b"b").unwrap();
    writer.put(b"key", &[0; 5000]).unwrap();
    writer.end().unwrap();
    assert!(matches!(writer.finish(), Err(Error::Misuse(_))));
}

/// A file that is truncated or has a flipped bit is refused, or its structure and the bytes that
/// were not changed are read as they were; it never causes a panic.
#[test]
fn damage_is_an_error_and_never_a_panic() {
    let mut random = Random(7);
    let pairs: Pairs = (0..260_u32)
        .map(|n| (n.to_be_bytes().to_vec(), random.bytes(if n == 9 { 5000 } else { 30 })))
        .collect();
    let buckets = vec![
        (b"empty".to_vec(), Pairs::new()),
        (b"inline".to_vec(), vec![(b"k".to_vec(), b"v".to_vec())]),
        (b"large".to_vec(), pairs),
    ];
    let file = write(&buckets);
    assert_eq!(read(&file).unwrap(), buckets);
    for end in (0..file.len()).step_by(211) {
        assert!(read(&file[..end]).is_err(), "cut at {end}");
    }
    let count = |buckets: &Buckets| buckets.iter().map(|(_, pairs)| pairs.len()).sum::<usize>();
    let mut refused = 0;
    // All page headers and elements are hit, and some of the data.
    for at in (0..file.len()).filter(|at| at % 4096 < 700 || at % 19 == 0) {
        let mut damaged = file.clone();
        damaged[at] ^= 1 << random.below(8);
        match read(&damaged) {
            Ok(found) => assert!(count(&found) <= count(&buckets)),
            Err(_) => refused += 1,
        }
    }
    assert!(refused > 500, "{refused}");
}

#[test]
fn every_flipped_bit_is_seen_by_the_digest() {
    let mut file = write(&vec![(b"b".to_vec(), vec![(b"k".to_vec(), b"v".to_vec())])]);
    assert_eq!(trailer(&file.as_slice()).unwrap(), None);
    let digest = Sha256::digest(&file);
    file.extend_from_slice(&digest);
    assert!(trailer(&file.as_slice()).unwrap().unwrap().is_right());
    assert_eq!(read(&file).unwrap().len(), 1);
    for at in (0..file.len()).step_by(7) {
        file[at] ^= 1 << (at % 8);
        assert!(!trailer(&file.as_slice()).unwrap().unwrap().is_right());
        file[at] ^= 1 << (at % 8);
    }
}

/// A branch that names its own parent must not be followed for ever.
#[test]
fn cycles_end() {
    let pairs: Pairs = (0..9_000_u32).map(|n| (n.to_be_bytes().to_vec(), vec![1; 180])).collect();
    let file = write(&vec![(b"b".to_vec(), pairs)]);
    let branches: Vec<usize> =
        (2..file.len() / 4096).filter(|id| file[id * 4096 + 8] == 1).collect();
    assert!(branches.len() > 2);
    for branch in &branches {
        for target in &branches {
            let mut damaged = file.clone();
            let child = branch * 4096 + 16 + 8;
            damaged[child..child + 8].copy_from_slice(&(*target as u64).to_le_bytes());
            let Err(error) = read(&damaged) else {
                assert_eq!(damaged, file);
                continue;
            };
            assert!(matches!(error, Error::Damaged { .. }), "{error}");
        }
    }
}

/// A leaf's elements, all of which have the same value: flags, and the keys' single bytes.
fn leaf(id: u64, overflow: u32, flags: u32, keys: &[u8], value: &[u8], is_shared: bool) -> Vec<u8> {
    let mut page = page::header(id, page::LEAF, keys.len() as u16, overflow).to_vec();
    let (heads, each) = (HEADER_BYTES + keys.len() * ELEMENT_BYTES, 1 + value.len());
    for number in 0..keys.len() {
        // All keys are in front of one value that they share, or each has its own.
        let at = heads + if is_shared { number } else { number * each };
        let position = at - HEADER_BYTES - number * ELEMENT_BYTES;
        let (key_bytes, value_bytes) =
            if is_shared { (1, keys.len() - 1 - number + value.len()) } else { (1, value.len()) };
        for field in [flags, position as u32, key_bytes, value_bytes as u32] {
            page.extend_from_slice(&field.to_le_bytes());
        }
    }
    for key in keys {
        page.push(*key);
        if !is_shared {
            page.extend_from_slice(value);
        }
    }
    if is_shared {
        page.extend_from_slice(value);
    }
    page
}

fn inline_bucket(page: &[u8]) -> Vec<u8> {
    [&[0; BUCKET_BYTES], page].concat()
}

/// A file whose root is this page.
fn file_of(root: &[u8]) -> Vec<u8> {
    let mut file = write(&vec![(b"b".to_vec(), Pairs::new())]);
    let pages = root.len().div_ceil(4096);
    file.truncate(2 * 4096);
    for (id, start) in [0, 4096].into_iter().enumerate() {
        let body = start + HEADER_BYTES;
        file[body + 16..body + 24].copy_from_slice(&2_u64.to_le_bytes());
        file[body + 40..body + 48].copy_from_slice(&(2 + pages as u64).to_le_bytes());
        let sum = page::checksum(&file[body..body + page::META_SUMMED_BYTES]);
        file[body + 56..body + 64].copy_from_slice(&sum.to_le_bytes());
        assert_eq!(file[start], id as u8);
    }
    file.extend_from_slice(root);
    file.resize((2 + pages) * 4096, 0);
    file
}

fn refusal(file: &[u8]) -> &'static str {
    match read(file) {
        Err(Error::Damaged { page: 2, what }) => what,
        other => panic!("{other:?}"),
    }
}

#[test]
fn elements_that_share_bytes_are_damage() {
    let sound = file_of(&leaf(2, 0, 0, b"abc", b"value", false));
    assert_eq!(pairs(&Reader::open(&sound[..]).unwrap(), &root(&sound)).unwrap().len(), 3);
    let shared = file_of(&leaf(2, 0, 0, b"abc", b"value", true));
    assert_eq!(refusal(&shared), "two elements share their bytes");
}

fn root(file: &[u8]) -> Bucket {
    Reader::open(file).unwrap().root()
}

#[test]
fn a_bucket_within_an_inlined_one_is_damage() {
    let inner = inline_bucket(&leaf(0, 0, 0, b"k", b"v", false));
    let one = leaf(2, 0, page::IS_BUCKET, b"a", &inner, false);
    assert_eq!(read(&file_of(&one)).unwrap().len(), 1);
    let outer = inline_bucket(&leaf(0, 0, page::IS_BUCKET, b"a", &inner, false));
    let two = leaf(2, 0, page::IS_BUCKET, b"a", &outer, false);
    assert!(refusal(&file_of(&two)).starts_with("a bucket within"));
}

/// Some two hundred inlined buckets, each within the next, and 250 elements that share one value of
/// that kind: a walk of all of them would hardly end.
#[test]
fn a_small_file_of_many_buckets_is_refused_at_once() {
    let mut page = leaf(0, 0, 0, b"k", b"v", false);
    while page.len() < 11_000 {
        // Each page becomes the only page of a bucket that is inlined into the next one.
        let bucket = inline_bucket(&page);
        page = leaf(0, 0, page::IS_BUCKET, b"0", &bucket, false);
    }
    let nested = leaf(2, 2, page::IS_BUCKET, b"0", &inline_bucket(&page), false);
    assert!(refusal(&file_of(&nested)).starts_with("a bucket within"));
    let keys: Vec<u8> = (0..250).collect();
    let shared = leaf(2, 2, page::IS_BUCKET, &keys, &inline_bucket(&page)[..7000], true);
    assert_eq!(refusal(&file_of(&shared)), "two elements share their bytes");
}

/// A file that claims to be larger than any disk.
struct Sparse(Vec<u8>);

impl ReadAt for Sparse {
    fn bytes(&self) -> io::Result<u64> {
        Ok(1 << 62)
    }

    fn read_at(&self, buffer: &mut [u8], at: u64) -> io::Result<()> {
        self.0.as_slice().read_at(buffer, at)
    }
}

#[test]
fn pages_that_only_a_meta_page_tells_of_take_no_memory() {
    let mut file = file_of(&leaf(2, 0, 0, b"abc", b"value", false));
    for start in [0, 4096] {
        let body = start + HEADER_BYTES;
        file[body + 40..body + 48].copy_from_slice(&(1_u64 << 50).to_le_bytes());
        let sum = page::checksum(&file[body..body + page::META_SUMMED_BYTES]);
        file[body + 56..body + 64].copy_from_slice(&sum.to_le_bytes());
    }
    Reader::open(Sparse(file)).unwrap().check().unwrap();
}
