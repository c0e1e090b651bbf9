//! Characters that a terminal acts upon instead of showing them.

/// Whether a character beyond ASCII does something to the text around it: it is a control character,
/// turns the direction of writing, or has no width. The joiners U+200C and U+200D are none: scripts
/// and emoji need them.
pub fn is_obeyed(letter: char) -> bool {
    matches!(letter,
        '\u{80}'..='\u{9f}' | '\u{61c}' | '\u{200b}' | '\u{200e}' | '\u{200f}'
        | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}'
        | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}
