//! The union of the key ranges that a user's roles grant.

use bytes::Bytes;

use crate::types::KeyRange;

/// The exclusive end of an interval; None is after every key.
type End = Option<Bytes>;

/// Granted intervals, as they were granted and merged.
#[derive(Debug, Default)]
pub(super) struct Ranges {
    /// Sorted by start.
    granted: Vec<(Bytes, End)>,
    /// The union of `granted`, sorted by start; no two overlap or touch.
    merged: Vec<(Bytes, End)>,
}

fn ends_after(end: &End, key: &[u8]) -> bool {
    end.as_ref().is_none_or(|end| end.as_ref() > key)
}

/// Whether `end` is `wanted` or after it.
fn reaches(end: &End, wanted: &End) -> bool {
    match (end, wanted) {
        (None, _) => true,
        (Some(_), None) => false,
        (Some(end), Some(wanted)) => end >= wanted,
    }
}

fn end_of(range: &KeyRange) -> End {
    if range.is_single() {
        return Some([range.key.as_ref(), b"\0"].concat().into());
    }
    (!range.is_open()).then(|| range.end.clone())
}

impl Ranges {
    pub(super) fn new(ranges: impl Iterator<Item = KeyRange>) -> Self {
        let mut granted: Vec<_> = ranges.map(|range| (range.key.clone(), end_of(&range))).collect();
        granted.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        let mut merged: Vec<(Bytes, End)> = Vec::new();
        for (start, end) in &granted {
            match merged.last_mut() {
                // Ranges that touch are merged, as in etcd.
                Some((_, last)) if reaches(last, &Some(start.clone())) => {
                    if !reaches(last, end) {
                        last.clone_from(end);
                    }
                }
                _ => merged.push((start.clone(), end.clone())),
            }
        }
        Self { granted, merged }
    }

    /// Whether every key of the range is granted.
    pub(super) fn cover(&self, range: &KeyRange) -> bool {
        if range.is_single() {
            return self.cover_key(&range.key);
        }
        if !range.key.is_empty() && !range.is_open() && range.end <= range.key {
            return self.cover_empty(range);
        }
        self.end_of_interval_with(&range.key).is_some_and(|end| reaches(end, &end_of(range)))
    }

    /// Whether the key is granted.
    pub(super) fn cover_key(&self, key: &[u8]) -> bool {
        self.end_of_interval_with(key).is_some()
    }

    /// The end of the granted interval that contains the key. No interval contains the empty key.
    fn end_of_interval_with(&self, key: &[u8]) -> Option<&End> {
        let at = self.merged.partition_point(|(start, _)| start.as_ref() <= key);
        let (_, end) = self.merged.get(at.checked_sub(1)?)?;
        (!key.is_empty() && ends_after(end, key)).then_some(end)
    }

    /// A range whose end is not after its start contains no key. Whether it is granted follows
    /// etcd's interval tree (`pkg/adt`), because all members must decide alike on a log entry.
    fn cover_empty(&self, range: &KeyRange) -> bool {
        let (key, end) = (&range.key, &range.end);
        let is_met = |(start, last): &&(Bytes, End)| {
            let is_left = key < start && end <= start;
            !is_left && ends_after(last, key)
        };
        let mut met = self.granted.iter().filter(is_met);
        let Some((first, last)) = met.next() else { return false };
        let mut last = last;
        for (start, end) in met {
            if !reaches(last, &Some(start.clone())) {
                return false;
            }
            if !reaches(last, end) {
                last = end;
            }
        }
        reaches(last, &Some(end.clone())) && first <= key
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(key: &'static str, end: &'static str) -> KeyRange {
        KeyRange::new(Bytes::from_static(key.as_bytes()), Bytes::from_static(end.as_bytes()))
    }

    #[test]
    fn grants_that_touch_cover_what_spans_them() {
        let ranges =
            [range("c", "e"), range("a", "b"), range("b", "c"), range("x", ""), range("x\0", "z")];
        let ranges = Ranges::new(ranges.into_iter());
        for (key, end) in [("a", ""), ("a", "e"), ("b", "d"), ("dzz", ""), ("x", "z"), ("x", "")] {
            assert!(ranges.cover(&range(key, end)), "{key} {end}");
        }
        for (key, end) in
            [("a", "f"), ("e", ""), ("a", "\0"), ("", "b"), ("e", "x"), ("z", ""), ("A", "c")]
        {
            assert!(!ranges.cover(&range(key, end)), "{key} {end}");
        }
    }

    #[test]
    fn an_open_end_is_after_every_key() {
        let ranges = Ranges::new([range("k", "\0")].into_iter());
        assert!(ranges.cover(&range("k", "\0")));
        assert!(ranges.cover(&range("m", "zzz")));
        assert!(!ranges.cover(&range("j", "\0")));
        assert!(!ranges.cover(&range("\0", "\0")));
        assert!(Ranges::new([range("\0", "\0")].into_iter()).cover(&range("\0", "\0")));
        assert!(!Ranges::new([range("a", "z")].into_iter()).cover(&range("a", "\0")));
    }

    #[test]
    fn a_point_is_no_prefix() {
        let ranges = Ranges::new([range("k", "")].into_iter());
        assert!(ranges.cover(&range("k", "")));
        assert!(ranges.cover(&range("k", "k\0")));
        assert!(!ranges.cover(&range("k\0", "")));
        assert!(!ranges.cover(&range("k", "l")));
    }

    #[test]
    fn a_range_turned_around_is_not_free() {
        let ranges = Ranges::new([range("m", "p")].into_iter());
        assert!(ranges.cover(&range("n", "m")));
        assert!(!ranges.cover(&range("z", "a")));
        assert!(!ranges.cover(&range("b", "a")));
        assert!(!Ranges::default().cover(&range("b", "a")));
    }
}
