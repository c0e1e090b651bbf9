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
    let value = digits_of(text, base, u64::from(u32::MAX));
    let value = value.and_then(|value| u32::try_from(value).map_err(|_| RANGE));
    value.map_err(|reason| error("ParseUint", text, reason))
}

fn magnitude(text: &[u8], base: u32) -> Result<u64, &'static str> {
    digits_of(text, base, u64::MAX)
}

/// The number up to `max`. Of two faults the first one counts, as in Go, where underscores are
/// judged last.
fn digits_of(text: &[u8], base: u32, max: u64) -> Result<u64, &'static str> {
    let (digits, base, may_group) = match (base, text) {
        (0, [b'0', b'x' | b'X', digits @ ..]) if !digits.is_empty() => (digits, 16, true),
        (0, [b'0', b'b' | b'B', digits @ ..]) if !digits.is_empty() => (digits, 2, true),
        (0, [b'0', b'o' | b'O', digits @ ..]) if !digits.is_empty() => (digits, 8, true),
        (0, [b'0', ..]) => (text, 8, true),
        (0, _) => (text, 10, true),
        (base, _) => (text, base, false),
    };
    if digits.is_empty() {
        return Err(SYNTAX);
    }
    let mut value = 0_u64;
    for byte in digits.iter().filter(|byte| !(may_group && **byte == b'_')) {
        let digit = char::from(*byte).to_digit(base).ok_or(SYNTAX)?;
        let next = value.checked_mul(u64::from(base)).and_then(|it| it.checked_add(digit.into()));
        value = next.filter(|next| *next <= max).ok_or(RANGE)?;
    }
    // An underscore stands between two digits, or between a base's prefix and the first digit.
    let begins = digits.first() == Some(&b'_') && digits.len() == text.len();
    let doubled = digits.windows(2).any(|pair| pair == b"__");
    if may_group && (begins || doubled || digits.last() == Some(&b'_')) {
        return Err(SYNTAX);
    }
    Ok(value)
}

/// `strconv.ParseBool`.
pub fn parse_bool(text: impl AsRef<[u8]>) -> Result<bool, NumberError> {
    match text.as_ref() {
        b"1" | b"t" | b"T" | b"TRUE" | b"true" | b"True" => Ok(true),
        b"0" | b"f" | b"F" | b"FALSE" | b"false" | b"False" => Ok(false),
        text => Err(error("ParseBool", text, SYNTAX)),
    }
}

/// Bytes as Go's `%v` writes them: `[217 150 3]`.
pub fn numbers(bytes: &[u8]) -> String {
    let numbers: Vec<String> = bytes.iter().map(u8::to_string).collect();
    format!("[{}]", numbers.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_written_as_numbers() {
        assert_eq!(numbers(&[217, 0, 3]), "[217 0 3]");
        assert_eq!(numbers(&[]), "[]");
    }

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
    fn underscores_stand_where_go_allows_them() {
        for (text, value) in
            [("0x_1", 1), ("0_1", 1), ("0b_1", 1), ("0o_17", 15), ("-0_7", -7), ("0X_Ab", 171)]
        {
            assert_eq!(parse_int(text, 0), Ok(value), "{text}");
        }
        for text in [
            "1__000", "_1", "1_", "-_1", "0_", "0x_", "0x1_", "0x__1", "0__1", "_0x1", "0_x1",
            "0_8",
        ] {
            assert_eq!(parse_int(text, 0).map_err(|it| it.reason), Err(SYNTAX), "{text}");
        }
        assert_eq!(parse_int("1_0", 10).map_err(|it| it.reason), Err(SYNTAX));
    }

    #[test]
    fn of_two_faults_the_first_is_named() {
        let reason = |text: &str| parse_int(text, 0).map_err(|it| it.reason);
        assert_eq!(reason("99999999999999999999x"), Err(RANGE));
        assert_eq!(reason("x99999999999999999999"), Err(SYNTAX));
        assert_eq!(reason("9999__9999999999999999"), Err(RANGE));
        assert_eq!(parse_uint32("4294967296x", 0).map_err(|it| it.reason), Err(RANGE));
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
