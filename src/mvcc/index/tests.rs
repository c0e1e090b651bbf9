use super::leaf::LEAF_KEYS_MAX;
use super::*;
use crate::clock::split_mix;

mod keys;

fn rev(main: i64) -> Revision {
    Revision::new(main, 0)
}

fn keys(index: &Index, start: &str, end: End<'_>, main: i64) -> Vec<String> {
    let mut keys = Vec::new();
    let visit = index.visit(start.as_bytes(), end, main, usize::MAX, |mut visited| {
        keys.push(String::from_utf8_lossy(visited.key()).into_owned());
        true
    });
    assert_eq!(visit, Visit::Done);
    keys
}

/// The revisions that die with each of the compactions.
fn compact_all(index: &mut Index, mains: &[i64]) -> Vec<Vec<Revision>> {
    let mut doomed = DoomedRevisions::new(mains.iter().copied());
    let mut start: Box<[u8]> = Box::default();
    while let Visit::Next(next) = index.compact(&start, 3, &mut doomed) {
        start = next;
    }
    let mut dead = doomed.dead();
    dead.iter_mut().for_each(|dead| dead.sort_unstable());
    dead
}

fn compact(index: &mut Index, main: i64) -> Vec<Revision> {
    compact_all(index, &[main]).remove(0)
}

fn count(index: &Index, start: &str, end: End<'_>, main: i64, keys_max: usize) -> u64 {
    let (mut count, mut start): (u64, Box<[u8]>) = (0, start.as_bytes().into());
    loop {
        let (some, visit) = index.count(&start, end, main, keys_max);
        count += some;
        match visit {
            Visit::Next(next) => start = next,
            Visit::Done => return count,
        }
    }
}

#[test]
fn a_key_has_generations() {
    let mut index = Index::default();
    index.put(b"a", rev(2));
    index.put(b"a", rev(4));
    assert!(index.tombstone(b"a", rev(6)));
    assert!(!index.tombstone(b"a", rev(7)));
    index.put(b"a", rev(8));
    let found = |main| index.get(b"a", main).map(|f| (f.modified.main, f.created.main, f.version));
    assert_eq!(found(1), None);
    assert_eq!(found(2), Some((2, 2, 1)));
    assert_eq!(found(5), Some((4, 2, 2)));
    assert_eq!(found(6), None);
    assert_eq!(found(7), None);
    assert_eq!(found(8), Some((8, 8, 1)));
    assert_eq!(found(i64::MAX), Some((8, 8, 1)));
}

#[test]
fn compaction_keeps_the_newest_revision_at_its_point() {
    let mut index = Index::default();
    for main in [2, 4, 6] {
        index.put(b"a", rev(main));
    }
    index.put(b"b", rev(3));
    index.tombstone(b"b", rev(5));
    index.put(b"c", rev(7));
    assert_eq!(compact(&mut index, 5), [rev(2), rev(3)]);
    assert_eq!(index.get(b"a", 5).unwrap().version, 2);
    assert_eq!(index.get(b"b", 5), None);
    assert_eq!(index.len(), 3, "a tombstone exactly at the point stays");
    assert_eq!(compact(&mut index, 6), [rev(4), rev(5)]);
    assert_eq!(index.len(), 2);
    assert_eq!(keys(&index, "", End::Open, 7), ["a", "c"]);
}

#[test]
fn hash_keeps_no_tombstone() {
    let mut index = Index::default();
    index.put(b"a", rev(2));
    index.tombstone(b"a", rev(3));
    index.put(b"b", rev(4));
    let kept = |main| {
        let mut kept = Vec::new();
        index.visit_kept(b"", main, usize::MAX, |revision| kept.push(revision));
        kept
    };
    assert_eq!(kept(2), [rev(2)]);
    assert_eq!(kept(3), []);
    assert_eq!(kept(4), [rev(4)]);
}

/// A plain model: each key's changes in order.
#[derive(Default)]
struct Model(std::collections::BTreeMap<Vec<u8>, Vec<(i64, bool)>>);

impl Model {
    fn live(&self, main: i64) -> Vec<Vec<u8>> {
        let is_live = |changes: &Vec<(i64, bool)>| {
            changes.iter().rev().find(|(at, _)| *at <= main).is_some_and(|(_, put)| *put)
        };
        self.0.iter().filter(|(_, c)| is_live(c)).map(|(k, _)| k.clone()).collect()
    }
}

