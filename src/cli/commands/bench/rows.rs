//! The rows of `bench table`: what each sends, and which figures it gives.

use std::time::Duration;

use super::plan::{LoadKind, Plan};
use super::report::Report;
use crate::cli::size;

/// Percent.
const WHOLE: u64 = 100;

/// What decides the sizes of all rows.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sizing {
    /// Percent of the usual numbers of keys, watchers and requests.
    pub scale: u64,
    /// How long a round of a row sends.
    pub duration: Duration,
    /// Deadline of a request.
    pub patience: Duration,
}

/// What a row does in each round.
#[derive(Clone, Debug)]
pub(super) enum Work {
    /// Looks at the server as it is.
    Idle,
    Load(Plan),
    /// Puts all keys of the plan, in their order.
    Fill(Plan),
    /// Saves a snapshot of a store that holds the plan's keys.
    Save(Plan),
}

#[derive(Clone, Debug)]
pub(super) struct Row {
    pub name: &'static str,
    pub label: &'static str,
    pub work: Work,
    /// Whether it is done once, and not in each round: memory that a server has once taken may stay with
    /// it.
    pub is_once: bool,
    pub figures: Vec<Figure>,
}

/// One number of a row.
#[derive(Clone, Debug)]
pub(super) struct Figure {
    pub name: &'static str,
    pick: Pick,
    pub unit: Unit,
}

#[derive(Clone, Copy, Debug)]
enum Pick {
    /// CPU time, of a request's part if it has several.
    Cpu {
        parts: f64,
    },
    /// CPU time of one thread: the member's that used most.
    Thread {
        name: &'static str,
        parts: f64,
    },
    Rate {
        parts: f64,
    },
    Median,
    Memory,
    Anonymous,
    /// Memory above that before the row's first round.
    Above,
    Store,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unit {
    Microseconds,
    Milliseconds,
    PerSecond,
    Bytes,
    MegabytesPerSecond,
}

impl Unit {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Microseconds => "microseconds",
            Self::Milliseconds => "milliseconds",
            Self::PerSecond => "perSecond",
            Self::Bytes => "bytes",
            Self::MegabytesPerSecond => "megabytesPerSecond",
        }
    }

    pub(super) fn shown(self, value: f64) -> String {
        match self {
            Self::Microseconds => format!("{value:.1} µs"),
            Self::Milliseconds => format!("{value:.2} ms"),
            Self::PerSecond => format!("{value:.0}/s"),
            Self::Bytes => size::shown(value.max(0.0) as u64),
            Self::MegabytesPerSecond => format!("{value:.0} MB/s"),
        }
    }
}

impl Figure {
    /// CPU time per request is what `bench check` guards: it hardly depends on what else a machine does.
    pub(super) fn is_guarded(&self) -> bool {
        matches!(self.pick, Pick::Cpu { .. })
    }

    pub(super) fn of(&self, report: &Report) -> Option<f64> {
        let value = match self.pick {
            Pick::Cpu { parts } => report.cpu_micros_per_request? / parts,
            Pick::Thread { name, parts } => {
                let of_members = report.threads.iter().filter_map(|threads| threads.get(name));
                of_members.copied().max_by(f64::total_cmp)? / parts
            }
            Pick::Rate { parts } => report.per_second * parts,
            Pick::Median => report.quantiles[0] / 1e3,
            Pick::Memory => report.resident_bytes?,
            Pick::Anonymous => report.anonymous_bytes?,
            Pick::Above => report.peak_bytes? - report.own_before_bytes?,
            Pick::Store => report.store_bytes?,
        };
        // CPU and latencies are in microseconds so far.
        Some(if self.unit == Unit::Milliseconds { value / 1e3 } else { value })
    }
}

fn figure(name: &'static str, pick: Pick, unit: Unit) -> Figure {
    Figure { name, pick, unit }
}

fn cpu(name: &'static str, parts: f64) -> Figure {
    figure(name, Pick::Cpu { parts }, Unit::Microseconds)
}

fn cpu_millis(name: &'static str, parts: f64) -> Figure {
    figure(name, Pick::Cpu { parts }, Unit::Milliseconds)
}

fn thread(figure_name: &'static str, name: &'static str, parts: f64) -> Figure {
    figure(figure_name, Pick::Thread { name, parts }, Unit::Microseconds)
}

fn rate(name: &'static str, parts: f64) -> Figure {
    figure(name, Pick::Rate { parts }, Unit::PerSecond)
}

