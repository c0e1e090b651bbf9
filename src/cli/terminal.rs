//! What a terminal may be sent: escaped texts, colours, and lines as wide as it is.
//!
//! Keys, values, names and errors come from others. Raw, an escape sequence in one of them could
//! rename the window, hide lines, or type a command; so whatever goes to a terminal passes
//! [`escape`]. A pipe gets the bytes as they are: a script wants what is stored.

use std::borrow::Cow;
use std::env;
use std::io::IsTerminal;
use std::os::fd::AsFd;

use crate::types::is_obeyed;

/// Width of a terminal that does not tell its own.
const COLUMNS: usize = 80;

/// `--color`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Colour {
    #[default]
    Auto,
    Always,
    Never,
}

impl Colour {
    pub(super) const NAMES: &[&str] = &["auto", "always", "never"];

    pub(super) fn parse(name: &[u8]) -> Option<Self> {
        Some(match name {
            b"" | b"auto" => Self::Auto,
            b"always" => Self::Always,
            b"never" => Self::Never,
            _ => return None,
        })
    }

    /// Whether a stream gets colours. `NO_COLOR` and a terminal that has none count for `auto`
    /// alone: `always` was asked for.
    pub(super) fn applies(self, is_terminal: bool) -> bool {
        match self {
            Self::Always => true,
            Self::Never => false,
            Self::Auto => {
                let refused = env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
                is_terminal && !refused && !is_dumb()
            }
        }
    }
}

/// Whether the terminal can neither colour a text nor move its cursor.
pub(super) fn is_dumb() -> bool {
    env::var_os("TERM").is_none_or(|name| name.is_empty() || name == "dumb")
}

/// How a piece of text looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Style {
    #[default]
    Plain,
    Bold,
    Dim,
    Good,
    Bad,
    Warning,
}

impl Style {
    /// The parameters of SGR, the escape sequence for colours.
    fn code(self) -> Option<&'static str> {
        Some(match self {
            Self::Plain => return None,
            Self::Bold => "1",
            Self::Dim => "2",
            Self::Good => "32",
            Self::Bad => "1;31",
            Self::Warning => "33",
        })
    }
}

/// Text with its looks, before it is known whether it goes to a terminal.
#[derive(Clone, Debug, Default)]
pub(super) struct Page {
    spans: Vec<Span>,
}

#[derive(Clone, Debug)]
struct Span {
    style: Style,
    bytes: Vec<u8>,
    /// A name, in which a line break would look like the next line of output.
    is_name: bool,
}

impl Page {
    pub(super) fn text(&mut self, style: Style, bytes: impl Into<Vec<u8>>) -> &mut Self {
        self.spans.push(Span { style, bytes: bytes.into(), is_name: false });
        self
    }

    /// Text on one line.
    pub(super) fn name(&mut self, style: Style, bytes: impl Into<Vec<u8>>) -> &mut Self {
        self.spans.push(Span { style, bytes: bytes.into(), is_name: true });
        self
    }

    pub(super) fn end_line(&mut self) -> &mut Self {
        self.text(Style::Plain, "\n")
    }

    pub(super) fn append(&mut self, mut other: Self) {
        self.spans.append(&mut other.spans);
    }

    /// The bytes for a stream that is a terminal, or that gets colours.
    pub(super) fn render(&self, is_terminal: bool, is_coloured: bool) -> Vec<u8> {
        let mut out = Vec::new();
        for Span { style, bytes, is_name } in &self.spans {
            let bytes = match is_terminal {
                true => escape(bytes, *is_name),
                false => Cow::Borrowed(bytes.as_slice()),
            };
            match style.code().filter(|_| is_coloured && !bytes.is_empty()) {
                Some(code) => {
                    out.extend_from_slice(format!("\x1b[{code}m").as_bytes());
                    out.extend_from_slice(&bytes);
                    out.extend_from_slice(b"\x1b[0m");
                }
                None => out.extend_from_slice(&bytes),
            }
        }
        out
    }
}