fn random_history(seed: u64, changes: i64, keys: u64) -> (Index, Model) {
    let (mut index, mut model, mut state) = (Index::default(), Model::default(), seed);
    for main in 2..changes + 2 {
        state = split_mix(state);
        let key = format!("k{:05}", state % keys).into_bytes();
        let is_put = !(state >> 32).is_multiple_of(3);
        if is_put {
            index.put(&key, rev(main));
        } else if !index.tombstone(&key, rev(main)) {
            continue;
        }
        model.0.entry(key).or_default().push((main, is_put));
    }
    (index, model)
}

#[test]
fn visits_and_counts_agree_with_a_plain_model() {
    for seed in 0..4 {
        let (index, model) = random_history(seed, 6000, 1500);
        for main in [0, 2, 700, 3000, 6001] {
            let mut visited = Vec::new();
            let mut start: Box<[u8]> = Box::default();
            while let Visit::Next(next) = index.visit(&start, End::Open, main, 100, |mut v| {
                visited.push(v.key().to_vec());
                true
            }) {
                start = next;
            }
            assert_eq!(visited, model.live(main), "seed {seed} at {main}");
        }
        let live = model.live(i64::MAX);
        assert_eq!(index.live(), live.len() as u64);
        for (start, end) in [("", "k00700"), ("k00003", "k01200"), ("k007", "k008"), ("k9", "k1")] {
            let within = |key: &&Vec<u8>| {
                key.as_slice() >= start.as_bytes() && key.as_slice() < end.as_bytes()
            };
            let expected = live.iter().filter(within).count() as u64;
            let counted = count(&index, start, End::Before(end.as_bytes()), i64::MAX, 1000);
            assert_eq!(counted, expected, "seed {seed} {start}..{end}");
        }
        assert_eq!(count(&index, "", End::Open, i64::MAX, 1000), live.len() as u64);
        for main in [0, 1, 2, 700, 3000, 5990, 6001] {
            let within = |key: &&Vec<u8>| key[..] >= b"k00100"[..] && key[..] < b"k01300"[..];
            let expected = model.live(main).iter().filter(within).count() as u64;
            for keys_max in [1, 1000, usize::MAX] {
                let counted = count(&index, "k00100", End::Before(b"k01300"), main, keys_max);
                assert_eq!(counted, expected, "seed {seed} at {main}");
            }
        }
    }
}

/// Leaves without a change after the revision are not visited, however many there are.
#[test]
fn a_count_at_an_older_revision_looks_at_what_changed_since() {
    let mut index = Index::default();
    for main in 2..100_002 {
        index.put(format!("k{main:06}").as_bytes(), rev(main));
    }
    index.put(b"k000077", rev(200_000));
    index.tombstone(b"k070000", rev(200_001));
    let (counted, visit) = index.count(b"", End::Open, 150_000, 3 * LEAF_KEYS_MAX);
    assert_eq!((counted, visit), (100_000, Visit::Done));
    let (counted, visit) = index.count(b"", End::Open, 200_001, 0);
    assert_eq!((counted, visit), (99_999, Visit::Done));
}

#[test]
fn a_compaction_passes_over_keys_without_a_past() {
    let mut index = Index::default();
    for main in 2..100_002 {
        index.put(format!("k{main:06}").as_bytes(), rev(main));
    }
    index.put(b"k000077", rev(200_000));
    let mut doomed = DoomedRevisions::new([150_000, 200_000].into_iter());
    let visit = index.compact(b"", 10 * LEAF_KEYS_MAX, &mut doomed);
    assert_eq!((visit, doomed.dead()), (Visit::Done, vec![vec![], vec![rev(77)]]));
}

#[test]
fn compactions_together_forget_what_they_forget_one_by_one() {
    for seed in 0..4 {
        let (mut together, model) = random_history(seed, 5000, 700);
        let (mut one_by_one, _) = random_history(seed, 5000, 700);
        let mains = [900, 901, 2500, 4999, 5001];
        let expected: Vec<_> = mains.map(|main| compact(&mut one_by_one, main)).into();
        assert!(compact_all(&mut together, &mains) == expected, "seed {seed}");
        assert!(entries(&together) == entries(&one_by_one), "seed {seed}");
        assert_eq!(together.live(), model.live(i64::MAX).len() as u64);
    }
}

#[test]
fn compaction_changes_no_later_read() {
    let (mut index, model) = random_history(9, 5000, 700);
    let before: Vec<_> = model.0.keys().map(|key| index.get(key, 3000)).collect();
    compact(&mut index, 3000);
    let after: Vec<_> = model.0.keys().map(|key| index.get(key, 3000)).collect();
    assert_eq!(before, after);
    assert_eq!(index.live(), model.live(i64::MAX).len() as u64);
    assert_eq!(count(&index, "", End::Open, i64::MAX, 1000), index.live());
}

