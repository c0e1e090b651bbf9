//! The commands that measure.

use clap::{Arg, Command};

use super::{Maker, duration, flag, int, size, string, value};

/// Headings of the flags.
const LOAD: &str = "Load";
const KEYS: &str = "Keys and values";
const COMPARISON: &str = "Comparison";
const SERVER: &str = "Server";

impl Maker {
    pub(super) fn bench(&self) -> Command {
        let short = "Measures any etcd endpoint, or compares two";
        let below = vec![
            self.load("put", "Writes values to random keys", []),
            self.load(
                "range",
                "Reads single keys or ranges",
                [
                    int("range-size", "1", "keys that one range asks for").help_heading(KEYS),
                    flag("serializable", "range without asking the leader").help_heading(LOAD),
                    flag("stream", "range by RangeStream").help_heading(LOAD),
                ],
            ),
            self.load(
                "txn",
                "Compares and writes in one transaction",
                [int("ops", "1", "puts of one transaction").help_heading(KEYS)],
            ),
            self.load(
                "watch",
                "Writes under many watchers and times each event's arrival",
                [int("watchers", "100", "watchers of all keys").help_heading(KEYS)],
            ),
            self.load("lease", "Grants leases", []),
            self.load("keep-alive", "Renews leases, each caller its own on its own stream", []),
            self.table(),
            self.ceiling(),
            self.check_of_table(),
        ];
        self.group("bench", "bench <subcommand>", short, below).long_about(BENCH_LONG)
    }

    /// One kind of request.
    fn load(&self, name: &'static str, short: &str, own: impl IntoIterator<Item = Arg>) -> Command {
        self.command(name, &format!("{name} [options]"), short)
            .long_about(format!("{short}. {LOAD_LONG}"))
            .args(load("64", "8"))
            .args(keys())
            .args(own)
            .args(comparison("10s", "how long to send, in all rounds together"))
            .args([force(), flag("keep", "leave the benchmark's keys").help_heading(SERVER)])
    }

    fn table(&self) -> Command {
        self.command("table", "table [options]", "Fills the table of docs/performance.md")
            .long_about(TABLE_LONG)
            .args(comparison("3s", "how long a round of a row sends"))
            .args([
                value("row", "strings", "", "only these rows").help_heading(LOAD),
                int("scale", "100", "percent of the usual sizes; less is for a quick look")
                    .help_heading(LOAD),
                force(),
            ])
    }

    fn ceiling(&self) -> Command {
        let short = "Shows the CPU time per put of each thread, and how many puts that allows";
        self.command("ceiling", "ceiling [options]", short)
            .long_about(CEILING_LONG)
            .args(load("100", "10"))
            .args(keys())
            .args([duration("duration", "10s", "how long to send").help_heading(LOAD), force()])
    }

    fn check_of_table(&self) -> Command {
        let short = "Compares ratios of CPU time with those of a table that was saved";
        self.command("check", "check <filename> --compare URLS [options]", short)
            .long_about(CHECK_LONG)
            .args(comparison("3s", "how long a round of a row sends"))
            .args([
                int("tolerance", "10", "percent by which a ratio may be larger")
                    .help_heading(COMPARISON),
                force(),
            ])
    }
}

fn load(clients: &'static str, connections: &'static str) -> [Arg; 4] {
    [
        int("clients", clients, "concurrent callers"),
        int("conns", connections, "connections that the callers share"),
        int("total", "0", "requests to send; with 0 the duration decides"),
        int("rate", "0", "requests per second of all callers together; 0 is no limit"),
    ]
    .map(|arg| arg.help_heading(LOAD))
}

fn keys() -> [Arg; 3] {
    [
        size("key-size", "32", "bytes of a key"),
        size("val-size", "256", "bytes of a value"),
        int("keys", "10000", "how many different keys are used"),
    ]
    .map(|arg| arg.help_heading(KEYS))
}

