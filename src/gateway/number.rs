//! Numbers of JSON that stand for integers, as Go's protojson reads them.

use super::scan::Scanner;

/// What a text begins with that protojson takes together: a number, `true`, `false` or `null`.
pub(super) fn word(text: &[u8]) -> &[u8] {
    let is_part =
        |byte: &&u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'+' | b'.' | b'_');
    &text[..text.iter().take_while(is_part).count()]
}

/// The number that a text begins with, as JSON has it, if nothing but a separator follows.
pub(super) fn first_number(text: &[u8]) -> Option<&[u8]> {
    let number = word(text);
    let mut scanner = Scanner::default();
    let is_number = matches!(number.first(), Some(b'-' | b'0'..=b'9'))
        && scanner.feed(number) == Ok(None)
        && scanner.finish() == Ok(Some(()));
    is_number.then_some(number)
}

/// The value of a number of JSON, if it is an integer: `1.0` and `1e1` are.
pub(super) fn integer(number: &[u8]) -> Option<i128> {
    let (is_negative, number) = match number {
        [b'-', rest @ ..] => (true, rest),
        _ => (false, number),
    };
    let exponent_at = number.iter().position(|byte| matches!(byte, b'e' | b'E'));
    let (mantissa, exponent) = match exponent_at {
        Some(at) => {
            let exponent = std::str::from_utf8(&number[at + 1..]).ok()?;
            (&number[..at], exponent)
        }
        None => (number, "0"),
    };
    let point = mantissa.iter().position(|byte| *byte == b'.').unwrap_or(mantissa.len());
    let (whole, fraction) = (&mantissa[..point], mantissa.get(point + 1..).unwrap_or_default());
    let whole = if whole == b"0" { &[] } else { whole };
    let kept = fraction.iter().rposition(|digit| *digit != b'0').map_or(0, |at| at + 1);
    let fraction = &fraction[..kept];
    if whole.is_empty() && fraction.is_empty() {
        return Some(0);
    }
    let exponent = i64::from(exponent.parse::<i32>().ok()?);
    // The largest number has 20 digits.
    let digits = i64::try_from(whole.len()).ok()?.checked_add(exponent)?;
    if !(0..=20).contains(&digits) {
        return None;
    }
    let mut all = [whole, fraction].concat();
    let digits = usize::try_from(digits).ok()?;
    if all.len() > digits {
        if all[digits..].iter().any(|digit| *digit != b'0') || (exponent < 0 && kept > 0) {
            return None;
        }
        all.truncate(digits);
    }
    all.resize(digits, b'0');
    let value = all.iter().fold(0_i128, |sum, digit| sum * 10 + i128::from(digit - b'0'));
    Some(if is_negative { -value } else { value })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_may_be_written_as_fractions_and_with_exponents() {
        for (text, value) in [
            ("0", Some(0)),
            ("-0.000e99999", Some(0)),
            ("1.0", Some(1)),
            ("-1e1", Some(-10)),
            ("1200e-2", Some(12)),
            ("0.5e1", Some(5)),
            ("1.25e2", Some(125)),
            ("18446744073709551615", Some(i128::from(u64::MAX))),
            ("1.5", None),
            ("1.25e1", None),
            ("1e-1", None),
            ("1e20", None),
            ("1e99999999999", None),
        ] {
            assert_eq!(integer(text.as_bytes()), value, "{text}");
        }
    }

    #[test]
    fn a_text_may_go_on_behind_its_number() {
        for (text, number) in
            [("5", Some("5")), ("5,6", Some("5")), ("5x", None), ("", None), ("-", None)]
        {
            assert_eq!(first_number(text.as_bytes()), number.map(str::as_bytes), "{text}");
        }
    }
}
