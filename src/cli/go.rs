//! Go's text formats, which etcdctl's input and output are made of: quoting, durations, numbers.

use std::time::Duration;

/// `%q` of a string: double quotes, escapes, printable characters as they are.
pub(super) fn quote(bytes: &[u8]) -> String {
    let mut out = String::from("\"");
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            quote_char(c, &mut out);
        }
        for byte in chunk.invalid() {
            out.push_str(&format!("\\x{byte:02x}"));
        }
    }
    out.push('"');
    out
}

/// `%#q` of a string: in backquotes if it can stand there as it is.
pub(super) fn backquote(bytes: &[u8]) -> String {
    let is_plain = |c: char| c != '`' && c != '\u{feff}' && (c == '\t' || !c.is_control());
    match std::str::from_utf8(bytes) {
        Ok(text) if text.chars().all(is_plain) => format!("`{text}`"),
        _ => quote(bytes),
    }
}

fn quote_char(c: char, out: &mut String) {
    match c {
        '"' => out.push_str("\\\""),
        '\\' => out.push_str("\\\\"),
        '\x07' => out.push_str("\\a"),
        '\x08' => out.push_str("\\b"),
        '\x0c' => out.push_str("\\f"),
        '\n' => out.push_str("\\n"),
        '\r' => out.push_str("\\r"),
        '\t' => out.push_str("\\t"),
        '\x0b' => out.push_str("\\v"),
        '\'' => out.push('\''),
        c if is_printable(c) => out.push(c),
        c if c < ' ' || c == '\x7f' => out.push_str(&format!("\\x{:02x}", c as u32)),
        c if (c as u32) < 0x1_0000 => out.push_str(&format!("\\u{:04x}", c as u32)),
        c => out.push_str(&format!("\\U{:08x}", c as u32)),
    }
}

/// Whether a character is printable, by the standard library's table: it shows in the debug form
/// of a string, whose first character alone is treated with more caution.
fn is_printable(c: char) -> bool {
    format!("a{c}").escape_debug().nth(1) == Some(c)
}

/// Reads one Go string literal, `"…"` with escapes or `` `…` ``, at the start of `text`. Returns
/// its value and what follows.
pub(super) fn unquote(text: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    match text.first()? {
        b'`' => {
            let end = text[1..].iter().position(|byte| *byte == b'`')?;
            Some((text[1..=end].to_vec(), &text[end + 2..]))
        }
        b'"' => unquote_double(&text[1..]),
        _ => None,
    }
}

fn unquote_double(mut rest: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    let mut out = Vec::new();
    loop {
        let (&byte, tail) = rest.split_first()?;
        rest = tail;
        match byte {
            b'"' => return Some((out, rest)),
            b'\\' => rest = unescape(rest, &mut out)?,
            b'\n' => return None,
            byte => out.push(byte),
        }
    }
}

fn unescape<'a>(rest: &'a [u8], out: &mut Vec<u8>) -> Option<&'a [u8]> {
    let (&kind, rest) = rest.split_first()?;
    let simple = match kind {
        b'a' => 7,
        b'b' => 8,
        b'f' => 12,
        b'n' => b'\n',
        b'r' => b'\r',
        b't' => b'\t',
        b'v' => 11,
        b'\\' | b'"' => kind,
        b'x' => {
            out.push(u8::try_from(digits(rest, 2, 16)?).ok()?);
            return Some(&rest[2..]);
        }
        b'0'..=b'7' => {
            let octal = [&[kind], rest.get(..2)?].concat();
            out.push(u8::try_from(digits(&octal, 3, 8)?).ok()?);
            return Some(&rest[2..]);
        }
        b'u' | b'U' => {
            let length = if kind == b'u' { 4 } else { 8 };
            let c = char::from_u32(digits(rest, length, 16)?)?;
            out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
            return Some(&rest[length..]);
        }
        _ => return None,
    };
    out.push(simple);
    Some(rest)
}

fn digits(text: &[u8], length: usize, radix: u32) -> Option<u32> {
    let text = std::str::from_utf8(text.get(..length)?).ok()?;
    if text.starts_with('+') {
        return None;
    }
    u32::from_str_radix(text, radix).ok()
}

/// `strconv.ParseInt` of 64 bits in `base`, or with a prefix that names it if that is zero.
pub(super) fn parse_int(text: impl AsRef<[u8]>, base: u32) -> Result<i64, String> {
    let text = text.as_ref();
    let (negative, magnitude) = sign_of(text);
    let value = parse_magnitude(magnitude, base)
        .map_err(|reason| number_error("ParseInt", text, reason))?;
    let signed = if negative { -i128::from(value) } else { i128::from(value) };
    i64::try_from(signed).map_err(|_| number_error("ParseInt", text, "value out of range"))
}

