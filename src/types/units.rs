//! Sizes and times as people write them: `8GiB`, `64MB`, `90s`, `7d`.
//!
//! etcd's tools take bytes as plain numbers and times as Go writes them. Under the name rusd both
//! may have units; what etcd takes means the same.

use crate::go;

const DAY_NANOS: i128 = 86_400_000_000_000;

/// The units of sizes. `G` alone is none: some programs take it for 1000³ and others for 1024³.
const SIZES: [(&str, i128); 14] = [
    ("b", 1),
    ("kb", 1000),
    ("mb", 1000_i128.pow(2)),
    ("gb", 1000_i128.pow(3)),
    ("tb", 1000_i128.pow(4)),
    ("kib", 1 << 10),
    ("mib", 1 << 20),
    ("gib", 1 << 30),
    ("tib", 1 << 40),
    ("ki", 1 << 10),
    ("mi", 1 << 20),
    ("gi", 1 << 30),
    ("ti", 1 << 40),
    ("", 1),
];

/// Bytes from a number with one of the units, whose case does not count. A number without a unit
/// is read as Go reads it. None if the text is no size, or more than 63 bits hold.
pub fn parse_size(text: &str) -> Option<i64> {
    if let Ok(bytes) = go::parse_int(text, 0) {
        return Some(bytes);
    }
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let unit = unit.trim_start().to_ascii_lowercase();
    let (_, scale) = SIZES.iter().find(|(name, _)| *name == unit)?;
    i64::try_from(scaled(number, *scale)?).ok()
}

/// Nanoseconds from a time in Go's form, which may also have days: `7d`, `1d12h`. None if the text
/// is no time, or longer than Go's longest.
pub fn parse_time(text: &str) -> Option<i64> {
    if let Ok(nanos) = go::parse_duration(text) {
        return Some(nanos);
    }
    let (days, rest) = text.split_once('d')?;
    let rest = if rest.is_empty() { 0 } else { go::parse_duration(rest).ok()? };
    if rest < 0 {
        return None;
    }
    i64::try_from(scaled(days, DAY_NANOS)? + i128::from(rest)).ok()
}

/// Whole seconds from a plain number, or from a time. None if the text is neither, or if the time
/// has a part of a second.
pub fn parse_seconds(text: &str) -> Option<i64> {
    const SECOND_NANOS: i64 = 1_000_000_000;
    if let Ok(seconds) = go::parse_int(text, 0) {
        return Some(seconds);
    }
    let nanos = parse_time(text)?;
    (nanos % SECOND_NANOS == 0).then_some(nanos / SECOND_NANOS)
}

/// A decimal number times `scale`, without what is less than one.
fn scaled(number: &str, scale: i128) -> Option<i128> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || !digits(whole) || !digits(fraction) {
        return None;
    }
    // So many digits of a fraction, times the largest unit, fit 128 bits by far.
    let fraction = fraction.get(..fraction.len().min(FRACTION_DIGITS))?;
    let whole = whole.parse::<i128>().ok()?.checked_mul(scale)?;
    let part = match fraction {
        "" => 0,
        digits => {
            digits.parse::<i128>().ok()? * scale / 10_i128.pow(u32::try_from(digits.len()).ok()?)
        }
    };
    whole.checked_add(part)
}

/// Digits of a fraction that count; those behind are less than a nanosecond or a byte.
const FRACTION_DIGITS: usize = 18;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units() {
        for (text, bytes) in [
            ("8GiB", Some(8 << 30)),
            ("8 gib", Some(8 << 30)),
            ("64MB", Some(64_000_000)),
            ("1.5Ki", Some(1536)),
            ("2b", Some(2)),
            ("2147483648", Some(1 << 31)),
            ("0x10", Some(16)),
            ("-1", Some(-1)),
            ("8G", None),
            ("GiB", None),
            (".5GiB", None),
            ("1.GiB", Some(1 << 30)),
            ("1.2.3MB", None),
            ("-1GiB", None),
            ("9000000TB", Some(9_000_000_000_000_000_000)),
            ("9000000TiB", None),
            ("99999999999999999999999999999999999999TiB", None),
            ("", None),
        ] {
            assert_eq!(parse_size(text), bytes, "{text}");
        }
    }

    #[test]
    fn times_may_have_days() {
        for (text, seconds) in [
            ("90s", Some(90)),
            ("7d", Some(604_800)),
            ("1d12h", Some(129_600)),
            ("0.5d", Some(43_200)),
            ("0", Some(0)),
            ("5", None),
            ("d", None),
            ("1d5", None),
            ("1d-2h", None),
            ("-1d", None),
            ("200000d", None),
            ("1w", None),
        ] {
            let nanos = seconds.map(|it: i64| it * 1_000_000_000);
            assert_eq!(parse_time(text), nanos, "{text}");
        }
        assert_eq!(parse_seconds("60"), Some(60));
        assert_eq!(parse_seconds("2h"), Some(7200));
        assert_eq!(parse_seconds("1500ms"), None);
    }
}
