//! Keys of all kinds: with long beginnings in common, binary ones, beginnings of each other, very
//! long ones.

use std::collections::BTreeMap;

use super::*;

struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = split_mix(self.0);
        self.0 % end
    }

    /// A key of one of many shapes. There are few of each, so that keys come again.
    fn key(&mut self) -> Vec<u8> {
        match self.below(9) {
            0 => Vec::new(),
            1 => vec![0; self.below(20) as usize],
            2 => vec![0xff; self.below(20) as usize],
            3 => b"/registry/pods/"[..self.below(16) as usize].to_vec(),
            4 => format!("/registry/pods/ns-{}/pod", self.below(4)).into_bytes(),
            5 => format!("/registry/leases/{:03}", self.below(900)).into_bytes(),
            // Rests of seven to nine bytes, which differ in the last ones, zeros among them.
            6 => {
                let mut key = b"/registry/pods/".to_vec();
                key.extend_from_slice(&self.below(3).to_be_bytes()[self.below(2) as usize..]);
                key.extend((0..self.below(3)).map(|_| self.below(2) as u8));
                key
            }
            7 => self.below(700).to_le_bytes().to_vec(),
            _ => {
                let len = if self.below(200) == 0 { 64 << 10 } else { 40 };
                let mut key = vec![b'/'; len];
                key.extend_from_slice(&self.below(5).to_be_bytes());
                key
            }
        }
    }
}

/// Every list of the index is as its comments say.
fn check_shape(index: &Index) {
    let of_bounds = |bounds: &Keys, children: usize| {
        assert_eq!(bounds.len() + 1, children.max(1));
        (0..bounds.len()).map(|at| bounds.key(at)).collect::<Vec<_>>()
    };
    let bounds = of_bounds(&index.bounds, index.branches.len());
    let (mut keys, mut last): (usize, Option<Box<[u8]>>) = (0, None);
    for (at, branch) in index.branches.iter().enumerate() {
        assert!(!branch.leaves.is_empty() && branch.facts.len() == branch.leaves.len());
        let leaf_bounds = of_bounds(branch.bounds(), branch.leaves.len());
        for (of, leaf) in branch.leaves.iter().enumerate() {
            assert!((1..=LEAF_KEYS_MAX).contains(&leaf.len()) && leaf.keys.len() == leaf.len());
            let facts = branch.facts[of];
            let live = leaf.histories.iter().filter(|history| history.is_live()).count();
            assert_eq!(facts.live as usize, live);
            assert!(leaf.histories.iter().all(|history| history.newest() <= facts.newest));
            assert!(facts.has_past || !leaf.histories.iter().any(History::has_past));
            let bound = match of {
                0 => at.checked_sub(1).map(|at| &bounds[at]),
                _ => Some(&leaf_bounds[of - 1]),
            };
            assert!(last.as_ref() < bound || bound.is_none());
            assert!(bound.is_none_or(|bound| *bound <= leaf.keys.key(0)));
            for at in 0..leaf.len() {
                let key = Some(leaf.keys.key(at));
                assert!(last < key);
                last = key;
                keys += 1;
            }
        }
    }
    assert_eq!(index.len(), keys);
}

type Changes = BTreeMap<Vec<u8>, Vec<(i64, bool)>>;

fn is_live(changes: &[(i64, bool)], main: i64) -> bool {
    changes.iter().rev().find(|(at, _)| *at <= main).is_some_and(|(_, is_put)| *is_put)
}

/// What `get` says of a key, from its changes.
fn state(changes: &[(i64, bool)], main: i64) -> Option<(i64, i64, i64)> {
    let upto = changes.iter().filter(|(at, _)| *at <= main).collect::<Vec<_>>();
    let since = upto.rsplit(|(_, is_put)| !is_put).next()?;
    Some((since.last()?.0, since.first()?.0, since.len() as i64))
}

fn agrees(index: &Index, model: &Changes, random: &mut Random, main: i64) {
    for _ in 0..40 {
        let key = random.key();
        let found = index.get(&key, main).map(|f| (f.modified.main, f.created.main, f.version));
        let expected = model.get(&key).and_then(|changes| state(changes, main));
        assert_eq!(found, expected, "{}", key.escape_ascii());
    }
    for _ in 0..20 {
        let (start, last) = (random.key(), random.key());
        let end = if random.below(4) == 0 { End::Open } else { End::Before(&last) };
        let within = model.range(start.clone()..);
        let within = within.take_while(|(key, _)| match end {
            End::Open => true,
            End::Before(end) => key.as_slice() < end,
        });
        let live = within.filter(|(_, changes)| is_live(changes, main));
        let expected: Vec<&Vec<u8>> = live.map(|(key, _)| key).collect();
        let keys_max = 1 + random.below(300) as usize;
        let (mut visited, mut from): (Vec<Vec<u8>>, Box<[u8]>) = (vec![], start.clone().into());
        while let Visit::Next(next) = index.visit(&from, end, main, keys_max, |mut visit| {
            visited.push(visit.key().to_vec());
            true
        }) {
            assert!(next > from || visited.is_empty() && next == from);
            from = next;
        }
        assert!(visited.iter().eq(expected.iter().copied()));
        let (mut counted, mut from): (u64, Box<[u8]>) = (0, start.into());
        loop {
            let (some, visit) = index.count(&from, end, main, keys_max);
            counted += some;
            let Visit::Next(next) = visit else { break };
            from = next;
        }
        assert_eq!(counted, expected.len() as u64);
    }
}

