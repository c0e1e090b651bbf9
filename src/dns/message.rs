//! The messages of DNS, as far as SRV and PTR records need them (RFC 1035 and 2782).

use crate::limits;

const TYPE_PTR: u16 = 12;
const TYPE_SRV: u16 = 33;
const CLASS_INTERNET: u16 = 1;
const HEADER_BYTES: usize = 12;
const NO_SUCH_NAME: u8 = 3;

/// Where a service is offered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    pub priority: u16,
    pub weight: u16,
    pub port: u16,
    /// With a dot at its end.
    pub host: String,
}

/// The kind of records that is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QuestionKind {
    Services,
    /// The names of an address.
    Names,
}

/// The records of a name; empty if it has records of other kinds only.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Records {
    pub services: Vec<Service>,
    /// With dots at their ends.
    pub names: Vec<String>,
}

#[derive(Debug, PartialEq, Eq)]
pub enum Answer {
    Records(Records),
    NoSuchName,
}

#[derive(Debug, PartialEq, Eq)]
pub enum Reply {
    Answer(Answer),
    /// The answer did not fit into a datagram.
    Cut,
    /// The server's response code.
    Refused(u8),
}

/// The question for a name with a final dot; None if it is no valid name.
pub fn question(id: u16, name: &str, kind: QuestionKind) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(HEADER_BYTES + name.len() + 6);
    bytes.extend(id.to_be_bytes());
    // Recursion is desired; one question.
    bytes.extend([1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    for label in name.strip_suffix('.')?.split('.') {
        let length = u8::try_from(label.len()).ok().filter(|length| (1..64).contains(length))?;
        bytes.push(length);
        bytes.extend(label.as_bytes());
    }
    bytes.push(0);
    if bytes.len() - HEADER_BYTES > limits::DNS_NAME_BYTES_MAX {
        return None;
    }
    let kind = match kind {
        QuestionKind::Services => TYPE_SRV,
        QuestionKind::Names => TYPE_PTR,
    };
    bytes.extend(kind.to_be_bytes());
    bytes.extend(CLASS_INTERNET.to_be_bytes());
    Some(bytes)
}

/// Reads a message from the front; names may point to any place before.
struct Cursor<'a> {
    message: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let taken = self.message.get(self.at..self.at.checked_add(count)?)?;
        self.at += count;
        Some(taken)
    }

    fn u8(&mut self) -> Option<u8> {
        self.take(1).map(|bytes| bytes[0])
    }

    fn u16(&mut self) -> Option<u16> {
        self.take(2).map(|bytes| u16::from_be_bytes([bytes[0], bytes[1]]))
    }

    /// A name, with a final dot. A pointer must lead backwards, so that following pointers ends.
    fn name(&mut self) -> Option<String> {
        let mut name = String::new();
        let mut jumped = Cursor { message: self.message, at: self.at };
        let (mut is_jump, mut lowest) = (false, self.at);
        loop {
            let length = jumped.u8()?;
            if !is_jump {
                self.at = jumped.at;
            }
            match length {
                0 => break,
                1..64 => {
                    let label = jumped.take(usize::from(length))?;
                    if !is_jump {
                        self.at = jumped.at;
                    }
                    name.push_str(std::str::from_utf8(label).ok()?);
                    name.push('.');
                    if name.len() > limits::DNS_NAME_BYTES_MAX {
                        return None;
                    }
                }
                192.. => {
                    let to = usize::from(length & 63) << 8 | usize::from(jumped.u8()?);
                    if !is_jump {
                        self.at = jumped.at;
                    }
                    if to >= lowest {
                        return None;
                    }
                    (is_jump, lowest, jumped.at) = (true, to, to);
                }
                _ => return None,
            }
        }
        if name.is_empty() {
            name.push('.');
        }
        Some(name)
    }
}