/// Text without anything that a terminal obeys: control characters, those that turn the direction
/// of writing or have no width, and bytes that are not UTF-8 become `\x1b`, `\u202e` and the like.
/// Line breaks and tabs stay, unless the text is a name.
pub(super) fn escape(bytes: &[u8], is_name: bool) -> Cow<'_, [u8]> {
    let is_plain = |byte: &u8| matches!(byte, b' '..=b'~') || !is_name && b"\n\t".contains(byte);
    if bytes.iter().all(is_plain) {
        return Cow::Borrowed(bytes);
    }
    let mut out = String::with_capacity(bytes.len() + 16);
    for chunk in bytes.utf8_chunks() {
        for letter in chunk.valid().chars() {
            match letter {
                '\n' | '\t' if !is_name => out.push(letter),
                '\n' => out.push_str("\\n"),
                '\t' => out.push_str("\\t"),
                '\r' => out.push_str("\\r"),
                '\0'..='\x1f' | '\x7f' => out.push_str(&format!("\\x{:02x}", letter as u32)),
                letter if is_obeyed(letter) => {
                    let mut units = [0; 2];
                    for unit in letter.encode_utf16(&mut units) {
                        out.push_str(&format!("\\u{unit:04x}"));
                    }
                }
                letter => out.push(letter),
            }
        }
        for byte in chunk.invalid() {
            out.push_str(&format!("\\x{byte:02x}"));
        }
    }
    Cow::Owned(out.into_bytes())
}

/// A text for a terminal's line, escaped.
pub(super) fn shown(bytes: &[u8]) -> String {
    // Escaped bytes are UTF-8, so nothing is lost.
    String::from_utf8(escape(bytes, true).into_owned()).unwrap_or_default()
}

/// The columns of the terminal that is this stream; `usize::MAX` if it is none.
pub(super) fn width(stream: &(impl AsFd + IsTerminal)) -> usize {
    if !stream.is_terminal() {
        return usize::MAX;
    }
    let told = rustix::termios::tcgetwinsize(stream).map_or(0, |size| usize::from(size.ws_col));
    let variable = || env::var_os("COLUMNS")?.to_str()?.parse().ok();
    match told {
        0 => variable().filter(|columns| *columns > 0).unwrap_or(COLUMNS),
        columns => columns,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_a_terminal_obeys_is_left() {
        for (bytes, text, name) in [
            (b"a b\n".as_slice(), "a b\n", "a b\\n"),
            (b"\x1b]0;x\x07\r", "\\x1b]0;x\\x07\\r", "\\x1b]0;x\\x07\\r"),
            (b"\xff\xc2\x9b1m\x7f", "\\xff\\u009b1m\\x7f", "\\xff\\u009b1m\\x7f"),
            ("grün 漢\u{202e}\t".as_bytes(), "grün 漢\\u202e\t", "grün 漢\\u202e\\t"),
            ("\u{e0041}".as_bytes(), "\\udb40\\udc41", "\\udb40\\udc41"),
        ] {
            assert_eq!(escape(bytes, false), text.as_bytes());
            assert_eq!(escape(bytes, true), name.as_bytes());
        }
        let all: Vec<u8> = (0..=255).collect();
        let is_safe = |byte: &u8| matches!(byte, b' '..=b'~');
        assert!(escape(&all, true).iter().all(is_safe));
        assert_eq!(escape(&escape(&all, true), true), escape(&all, true));
    }

    #[test]
    fn a_page_has_colours_only_where_they_belong() {
        let mut page = Page::default();
        page.text(Style::Dim, "k\x1b").end_line().text(Style::Plain, "v");
        assert_eq!(page.render(false, false), b"k\x1b\nv");
        assert_eq!(page.render(true, false), b"k\\x1b\nv");
        assert_eq!(page.render(true, true), b"\x1b[2mk\\x1b\x1b[0m\nv");
    }
}
