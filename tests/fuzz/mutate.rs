//! New inputs from old ones.
//!
//! Three shapes: plain bytes; a sequence of parts, each with a kind, which most targets read; and
//! protobuf messages within the parts, whose fields are changed, doubled, dropped and nested.

/// A seeded stream of numbers.
pub struct Chance(u64);

impl Chance {
    pub fn new(seed: u64) -> Self {
        Self(rusd::clock::split_mix(seed))
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        rusd::clock::split_mix(self.0)
    }

    pub fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound.max(1) as u64) as usize
    }

    pub fn one_in(&mut self, odds: usize) -> bool {
        self.below(odds) == 0
    }

    pub fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len())]
    }
}

/// Lengths, counts and indexes at which something tends to break.
const NUMBERS: [u64; 22] = [
    0,
    1,
    2,
    7,
    8,
    16,
    63,
    64,
    127,
    128,
    255,
    256,
    511,
    512,
    4095,
    4096,
    65_535,
    0x7fff_ffff,
    0x8000_0000,
    0xffff_ffff,
    0x7fff_ffff_ffff_ffff,
    u64::MAX,
];

fn number(chance: &mut Chance) -> u64 {
    match chance.below(4) {
        0 => chance.next(),
        1 => chance.below(300) as u64,
        _ => *chance.pick(&NUMBERS),
    }
}

/// A place and a length within bytes; short ones are likelier.
fn extent(length: usize, chance: &mut Chance) -> (usize, usize) {
    let at = chance.below(length + 1);
    let longest = *chance.pick(&[1, 4, 16, 64, length]);
    (at, chance.below((length - at).min(longest) + 1))
}

/// Changes bytes in a few places.
pub fn bytes(input: &mut Vec<u8>, other: &[u8], words: &[&[u8]], chance: &mut Chance) {
    for _ in 0..1 << chance.below(4) {
        one_change(input, other, words, chance);
    }
}

fn one_change(input: &mut Vec<u8>, other: &[u8], words: &[&[u8]], chance: &mut Chance) {
    let length = input.len();
    let (at, size) = extent(length, chance);
    match chance.below(13) {
        0 | 1 if length > 0 => input[chance.below(length)] ^= 1 << chance.below(8),
        2 if length > 0 => input[chance.below(length)] = chance.next() as u8,
        3 if length > 0 => {
            let place = &mut input[chance.below(length)];
            *place = place.wrapping_add(1 + chance.below(16) as u8).wrapping_sub(8);
        }
        4 => overwrite(input, chance),
        5 => drop(input.drain(at..at + size)),
        6 => {
            let copied = input[at..at + size].to_vec();
            let to = chance.below(length + 1);
            input.splice(to..to, copied);
        }
        7 => {
            let new: Vec<u8> = match chance.below(3) {
                0 => vec![chance.next() as u8; size],
                1 => (0..size).map(|_| chance.next() as u8).collect(),
                _ => number(chance).to_string().into_bytes(),
            };
            input.splice(at..at, new);
        }
        8 | 9 if !words.is_empty() => {
            let word = *chance.pick(words);
            let end = if chance.one_in(2) { at } else { (at + word.len()).min(length) };
            input.splice(at..end, word.iter().copied());
        }
        10 if !other.is_empty() => {
            let (from, taken) = extent(other.len(), chance);
            let end = if chance.one_in(2) { at } else { (at + size).min(length) };
            input.splice(at..end, other[from..from + taken].iter().copied());
        }
        11 if length > 0 => input.truncate(chance.below(length)),
        12 => digits(input, chance),
        _ => input.insert(at, chance.next() as u8),
    }
}

/// Puts a number of some width in the place of another, or adds to it.
fn overwrite(input: &mut [u8], chance: &mut Chance) {
    let width = *chance.pick(&[1, 2, 4, 8]);
    if input.len() < width {
        return;
    }
    let at = chance.below(input.len() - width + 1);
    let at = if chance.one_in(2) { at / width * width } else { at };
    let place = &mut input[at..at + width];
    let is_big = chance.one_in(2);
    let mut word = [0; 8];
    word[..width].copy_from_slice(place);
    if is_big {
        word[..width].reverse();
    }
    let value = match chance.below(3) {
        0 => u64::from_le_bytes(word).wrapping_add(chance.below(64) as u64).wrapping_sub(32),
        _ => number(chance),
    };
    word = value.to_le_bytes();
    if is_big {
        word[..width].reverse();
    }
    place.copy_from_slice(&word[..width]);
}