/// Whether a number is negative, and its magnitude.
fn sign_of(text: &[u8]) -> (bool, &[u8]) {
    match text {
        [b'-', magnitude @ ..] => (true, magnitude),
        [b'+', magnitude @ ..] => (false, magnitude),
        magnitude => (false, magnitude),
    }
}

/// `strconv.ParseUint` of 64 bits.
pub(super) fn parse_uint(text: impl AsRef<[u8]>, base: u32) -> Result<u64, String> {
    let text = text.as_ref();
    parse_magnitude(text, base).map_err(|reason| number_error("ParseUint", text, reason))
}

fn parse_magnitude(text: &[u8], base: u32) -> Result<u64, &'static str> {
    let lower = std::str::from_utf8(text).map_err(|_| "invalid syntax")?.to_ascii_lowercase();
    let (digits, base, underscores) = match base {
        0 => {
            let (digits, base) = match lower.as_bytes() {
                [b'0', b'x', ..] => (&lower[2..], 16),
                [b'0', b'b', ..] => (&lower[2..], 2),
                [b'0', b'o', ..] => (&lower[2..], 8),
                [b'0', _, ..] => (&lower[1..], 8),
                _ => (lower.as_str(), 10),
            };
            (digits.to_string(), base, true)
        }
        base => (lower, base, false),
    };
    let digits = if underscores { digits.replace('_', "") } else { digits };
    if digits.is_empty() || !digits.chars().all(|c| c.is_digit(base)) {
        return Err("invalid syntax");
    }
    u64::from_str_radix(&digits, base).map_err(|_| "value out of range")
}

fn number_error(function: &str, text: &[u8], reason: &str) -> String {
    format!("strconv.{function}: parsing {}: {reason}", quote(text))
}

/// `strconv.ParseBool`.
pub(super) fn parse_bool(text: impl AsRef<[u8]>) -> Result<bool, String> {
    let text = text.as_ref();
    match text {
        b"1" | b"t" | b"T" | b"TRUE" | b"true" | b"True" => Ok(true),
        b"0" | b"f" | b"F" | b"FALSE" | b"false" | b"False" => Ok(false),
        _ => Err(number_error("ParseBool", text, "invalid syntax")),
    }
}

