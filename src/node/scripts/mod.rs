//! Scripts that a reviewer can read: commands, `----`, and what the state machine answers.
//!
//! ```text
//! # A deleted key starts over: its version is 1 again.
//! put a 1
//! delete a
//! put a 2
//! range a
//! ----
//! put @2
//! delete @3 deleted 1
//! put @4
//! range @4 count 1
//!   a = 2  create 4 mod 4 version 1
//! ```
//!
//! `tests/scripts/ROOM/*.txt` hold them; `tests/scripts/README.md` lists the commands. They drive
//! the shipped code: commands become log entries, which [`Machine`](crate::apply::Machine) applies
//! to a store in a directory; reads use views, watchers the hub, leases the lessor. Raft, threads,
//! the network and the checks of `rpc` are left out.
//!
//! `UPDATE=1 cargo test --lib node::scripts` writes the real answers into the scripts. Check each
//! against etcd's rule before you commit it.

mod member;
mod requests;
mod show;
mod words;

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::apply::{self, Reply};
use crate::clock::Clock;
use crate::lease::Renewal;
use crate::limits;
use crate::mvcc::{self, ReadCheck};
use crate::node::Op;
use crate::node::config::minimum_ttl_seconds;
use crate::node::expiry::REVOKE_RETRY;
use crate::pb::alarm_request::AlarmAction;
use crate::pb::{
    AlarmRequest, AlarmType, CompactionRequest, LeaseCheckpoint, LeaseCheckpointRequest,
    LeaseRevokeRequest,
};
use crate::types::Revision;
use crate::watch::Next;
use member::{ELECTION_TIMEOUT, Member};
use show::Lines;
use words::Command;

const SEPARATOR: &str = "----";
/// The stream of `watch` commands that name none.
const STREAM: &str = "main";

/// Errors are scripts that misuse the language; errors of the member are answers.
type Result<T> = std::result::Result<T, String>;

struct Runner {
    /// None only while the member is opened again.
    member: Option<Member>,
}

impl Runner {
    fn new() -> Self {
        Self { member: Some(Member::new()) }
    }

    fn member(&mut self) -> &mut Member {
        self.member.as_mut().unwrap()
    }

    fn run(&mut self, mut command: Command) -> Result<Lines> {
        let name = command.text("a command")?;
        let lines = match name.as_str() {
            "put" => self.propose(Op::Put(requests::put(&mut command)?)),
            "delete" => self.propose(Op::DeleteRange(requests::delete(&mut command)?)),
            "range" => {
                let request = requests::range(&mut command)?;
                let response = self.member().machine.mvcc.view().range(&request);
                read(response.map(|response| show::range(&response)))
            }
            "txn" => self.txn(&mut command)?,
            "compact" => self.compact(&mut command)?,
            "sweep" => self.sweep(),
            "hash" => self.hash(command.number("the revision")?),
            "rows" => self.rows(),
            "lease" => self.lease(&mut command)?,
            "expire" => self.expire(),
            "advance" => self.advance(&mut command)?,
            "promote" | "demote" => self.lead(name == "promote"),
            "flush" | "restart" | "crash" => self.reopen(&name),
            "watch" | "cancel" | "progress" | "tick" | "events" | "close" => {
                self.watching(&name, &mut command)?
            }
            "alarm" => self.alarm(&mut command)?,
            "quota" => {
                let bytes = command.number("the bytes")?;
                self.member().set_quota(bytes);
                Lines::new()
            }
            "batch" => self.batch(&mut command)?,
            other => return Err(format!("{other} is no command")),
        };
        command.end()?;
        match command.below.is_empty() {
            true => Ok(lines),
            false => Err(format!("{name} has nothing below it")),
        }
    }

    fn propose(&mut self, op: Op) -> Lines {
        answer(self.member().apply(op))
    }

    /// Applies entries together and publishes them together.
    fn batch(&mut self, command: &mut Command) -> Result<Lines> {
        let mut lines = Lines::new();
        self.member().is_batch = true;
        for command in std::mem::take(&mut command.below) {
            lines.extend(self.run(command)?);
        }
        self.member().is_batch = false;
        self.member().publish();
        Ok(lines)
    }

    /// Runs a transaction; a read-only one is read and not proposed.
    fn txn(&mut self, command: &mut Command) -> Result<Lines> {
        let request = requests::txn(command)?;
        if mvcc::is_read_only(&request) {
            let response = mvcc::read_txn(&self.member().machine.mvcc.view(), &request);
            return Ok(read(response.map(|response| show::txn(&response))));
        }
        Ok(self.propose(Op::Txn(request)))
    }

