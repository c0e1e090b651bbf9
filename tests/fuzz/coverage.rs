//! What the code ran through, counted by the compiler if it was asked to.
//!
//! With `-Cpasses=sancov-module` each edge between blocks has a byte that grows when it is passed.
//! The bytes of the whole program lie in one section, whose bounds a constructor hands over before
//! `main`. Without that flag nobody calls, and there is nothing to see here.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// Bounds of the section, rounded inwards to words.
static FIRST: AtomicUsize = AtomicUsize::new(0);
static WORDS: AtomicUsize = AtomicUsize::new(0);

const WORD_BYTES: usize = size_of::<u64>();

#[expect(unsafe_code, reason = "the compiler's instrumentation calls it by this name")]
// SAFETY: the name is reserved for this purpose, and nothing else here defines it.
#[unsafe(no_mangle)]
extern "C" fn __sanitizer_cov_8bit_counters_init(start: *mut u8, stop: *mut u8) {
    let first = (start as usize).next_multiple_of(WORD_BYTES);
    let words = (stop as usize).saturating_sub(first) / WORD_BYTES;
    FIRST.store(first, Ordering::Relaxed);
    WORDS.store(words, Ordering::Relaxed);
}

/// Eight counters each.
#[expect(unsafe_code, reason = "the counters are the compiler's")]
fn counters() -> &'static [AtomicU64] {
    let (first, words) = (FIRST.load(Ordering::Relaxed), WORDS.load(Ordering::Relaxed));
    if words == 0 {
        return &[];
    }
    // SAFETY: the section lives as long as the program, is aligned as rounded above, and holds
    // plain bytes that anybody may change at any time, which is what atomics are for.
    unsafe { std::slice::from_raw_parts(first as *const AtomicU64, words) }
}

/// How many edges there are; none if the compiler counted nothing.
pub fn edges() -> usize {
    counters().len() * WORD_BYTES
}

/// A counter as one of eight bits: once, twice, thrice, up to 7, 15, 31, 127, more.
fn class(count: u8) -> u8 {
    match count {
        0 => 0,
        1..=3 => 1 << (count - 1),
        4..=7 => 8,
        8..=15 => 16,
        16..=31 => 32,
        32..=127 => 64,
        128.. => 128,
    }
}

/// Everything that was seen so far, a byte of classes for each edge.
pub struct SeenEdges(Vec<u8>);

impl SeenEdges {
    pub fn new() -> Self {
        Self(vec![0; edges()])
    }

    /// Starts counting anew.
    pub fn reset() {
        counters().iter().for_each(|word| word.store(0, Ordering::Relaxed));
    }

    /// Takes in what was counted since the last time; how much of it is new. If `coarse`, how often
    /// an edge was passed does not matter.
    pub fn take(&mut self, coarse: bool) -> usize {
        let mut new = 0;
        for (word, seen) in counters().iter().zip(self.0.chunks_exact_mut(WORD_BYTES)) {
            let counts = word.load(Ordering::Relaxed);
            if counts == 0 {
                continue;
            }
            word.store(0, Ordering::Relaxed);
            for (count, seen) in counts.to_ne_bytes().into_iter().zip(seen) {
                let class = if coarse { u8::from(count != 0) } else { class(count) };
                if class & !*seen != 0 {
                    *seen |= class;
                    new += 1;
                }
            }
        }
        new
    }

    /// The edges that were passed at least once, by their numbers.
    pub fn passed(&self) -> impl Iterator<Item = u64> {
        (0..).zip(&self.0).filter(|(_, seen)| **seen != 0).map(|(edge, _)| edge)
    }

    /// How many those are.
    pub fn count(&self) -> usize {
        self.passed().count()
    }
}