const UNITS: [(&str, u64); 8] = [
    ("ns", 1),
    ("us", 1_000),
    ("µs", 1_000),
    ("μs", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
];

/// `time.ParseDuration`, in nanoseconds.
pub(super) fn parse_duration(text: impl AsRef<[u8]>) -> Result<i64, String> {
    let text = text.as_ref();
    let shown = quote(text);
    let invalid = || format!("time: invalid duration {shown}");
    let (negative, rest) = sign_of(text);
    let mut rest = std::str::from_utf8(rest).map_err(|_| invalid())?;
    if rest == "0" {
        return Ok(0);
    }
    if rest.is_empty() {
        return Err(invalid());
    }
    let mut total = 0f64;
    while !rest.is_empty() {
        let length = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let number: f64 = rest[..length].parse().map_err(|_| invalid())?;
        rest = &rest[length..];
        let length = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
        let unit = &rest[..length];
        if unit.is_empty() {
            return Err(format!("time: missing unit in duration {shown}"));
        }
        let Some((_, nanos)) = UNITS.iter().find(|(name, _)| *name == unit) else {
            let unit = quote(unit.as_bytes());
            return Err(format!("time: unknown unit {unit} in duration {shown}"));
        };
        total += number * *nanos as f64;
        rest = &rest[length..];
    }
    if total > i64::MAX as f64 {
        return Err(invalid());
    }
    let nanos = total.round() as i64;
    Ok(if negative { -nanos } else { nanos })
}

/// `time.Duration.String`.
pub(super) fn duration(value: Duration) -> String {
    let nanos = value.as_nanos();
    if nanos == 0 {
        return "0s".into();
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
    text.trim_end_matches('0').trim_end_matches('.').to_string()
}

/// Bytes in decimal units, as etcdctl shows sizes.
pub(super) fn size(bytes: u64) -> String {
    if bytes < 10 {
        return format!("{bytes} B");
    }
    let mut exponent = 0;
    while exponent < 6 && bytes / 1000u64.pow(exponent) >= 1000 {
        exponent += 1;
    }
    let unit = ["B", "kB", "MB", "GB", "TB", "PB", "EB"][exponent as usize];
    let value = (bytes as f64 / 1000f64.powi(exponent as i32) * 10.0 + 0.5).floor() / 10.0;
    if value < 10.0 { format!("{value:.1} {unit}") } else { format!("{value:.0} {unit}") }
}

/// Splits a list flag as Go's CSV reader does.
pub(super) fn parse_csv(text: &str) -> Result<Vec<Vec<u8>>, String> {
    if text.is_empty() {
        return Ok(Vec::new());
    }
    let bare = |column: usize| {
        format!("parse error on line 1, column {column}: bare \" in non-quoted-field")
    };
    let mut fields = Vec::new();
    let mut rest = text;
    loop {
        if let Some(quoted) = rest.strip_prefix('"') {
            let (field, tail) = csv_quoted(quoted).ok_or_else(|| {
                format!(
                    "parse error on line 1, column {}: extraneous or missing \" in quoted-field",
                    text.len() + 1
                )
            })?;
            fields.push(field.into());
            rest = tail;
        } else {
            let end = rest.find(',').unwrap_or(rest.len());
            let field = &rest[..end];
            if let Some(at) = field.find('"') {
                return Err(bare(text.len() - rest.len() + at + 1));
            }
            fields.push(field.as_bytes().to_vec());
            rest = &rest[end..];
        }
        match rest.strip_prefix(',') {
            Some(tail) => rest = tail,
            None => return Ok(fields),
        }
    }
}

/// The content of a quoted field whose opening quote is gone, and what follows the closing one.
fn csv_quoted(text: &str) -> Option<(String, &str)> {
    let mut field = String::new();
    let mut rest = text;
    loop {
        let at = rest.find('"')?;
        field.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        match rest.chars().next() {
            Some('"') => {
                field.push('"');
                rest = &rest[1..];
            }
            None | Some(',') => return Some((field, rest)),
            Some(_) => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quoting_escapes_what_does_not_print() {
        assert_eq!(quote("q\"\\k é".as_bytes()), "\"q\\\"\\\\k é\"");
        assert_eq!(quote("\u{2028}\u{301}\u{1f600}".as_bytes()), "\"\\u2028\u{301}😀\"");
        assert_eq!(quote(b"\x00\x7f\xff\n"), "\"\\x00\\x7f\\xff\\n\"");
    }

    #[test]
    fn unquoting_is_the_reverse() {
        for bytes in ["a\tb\"\\".as_bytes(), b"\xff\x01", "é\u{2028}".as_bytes()] {
            let quoted = quote(bytes) + " rest";
            assert_eq!(unquote(quoted.as_bytes()), Some((bytes.to_vec(), b" rest".as_slice())));
        }
        assert_eq!(unquote(b"`a\\n`)"), Some((b"a\\n".to_vec(), b")".as_slice())));
        assert_eq!(unquote(b"\"\\101\\u00e9\""), Some(("Aé".into(), b"".as_slice())));
        assert_eq!(unquote(b"\"open"), None);
    }

    #[test]
    fn durations_read_and_write_as_in_go() {
        for (text, nanos) in [("1h2m3.5s", 3_723_500_000_000), ("700ms", 700_000_000), ("0", 0)] {
            assert_eq!(parse_duration(text), Ok(nanos));
        }
        assert_eq!(parse_duration("5").unwrap_err(), "time: missing unit in duration \"5\"");
        assert_eq!(
            parse_duration("5x").unwrap_err(),
            "time: unknown unit \"x\" in duration \"5x\""
        );
        assert_eq!(duration(Duration::from_nanos(738_878)), "738.878µs");
        assert_eq!(duration(Duration::from_micros(1_001_100)), "1.0011s");
        assert_eq!(duration(Duration::from_secs(3601)), "1h0m1s");
        assert_eq!(duration(Duration::from_secs(2)), "2s");
    }

    #[test]
    fn numbers_fail_in_gos_words() {
        assert_eq!(parse_int("-0x10", 0), Ok(-16));
        assert_eq!(
            parse_int("xyz", 16).unwrap_err(),
            "strconv.ParseInt: parsing \"xyz\": invalid syntax"
        );
        assert_eq!(
            parse_int("9223372036854775808", 10).unwrap_err(),
            "strconv.ParseInt: parsing \"9223372036854775808\": value out of range"
        );
        assert_eq!(parse_int("-9223372036854775808", 10), Ok(i64::MIN));
        assert_eq!(parse_uint("ffffffffffffffff", 16), Ok(u64::MAX));
    }

    #[test]
    fn sizes_are_decimal() {
        for (bytes, text) in [(9, "9 B"), (2_147_483_648, "2.1 GB"), (32_768, "33 kB")] {
            assert_eq!(size(bytes), text);
        }
    }

    #[test]
    fn lists_split_at_commas_outside_quotes() {
        assert_eq!(parse_csv("a,\"b,c\",d").unwrap(), [b"a".as_slice(), b"b,c", b"d"]);
        assert!(parse_csv("").unwrap().is_empty());
        assert_eq!(
            parse_csv("a\"b").unwrap_err(),
            "parse error on line 1, column 2: bare \" in non-quoted-field"
        );
    }
}
