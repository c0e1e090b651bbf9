//! Answers of name servers. An input's first part is `resolv.conf`, the others are answers.

use rusd::dns::{Resolver, message};

use super::{Notes, Shape, Target, file, scratch};
use crate::mutate::{Part, join, parts};

const CONF: u8 = 0;
/// An answer that goes on where the question ends.
const REST: u8 = 1;
const KINDS: u8 = 3;

pub struct Dns {
    question: Vec<u8>,
    dir: tempfile::TempDir,
}

impl Dns {
    pub fn new() -> Self {
        let question =
            message::question(7, "_etcd-server._tcp.a.test.", message::QuestionKind::Services)
                .unwrap();
        Self { question, dir: scratch() }
    }

    /// With the question's id and text, as an answer has to have them.
    fn answer(&self, flags: [u8; 2], counts: [u8; 2], rest: &[u8]) -> Vec<u8> {
        let mut answer = self.question.clone();
        answer[2..4].copy_from_slice(&flags);
        answer[6..8].copy_from_slice(&counts);
        answer.extend(rest);
        answer
    }
}

impl Target for Dns {
    fn seeds(&mut self) -> Vec<Vec<u8>> {
        let record: &[u8] =
            &[192, 12, 0, 33, 0, 1, 0, 0, 0, 9, 0, 11, 0, 1, 0, 2, 9, 0x4c, 2, b'm', b'1', 192, 30];
        let two = [record, record].concat();
        let conf = b"nameserver 10.0.0.1\nnameserver ::1\nsearch a.test b.\n\
                     options ndots:2 timeout:1 attempts:3\nnameserver 127.0.0.1:5353 # x\n";
        let rest = |counts: u8, bytes: &[u8]| [&[0x81, 0, 0, counts], bytes].concat();
        vec![
            join(&[Part::new(REST, rest(1, record))]),
            join(&[Part::new(REST, rest(2, &two)), Part::new(REST, [0x83, 0, 0, 0])]),
            join(&[Part::new(2, self.answer([0x81, 3], [0, 0], b""))]),
            join(&[Part::new(CONF, *conf)]),
        ]
    }

    fn shape(&self) -> Shape {
        Shape::Parts(|_| false)
    }

    fn words(&self) -> &'static [&'static [u8]] {
        &[
            &[192, 12],
            &[192, 30],
            &[0, 33, 0, 1],
            b"nameserver ",
            b"search ",
            b"domain ",
            b"options ",
            b"ndots:",
            b"timeout:",
            b"attempts:",
            b"\n",
            b"127.0.0.1",
            b"[::1]:53",
        ]
    }

    fn run(&mut self, input: &[u8], notes: &mut Notes) {
        for part in parts(input) {
            let answer = match (part.kind % KINDS, part.bytes.as_slice()) {
                (CONF, text) => {
                    let path = file(self.dir.path(), "resolv.conf", text);
                    let resolver = Resolver::new(Some(path.into()));
                    notes.number("conf", format!("{resolver:?}").len() as u64);
                    continue;
                }
                (REST, [a, b, c, d, rest @ ..]) => self.answer([*a, *b], [*c & 1, *d], rest),
                (_, bytes) => bytes.to_vec(),
            };
            let read = message::read(&self.question, &answer);
            notes.text(&format!("{read:?}"));
            if let Some(message::Reply::Answer(message::Answer::Records(records))) = read {
                let message::Records { services, names } = &records;
                notes.number("services", services.len() as u64);
                notes.number("names", names.len() as u64);
                for host in services.iter().map(|service| &service.host).chain(names) {
                    assert!(host.len() <= rusd::limits::DNS_NAME_BYTES_MAX + 1);
                }
                // The shortest record is a pointer or a dot, the head, and another.
                assert!((services.len() + names.len()) * 12 <= answer.len());
            }
        }
    }
}