fn memory() -> [Figure; 2] {
    [
        figure("memory", Pick::Memory, Unit::Bytes),
        figure("anonymous memory", Pick::Anonymous, Unit::Bytes),
    ]
}

impl Sizing {
    fn scaled(&self, number: u64) -> u64 {
        (number * self.scale / WHOLE).max(1)
    }

    fn many(&self, number: u64) -> usize {
        usize::try_from(self.scaled(number)).unwrap_or(usize::MAX)
    }

    /// A load of this many clients, ten to a connection.
    fn load(&self, kind: LoadKind, clients: usize) -> Plan {
        Plan {
            kind,
            clients,
            connections: clients.div_ceil(10),
            keys: self.many(10_000).max(100),
            duration: self.duration,
            patience: self.patience,
            ..Plan::default()
        }
    }

    /// Keys of this number and size; clients read all of them at once if they read.
    fn data(&self, keys: u64, value_bytes: usize) -> Plan {
        let keys = self.many(keys);
        Plan {
            kind: LoadKind::Range,
            clients: 5,
            connections: 5,
            keys,
            value_bytes,
            range_keys: keys,
            is_filled: true,
            sees_memory: true,
            total: 5,
            ..self.load(LoadKind::Range, 5)
        }
    }
}

fn row(
    name: &'static str,
    label: &'static str,
    work: Work,
    figures: impl IntoIterator<Item = Figure>,
) -> Row {
    Row { name, label, work, is_once: false, figures: figures.into_iter().collect() }
}

/// All rows, in the order in which they are measured. Memory comes first: what a later row leaves behind
/// would count.
pub(super) fn rows(sizing: &Sizing) -> Vec<Row> {
    let memory = memory_rows(sizing).into_iter().map(|row| Row { is_once: true, ..row });
    memory.chain(write_rows(sizing)).chain(read_rows(sizing)).chain(data_rows(sizing)).collect()
}

fn memory_rows(sizing: &Sizing) -> Vec<Row> {
    let puts = Plan {
        keys: sizing.many(100_000),
        total: sizing.scaled(100_000),
        ..sizing.load(LoadKind::Put, 100)
    };
    let keys = sizing.data(1_000_000, 64);
    let of_keys = [
        rate("keys/s", 1.0),
        cpu("server CPU per key", 1.0),
        figure("store", Pick::Store, Unit::Bytes),
    ];
    vec![
        row("idle", "memory as it is found", Work::Idle, memory()),
        row("put-100k", "memory after 100,000 puts of 256 B", Work::Load(puts), memory()),
        row("keys-1m", "1M keys of 64 B", Work::Fill(keys), of_keys.into_iter().chain(memory())),
    ]
}

fn write_rows(sizing: &Sizing) -> Vec<Row> {
    let load = |kind, clients| sizing.load(kind, clients);
    let txn = |ops, clients| Work::Load(Plan { ops, ..load(LoadKind::Txn, clients) });
    let puts = |clients| Work::Load(load(LoadKind::Put, clients));
    let p50 = || figure("p50", Pick::Median, Unit::Milliseconds);
    let put_cpu = || cpu("server CPU per put", 1.0);
    let of_puts = [
        put_cpu(),
        rate("puts/s", 1.0),
        p50(),
        thread("apply per put", "apply", 1.0),
        thread("raft per put", "raft", 1.0),
        thread("committer per put", "committer", 1.0),
        thread("raft-log per put", "raft-log", 1.0),
    ];
    let of_keys = [
        cpu("server CPU per key", 100.0),
        rate("keys/s", 100.0),
        thread("apply per key", "apply", 100.0),
    ];
    let of_one = [put_cpu(), rate("puts/s", 1.0), p50()];
    vec![
        row("put-100", "put, 100 clients", puts(100), of_puts),
        row("put-1", "put, 1 client", puts(1), of_one.clone()),
        row("put-300", "put, 300 clients", puts(300), of_one),
        row("txn-100", "transactions of 100 puts", txn(100, 20), of_keys),
        row("txn-4", "transactions of 4 puts", txn(4, 100), [cpu("server CPU per txn", 1.0)]),
        row(
            "lease-grant",
            "lease grant, 100 clients",
            Work::Load(load(LoadKind::Lease, 100)),
            [cpu("server CPU per grant", 1.0)],
        ),
        row(
            "keep-alive",
            "lease keep-alive, 100 clients",
            Work::Load(load(LoadKind::KeepAlive, 100)),
            [cpu("server CPU per renewal", 1.0)],
        ),
    ]
}

