//! The report of `rusd space`: how many bytes of the store belong to which keys, and how many of
//! them are history. Each record is read once, in revision order; it is history if its key has a
//! newer one or is deleted.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;

use super::{Error, Upkeep};
use crate::limits::{
    READ_CHUNK_BYTES, READ_CHUNK_ROWS, SPACE_PREFIX_BYTES_MAX, SPACE_PREFIXES_MAX,
    SPACE_SAMPLE_INTERVAL, SPACE_SAMPLES_MAX,
};
use crate::mvcc::kv::Pair;
use crate::mvcc::{CallerGuard, Mvcc, ReadCheck};
use crate::peer::Pace;
use crate::types::Revision;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    pub keys: u64,
    pub live_bytes: u64,
    pub history_records: u64,
    pub history_bytes: u64,
}

impl Tally {
    fn add(&mut self, bytes: u64, is_live: bool) {
        if is_live {
            self.keys += 1;
            self.live_bytes += bytes;
        } else {
            self.history_records += 1;
            self.history_bytes += bytes;
        }
    }

    fn add_all(&mut self, other: &Self) {
        self.keys += other.keys;
        self.live_bytes += other.live_bytes;
        self.history_records += other.history_records;
        self.history_bytes += other.history_bytes;
    }

    fn bytes(&self) -> u64 {
        self.live_bytes + self.history_bytes
    }
}

#[derive(Clone, Debug, Default)]
pub struct Usage {
    pub all: Tally,
    /// The prefixes with the most bytes, largest first.
    pub prefixes: Vec<(Bytes, Tally)>,
    /// The sum over all keys that are in none of `prefixes`.
    pub others: Tally,
    pub total_bytes: u64,
    pub in_use_bytes: u64,
    /// 0 for no quota.
    pub quota_bytes: u64,
    pub log_bytes: u64,
    pub disk_free_bytes: u64,
    pub revision: i64,
    pub compact_revision: i64,
    /// The change of the bytes in use, and the time in which they changed.
    pub growth: Option<(i64, Duration)>,
}

/// Samples of the bytes in use: (time, bytes), oldest first.
#[derive(Default)]
pub(super) struct Growth(Mutex<VecDeque<(Duration, u64)>>);

impl Growth {
    fn note(&self, now: Duration, bytes: u64) {
        let mut samples = self.0.lock();
        samples.push_back((now, bytes));
        if samples.len() > SPACE_SAMPLES_MAX {
            samples.pop_front();
        }
    }

    fn until(&self, now: Duration, bytes: u64) -> Option<(i64, Duration)> {
        let (since, was) = *self.0.lock().front()?;
        let signed = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
        let time = now.saturating_sub(since);
        (!time.is_zero()).then(|| (signed(bytes) - signed(was), time))
    }
}

/// The key up to and including its `depth`th slash. A slash as the first byte is not counted.
fn prefix(key: &[u8], depth: usize) -> &[u8] {
    let slashes = key.iter().enumerate().skip(1).filter(|(_, byte)| **byte == b'/');
    let end = slashes.map(|(at, _)| at + 1).nth(depth.max(1) - 1).unwrap_or_else(|| {
        // A key with fewer slashes belongs to its last directory; one without any to the empty
        // prefix.
        key.iter().skip(1).rposition(|byte| *byte == b'/').map_or(0, |at| at + 2)
    });
    &key[..end.min(SPACE_PREFIX_BYTES_MAX)]
}

#[derive(Default)]
struct Walk {
    all: Tally,
    prefixes: BTreeMap<Vec<u8>, Tally>,
    others: Tally,
}

impl Walk {
    fn add(&mut self, key: &[u8], depth: usize, bytes: u64, is_live: bool) {
        self.all.add(bytes, is_live);
        let prefix = prefix(key, depth);
        if let Some(tally) = self.prefixes.get_mut(prefix) {
            tally.add(bytes, is_live);
        } else if self.prefixes.len() < SPACE_PREFIXES_MAX {
            self.prefixes.entry(prefix.to_vec()).or_default().add(bytes, is_live);
        } else {
            self.others.add(bytes, is_live);
        }
    }

    fn largest(self, count: usize) -> (Vec<(Bytes, Tally)>, Tally) {
        let mut prefixes: Vec<_> = self.prefixes.into_iter().collect();
        prefixes.sort_by_key(|(_, tally)| std::cmp::Reverse(tally.bytes()));
        let (count, mut others) = (count.min(prefixes.len()), self.others);
        prefixes.drain(count..).for_each(|(_, tally)| others.add_all(&tally));
        let named = prefixes.into_iter().map(|(name, tally)| (Bytes::from(name), tally));
        (named.collect(), others)
    }
}

impl Upkeep {
    /// Counts the bytes of the whole history, at a pace that does not slow down puts much.
    pub async fn usage(self: &Arc<Self>, prefixes: usize, depth: usize) -> Result<Usage, Error> {
        let turn = self.passes.usages.begin().await?;
        let upkeep = Arc::clone(self);
        let waiting = CallerGuard::default();
        let wanted = waiting.read_check();
        let work = move || {
            let _turn = turn;
            upkeep.usage_now(prefixes, depth, &wanted)
        };
        self.on_nice_thread("space", work).await
    }

