//! Bugs to be found, so that a search that finds nothing means something.

use super::{Notes, Shape, Target};
use crate::mutate::{Part, join, parts};

pub struct Planted;

impl Target for Planted {
    fn seeds(&mut self) -> Vec<Vec<u8>> {
        (0..4).map(|kind| join(&[Part::new(kind, [1, 2, 3])])).collect()
    }

    fn shape(&self) -> Shape {
        Shape::Parts(|_| false)
    }

    fn run(&mut self, input: &[u8], notes: &mut Notes) {
        for Part { kind, bytes } in parts(input) {
            let [first, second, ..] = bytes[..] else { continue };
            notes.number("first", u64::from(first));
            match kind % 4 {
                0 => drop(std::hint::black_box(1_u8 << (first & 7)).checked_add(second)),
                1 => assert!(first < 0xf0, "planted"),
                // An overflow, where the build looks for them.
                2 => drop(std::hint::black_box(first) + std::hint::black_box(second)),
                _ if first > 0xf0 => drop(std::hint::black_box(Vec::<u8>::with_capacity(64 << 20))),
                _ => {}
            }
        }
    }
}
