//! The name that a mistyped word may mean.

/// The Levenshtein distance: how many letters must be put in, left out or replaced.
pub fn distance(left: &str, right: &str) -> usize {
    edits(left, right, false)
}

/// The distance; with `swaps`, two neighbours that have changed places count as one edit.
fn edits(left: &str, right: &str, swaps: bool) -> usize {
    let (left, right): (Vec<char>, Vec<char>) = (left.chars().collect(), right.chars().collect());
    let mut earlier = Vec::new();
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for i in 0..left.len() {
        let mut next = vec![i + 1];
        for j in 0..right.len() {
            let replaced = row[j] + usize::from(left[i] != right[j]);
            let mut least = replaced.min(row[j + 1] + 1).min(next[j] + 1);
            if swaps && i > 0 && j > 0 && left[i] == right[j - 1] && left[i - 1] == right[j] {
                let before: &Vec<usize> = &earlier;
                least = least.min(before[j - 1] + 1);
            }
            next.push(least);
        }
        earlier = std::mem::replace(&mut row, next);
    }
    row[right.len()]
}

/// The name that is nearest to `word`, if it is near: two edits lead there at most, for a short word
/// one, or the name begins with the word. Of names equally near it is the first.
pub fn nearest<'a>(word: &str, names: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    /// Longer words are no names of ours; comparing them would cost their length squared.
    const LONGEST: usize = 64;
    if word.is_empty() || word.len() > LONGEST {
        return None;
    }
    let typed = word.to_lowercase();
    let allowed = 2.min((typed.chars().count() - 1) / 2).max(1);
    let far = |name: &str| match edits(&typed, &name.to_lowercase(), true) {
        near if near <= allowed => near,
        _ if name.starts_with(&typed) => allowed + 1,
        _ => usize::MAX,
    };
    let best = names.into_iter().map(|name| (far(name), name)).min_by_key(|(far, _)| *far);
    best.filter(|(far, _)| *far < usize::MAX).map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_name_is_meant() {
        let names = ["grant", "revoke", "list", "keep-alive", "get"];
        for (word, name) in [
            ("grnt", Some("grant")),
            ("grants", Some("grant")),
            ("GRANT", Some("grant")),
            ("gte", Some("get")),
            ("keep", Some("keep-alive")),
            ("lsit", Some("list")),
            ("gets", Some("get")),
            ("x", None),
            ("bogus", None),
            ("", None),
        ] {
            assert_eq!(nearest(word, names), name, "{word}");
        }
        assert_eq!(nearest(&"x".repeat(1_000_000), names), None);
    }
}