    /// `compact REVISION [physical]`: physical with its sweep, otherwise without.
    fn compact(&mut self, command: &mut Command) -> Result<Lines> {
        let revision = command.number("the revision")?;
        let physical = command.flag("physical");
        let reply = self.member().apply(Op::Compaction(CompactionRequest { revision, physical }));
        let is_applied = reply.is_ok();
        let mut lines = answer(reply);
        if physical && is_applied {
            lines.extend(show::indent(self.sweep()));
        }
        Ok(lines)
    }

    fn sweep(&mut self) -> Lines {
        let swept = self.member().sweep().into_iter();
        swept
            .map(|(deleted, hash)| {
                let mvcc::KeyValueHash { hash, compact_revision, revision } = hash;
                format!("swept {deleted} rows, hash {hash:08x} of {compact_revision} to {revision}")
            })
            .collect()
    }

    fn hash(&mut self, revision: i64) -> Lines {
        read(self.member().machine.mvcc.hash_by_revision(revision, &ReadCheck::default()).map(
            |(hash, current)| {
                let mvcc::KeyValueHash { hash, compact_revision, revision } = hash;
                vec![format!("hash @{current} {hash:08x} of {compact_revision} to {revision}")]
            },
        ))
    }

    /// All rows of history.
    fn rows(&mut self) -> Lines {
        let mvcc = &self.member().machine.mvcc;
        let rows = mvcc.view().rows(Revision::default(), mvcc.current().revision).unwrap();
        let mut lines = vec![format!("rows {}", rows.len())];
        lines.extend(rows.iter().map(show::row));
        lines
    }

    fn lease(&mut self, command: &mut Command) -> Result<Lines> {
        let what = command.text("what to do with the lease")?;
        let now = self.member().clock.now();
        Ok(match what.as_str() {
            "grant" => {
                let mut grant = requests::lease_grant(command)?;
                // `Node::propose` does the same.
                grant.ttl = grant.ttl.max(minimum_ttl_seconds(ELECTION_TIMEOUT));
                self.propose(Op::LeaseGrant(grant))
            }
            "revoke" => {
                let id = command.number("the id")?;
                self.propose(Op::LeaseRevoke(LeaseRevokeRequest { id }))
            }
            "checkpoint" => {
                let remaining_ttl = command.option_number("remaining")?;
                let mut checkpoints = vec![];
                while command.words_left() > 0 {
                    let id = command.number("the id")?;
                    checkpoints.push(LeaseCheckpoint { id, remaining_ttl });
                }
                self.propose(Op::LeaseCheckpoint(LeaseCheckpointRequest { checkpoints }))
            }
            "keepalive" => {
                let id = command.number("the id")?;
                let mut renewal = self.member().machine.lessor.lock().renew(id, now);
                if renewal == Renewal::NoteInTheWay {
                    let checkpoints = vec![LeaseCheckpoint { id, remaining_ttl: 0 }];
                    self.propose(Op::LeaseCheckpoint(LeaseCheckpointRequest { checkpoints }));
                    renewal = self.member().machine.lessor.lock().renew(id, now);
                }
                vec![match renewal {
                    Renewal::Renewed { ttl_seconds } => format!("lease {id} ttl {ttl_seconds}"),
                    Renewal::Expired => format!("lease {id} is due and waits for its revocation"),
                    Renewal::NotFound => format!("lease {id} ttl 0"),
                    Renewal::NotLeader => "not leader".to_owned(),
                    Renewal::NoteInTheWay => format!("lease {id} keeps its remainder"),
                }]
            }
            "ttl" => {
                let id = command.number("the id")?;
                let with_keys = command.flag("keys");
                let info = self.member().machine.lessor.lock().info(id, with_keys, now);
                let Some(info) = info else { return Ok(vec![format!("lease {id} ttl -1")]) };
                let (ttl, granted) = (info.remaining_seconds, info.granted_seconds);
                let mut line = format!("lease {id} ttl {ttl} of {granted}");
                for key in &info.keys {
                    let _ = write!(line, " {}", show::word(key));
                }
                vec![line]
            }
            "list" => {
                let ids = self.member().machine.lessor.lock().list();
                let ids: String = ids.iter().map(|id| format!(" {id}")).collect();
                vec![format!("leases{ids}")]
            }
            other => return Err(format!("lease {other}")),
        })
    }

    /// One look for expired leases, as the leader does twice a second.
    fn expire(&mut self) -> Lines {
        let member = self.member();
        let now = member.clock.now();
        let leases_max = limits::LEASE_REVOKES_PER_SECOND / 2;
        let expired = member.machine.lessor.lock().expired(now, now + REVOKE_RETRY, leases_max);
        let mut lines = Lines::new();
        for id in expired {
            let revoked = self.propose(Op::LeaseRevoke(LeaseRevokeRequest { id }));
            lines.extend(revoked.into_iter().map(|line| format!("lease {id} expires: {line}")));
        }
        lines
    }

