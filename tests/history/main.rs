//! Long seeded histories, the answers to which must be etcd's.
//!
//! ```text
//! cargo test --test history                             replays what a real etcd answered
//! cargo test --test history -- --reference HOST:PORT    compares with a running etcd, op by op
//!     [--endpoint HOST:PORT] [--seeds A..B] [--ops N]
//! cargo test --test history -- --record HOST:PORT --seed N [--ops N]
//! cargo test --test history -- --round-trip DIR [--seed N] [--ops N]
//!                              moves a history to etcd and back, with the etcd, etcdctl and
//!                              etcdutl in DIR
//! ```
//!
//! A history is puts, ranges, deletions, transactions, leases, compactions, hashes and watches,
//! 10,000 of them. Each answer (its code and text, the revision in its header, its body; not ids of
//! members, raft's terms or the time that leases have left) is folded into a hash. The files
//! `tests/data/history-SEED.json` hold what etcd 3.7.1 gave: 16 bits for each operation, so that the
//! first one that differs has a name, a hash of everything so far for each hundred, and the last
//! operations in clear. To see what the reference answers where the replay fails, compare live.
//! Servers to compare with, and to record from, must be empty; of several seeds, each goes on where
//! the one before it ended.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a test program")]

#[path = "../common/child.rs"]
mod child;
mod generate;
#[allow(dead_code, reason = "a suite needs a part of it")]
#[path = "../common/member.rs"]
mod member;
#[path = "../common/ports.rs"]
mod ports;
mod roundtrip;
mod server;
mod subject;

use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use generate::{Generator, Op};
use server::Server;
use subject::{Outcome, Subject};

const OPS: u64 = 10_000;
const LINE_OPS: usize = 100;
const LAST_OPS: usize = 10;
/// Seeds that were recorded.
const SEEDS: [u64; 2] = [1, 2];

#[derive(Serialize, Deserialize)]
struct Recording {
    seed: u64,
    ops: u64,
    /// For each hundred operations: the number of the first, the hash of all answers up to the
    /// last, and 16 bits of each.
    lines: Vec<String>,
    last: Vec<String>,
}

impl Recording {
    fn path(seed: u64) -> PathBuf {
        let name = format!("tests/data/history-{seed}.json");
        PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(name)
    }

    fn read(seed: u64) -> Self {
        serde_json::from_str(&fs::read_to_string(Self::path(seed)).unwrap()).unwrap()
    }
}

/// Folds answers into lines.
#[derive(Default)]
struct Fold {
    all: Sha256,
    marks: Vec<String>,
    lines: Vec<String>,
    folded: usize,
}

impl Fold {
    fn mark(outcome: &Outcome) -> String {
        Sha256::digest(&outcome.bytes)[..2].iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Takes an answer; ends a line after the last one, too.
    fn take(&mut self, outcome: &Outcome, is_last: bool) {
        self.all.update((outcome.bytes.len() as u64).to_le_bytes());
        self.all.update(&outcome.bytes);
        self.marks.push(Self::mark(outcome));
        if self.marks.len() == LINE_OPS || is_last {
            let mut line = format!("{:06} ", self.folded);
            for byte in &self.all.clone().finalize()[..8] {
                let _ = write!(line, "{byte:02x}");
            }
            let marks = std::mem::take(&mut self.marks);
            self.folded += marks.len();
            self.lines.push(format!("{line} {}", marks.concat()));
        }
    }
}

fn shown(number: usize, op: &Op) -> String {
    const SHOWN_MAX: usize = 4000;
    let mut text = format!("operation {number}: {op:?}");
    if let Some((at, _)) = text.char_indices().nth(SHOWN_MAX) {
        text.truncate(at);
    }
    text
}

/// Runs a history on an empty server and compares with what was recorded.
async fn replay(seed: u64) -> Result<(), String> {
    let recording = Recording::read(seed);
    let server = Server::start().await;
    let mut subject = Subject::connect(&server.endpoint).await;
    let mut generator = Generator::new(seed, recording.ops);
    let mut fold = Fold::default();
    let mut number = 0;
    while let Some(op) = generator.next() {
        let outcome = subject.run(&op).await;
        generator.learn(&op, outcome.revision);
        fold.take(&outcome, number + 1 == recording.ops as usize);
        let line = &recording.lines[number / LINE_OPS];
        let marks = line.rsplit(' ').next().unwrap_or_default();
        let at = 4 * (number % LINE_OPS);
        if marks.get(at..at + 4) != Some(Fold::mark(&outcome).as_str()) {
            return Err(format!("{}\nanswered {}", shown(number, &op), outcome.show()));
        }
        number += 1;
        if fold.marks.is_empty() && fold.lines.last() != Some(line) {
            return Err(format!("the {LINE_OPS} operations before {number} differ"));
        }
    }
    Ok(())
}

/// Two servers that run histories side by side.
struct Pair {
    ours: Subject,
    reference: Subject,
    generator: Generator,
}

impl Pair {
    async fn connect(ours: &str, reference: &str) -> Result<Self, String> {
        let (mut ours, mut reference) =
            (Subject::connect(ours).await, Subject::connect(reference).await);
        if (ours.revision().await, reference.revision().await) != (1, 1) {
            return Err("both servers must be empty".into());
        }
        Ok(Self { ours, reference, generator: Generator::new(0, 0) })
    }