fn comparison(time: &'static str, help: &'static str) -> [Arg; 3] {
    [
        duration("duration", time, help).help_heading(LOAD),
        string("compare", "", "endpoints of a second server or cluster, measured in turn")
            .help_heading(COMPARISON),
        int("rounds", "5", "rounds of a comparison for each server").help_heading(COMPARISON),
    ]
}

fn force() -> Arg {
    flag("force", "measure a server that holds keys of others, too").help_heading(SERVER)
}

const BENCH_LONG: &str = "\
Measures requests per second, latency and, where the server publishes it at /metrics over http, CPU time per request
and memory. The connections are spread over all endpoints, and CPU time and memory are those of all of them together.

All keys begin with /rusd-bench/. They are deleted in the end, and their history is compacted; an interrupted run leaves
them, until the next one or 'rusd del --prefix /rusd-bench/' deletes them, and its leases for ten minutes. A server that
holds other keys is refused, unless --force says otherwise; then no history is compacted. The store's file keeps its size:
'rusd defrag' makes it small again.";

const LOAD_LONG: &str = "\
With --compare the two servers or clusters are measured in turn in short rounds, and medians and ratios are printed.

Keys begin with /rusd-bench/ and are deleted in the end, unless there is --keep. A server that holds other keys is refused,
unless there is --force.";

const TABLE_LONG: &str = "\
Measures everything that docs/performance.md has in its table, of one server or cluster or, with --compare, of two in turn:
the first in odd rounds before the second, in even rounds behind it. A ratio is the median of those of the rounds, the first
server's figure divided by the second one's; the spread is from the least to the largest.

CPU time is that of process_cpu_seconds_total, memory process_resident_memory_bytes, from /metrics over http; what a server
does not publish is a dash. Resident memory contains pages of the store's file; what is above before does not, where a server
publishes rusd_memory_anonymous_bytes. Memory is exact for servers that were started for it: the rows idle, put-100k and keys-1m are
measured once, before all others.

  idle         memory as it is found
  put-100k     memory after 100,000 puts of 256 B
  keys-1m      1M keys of 64 B: speed, memory, size of the store
  put-100      put, 100 clients, and the stages of a put in rusd
  put-1        put, 1 client
  put-300      put, 300 clients
  txn-100      transactions of 100 puts, per key
  txn-4        transactions of 4 puts
  lease-grant  lease grant, 100 clients
  keep-alive   lease keep-alive, 100 clients
  get-100      get, linearizable, 100 clients
  watch-1000   an event to 1000 watchers, per event
  range-1000   range of 1000 keys
  list-10000   list of 10,000 keys
  fat-range    5 clients that read 215 MB at once: CPU per MB, memory above before
  fat-stream   the same by RangeStream
  bulk         bulk load of 200,000 keys of 64 B, per key
  save         snapshot save of 215 MB, of the first endpoint

Keys begin with /rusd-bench/ and are deleted and compacted after each row. A server that holds other keys is refused, unless
there is --force; then no history is compacted.";

const CEILING_LONG: &str = "\
Puts for a while and shows what each thread of each member has used for a put. A write passes the threads raft, raft-log,
apply and committer one after the other, each of which is one: the slowest bounds how many puts a member takes, however many
processors there are, as long as the disk's syncs, which many puts share, keep up.

rusd publishes this as rusd_thread_cpu_seconds_total at /metrics over http; etcd does not. Keys begin with /rusd-bench/ and
are deleted in the end. A server that holds other keys is refused, unless there is --force.";

const CHECK_LONG: &str = "\
Measures those rows again of which a file, that 'rusd bench table --compare -o json' has printed, has ratios of CPU time, in
the same sizes. Ends with 1 if a ratio is larger than the file's by more than the tolerance, or cannot be measured. --compare
names the same reference as in the file, such as etcd: a ratio to a server in the same run holds on another machine. It takes
as long as the table did; rounds of less than three seconds say little.

Keys begin with /rusd-bench/ and are deleted in the end. A server that holds other keys is refused, unless there is --force.";