fn entries(index: &Index) -> Vec<(Box<[u8]>, History)> {
    let leaves = leaves(index).flat_map(|leaf| (0..leaf.len()).map(move |at| (leaf, at)));
    leaves.map(|(leaf, at)| (leaf.keys.key(at), leaf.histories[at].clone())).collect()
}

fn leaves(index: &Index) -> impl Iterator<Item = &Leaf> {
    index.branches.iter().flat_map(|branch| &branch.leaves)
}

fn keys_as_bytes(index: &Index, main: i64) -> Vec<u8> {
    let (mut bytes, mut start) = (Vec::new(), Box::default());
    while let Visit::Next(next) = write_keys(index, &start, main, 100, usize::MAX, &mut bytes) {
        start = next;
    }
    write_end(&mut bytes);
    bytes
}

#[test]
fn keys_read_back_as_they_were_at_a_revision() {
    for (newest, compacted) in [(4000, 1000), (4000, 4000), (1500, 1000), (1000, 1000)] {
        // Both histories begin alike, so the shorter one is what the longer one was at that
        // revision.
        let (mut longer, _) = random_history(5, 4000, 600);
        let (mut expected, _) = random_history(5, newest - 1, 600);
        compact(&mut longer, compacted);
        compact(&mut expected, compacted);
        let bytes = keys_as_bytes(&longer, newest);
        let restored = read_keys(&mut bytes.as_slice(), newest).ok().unwrap();
        assert_eq!(entries(&expected), entries(&restored));
        assert_eq!(restored.live(), expected.live());
        assert_eq!(restored.len(), expected.len());
        for cut in (0..bytes.len()).step_by(97) {
            assert!(read_keys(&mut &bytes[..cut], newest).is_err());
        }
    }
}

/// Adds the rows in revision order, `rows_max` at once.
fn restored<'a>(rows: impl Iterator<Item = (&'a [u8], i64, Restored)>, rows_max: usize) -> Index {
    let (mut index, mut bulk) = (Index::default(), Bulk::default());
    for (at, (key, main, row)) in (1..).zip(rows) {
        bulk.push(key, rev(main), row);
        if at % rows_max == 0 {
            bulk.move_into(&mut index);
        }
    }
    bulk.move_into(&mut index);
    index
}

#[test]
fn an_index_restored_from_rows_reads_the_same() {
    let rows: [(&[u8], i64, Restored); 5] = [
        (b"a", 5, Restored::Put { created: 2, version: 3 }),
        (b"a", 6, Restored::Put { created: 2, version: 4 }),
        (b"gone", 7, Restored::Tombstone),
        (b"a", 8, Restored::Tombstone),
        (b"a", 9, Restored::Put { created: 9, version: 1 }),
    ];
    for rows_max in 1..=rows.len() {
        let index = restored(rows.into_iter(), rows_max);
        let found =
            |main| index.get(b"a", main).map(|f| (f.modified.main, f.created.main, f.version));
        assert_eq!(found(5), Some((5, 2, 3)));
        assert_eq!(found(7), Some((6, 2, 4)));
        assert_eq!(found(8), None);
        assert_eq!(found(9), Some((9, 9, 1)));
        assert_eq!(index.get(b"gone", 9), None);
        assert_eq!((index.live(), index.newest()), (1, 9));
    }
}

#[test]
fn rows_make_the_index_that_the_changes_made() {
    for (seed, rows_max) in [(1, 1), (2, 7), (3, 1000), (4, 2500), (5, usize::MAX)] {
        let (index, model) = random_history(seed, 6000, 1500);
        let mut rows = Vec::new();
        for (key, changes) in &model.0 {
            let (mut created, mut version) = (0, 0);
            for (main, is_put) in changes {
                (created, version) = if version == 0 { (*main, 1) } else { (created, version + 1) };
                let put = Restored::Put { created, version };
                rows.push((key.as_slice(), *main, if *is_put { put } else { Restored::Tombstone }));
                version = if *is_put { version } else { 0 };
            }
        }
        rows.sort_unstable_by_key(|(_, main, _)| *main);
        let restored = restored(rows.into_iter(), rows_max);
        assert!(entries(&restored) == entries(&index), "seed {seed}");
        assert!(leaves(&restored).all(|leaf| (1..=LEAF_KEYS_MAX).contains(&leaf.len())));
        assert_eq!((restored.live(), restored.len()), (index.live(), index.len()));
        assert_eq!(restored.newest(), index.newest());
        let counted = |index| count(index, "k007", End::Open, i64::MAX, 1000);
        assert_eq!(counted(&restored), counted(&index));
    }
}