fn read_rows(sizing: &Sizing) -> Vec<Row> {
    let range = |clients: usize, keys: u64| {
        let usual = sizing.load(LoadKind::Range, clients);
        let range_keys = if keys == 1 { 1 } else { sizing.many(keys).min(usual.keys) };
        Work::Load(Plan { range_keys, connections: clients.div_ceil(2).min(10), ..usual })
    };
    let watchers = sizing.many(1000);
    let watch =
        Plan { watchers, rate: 50, connections: 8, clients: 8, ..sizing.load(LoadKind::Watch, 8) };
    let of_watch = [
        cpu("server CPU per event", watchers as f64),
        figure("p50", Pick::Median, Unit::Milliseconds),
    ];
    let of_ranges = [cpu_millis("server CPU per range", 1.0), rate("ranges/s", 1.0)];
    vec![
        row(
            "get-100",
            "get, linearizable, 100 clients",
            range(100, 1),
            [cpu("server CPU per get", 1.0), rate("gets/s", 1.0)],
        ),
        row("watch-1000", "watch, an event to 1000", Work::Load(watch), of_watch),
        row("range-1000", "range of 1000 keys", range(8, 1000), of_ranges.clone()),
        row("list-10000", "list of 10,000 keys", range(8, 10_000), of_ranges),
    ]
}

fn data_rows(sizing: &Sizing) -> Vec<Row> {
    let fat = sizing.data(210_000, 1024);
    let megabytes = (fat.keys * (fat.key_bytes + fat.value_bytes)) as f64 / 1e6;
    let streamed = Plan { is_streamed: true, ..fat.clone() };
    let of_fat = [
        cpu_millis("server CPU per MB", megabytes),
        figure("memory above before", Pick::Above, Unit::Bytes),
    ];
    let of_bulk = [cpu("server CPU per key", 1.0), rate("keys/s", 1.0)];
    // A request is a megabyte.
    let of_save = [
        cpu_millis("server CPU per MB", 1.0),
        figure("snapshot", Pick::Rate { parts: 1.0 }, Unit::MegabytesPerSecond),
    ];
    let bulk = Work::Fill(sizing.data(200_000, 64));
    vec![
        row("fat-range", "5 clients read 215 MB each", Work::Load(fat.clone()), of_fat.clone()),
        row("fat-stream", "the same by RangeStream", Work::Load(streamed), of_fat),
        row("bulk", "bulk load of 200,000 keys of 64 B", bulk, of_bulk),
        row("save", "snapshot save of 215 MB", Work::Save(fat), of_save),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::spec::{Program, root};

    #[test]
    fn the_help_of_the_table_lists_its_rows() {
        let root = root(Program::Rusd);
        let bench = root.find_subcommand("bench").unwrap();
        let table = bench.find_subcommand("table").unwrap();
        let help = table.get_long_about().unwrap().to_string();
        let name =
            |line: &str| Some(line.strip_prefix("  ")?.split_whitespace().next()?.to_owned());
        let listed: Vec<String> = help.lines().filter_map(name).collect();
        let second = Duration::from_secs(1);
        let rows = rows(&Sizing { scale: 100, duration: second, patience: second });
        assert_eq!(listed, rows.iter().map(|row| row.name).collect::<Vec<_>>());
    }

    #[test]
    fn no_row_is_empty_however_small_the_scale_is() {
        for scale in [1, 100, 1000] {
            let second = Duration::from_secs(1);
            let rows = rows(&Sizing { scale, duration: second, patience: second });
            for row in &rows {
                let plan = match &row.work {
                    Work::Idle => continue,
                    Work::Load(plan) | Work::Fill(plan) | Work::Save(plan) => plan,
                };
                let name = row.name;
                assert!(plan.ops <= plan.keys && plan.range_keys <= plan.keys, "{name} at {scale}");
                assert!(plan.key(plan.keys - 1).len() <= plan.key_bytes, "{name} at {scale}");
                assert!(plan.connections > 0 && plan.connections <= plan.clients, "{name}");
            }
            let mut names: Vec<_> = rows.iter().map(|row| row.name).collect();
            names.sort_unstable();
            names.dedup();
            assert_eq!(names.len(), rows.len());
        }
    }
}
