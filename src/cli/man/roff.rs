//! Text as roff: what `man` and `mandoc` read.

use crate::cli::options::{Paragraph, Shown, paragraphs};

/// Longest line of the source; mandoc finds fault with more than 80 bytes.
const LINE_MAX: usize = 78;

/// When the pages changed last. A day that a build would take from its clock would make two builds
/// differ.
const DATE: &str = "2026-11-29";

/// The first lines of a page. Words are not broken and lines not filled up: what stands in them is
/// to be copied.
pub(super) fn head(name: &str, section: u8) -> String {
    let version = env!("CARGO_PKG_VERSION");
    let name = escape(name);
    format!(".TH {name} {section} {DATE} \"rusd {version}\" \"rusd manual\"\n.nh\n.ad l\n")
}

pub(super) fn section(out: &mut String, title: &str) {
    out.push_str(&format!(".SH {}\n", escape(&title.to_uppercase())));
}

pub(super) fn subsection(out: &mut String, title: &str) {
    out.push_str(&format!(".SS {}\n", escape(title).replace('"', "\\(dq")));
}

/// A description.
pub(super) fn prose(out: &mut String, text: &str) {
    for (at, paragraph) in paragraphs(text).into_iter().enumerate() {
        out.push_str(if at > 0 { ".PP\n" } else { "" });
        match paragraph {
            Paragraph::Text(text) => fill(out, &text),
            Paragraph::Lines(lines) => code(out, lines.iter().map(String::as_str)),
        }
    }
}

/// Examples: lines that begin with # are text, others code.
pub(super) fn example(out: &mut String, text: &str) {
    let lines: Vec<&str> =
        text.lines().map(|line| line.strip_prefix("  ").unwrap_or(line)).collect();
    let blocks = lines.chunk_by(|a, b| a.starts_with('#') == b.starts_with('#'));
    for (at, block) in blocks.enumerate() {
        let is_begun = out.lines().last().is_some_and(|line| line.starts_with(".S"));
        out.push_str(if is_begun { "" } else { ".PP\n" });
        if at == 0 && !is_begun && !block[0].starts_with('#') {
            out.push_str("Example:\n.PP\n");
        }
        match block[0].starts_with('#') {
            true => fill(out, &format!("{}:", block.join(" ").replace("# ", ""))),
            false => code(out, block.iter().copied()),
        }
    }
}

fn code<'a>(out: &mut String, lines: impl Iterator<Item = &'a str>) {
    out.push_str(".EX\n");
    for line in lines {
        out.push_str(&format!("{}\n", escape(line.trim_end())));
    }
    out.push_str(".EE\n");
}

/// Adds text in lines that roff joins.
pub(super) fn fill(out: &mut String, text: &str) {
    let mut line = String::new();
    for word in text.split_whitespace() {
        let whole = if line.is_empty() { word.to_owned() } else { format!("{line} {word}") };
        // What is escaped is longer.
        if !line.is_empty() && escape(&whole).len() > LINE_MAX {
            out.push_str(&format!("{}\n", escape(&line)));
            line = word.to_owned();
        } else {
            line = whole;
        }
    }
    if !line.is_empty() {
        out.push_str(&format!("{}\n", escape(&line)));
    }
}

/// One option with its value, default and variable.
pub(super) fn option(out: &mut String, flag: &Shown) {
    let value = match flag.value.as_str() {
        "" => String::new(),
        value => format!(" \\fI{}\\fR", escape(value)),
    };
    out.push_str(&format!(".TP\n\\fB{}\\fR{value}\n", escape(&flag.names)));
    let mut text = flag.help.clone();
    if !flag.default.is_empty() {
        let text_end = if text.ends_with('.') { "" } else { "." };
        text.push_str(&format!("{text_end} Default: {}.", flag.default));
    }
    if let Some(variable) = &flag.variable {
        let text_end = if text.ends_with('.') { "" } else { "." };
        text.push_str(&format!("{text_end} Variable: {variable}."));
    }
    fill(out, &text);
}

/// Text in which roff finds no markup, and whose quotes and dashes are those of a keyboard.
pub(super) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 8);
    if text.starts_with(['.', '\'']) {
        out.push_str("\\&");
    }
    for letter in text.chars() {
        match letter {
            '\\' => out.push_str("\\e"),
            '-' => out.push_str("\\-"),
            '\'' => out.push_str("\\(aq"),
            '`' => out.push_str("\\(ga"),
            '^' => out.push_str("\\(ha"),
            '~' => out.push_str("\\(ti"),
            letter => out.push(letter),
        }
    }
    out
}