    fn usage_now(&self, prefixes: usize, depth: usize, wanted: &ReadCheck) -> Result<Usage, Error> {
        let context = &self.context;
        let walk = self.walk(depth, wanted)?;
        let (sizes, current) = (context.store.sizes(), context.mvcc.current());
        let all = walk.all;
        let (prefixes, others) = walk.largest(prefixes);
        Ok(Usage {
            all,
            prefixes,
            others,
            total_bytes: sizes.total,
            in_use_bytes: sizes.in_use,
            quota_bytes: u64::try_from(context.settings.quota_bytes).unwrap_or(0),
            log_bytes: self.log_bytes(),
            disk_free_bytes: context.store.disk_free_bytes(),
            revision: current.revision,
            compact_revision: current.compact_revision,
            growth: self.growth(),
        })
    }

    /// The change of the bytes in use, and the time in which they changed; None until the first
    /// sample is there.
    pub fn growth(&self) -> Option<(i64, Duration)> {
        let context = &self.context;
        self.growth.until(context.clock.now(), context.store.sizes().in_use)
    }

    fn walk(&self, depth: usize, wanted: &ReadCheck) -> Result<Walk, Error> {
        let mvcc: &Mvcc = &self.context.mvcc;
        let internal = |error: &dyn std::fmt::Display| Error::Internal(error.to_string());
        let last = Revision::last_of(mvcc.current().revision);
        let (mut walk, mut from) = (Walk::default(), Revision::default());
        let mut pace = Pace::new(self.context.raft.clone());
        loop {
            wanted.check()?;
            let rows = self.context.store.scan(from, last, READ_CHUNK_ROWS, READ_CHUNK_BYTES);
            let rows = rows.map_err(|error| internal(&error))?;
            let Some(end) = rows.last() else { return Ok(walk) };
            from = Revision::new(end.rev.main, end.rev.sub + 1);
            let mut read = 0;
            for row in &rows {
                read += row.kv.len() as u64;
                let pair = Pair::parse(&row.kv).map_err(|error| internal(&error))?;
                let is_live = !row.tombstone && mvcc.is_newest(pair.key, row.rev);
                walk.add(pair.key, depth, row.kv.len() as u64, is_live);
            }
            pace.rest(read);
        }
    }

    fn log_bytes(&self) -> u64 {
        let Ok(entries) = std::fs::read_dir(&self.context.settings.log_dir) else { return 0 };
        let sizes = entries.filter_map(|entry| Some(entry.ok()?.metadata().ok()?.len()));
        sizes.sum()
    }

    /// Samples the bytes in use each `SPACE_SAMPLE_INTERVAL`, until the member stops.
    pub async fn observe_growth(&self) {
        let context = &self.context;
        loop {
            self.growth.note(context.clock.now(), context.store.sizes().in_use);
            context.clock.sleep(SPACE_SAMPLE_INTERVAL).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_ends_with_a_slash() {
        let of = |key: &str, depth| String::from_utf8(prefix(key.as_bytes(), depth).to_vec());
        assert_eq!(of("/registry/pods/default/a", 2).unwrap(), "/registry/pods/");
        assert_eq!(of("/registry/pods/default/a", 1).unwrap(), "/registry/");
        assert_eq!(of("/registry/a", 2).unwrap(), "/registry/");
        assert_eq!(of("a/b", 2).unwrap(), "a/");
        assert_eq!(of("/a", 2).unwrap(), "");
        assert_eq!(of("", 1).unwrap(), "");
    }

    #[test]
    fn prefixes_beyond_the_bound_are_counted_together() {
        let mut walk = Walk::default();
        for number in 0..SPACE_PREFIXES_MAX + 5 {
            walk.add(format!("/{number}/k").as_bytes(), 1, 10, true);
        }
        walk.add(b"/0/k", 1, 5, false);
        assert_eq!((walk.others.keys, walk.all.keys), (5, SPACE_PREFIXES_MAX as u64 + 5));
        let all = walk.all;
        let (largest, others) = walk.largest(1);
        assert_eq!((largest.len(), &largest[0].0[..]), (1, &b"/0/"[..]));
        assert_eq!((largest[0].1.live_bytes, largest[0].1.history_bytes), (10, 5));
        let mut sum = largest[0].1;
        sum.add_all(&others);
        assert_eq!(sum, all, "the table adds up");
    }

    #[test]
    fn growth_is_what_came_since_the_oldest_look() {
        let growth = Growth::default();
        assert_eq!(growth.until(Duration::from_secs(1), 10), None);
        for minute in 0..100_u32 {
            growth.note(Duration::from_secs(60) * minute, 1000 * u64::from(minute));
        }
        let (bytes, time) = growth.until(Duration::from_secs(60 * 100), 100_000).unwrap();
        assert_eq!(time, SPACE_SAMPLE_INTERVAL * u32::try_from(SPACE_SAMPLES_MAX).unwrap());
        assert_eq!(bytes, 1000 * i64::try_from(SPACE_SAMPLES_MAX).unwrap());
    }
}