/// Another number where one is written in digits.
fn digits(input: &mut Vec<u8>, chance: &mut Chance) {
    let Some(from) = input.iter().position(u8::is_ascii_digit) else { return };
    let places: Vec<usize> = (from..input.len()).filter(|at| input[*at].is_ascii_digit()).collect();
    let at = *chance.pick(&places);
    let end = (at..input.len()).find(|at| !input[*at].is_ascii_digit()).unwrap_or(input.len());
    let new = if chance.one_in(4) {
        format!("{}.{}", number(chance), number(chance))
    } else {
        number(chance).to_string()
    };
    input.splice(at..end, new.into_bytes());
}

/// A piece of an input: a kind, and bytes whose length is written before them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    pub kind: u8,
    pub bytes: Vec<u8>,
}

impl Part {
    pub fn new(kind: u8, bytes: impl Into<Vec<u8>>) -> Self {
        Self { kind, bytes: bytes.into() }
    }
}

/// Any bytes are parts; a last one that is cut off has what is there.
pub fn parts(mut input: &[u8]) -> Vec<Part> {
    let mut parts = Vec::new();
    while let [kind, low, high, rest @ ..] = input {
        let length = usize::from(u16::from_le_bytes([*low, *high])).min(rest.len());
        parts.push(Part::new(*kind, &rest[..length]));
        input = &rest[length..];
    }
    parts
}

pub fn join(parts: &[Part]) -> Vec<u8> {
    let mut out = Vec::new();
    for part in parts {
        let length = part.bytes.len().min(usize::from(u16::MAX));
        out.push(part.kind);
        out.extend((length as u16).to_le_bytes());
        out.extend_from_slice(&part.bytes[..length]);
    }
    out
}

/// Changes a sequence of parts. Those that `is_message` says are protobuf.
pub fn sequence(
    input: &mut Vec<u8>,
    other: &[u8],
    words: &[&[u8]],
    is_message: fn(u8) -> bool,
    chance: &mut Chance,
) {
    let (mut list, others) = (parts(input), parts(other));
    for _ in 0..1 << chance.below(3) {
        let at = chance.below(list.len().max(1));
        match chance.below(12) {
            0 if list.len() > 1 => drop(list.remove(at)),
            1 if !list.is_empty() => {
                let (copied, to) = (list[at].clone(), chance.below(list.len() + 1));
                list.insert(to, copied);
            }
            2 | 3 if !others.is_empty() => {
                list.insert(chance.below(list.len() + 1), chance.pick(&others).clone());
            }
            4 if list.len() > 1 => {
                let to = chance.below(list.len());
                list.swap(at, to);
            }
            5 if !list.is_empty() => list[at].kind = chance.next() as u8,
            _ if list.is_empty() => list.push(Part::new(chance.next() as u8, [])),
            _ => {
                let from = if others.is_empty() { &[] } else { &chance.pick(&others).bytes[..] };
                let part = &mut list[at];
                if is_message(part.kind) && !chance.one_in(6) {
                    message(&mut part.bytes, from, words, chance);
                } else {
                    bytes(&mut part.bytes, from, words, chance);
                }
            }
        }
    }
    *input = join(&list);
}

/// A field of a protobuf message.
#[derive(Clone)]
enum Value {
    Varint(u64),
    Fixed(Vec<u8>),
    Bytes(Vec<u8>),
}

#[derive(Clone)]
struct Field {
    tag: u32,
    value: Value,
}

fn varint(input: &mut &[u8]) -> Option<u64> {
    prost::encoding::decode_varint(input).ok()
}

