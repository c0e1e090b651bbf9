//! Where a chunked body ends, by the rules and in the words of Go's server.

use crate::limits::{CHUNK_EXCESS_BYTES_MAX, CHUNK_LINE_BYTES_MAX, TRAILER_BYTES_MAX};

const TOO_LONG: &str = "header line too long";

#[derive(Clone, Copy, Default)]
enum Place {
    #[default]
    Line,
    Data(u64),
    /// So many bytes of the line end behind the data are missing.
    End(u8),
    Trailer,
}

#[derive(Default)]
pub(super) struct Chunks {
    place: Place,
    /// The line that is not complete.
    line: Vec<u8>,
    /// Bytes that are no data, above what an honest client sends.
    excess: u64,
    trailer_bytes: usize,
}

/// What the bytes are.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Fed {
    /// All belong to the body, and more do.
    More,
    /// So many belong to the body, which ends with them.
    Whole(usize),
    /// What comes behind so many bytes is no chunk.
    Faulty(usize, &'static str),
}

impl Chunks {
    pub(super) fn feed(&mut self, bytes: &[u8]) -> Fed {
        let mut at = 0;
        while let rest @ [first, ..] = &bytes[at..] {
            match self.place {
                Place::Data(left) => {
                    let count = usize::try_from(left).unwrap_or(usize::MAX).min(rest.len());
                    at += count;
                    self.place = match left - count as u64 {
                        0 => Place::End(2),
                        left => Place::Data(left),
                    };
                }
                Place::End(missing) => {
                    if *first != if missing == 2 { b'\r' } else { b'\n' } {
                        return Fed::Faulty(at, "malformed chunked encoding");
                    }
                    at += 1;
                    self.place = if missing == 2 { Place::End(1) } else { Place::Line };
                }
                Place::Line | Place::Trailer => {
                    let end = rest.iter().position(|byte| *byte == b'\n');
                    let count = end.map_or(rest.len(), |end| end + 1);
                    self.line.extend_from_slice(&rest[..count]);
                    if self.line.len() > CHUNK_LINE_BYTES_MAX {
                        return Fed::Faulty(at, TOO_LONG);
                    }
                    if end.is_none() {
                        return Fed::More;
                    }
                    let is_trailer = matches!(self.place, Place::Trailer);
                    let line = std::mem::take(&mut self.line);
                    match if is_trailer { self.trailer(&line) } else { self.begin(&line) } {
                        Ok(true) => return Fed::Whole(at + count),
                        Ok(false) => at += count,
                        Err(fault) => return Fed::Faulty(at, fault),
                    }
                    // The next line takes the same memory.
                    self.line = line;
                    self.line.clear();
                }
            }
        }
        Fed::More
    }

    /// Reads the line before a chunk.
    fn begin(&mut self, line: &[u8]) -> Result<bool, &'static str> {
        match line.iter().position(|byte| *byte == b'\r') {
            None => return Err("chunked line ends with bare LF"),
            Some(at) if at != line.len() - 2 => return Err("invalid CR in chunked line"),
            Some(_) => {}
        }
        let line = &line[..line.len() - 2];
        let is_space = |byte: &&u8| matches!(byte, b' ' | b'\t');
        let spaces = line.iter().rev().take_while(is_space).count();
        let size = line[..line.len() - spaces].split(|byte| *byte == b';').next();
        let size = size.unwrap_or_default();
        let bytes = size_of(size)?;
        self.excess = (self.excess + line.len() as u64 + 2)
            .saturating_sub(bytes.saturating_mul(2).saturating_add(16));
        if self.excess > CHUNK_EXCESS_BYTES_MAX {
            return Err("chunked encoding contains too much non-data");
        }
        self.place = if bytes == 0 { Place::Trailer } else { Place::Data(bytes) };
        Ok(false)
    }

    /// Reads a line behind the last chunk; true if it is the end. Go takes lines that end without
    /// CR. hyper does not, and would look for the end behind the next request.
    fn trailer(&mut self, line: &[u8]) -> Result<bool, &'static str> {
        self.trailer_bytes += line.len();
        if self.trailer_bytes > TRAILER_BYTES_MAX {
            return Err("http: suspiciously long trailer after chunked body");
        }
        match line.iter().position(|byte| *byte == b'\r') {
            Some(0) if line.len() == 2 => Ok(true),
            Some(at) if at == line.len() - 2 => Ok(false),
            _ => Err("malformed MIME header line"),
        }
    }
}

/// The size that a chunk's line states.
fn size_of(digits: &[u8]) -> Result<u64, &'static str> {
    if digits.is_empty() {
        return Err("empty hex number for chunk length");
    }
    let mut size = 0_u64;
    for (place, digit) in digits.iter().enumerate() {
        let Some(digit) = char::from(*digit).to_digit(16) else {
            return Err("invalid byte in chunk length");
        };
        if place == 16 {
            return Err("http chunk length too large");
        }
        size = size << 4 | u64::from(digit);
    }
    Ok(size)
}