    /// `advance 5s`, `advance 100ms`
    fn advance(&mut self, command: &mut Command) -> Result<Lines> {
        let text = command.text("how long")?;
        let (number, unit) = text.split_at(text.find(char::is_alphabetic).unwrap_or(text.len()));
        let millis = match unit {
            "ms" => 1,
            "s" => 1000,
            _ => return Err(format!("advance {text}")),
        };
        let number: u64 = number.parse().map_err(|_| format!("advance {text}"))?;
        self.member().clock.advance(Duration::from_millis(number * millis));
        Ok(Lines::new())
    }

    fn lead(&mut self, is_leader: bool) -> Lines {
        match is_leader {
            true => self.member().promote(),
            false => self.member().machine.lessor.lock().demote(),
        }
        Lines::new()
    }

    fn reopen(&mut self, how: &str) -> Lines {
        match how {
            "flush" => self.member().flush(),
            "restart" => self.member = self.member.take().map(Member::restart),
            _ => self.member = self.member.take().map(Member::crash),
        }
        Lines::new()
    }

    /// `alarm raise|clear nospace|corrupt`
    fn alarm(&mut self, command: &mut Command) -> Result<Lines> {
        let action = match command.text("what to do")?.as_str() {
            "raise" => AlarmAction::Activate,
            "clear" => AlarmAction::Deactivate,
            other => return Err(format!("alarm {other}")),
        };
        let alarm = match command.text("the alarm")?.as_str() {
            "nospace" => AlarmType::Nospace,
            "corrupt" => AlarmType::Corrupt,
            other => return Err(format!("alarm {other}")),
        };
        let (action, alarm) = (action as i32, alarm as i32);
        Ok(self.propose(Op::Alarm(AlarmRequest { action, member_id: 1, alarm })))
    }

    /// `watch`, `cancel ID`, `tick ID`, `progress`, `events [brief]` and `close`, all
    /// `[stream=NAME]`
    fn watching(&mut self, name: &str, command: &mut Command) -> Result<Lines> {
        let stream = command.option("stream").unwrap_or_else(|| STREAM.to_owned());
        let watchers = self.member().stream(&stream);
        match name {
            "watch" => {
                let wants_previous = command.flag("prev");
                return Ok(match watchers.stream.create(requests::watch(command)?) {
                    Ok(id) => {
                        watchers.wants_previous.insert(id, wants_previous);
                        Lines::new()
                    }
                    Err(error) => vec![format!("error: {error}")],
                });
            }
            "cancel" => {
                // An unknown id is ignored.
                watchers.stream.cancel(command.number("the id")?);
            }
            "progress" => watchers.stream.request_progress(),
            "tick" => watchers.stream.notify_progress(command.number("the id")?),
            "events" => {
                let is_brief = command.flag("brief");
                return Ok(self.events(&stream, is_brief));
            }
            _ => {
                self.member().streams.remove(&stream);
            }
        }
        Ok(Lines::new())
    }

    /// All items that a stream has for its client now.
    fn events(&mut self, stream: &str, is_brief: bool) -> Lines {
        let mut singles = show::Singles::default();
        self.member().stream(stream);
        let member = self.member();
        let (watchers, mvcc) = (&member.streams[stream], &member.machine.mvcc);
        let mut lines = Lines::new();
        loop {
            let item = match watchers.stream.next() {
                Next::Item(item) => item,
                Next::CatchUp => {
                    watchers.stream.catch_up().unwrap();
                    continue;
                }
                Next::Wait => {
                    lines.extend(singles.end());
                    return lines;
                }
            };
            if is_brief && singles.take(&item) {
                continue;
            }
            lines.extend(singles.end());
            let wants_previous = match &item {
                crate::watch::Item::Events { watch_id, .. } => {
                    watchers.wants_previous.get(watch_id) == Some(&true)
                }
                _ => false,
            };
            lines.extend(show::item(&item, is_brief, |change| {
                let view = mvcc.view();
                wants_previous.then(|| view.previous(change).unwrap()).flatten()
            }));
        }
    }
}

fn read(answer: std::result::Result<Lines, mvcc::Error>) -> Lines {
    answer.unwrap_or_else(|error| vec![format!("error: {error}")])
}

fn answer(reply: std::result::Result<Reply, apply::Error>) -> Lines {
    let reply = match reply {
        Ok(reply) => reply,
        Err(error) => return vec![format!("error: {error}")],
    };
    let at = |header: &Option<crate::pb::ResponseHeader>| header.as_ref().unwrap().revision;
    match &reply {
        Reply::Put(response) => show::put(response),
        Reply::DeleteRange(response) => show::delete(response),
        Reply::Txn(response) => show::txn(response),
        Reply::Compaction(response) => vec![format!("compact @{}", at(&response.header))],
        Reply::LeaseGrant(response) => {
            let (at, id, ttl) = (at(&response.header), response.id, response.ttl);
            vec![format!("lease {id} @{at} ttl {ttl}")]
        }
        Reply::LeaseRevoke(response) => vec![format!("revoke @{}", at(&response.header))],
        Reply::Alarm(response) => {
            let name = |kind: i32| AlarmType::try_from(kind).unwrap().as_str_name();
            let names: String =
                response.alarms.iter().map(|alarm| format!(" {}", name(alarm.alarm))).collect();
            vec![format!("alarm{names}")]
        }
        _ => Lines::new(),
    }
}