fn fields(mut input: &[u8]) -> Option<Vec<Field>> {
    let mut fields = Vec::new();
    while !input.is_empty() {
        let key = varint(&mut input)?;
        let tag = u32::try_from(key >> 3).ok().filter(|tag| *tag > 0)?;
        let mut take = |length: usize| {
            let (taken, rest) = input.split_at_checked(length)?;
            input = rest;
            Some(taken.to_vec())
        };
        let value = match key & 7 {
            0 => Value::Varint(varint(&mut input)?),
            1 => Value::Fixed(take(8)?),
            5 => Value::Fixed(take(4)?),
            2 => {
                let length = usize::try_from(varint(&mut input)?).ok()?;
                let (taken, rest) = input.split_at_checked(length)?;
                input = rest;
                Value::Bytes(taken.to_vec())
            }
            _ => return None,
        };
        fields.push(Field { tag, value });
    }
    Some(fields)
}

fn encode(fields: &[Field]) -> Vec<u8> {
    let mut out = Vec::new();
    let key = |tag: u32, wire: u64, out: &mut Vec<u8>| {
        prost::encoding::encode_varint(u64::from(tag) << 3 | wire, out);
    };
    for field in fields {
        match &field.value {
            Value::Varint(value) => {
                key(field.tag, 0, &mut out);
                prost::encoding::encode_varint(*value, &mut out);
            }
            Value::Fixed(bytes) => {
                key(field.tag, if bytes.len() == 8 { 1 } else { 5 }, &mut out);
                out.extend_from_slice(bytes);
            }
            Value::Bytes(bytes) => {
                key(field.tag, 2, &mut out);
                prost::encoding::encode_varint(bytes.len() as u64, &mut out);
                out.extend_from_slice(bytes);
            }
        }
    }
    out
}

/// Changes a protobuf message, somewhere in its depth.
pub fn message(input: &mut Vec<u8>, other: &[u8], words: &[&[u8]], chance: &mut Chance) {
    let Some(mut list) = fields(input) else { return bytes(input, other, words, chance) };
    let at = chance.below(list.len().max(1));
    match chance.below(10) {
        0 if !list.is_empty() => drop(list.remove(at)),
        1 if !list.is_empty() => {
            let copied = list[at].clone();
            list.insert(chance.below(list.len() + 1), copied);
        }
        2 if !list.is_empty() => list[at].tag = 1 + chance.below(20) as u32,
        3 => {
            let value = match chance.below(3) {
                0 => Value::Bytes(chance.pick(words_or_nothing(words)).to_vec()),
                _ => Value::Varint(number(chance)),
            };
            list.insert(at, Field { tag: 1 + chance.below(20) as u32, value });
        }
        // The whole within one of its fields: transactions in transactions.
        4 if !list.is_empty() && input.len() < 2000 => {
            list[at].value = Value::Bytes(input.clone());
        }
        5 => {
            let grafted = fields(other).unwrap_or_default();
            if !grafted.is_empty() {
                list.insert(at, chance.pick(&grafted).clone());
            }
        }
        _ => change_value(&mut list, at, other, words, chance),
    }
    *input = encode(&list);
}

fn words_or_nothing<'a, 'b>(words: &'b [&'a [u8]]) -> &'b [&'a [u8]] {
    if words.is_empty() { &[b""] } else { words }
}

fn change_value(list: &mut [Field], at: usize, other: &[u8], words: &[&[u8]], chance: &mut Chance) {
    match list.get_mut(at).map(|field| &mut field.value) {
        None => {}
        Some(Value::Varint(value)) => {
            *value = match chance.below(3) {
                0 => value.wrapping_add(chance.below(8) as u64).wrapping_sub(4),
                _ => number(chance),
            }
        }
        Some(Value::Fixed(fixed)) => {
            let value = number(chance).to_le_bytes();
            fixed.iter_mut().zip(value).for_each(|(place, byte)| *place = byte);
        }
        Some(Value::Bytes(inner)) => {
            if !inner.is_empty() && fields(inner).is_some() && !chance.one_in(5) {
                message(inner, other, words, chance);
            } else if chance.one_in(2) {
                *inner = chance.pick(words_or_nothing(words)).to_vec();
            } else {
                bytes(inner, other, words, chance);
            }
        }
    }
}