#[test]
fn keys_of_all_kinds_agree_with_a_plain_model() {
    for seed in 0..6 {
        let mut random = Random(seed);
        let (mut index, mut model) = (Index::default(), Changes::new());
        for main in 2..9000 {
            let key = random.key();
            let changes = model.entry(key.clone()).or_default();
            let is_put = random.below(4) > 0 || !is_live(changes, i64::MAX);
            match is_put {
                true => assert_eq!(index.put(&key, rev(main)).modified, rev(main)),
                false => assert!(index.tombstone(&key, rev(main))),
            }
            changes.push((main, is_put));
            if main % 1500 == 0 {
                check_shape(&index);
                let at = main - random.below(1000) as i64;
                agrees(&index, &model, &mut random, at);
            }
            if main % 4000 == 0 {
                compact(&mut index, main - 500);
                check_shape(&index);
                agrees(&index, &model, &mut random, main - 500);
            }
        }
        let bytes = keys_as_bytes(&index, 8999);
        let restored = read_keys(&mut bytes.as_slice(), 8999).ok().unwrap();
        check_shape(&restored);
        assert!(entries(&restored) == entries(&index));
        agrees(&restored, &model, &mut random, 8999);
    }
}

/// Leaves and branches are split in their middle, at their end and, for long keys, before they have
/// their number of keys.
#[test]
fn an_index_of_many_branches_loses_no_key() {
    type Make = fn(u64) -> Vec<u8>;
    let made: [(&str, Make); 4] = [
        ("ascending", |n| format!("/registry/events/default/event-{n:09}").into_bytes()),
        ("descending", |n| format!("/registry/events/{:09}", 900_000 - n).into_bytes()),
        ("scattered", |n| split_mix(n).to_be_bytes().to_vec()),
        ("long", |n| {
            let mut key = vec![b'k'; 3000];
            key.extend_from_slice(&split_mix(n % 5000).to_be_bytes());
            key.extend_from_slice(&[b'k'; 3000]);
            key
        }),
    ];
    for (name, made) in made {
        let count = if name == "long" { 5000 } else { 33_000 };
        let mut index = Index::default();
        for n in 0..count {
            index.put(&made(n), rev(n as i64 + 2));
        }
        check_shape(&index);
        assert_eq!((index.len() as u64, index.live()), (count, count), "{name}");
        assert!(name == "long" || index.branches.len() > 1, "{name}");
        let most = leaves(&index).map(Leaf::len).max().unwrap();
        assert!(if name == "long" { most < 30 } else { most > 100 }, "{name}: {most} in a leaf");
        for n in 0..count {
            let found = index.get(&made(n), i64::MAX).map(|found| found.modified.main);
            assert_eq!(found, Some(n as i64 + 2), "{name} {n}");
        }
        // All keys but one go, and with them nearly all leaves and branches.
        for n in 1..count {
            assert!(index.tombstone(&made(n), rev((count + n) as i64 + 2)));
        }
        compact(&mut index, 3 * count as i64);
        check_shape(&index);
        assert_eq!((index.len(), index.branches.len()), (1, 1), "{name}");
        for n in 1..count {
            index.put(&made(n), rev((3 * count + n) as i64));
        }
        check_shape(&index);
        assert_eq!(index.live(), count, "{name}");
    }
}

/// Keys in ascending order leave full leaves, and a key costs little more than its bytes.
#[test]
fn a_key_takes_few_bytes() {
    let mut index = Index::default();
    let keys = 100_000;
    for n in 0..keys {
        index.put(format!("/registry/events/default/event-{n:09}").as_bytes(), rev(n + 2));
    }
    let leaves = leaves(&index).count();
    assert!(leaves <= keys as usize / LEAF_KEYS_MAX + 1, "{leaves} leaves");
    let bytes: usize = super::leaves(&index).map(Leaf::memory_bytes).sum();
    assert!(bytes < 60 * keys as usize, "{} bytes a key", bytes / keys as usize);
}

/// A key that does not begin as all others makes each of them longer by what it lacks.
#[test]
fn a_key_without_a_long_common_beginning_moves_little() {
    let mut keys = Keys::default();
    let mut key = vec![b'k'; 100 << 10];
    for n in 0..50u8 {
        key.push(n);
        let at = keys.search(&key).unwrap_err();
        keys.insert(at, &key);
        key.pop();
    }
    let before = keys.memory_bytes();
    let at = keys.search(b"a").unwrap_err();
    keys.insert(at, b"a");
    let added = keys.memory_bytes() - before;
    assert!(added < 1 << 20, "{added} bytes");
}
