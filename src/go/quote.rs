//! Quotes: `%q` and `%#q` of package fmt, and the way back, `strconv.Unquote`.

/// `%q` of a string: in double quotes, with escapes for what is not printable.
pub fn quote(text: impl AsRef<[u8]>) -> String {
    let mut out = String::from("\"");
    for chunk in text.as_ref().utf8_chunks() {
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

/// `%#q` of a string: in backquotes if it needs no escapes there.
pub fn backquote(bytes: &[u8]) -> String {
    let is_plain = |c: char| c != '`' && c != '\u{feff}' && (c == '\t' || !c.is_ascii_control());
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

/// Whether a character is printable by Rust's table, which its debug form shows. The `a` before it
/// is there because a combining character at the start of a string is escaped in any case.
fn is_printable(c: char) -> bool {
    format!("a{c}").escape_debug().nth(1) == Some(c)
}

/// Reads one Go string literal, `"…"` with escapes or `` `…` ``, at the start of `text`. Returns
/// its value and what follows.
pub fn unquote(text: &[u8]) -> Option<(Vec<u8>, &[u8])> {
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
    fn backquotes_hold_what_needs_no_escape_there() {
        for text in ["a\u{80}b", "\u{9f}", "\u{2028}", "\u{fffd}", "\t", "\\n"] {
            assert_eq!(backquote(text.as_bytes()), format!("`{text}`"));
        }
        for (text, quoted) in
            [("\u{feff}", "\"\\ufeff\""), ("\x7f", "\"\\x7f\""), ("\n", "\"\\n\""), ("`", "\"`\"")]
        {
            assert_eq!(backquote(text.as_bytes()), quoted);
        }
        assert_eq!(backquote(b"\xff"), "\"\\xff\"");
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
}