/// A block of lines: the commands before `----`, and the expected answers after it.
#[derive(Default)]
struct Block {
    first_line: usize,
    input: Vec<String>,
    expected: Option<Vec<String>>,
}

/// Blocks end at an empty line.
fn blocks(text: &str) -> Vec<Block> {
    let mut blocks = vec![Block { first_line: 1, ..Block::default() }];
    for (number, line) in text.lines().enumerate() {
        let block = blocks.last_mut().unwrap();
        match &mut block.expected {
            _ if line.is_empty() => {
                blocks.push(Block { first_line: number + 2, ..Block::default() });
            }
            Some(expected) => expected.push(line.to_owned()),
            None if line == SEPARATOR => block.expected = Some(Vec::new()),
            None => block.input.push(line.to_owned()),
        }
    }
    blocks.retain(|block| !block.input.is_empty() || block.expected.is_some());
    blocks
}

/// `repeat N COMMAND` stands for N commands, in which `{n}` counts from 1. The last one's answer is
/// shown.
fn repeated(line: &str) -> Option<(usize, String)> {
    let (count, line) = line.strip_prefix("repeat ")?.split_once(' ')?;
    Some((count.parse().ok()?, line.to_owned()))
}

fn run_block(runner: &mut Runner, block: &Block) -> Result<Lines> {
    let is_command = |line: &&String| !line.starts_with('#');
    let lines: Vec<String> = block.input.iter().filter(is_command).cloned().collect();
    if let [line] = &lines[..]
        && let Some((count, line)) = repeated(line)
    {
        let mut output = Lines::new();
        for number in 1..=count {
            let line = line.replace("{n}", &number.to_string());
            for command in Command::parse(&[line])? {
                output = runner.run(command)?;
            }
        }
        return Ok(output);
    }
    let mut output = Lines::new();
    for command in Command::parse(&lines)? {
        output.extend(runner.run(command)?);
    }
    Ok(output)
}

/// Runs a script. Returns the script with the real answers, and each place where the expected ones
/// differ.
fn run_script(path: &Path, text: &str) -> (String, Vec<String>) {
    let name = path.file_name().unwrap().to_string_lossy();
    let mut runner = Runner::new();
    let (mut updated, mut failures) = (Vec::new(), Vec::new());
    for block in blocks(text) {
        let mut lines = block.input.clone();
        if let Some(expected) = &block.expected {
            let at = format!("{name}:{}", block.first_line);
            let output = run_block(&mut runner, &block)
                .unwrap_or_else(|error| panic!("{at}: {error}\n{}", block.input.join("\n")));
            if output != *expected {
                failures.push(format!(
                    "{at}\n{}\n---- expected\n{}\n---- answered\n{}\n",
                    block.input.join("\n"),
                    expected.join("\n"),
                    output.join("\n")
                ));
            }
            lines.push(SEPARATOR.to_owned());
            lines.extend(output);
        } else {
            let is_comment = block.input.iter().all(|line| line.starts_with('#'));
            assert!(is_comment, "{name}:{}: no {SEPARATOR}", block.first_line);
        }
        updated.push(lines.join("\n") + "\n");
    }
    (updated.join("\n"), failures)
}

fn run_room(room: &str) {
    let dir = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/scripts").join(room);
    let entries = std::fs::read_dir(&dir).unwrap();
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    assert!(!paths.is_empty(), "{} holds no scripts", dir.display());
    let is_update = std::env::var_os("UPDATE").is_some_and(|update| update == "1");
    let mut all_failures = Vec::new();
    for path in paths {
        let text = std::fs::read_to_string(&path).unwrap();
        let (updated, failures) = run_script(&path, &text);
        if is_update {
            std::fs::write(&path, updated).unwrap();
        } else {
            all_failures.extend(failures);
            assert_eq!(updated.matches(SEPARATOR).count(), text.matches(SEPARATOR).count());
        }
    }
    assert!(all_failures.is_empty(), "\n{}", all_failures.join("\n"));
}

#[test]
fn mvcc_scripts() {
    run_room("mvcc");
}

#[test]
fn txn_scripts() {
    run_room("txn");
}

#[test]
fn lease_scripts() {
    run_room("lease");
}

#[test]
fn watch_scripts() {
    run_room("watch");
}

#[test]
fn apply_scripts() {
    run_room("apply");
}
