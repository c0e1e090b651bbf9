//! Expands HPACK's Huffman code, in which header blocks may be compressed (RFC 7541, appendix B).
//!
//! The tables are made at compile time from the lengths of the codes, which are canonical.

/// Bits of each symbol's code. The codes are canonical, so their lengths determine them.
#[rustfmt::skip]
const CODE_BITS: [u8; 256] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28,
    28, 28, 28, 28, 28, 28, 28, 28, 6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6,
    5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10, 13, 6, 7, 7, 7, 7, 7, 7,
    7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6,
    15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5, 6, 7, 6, 5, 5, 6, 7, 7,
    7, 7, 7, 15, 11, 14, 13, 28, 20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23,
    24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24, 22, 21, 20, 22, 22, 23, 23, 21,
    23, 22, 22, 24, 21, 22, 23, 23, 21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23,
    26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25, 19, 21, 26, 27, 27, 26, 27, 24,
    21, 21, 26, 26, 28, 27, 27, 27, 20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23,
    26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26,
];
const CODE_BITS_MAX: usize = 30;
/// How many codes have each length.
const COUNTS: [usize; CODE_BITS_MAX + 1] = counts();
/// The symbols ordered by the length of their codes, and where each length begins among them.
const SYMBOLS: [u8; 256] = symbols();
const FIRST_SYMBOLS: [usize; CODE_BITS_MAX + 1] = begins();
const FIRST_CODES: [usize; CODE_BITS_MAX + 1] = firsts();
/// Symbol and bits of the code that a byte begins with; 0 bits if that code is longer than a byte.
const SHORT: [(u8, u8); 256] = short();

const fn counts() -> [usize; CODE_BITS_MAX + 1] {
    let mut counts = [0; CODE_BITS_MAX + 1];
    let mut symbol = 0;
    while symbol < CODE_BITS.len() {
        counts[CODE_BITS[symbol] as usize] += 1;
        symbol += 1;
    }
    counts
}

const fn begins() -> [usize; CODE_BITS_MAX + 1] {
    let mut begins = [0; CODE_BITS_MAX + 1];
    let mut length = 1;
    while length < begins.len() {
        begins[length] = begins[length - 1] + COUNTS[length - 1];
        length += 1;
    }
    begins
}

const fn symbols() -> [u8; 256] {
    let mut symbols = [0; 256];
    let mut ends = begins();
    let mut symbol = 0;
    while symbol < CODE_BITS.len() {
        let end = &mut ends[CODE_BITS[symbol] as usize];
        symbols[*end] = symbol as u8;
        *end += 1;
        symbol += 1;
    }
    symbols
}

/// The first code of each length.
const fn firsts() -> [usize; CODE_BITS_MAX + 1] {
    let mut firsts = [0; CODE_BITS_MAX + 1];
    let mut length = 1;
    while length < firsts.len() {
        firsts[length] = (firsts[length - 1] + COUNTS[length - 1]) << 1;
        length += 1;
    }
    firsts
}

const fn short() -> [(u8, u8); 256] {
    let mut short = [(0, 0); 256];
    let mut byte = 0;
    while byte < short.len() {
        let mut length = 1;
        while length <= 8 {
            let code = byte >> (8 - length);
            if code >= FIRST_CODES[length] && code < FIRST_CODES[length] + COUNTS[length] {
                let symbol = SYMBOLS[FIRST_SYMBOLS[length] + code - FIRST_CODES[length]];
                short[byte] = (symbol, length as u8);
                break;
            }
            length += 1;
        }
        byte += 1;
    }
    short
}

/// The symbol whose code these bits begin with, and the bits of that code; None if no code fits.
fn symbol(bits: u64) -> Option<(u8, usize)> {
    let (symbol, length) = SHORT[(bits >> 56) as usize];
    if length > 0 {
        return Some((symbol, usize::from(length)));
    }
    (9..=CODE_BITS_MAX).find_map(|length| {
        let place = ((bits >> (64 - length)) as usize).checked_sub(FIRST_CODES[length])?;
        (place < COUNTS[length]).then(|| (SYMBOLS[FIRST_SYMBOLS[length] + place], length))
    })
}

/// Expands compressed bytes; None if they are not whole codes followed by the right padding.
pub(super) fn expand(bytes: &[u8]) -> Option<Vec<u8>> {
    #[cfg(test)]
    tests::EXPANDED.set(tests::EXPANDED.get() + bytes.len());
    let mut text = Vec::with_capacity(bytes.len() * 8 / 5);
    // The unused bits, from the highest on, and their number.
    let (mut bits, mut have) = (0_u64, 0);
    let mut rest = bytes.iter();
    loop {
        while have <= 56
            && let Some(byte) = rest.next()
        {
            bits |= u64::from(*byte) << (56 - have);
            have += 8;
        }
        match symbol(bits) {
            Some((symbol, length)) if length <= have => {
                text.push(symbol);
                bits <<= length;
                have -= length;
            }
            // The last byte is padded with ones, fewer than eight (RFC 7541, section 5.2).
            _ => return (have < 8 && bits.leading_ones() as usize == have).then_some(text),
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::cell::Cell;

    use super::*;

    thread_local! {
        /// Compressed bytes that were expanded on this thread.
        pub(in crate::server) static EXPANDED: Cell<usize> = const { Cell::new(0) };
    }

    pub(in crate::server) fn compressed(text: &[u8]) -> Vec<u8> {
        // Canonical codes: by length, then by symbol.
        let mut order: Vec<u8> = (0..=255).collect();
        order.sort_by_key(|symbol| (CODE_BITS[usize::from(*symbol)], *symbol));
        let mut codes = [0_u32; 256];
        let (mut next, mut bits) = (0, 0);
        for symbol in order {
            next <<= CODE_BITS[usize::from(symbol)] - bits;
            bits = CODE_BITS[usize::from(symbol)];
            codes[usize::from(symbol)] = next;
            next += 1;
        }
        let mut out: Vec<bool> = Vec::new();
        for byte in text {
            let at = usize::from(*byte);
            out.extend((0..CODE_BITS[at]).rev().map(|bit| codes[at] >> bit & 1 == 1));
        }
        out.resize(out.len().next_multiple_of(8), true);
        out.chunks(8)
            .map(|bits| bits.iter().fold(0, |byte, bit| byte << 1 | u8::from(*bit)))
            .collect()
    }

    #[test]
    fn the_examples_of_the_rfc_expand() {
        let example = b"\xf1\xe3\xc2\xe5\xf2\x3a\x6b\xa0\xab\x90\xf4\xff";
        assert_eq!(expand(example).unwrap(), b"www.example.com");
        assert_eq!(expand(b"\xa8\xeb\x10\x64\x9c\xbf").unwrap(), b"no-cache");
        assert_eq!(expand(b"").unwrap(), b"");
        assert_eq!(expand(b"\xff"), None, "a whole byte of filling");
        assert_eq!(expand(b"\xff\xff\xff\xff"), None, "the end of all strings");
        let all: Vec<u8> = (0..=255).collect();
        assert_eq!(expand(&compressed(&all)).unwrap(), all);
    }
}
