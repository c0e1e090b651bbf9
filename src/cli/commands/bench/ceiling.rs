//! `bench ceiling`: the CPU time per put of each of a member's threads. A stage that is one thread bounds
//! how many puts a member takes on any number of processors.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::load;
use super::plan::Plan;
use super::report::{Report, aligned};
use super::servers::Servers;
use crate::cli::context::Context;
use crate::cli::exit::Failure;

/// Stages through which each write goes one after the other, each a thread.
const SERIAL: [&str; 4] = ["raft", "raft-log", "apply", "committer"];

pub(super) struct Ceiling {
    members: Vec<String>,
    report: Report,
    slowest: Stage,
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct Stage {
    name: &'static str,
    member: usize,
    micros: f64,
}

impl Stage {
    fn puts_per_second(self) -> f64 {
        1e6 / self.micros
    }
}

/// The serial stage that takes most of all members'.
fn slowest(report: &Report) -> Option<Stage> {
    let of_member = |(member, threads): (usize, &BTreeMap<String, f64>)| {
        let stage = |name: &&'static str| {
            let micros = *threads.get(*name)?;
            Some(Stage { name, member, micros })
        };
        SERIAL.iter().filter_map(stage).collect::<Vec<_>>()
    };
    let stages = report.threads.iter().enumerate().flat_map(of_member);
    stages.filter(|stage| stage.micros > 0.0).max_by(|a, b| a.micros.total_cmp(&b.micros))
}

/// Puts as the flags say, and reads what each thread has used meanwhile.
pub(super) async fn measure(
    context: &Context,
    servers: &Servers,
    plan: &Plan,
) -> Result<Ceiling, Failure> {
    let config = &servers.all[0];
    let report = load::run(context, config, plan, "ceiling").await?;
    let members = config.endpoints.clone();
    let slowest = slowest(&report).ok_or_else(|| {
        let endpoints = members.join(",");
        Failure::error(format!(
            "{endpoints} does not tell the CPU time of its threads: /metrics over http has no \
             rusd_thread_cpu_seconds_total, which servers other than rusd do not have"
        ))
    })?;
    Ok(Ceiling { members, report, slowest })
}

impl Ceiling {
    /// The names of all threads, those that used most first.
    fn names(&self) -> Vec<&str> {
        let all: BTreeSet<&str> = self
            .report
            .threads
            .iter()
            .flat_map(|threads| threads.keys())
            .map(|name| &**name)
            .collect();
        let most = |name: &str| {
            self.report.threads.iter().filter_map(|it| it.get(name)).copied().fold(0.0, f64::max)
        };
        let mut names: Vec<&str> = all.into_iter().filter(|name| most(name) > 0.0).collect();
        names.sort_by(|a, b| most(b).total_cmp(&most(a)));
        names
    }

    pub(super) fn text(&self) -> String {
        let mut heads = vec!["thread".to_owned(), "kind".to_owned()];
        heads.extend(self.members.clone());
        let mut rows = vec![heads];
        for name in self.names() {
            let kind = if SERIAL.contains(&name) { "serial" } else { "" };
            let mut row = vec![name.to_owned(), kind.to_owned()];
            let used = self.report.threads.iter().map(|threads| threads.get(name));
            row.extend(used.map(|micros| micros.map_or("-".into(), |it| format!("{it:.2} µs"))));
            rows.push(row);
        }
        let Stage { name, member, micros } = self.slowest;
        let (puts, endpoint) = (self.report.requests, &self.members[member]);
        let bound = self.slowest.puts_per_second();
        format!(
            "{}CPU time per put, over {puts} puts at {:.0}/s.\n{name} of {endpoint} is the slowest serial \
             stage: {micros:.2} µs bound it to {bound:.0} puts/s.\n",
            aligned(&rows, 2),
            self.report.per_second
        )
    }

    pub(super) fn json(&self) -> Value {
        let member =
            |(endpoint, threads)| json!({ "endpoint": endpoint, "cpuMicrosecondsPerPut": threads });
        let members: Vec<_> = self.members.iter().zip(&self.report.threads).map(member).collect();
        json!({
            "puts": self.report.requests as u64,
            "putsPerSecond": self.report.per_second,
            "members": members,
            "slowest": {
                "thread": self.slowest.name,
                "endpoint": self.members[self.slowest.member],
                "cpuMicrosecondsPerPut": self.slowest.micros,
                "putsPerSecondMax": self.slowest.puts_per_second(),
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slowest_is_the_serial_stage_that_takes_most() {
        let threads = |all: &[(&str, f64)]| {
            all.iter().map(|(name, micros)| ((*name).to_owned(), *micros)).collect()
        };
        let report = Report {
            threads: vec![
                threads(&[("tokio-rt-worker", 20.0), ("apply", 2.0), ("raft", 1.0)]),
                threads(&[("apply", 1.5), ("raft", 4.0)]),
            ],
            ..Report::default()
        };
        let found = slowest(&report).unwrap();
        assert_eq!(found, Stage { name: "raft", member: 1, micros: 4.0 });
        assert_eq!(found.puts_per_second(), 250_000.0);
        assert_eq!(slowest(&Report::default()), None);
    }
}
