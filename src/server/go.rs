//! Text forms of Go's standard library that flags use: numbers, booleans, durations, quotes.

use std::time::Duration;

pub(super) fn parse_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

/// An unsigned number with Go's base prefixes.
pub(super) fn parse_uint(text: &str, max: u64) -> Result<u64, String> {
    let value = magnitude(text)?;
    if value > u128::from(max) {
        return Err("value out of range".to_owned());
    }
    u64::try_from(value).map_err(|_| "value out of range".to_owned())
}

/// A signed number with Go's base prefixes.
pub(super) fn parse_int(text: &str) -> Result<i64, String> {
    let (negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let value = i128::try_from(magnitude(digits)?).map_err(|_| "value out of range".to_owned())?;
    i64::try_from(if negative { -value } else { value })
        .map_err(|_| "value out of range".to_owned())
}

fn magnitude(text: &str) -> Result<u128, String> {
    let parse_error = || "parse error".to_owned();
    let lower = text.to_ascii_lowercase();
    let (radix, digits) = if let Some(digits) = lower.strip_prefix("0x") {
        (16, digits)
    } else if let Some(digits) = lower.strip_prefix("0b") {
        (2, digits)
    } else if let Some(digits) = lower.strip_prefix("0o") {
        (8, digits)
    } else if lower.len() > 1 && lower.starts_with('0') {
        (8, &lower[1..])
    } else {
        (10, lower.as_str())
    };
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
        return Err(parse_error());
    }
    let mut value: u128 = 0;
    for digit in digits.chars().filter(|&digit| digit != '_') {
        let digit = digit.to_digit(radix).ok_or_else(parse_error)?;
        // Saturating keeps an absurdly long number out of range instead of wrapping it.
        value = value.saturating_mul(u128::from(radix)).saturating_add(u128::from(digit));
    }
    Ok(value)
}

/// A duration such as `1m30s`, in nanoseconds, with the text of Go's error.
pub(super) fn parse_duration(text: &str) -> Result<i64, String> {
    let invalid = || format!("time: invalid duration {}", quote(text));
    let (negative, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Ok(0);
    }
    if rest.is_empty() {
        return Err(invalid());
    }
    let mut total: i128 = 0;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let number = &rest[..end];
        let unit_end = rest[end..]
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .map_or(rest.len(), |at| end + at);
        let unit = &rest[end..unit_end];
        if !number.bytes().any(|b| b.is_ascii_digit()) || number.matches('.').count() > 1 {
            return Err(invalid());
        }
        if unit.is_empty() {
            return Err(format!("time: missing unit in duration {}", quote(text)));
        }
        let nanos = unit_nanos(unit).ok_or_else(|| {
            format!("time: unknown unit {} in duration {}", quote(unit), quote(text))
        })?;
        total =
            total.checked_add(scaled(number, nanos).ok_or_else(invalid)?).ok_or_else(invalid)?;
        rest = &rest[unit_end..];
    }
    i64::try_from(if negative { -total } else { total }).map_err(|_| invalid())
}

fn unit_nanos(unit: &str) -> Option<i128> {
    Some(match unit {
        "ns" => 1,
        "us" | "\u{b5}s" | "\u{3bc}s" => 1_000,
        "ms" => 1_000_000,
        "s" => 1_000_000_000,
        "m" => 60_000_000_000,
        "h" => 3_600_000_000_000,
        _ => return None,
    })
}

fn scaled(number: &str, nanos: i128) -> Option<i128> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let whole: i128 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    let mut value = whole.checked_mul(nanos)?;
    let mut scale = nanos;
    for digit in fraction.bytes() {
        scale /= 10;
        value = value.checked_add(i128::from(digit - b'0') * scale)?;
    }
    Some(value)
}

/// A duration as Go prints it: `1h0m0s`, `1.5s`, `100ms`.
pub(super) fn duration(value: Duration) -> String {
    let nanos = value.as_nanos();
    if nanos == 0 {
        return "0s".to_owned();
    }
    for (unit, scale) in [("ns", 1), ("µs", 1_000), ("ms", 1_000_000)] {
        if nanos < scale * 1000 {
            return format!("{}{unit}", decimal(nanos, scale));
        }
    }
    let (hours, minutes) = (nanos / 3_600_000_000_000, nanos / 60_000_000_000 % 60);
    let seconds = decimal(nanos % 60_000_000_000, 1_000_000_000);
    match (hours, minutes) {
        (0, 0) => format!("{seconds}s"),
        (0, minutes) => format!("{minutes}m{seconds}s"),
        (hours, minutes) => format!("{hours}h{minutes}m{seconds}s"),
    }
}

fn decimal(value: u128, scale: u128) -> String {
    let width = scale.ilog10() as usize;
    if width == 0 {
        return value.to_string();
    }
    let text = format!("{}.{:0width$}", value / scale, value % scale);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// Go's `%q`, close enough for the texts that reach it.
pub(super) fn quote(text: &str) -> String {
    format!("{text:?}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_take_gos_prefixes() {
        assert_eq!(parse_uint("0x10", u64::MAX), Ok(16));
        assert_eq!(parse_uint("010", u64::MAX), Ok(8));
        assert_eq!(parse_uint("1_000", u64::MAX), Ok(1000));
        assert_eq!(parse_int("-0x1"), Ok(-1));
        assert_eq!(parse_uint("4294967296", u64::from(u32::MAX)), Err("value out of range".into()));
        assert_eq!(parse_int("9223372036854775808"), Err("value out of range".into()));
        assert_eq!(parse_int("-9223372036854775808"), Ok(i64::MIN));
        for text in ["", "x", "1.5", "-", "0x", "1 "] {
            assert!(parse_int(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn durations_are_printed_as_in_go() {
        for (nanos, text) in [
            (0, "0s"),
            (1_000, "1µs"),
            (100_000_000, "100ms"),
            (49_500_000_000, "49.5s"),
            (90_000_000_000, "1m30s"),
            (3_600_000_000_000, "1h0m0s"),
        ] {
            assert_eq!(duration(Duration::from_nanos(nanos)), text);
        }
    }

    #[test]
    fn durations_have_units() {
        for (text, nanos) in [
            ("1m30s", 90_000_000_000),
            ("1.5h", 5_400_000_000_000),
            ("-2ms", -2_000_000),
            ("0", 0),
            (".5s", 500_000_000),
        ] {
            assert_eq!(parse_duration(text), Ok(nanos), "{text}");
        }
        assert_eq!(parse_duration("0.5"), Err("time: missing unit in duration \"0.5\"".into()));
        assert_eq!(parse_duration("x"), Err("time: invalid duration \"x\"".into()));
        assert_eq!(parse_duration("5x"), Err("time: unknown unit \"x\" in duration \"5x\"".into()));
    }
}
