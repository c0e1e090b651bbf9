//! Numbers and booleans as package strconv reads them, with its errors.

use std::fmt;

use super::quote;

const SYNTAX: &str = "invalid syntax";
const RANGE: &str = "value out of range";

/// Why a text is no number, or no boolean. Its display is that of strconv:
/// `strconv.ParseInt: parsing "x": invalid syntax`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NumberError {
    function: &'static str,
    text: Vec<u8>,
    reason: &'static str,
}

impl NumberError {
    /// The text of package flag, which names neither the function nor the input.
    pub fn of_flag(&self) -> &'static str {
        if self.reason == SYNTAX { "parse error" } else { self.reason }
    }
}

impl fmt::Display for NumberError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "strconv.{}: parsing {}: {}", self.function, quote(&self.text), self.reason)
    }
}

impl From<NumberError> for String {
    fn from(error: NumberError) -> Self {
        error.to_string()
    }
}

fn error(function: &'static str, text: &[u8], reason: &'static str) -> NumberError {
    NumberError { function, text: text.to_vec(), reason }
}

/// `strconv.ParseInt` of 64 bits in `base`; a base of 0 means that a prefix (`0x`, `0o`, `0b`, `0`)
/// names it.
pub fn parse_int(text: impl AsRef<[u8]>, base: u32) -> Result<i64, NumberError> {
    let text = text.as_ref();
    let (negative, digits) = sign_of(text);
    let value = magnitude(digits, base).map_err(|reason| error("ParseInt", text, reason))?;
    let signed = if negative { -i128::from(value) } else { i128::from(value) };
    i64::try_from(signed).map_err(|_| error("ParseInt", text, RANGE))
}

/// Whether a number is negative, and its magnitude.
pub(super) fn sign_of(text: &[u8]) -> (bool, &[u8]) {
    match text {
        [b'-', magnitude @ ..] => (true, magnitude),
        [b'+', magnitude @ ..] => (false, magnitude),
        magnitude => (false, magnitude),
    }
}

/// `strconv.ParseUint` of 64 bits.
pub fn parse_uint(text: impl AsRef<[u8]>, base: u32) -> Result<u64, NumberError> {
    let text = text.as_ref();
    magnitude(text, base).map_err(|reason| error("ParseUint", text, reason))
}

/// `strconv.ParseUint` of 32 bits.
pub fn parse_uint32(text: impl AsRef<[u8]>, base: u32) -> Result<u32, NumberError> {
    let text = text.as_ref();
    let value = parse_uint(text, base)?;
    u32::try_from(value).map_err(|_| error("ParseUint", text, RANGE))
}

fn magnitude(text: &[u8], base: u32) -> Result<u64, &'static str> {
    let lower = std::str::from_utf8(text).map_err(|_| SYNTAX)?.to_ascii_lowercase();
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
        return Err(SYNTAX);
    }
    u64::from_str_radix(&digits, base).map_err(|_| RANGE)
}

/// `strconv.ParseBool`.
pub fn parse_bool(text: impl AsRef<[u8]>) -> Result<bool, NumberError> {
    match text.as_ref() {
        b"1" | b"t" | b"T" | b"TRUE" | b"true" | b"True" => Ok(true),
        b"0" | b"f" | b"F" | b"FALSE" | b"false" | b"False" => Ok(false),
        text => Err(error("ParseBool", text, SYNTAX)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_take_gos_prefixes() {
        assert_eq!(parse_uint("0x10", 0), Ok(16));
        assert_eq!(parse_uint("010", 0), Ok(8));
        assert_eq!(parse_uint("1_000", 0), Ok(1000));
        assert_eq!(parse_int("-0x1", 0), Ok(-1));
        assert_eq!(parse_int("-9223372036854775808", 0), Ok(i64::MIN));
        assert_eq!(parse_uint("ffffffffffffffff", 16), Ok(u64::MAX));
        for text in ["", "x", "1.5", "-", "0x", "1 ", "_"] {
            assert!(parse_int(text, 0).is_err(), "{text:?}");
        }
    }

    #[test]
    fn numbers_fail_in_gos_words() {
        let said = |error: NumberError| (error.to_string(), error.of_flag());
        let text = "strconv.ParseInt: parsing \"xyz\": invalid syntax".to_owned();
        assert_eq!(parse_int("xyz", 16).map_err(said), Err((text, "parse error")));
        let text = "strconv.ParseInt: parsing \"9223372036854775808\": value out of range";
        let expected = Err((text.to_owned(), "value out of range"));
        assert_eq!(parse_int("9223372036854775808", 10).map_err(said), expected);
        let text = "strconv.ParseUint: parsing \"4294967296\": value out of range".to_owned();
        assert_eq!(parse_uint32("4294967296", 0).map_err(said), Err((text, "value out of range")));
        let text = "strconv.ParseBool: parsing \"yes\": invalid syntax".to_owned();
        assert_eq!(parse_bool("yes").map_err(said), Err((text, "parse error")));
    }
}