/// What a message replies to `question`; None if it is no reply to it.
pub fn read(question: &[u8], message: &[u8]) -> Option<Reply> {
    let mut cursor = Cursor { message, at: 0 };
    let id = cursor.take(2)?;
    let (flags, code) = (cursor.u8()?, cursor.u8()? & 15);
    let (questions, answers) = (cursor.u16()?, cursor.u16()?);
    cursor.take(4)?;
    if id != question.get(..2)? || flags & 0x80 == 0 {
        return None;
    }
    // A server that cannot read the question may leave it out.
    if questions == 0 && code != 0 {
        return Some(Reply::Refused(code));
    }
    let asked = question.get(HEADER_BYTES..)?;
    if questions != 1 || !cursor.take(asked.len())?.eq_ignore_ascii_case(asked) {
        return None;
    }
    match code {
        _ if flags & 2 != 0 => return Some(Reply::Cut),
        0 => {}
        NO_SUCH_NAME => return Some(Reply::Answer(Answer::NoSuchName)),
        code => return Some(Reply::Refused(code)),
    }
    let mut records = Records::default();
    for _ in 0..answers {
        cursor.name()?;
        let (kind, class) = (cursor.u16()?, cursor.u16()?);
        cursor.take(4)?;
        let length = usize::from(cursor.u16()?);
        let end = cursor.at.checked_add(length).filter(|end| *end <= message.len())?;
        match kind {
            TYPE_SRV if class == CLASS_INTERNET => {
                let [priority, weight, port] = [cursor.u16()?, cursor.u16()?, cursor.u16()?];
                let host = cursor.name()?;
                records.services.push(Service { priority, weight, port, host });
            }
            TYPE_PTR if class == CLASS_INTERNET => records.names.push(cursor.name()?),
            _ => {}
        }
        cursor.at = end;
    }
    Some(Reply::Answer(Answer::Records(records)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An answer with one record, whose owner is a pointer to the question.
    fn answer() -> (Vec<u8>, Vec<u8>) {
        let question = question(7, "_etcd-server._tcp.a.test.", QuestionKind::Services).unwrap();
        let mut message = question.clone();
        message[2] = 0x81;
        message[7] = 1;
        message.extend([192, 12, 0, 33, 0, 1, 0, 0, 0, 9, 0, 13]);
        // The host is `m1`, then what the question has after its first two labels.
        message.extend([0, 1, 0, 2, 0x09, 0x4c, 2, b'm', b'1', 192, 30]);
        let length = u8::try_from(message.len() - question.len() - 12).unwrap();
        message[question.len() + 11] = length;
        (question, message)
    }

    #[test]
    fn records_are_read_through_pointers() {
        let (question, message) = answer();
        let host = "m1.a.test.".to_owned();
        let service = Service { priority: 1, weight: 2, port: 2380, host };
        let records = Records { services: vec![service], names: Vec::new() };
        assert_eq!(read(&question, &message), Some(Reply::Answer(Answer::Records(records))));
    }

    #[test]
    fn what_is_cut_changed_or_loops_does_no_harm() {
        let (question, message) = answer();
        for length in 0..message.len() {
            assert_eq!(read(&question, &message[..length]), None, "{length}");
        }
        for at in 0..message.len() {
            for value in [0, 1, 63, 64, 0xbf, 0xc0, 0xff] {
                let mut changed = message.clone();
                changed[at] = value;
                // Whatever it says, reading it ends.
                let _ = read(&question, &changed);
            }
        }
        let mut looping = message.clone();
        let end = looping.len();
        looping[end - 1] = u8::try_from(end - 2).unwrap();
        assert_eq!(read(&question, &looping), None);
    }

    #[test]
    fn answers_to_other_questions_are_none() {
        let (asked, message) = answer();
        for other in [
            question(8, "_etcd-server._tcp.a.test.", QuestionKind::Services),
            question(7, "_etcd-server._tcp.b.test.", QuestionKind::Services),
        ] {
            assert_eq!(read(&other.unwrap(), &message), None);
        }
        assert_eq!(read(&asked, &asked), None, "a question is no answer");
        let mut refused = message.clone();
        refused[3] = 5;
        assert_eq!(read(&asked, &refused), Some(Reply::Refused(5)));
        refused[3] = 3;
        assert_eq!(read(&asked, &refused), Some(Reply::Answer(Answer::NoSuchName)));
        refused[2] |= 2;
        assert_eq!(read(&asked, &refused), Some(Reply::Cut));
    }

    #[test]
    fn what_is_no_name_is_not_asked_for() {
        let long = format!("{}.", "a".repeat(64));
        let longer = "abcdefg.".repeat(40);
        for name in ["a", "a..b.", ".", &long, &longer] {
            assert_eq!(question(1, name, QuestionKind::Services), None, "{name}");
        }
    }
}
