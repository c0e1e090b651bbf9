//! The metadata that grpc-go reads before it looks for a method: the deadline, and binary values.

use std::time::Duration;

use http::HeaderMap;

use crate::go;

const TIMEOUT: &str = "grpc-timeout";
/// Suffix of metadata names whose values are binary, sent as base64.
const BINARY: &str = "-bin";
/// Longest value of `grpc-timeout`: eight digits and the unit.
const TIMEOUT_BYTES_MAX: usize = 9;

/// The deadline that a call states, such as `500m` for 500 milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Deadline(pub(super) Option<Duration>);

/// Reads the deadline of a call. Errors are grpc-go's texts for malformed metadata. As in grpc-go,
/// the last of several deadlines counts, and the last of several faults is reported.
pub(super) fn read(headers: &HeaderMap) -> Result<Deadline, String> {
    let mut deadline = Deadline::default();
    let faults = headers.iter().filter_map(|(name, value)| {
        let (name, value) = (name.as_str(), value.as_bytes());
        if name == TIMEOUT {
            return match parse(value) {
                Ok(stated) => {
                    deadline = Deadline(Some(stated));
                    None
                }
                Err(why) => Some(format!("malformed grpc-timeout: {why}")),
            };
        }
        let at = if name.ends_with(BINARY) { illegal_base64(value)? } else { return None };
        let (value, name) = (go::quote(value), go::quote(name));
        Some(format!(
            "malformed binary metadata {value} in header {name}: illegal base64 data at input byte \
             {at}"
        ))
    });
    match faults.last() {
        Some(fault) => Err(fault),
        None => Ok(deadline),
    }
}

fn parse(text: &[u8]) -> Result<Duration, String> {
    let (digits, unit) = match text.split_last() {
        Some((unit, digits @ [_, ..])) => (digits, unit),
        _ => return Err(format!("transport: timeout string is too short: {}", go::quote(text))),
    };
    if text.len() > TIMEOUT_BYTES_MAX {
        return Err(format!("transport: timeout string is too long: {}", go::quote(text)));
    }
    let one: fn(u64) -> Duration = match unit {
        b'H' => |count| Duration::from_secs(count * 3600),
        b'M' => |count| Duration::from_secs(count * 60),
        b'S' => Duration::from_secs,
        b'm' => Duration::from_millis,
        b'u' => Duration::from_micros,
        b'n' => Duration::from_nanos,
        _ => return Err(format!("transport: timeout unit is not recognized: {}", go::quote(text))),
    };
    go::parse_uint(digits, 10).map(one).map_err(String::from)
}

/// The offset of the first byte that grpc-go's decoder of binary metadata refuses. It expects
/// padding if the length is a multiple of four, and none otherwise.
pub fn illegal_base64(text: &[u8]) -> Option<usize> {
    let is_padded = text.len().is_multiple_of(4);
    let padding = text.iter().rev().take_while(|byte| is_padded && **byte == b'=').count().min(2);
    let digits = &text[..text.len() - padding];
    let is_digit = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/');
    let wrong = digits.iter().position(|byte| !is_digit(byte)).map(|at| {
        // Go reports the byte behind valid padding, not the padding.
        match (is_padded && digits[at] == b'=', at % 4) {
            (true, 2) if text[at + 1] == b'=' => at + 2,
            (true, 3) => at + 1,
            _ => at,
        }
    });
    // A last group of one digit has six bits, which make no byte.
    wrong.or_else(|| (!is_padded && text.len() % 4 == 1).then(|| text.len() - 1))
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};

    use super::*;

    fn headers(of: &[(&'static str, &[u8])]) -> HeaderMap {
        let pairs = of.iter().map(|(name, value)| {
            (HeaderName::from_static(name), HeaderValue::from_bytes(value).unwrap())
        });
        pairs.collect()
    }

    #[test]
    fn timeouts_have_a_unit_and_at_most_eight_digits() {
        let of = |text: &[u8]| {
            read(&headers(&[(TIMEOUT, text)])).map(|Deadline(stated)| stated.unwrap())
        };
        assert_eq!(of(b"5S"), Ok(Duration::from_secs(5)));
        assert_eq!(of(b"100m"), Ok(Duration::from_millis(100)));
        assert_eq!(of(b"0n"), Ok(Duration::ZERO));
        assert_eq!(of(b"99999999H"), Ok(Duration::from_secs(99_999_999 * 3600)));
        let cases: [(&[u8], &str); 8] = [
            (b"", r#"transport: timeout string is too short: """#),
            (b"5", r#"transport: timeout string is too short: "5""#),
            (b"5x", r#"transport: timeout unit is not recognized: "5x""#),
            (b"123456789S", r#"transport: timeout string is too long: "123456789S""#),
            (b"+5S", r#"strconv.ParseUint: parsing "+5": invalid syntax"#),
            (b"1_0S", r#"strconv.ParseUint: parsing "1_0": invalid syntax"#),
            (b"5\tS", r#"strconv.ParseUint: parsing "5\t": invalid syntax"#),
            (b"\xff\xfeS", r#"strconv.ParseUint: parsing "\xff\xfe": invalid syntax"#),
        ];
        for (text, why) in cases {
            assert_eq!(of(text), Err(format!("malformed grpc-timeout: {why}")));
        }
    }

    fn fault(headers: &HeaderMap) -> Option<String> {
        read(headers).err()
    }

    #[test]
    fn binary_values_are_gos_base64() {
        for right in ["", "YQ==", "YQ", "YWI=", "YWI", "YWJj", "YR", "+/+/"] {
            assert_eq!(fault(&headers(&[("x-bin", right.as_bytes())])), None, "{right}");
        }
        let wrong = [
            ("!!!", 0),
            ("YQ=", 2),
            ("YQ==,YQ==", 2),
            ("Y Q=", 1),
            ("Y", 0),
            ("YWJjY", 4),
            ("-_-_", 0),
            ("Y===", 1),
            ("====", 0),
            ("YQ==YQ==", 4),
            ("YWI=YWI=", 4),
            ("YQ=aYQ==", 2),
        ];
        for (text, at) in wrong {
            let expected = format!(
                "malformed binary metadata \"{text}\" in header \"x-bin\": illegal base64 data at \
                 input byte {at}"
            );
            assert_eq!(fault(&headers(&[("x-bin", text.as_bytes())])), Some(expected));
        }
        assert_eq!(fault(&headers(&[("x", b"!!!"), ("grpc-message", b"!")])), None);
    }

    #[test]
    fn the_last_fault_counts() {
        let both: [(&str, &[u8]); 2] = [("x-bin", b"!"), (TIMEOUT, b"zz")];
        assert!(fault(&headers(&both)).unwrap().starts_with("malformed grpc-timeout"));
        let mut twice = headers(&[(TIMEOUT, b"5S")]);
        twice.append(TIMEOUT, HeaderValue::from_static("7S"));
        assert_eq!(read(&twice), Ok(Deadline(Some(Duration::from_secs(7)))));
        assert_eq!(read(&headers(&[("x", b"1")])), Ok(Deadline(None)));
    }
}