    /// Runs a history and stops where the servers differ.
    async fn compare(&mut self, seed: u64, ops: u64) -> Result<(), String> {
        self.generator.restart(seed, ops);
        let mut before = Vec::new();
        let mut number = 0;
        while let Some(op) = self.generator.next() {
            let (ours, reference) = tokio::join!(self.ours.run(&op), self.reference.run(&op));
            if ours.bytes != reference.bytes {
                let before: String = before.iter().map(|op: &String| format!("{op}\n")).collect();
                return Err(format!(
                    "{before}{}\nreference {}\nours {}",
                    shown(number, &op),
                    reference.show(),
                    ours.show()
                ));
            }
            self.generator.learn(&op, reference.revision);
            if before.len() == LAST_OPS {
                before.remove(0);
            }
            before.push(shown(number, &op));
            number += 1;
        }
        Ok(())
    }
}

async fn record(endpoint: &str, seed: u64, ops: u64) -> Result<(), String> {
    let mut subject = Subject::connect(endpoint).await;
    if subject.revision().await != 1 {
        return Err("the server must be empty".into());
    }
    let mut generator = Generator::new(seed, ops);
    let mut fold = Fold::default();
    let mut last = Vec::new();
    let mut number = 0;
    while let Some(op) = generator.next() {
        let outcome = subject.run(&op).await;
        generator.learn(&op, outcome.revision);
        fold.take(&outcome, number + 1 == ops as usize);
        if number + LAST_OPS >= ops as usize {
            last.push(format!("{} gave {}", shown(number, &op), outcome.show()));
        }
        number += 1;
    }
    let recording = Recording { seed, ops, lines: fold.lines, last };
    let json = serde_json::to_string_pretty(&recording).unwrap() + "\n";
    fs::write(Recording::path(seed), json).map_err(|error| error.to_string())
}

#[derive(Default)]
struct Arguments {
    reference: Option<String>,
    endpoint: Option<String>,
    record: Option<String>,
    round_trip: Option<PathBuf>,
    seeds: Option<(u64, u64)>,
    ops: Option<u64>,
}

impl Arguments {
    /// None if the words are not for this program, such as the filters of a whole test run.
    fn parse() -> Self {
        let mut arguments = Self::default();
        let mut words = std::env::args().skip(1);
        while let Some(word) = words.next() {
            match word.as_str() {
                "--reference" => arguments.reference = words.next(),
                "--endpoint" => arguments.endpoint = words.next(),
                "--record" => arguments.record = words.next(),
                "--round-trip" => arguments.round_trip = words.next().map(PathBuf::from),
                "--ops" => arguments.ops = words.next().map(|ops| ops.parse().unwrap()),
                "--seed" | "--seeds" => {
                    let range = words.next().unwrap();
                    let (first, end) = range.split_once("..").unwrap_or((&range, ""));
                    let first: u64 = first.parse().unwrap();
                    let end = if end.is_empty() { first + 1 } else { end.parse().unwrap() };
                    arguments.seeds = Some((first, end));
                }
                // Words for libtest that a whole test run hands to every program.
                _ => {}
            }
        }
        arguments
    }
}

/// Names and results, as libtest prints them.
async fn run(arguments: Arguments) -> (usize, Vec<String>) {
    let ops = arguments.ops.unwrap_or(OPS);
    let (first, end) = arguments.seeds.unwrap_or((1, 2));
    let mut passed = 0;
    let mut failures = Vec::new();
    let mut report = |name: String, result: Result<(), String>| match result {
        Ok(()) => {
            println!("test {name} ... ok");
            passed += 1;
        }
        Err(failure) => {
            println!("test {name} ... FAILED");
            failures.push(format!("---- {name} ----\n{failure}\n"));
        }
    };
    if let Some(endpoint) = arguments.record {
        report(format!("record_{first}"), record(&endpoint, first, ops).await);
    } else if let Some(tools) = arguments.round_trip {
        let ops = arguments.ops.unwrap_or(roundtrip::OPS);
        report(format!("round_trip_{first}"), roundtrip::run(&tools, first, ops).await);
    } else if let Some(reference) = arguments.reference {
        let server = match arguments.endpoint {
            Some(_) => None,
            None => Some(Server::start().await),
        };
        let own = server.as_ref().map(|server| server.endpoint.clone());
        let ours = arguments.endpoint.or(own).unwrap_or_default();
        match Pair::connect(&ours, &reference).await {
            Ok(mut pair) => {
                for seed in first..end {
                    let result = pair.compare(seed, ops).await;
                    let is_equal = result.is_ok();
                    report(format!("live_{seed}"), result);
                    if !is_equal {
                        break;
                    }
                }
            }
            Err(error) => report("live".into(), Err(error)),
        }
    } else {
        for seed in SEEDS {
            report(format!("replay_{seed}"), replay(seed).await);
        }
    }
    (passed, failures)
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    println!("\nrunning histories");
    let (passed, failures) = run(arguments).await;
    for failure in &failures {
        println!("\n{failure}");
    }
    let failed = failures.len();
    let word = if failed == 0 { "ok" } else { "FAILED" };
    println!(
        "\ntest result: {word}. {passed} passed; {failed} failed; 0 ignored; 0 measured; \
         0 filtered out\n"
    );
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
