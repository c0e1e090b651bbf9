//! Metrics of this process that the operating system knows, read at each scrape.

use std::fs;
use std::path::Path;

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{Counter, Gauge, Opts};

use crate::clock;

/// Control groups of version 1 without a limit have one near 2^63.
const NO_LIMIT: f64 = (1_u64 << 60) as f64;
/// Kernel ticks per second in /proc/self/stat: 100 on every Linux that user space can see.
const TICKS_PER_SECOND: f64 = 100.0;

pub(super) struct ProcessCollector {
    counters: Vec<Counter>,
    gauges: Vec<Gauge>,
    page_bytes: f64,
    boot_seconds: f64,
}

const COUNTERS: [(&str, &str); 3] = [
    ("process_cpu_seconds_total", "Processor time used."),
    (
        "process_network_receive_bytes_total",
        "Bytes that came over the network to all processes of the network namespace.",
    ),
    (
        "process_network_transmit_bytes_total",
        "Bytes that all processes of the network namespace sent over the network.",
    ),
];

const GAUGES: [(&str, &str); 11] = [
    ("process_open_fds", "Open file descriptors."),
    ("process_max_fds", "Most file descriptors allowed."),
    ("process_virtual_memory_bytes", "Virtual memory."),
    ("process_virtual_memory_max_bytes", "Most virtual memory allowed."),
    ("process_resident_memory_bytes", "Resident memory."),
    ("process_start_time_seconds", "Unix time of the start."),
    ("os_fd_used", "Open file descriptors."),
    ("os_fd_limit", "Most file descriptors allowed."),
    (
        "rusd_memory_limit_bytes",
        "Most memory that the control groups allow; 0 if there is no limit.",
    ),
    ("rusd_wall_clock_seconds", "Unix time of this machine, for a comparison with others."),
    (
        "rusd_memory_anonymous_bytes",
        "Resident memory that is no file's; the pages of the store are in the other.",
    ),
];

impl ProcessCollector {
    pub(super) fn new() -> Self {
        let counters = COUNTERS.map(|(name, help)| Counter::with_opts(Opts::new(name, help)));
        let gauges = GAUGES.map(|(name, help)| Gauge::with_opts(Opts::new(name, help)));
        let boot = fs::read_to_string("/proc/stat").unwrap_or_default();
        let boot_seconds = boot
            .lines()
            .find_map(|line| line.strip_prefix("btime "))
            .and_then(|text| text.trim().parse().ok())
            .unwrap_or(0.0);
        let counters = counters.into_iter().flatten().collect();
        let gauges = gauges.into_iter().flatten().collect();
        Self { counters, gauges, page_bytes: rustix::param::page_size() as f64, boot_seconds }
    }

    fn read(&self) -> Option<([f64; 3], [f64; 11])> {
        let stat = fs::read_to_string("/proc/self/stat").ok()?;
        let fields = fields(&stat)?;
        let number = |at| number(&fields, at);
        let open = fs::read_dir("/proc/self/fd").map_or(0, Iterator::count) as f64;
        let limits = fs::read_to_string("/proc/self/limits").unwrap_or_default();
        let max = limit(&limits, "Max open files");
        let octets = fs::read_to_string("/proc/self/net/netstat").unwrap_or_default();
        let counted =
            [cpu_seconds(&fields)?, extended(&octets, "InOctets"), extended(&octets, "OutOctets")];
        let gauged = [
            open,
            max,
            number(20)?,
            limit(&limits, "Max address space"),
            number(21)? * self.page_bytes,
            self.boot_seconds + number(19)? / TICKS_PER_SECOND,
            open,
            max,
            memory_limit(&fs::read_to_string("/proc/self/cgroup").unwrap_or_default()),
            clock::wall_nanos() as f64 / 1e9,
            anonymous_bytes(&fs::read_to_string("/proc/self/status").unwrap_or_default()),
        ];
        Some((counted, gauged))
    }
}

/// The fields of the `stat` of a process or a thread that follow its name. The name is in parentheses
/// and may hold spaces.
pub(super) fn fields(stat: &str) -> Option<Vec<&str>> {
    Some(stat.rsplit_once(')')?.1.split_whitespace().collect())
}

fn number(fields: &[&str], at: usize) -> Option<f64> {
    fields.get(at)?.parse().ok()
}

/// Processor time in both modes.
pub(super) fn cpu_seconds(fields: &[&str]) -> Option<f64> {
    Some((number(fields, 11)? + number(fields, 12)?) / TICKS_PER_SECOND)
}

/// The least memory limit of a process's control groups and those around them, of either version; 0
/// if there is none. `groups` is its /proc/self/cgroup.
fn memory_limit(groups: &str) -> f64 {
    let mut least: Option<f64> = None;
    for line in groups.lines() {
        let mut parts = line.splitn(3, ':').skip(1);
        let (Some(kinds), Some(path)) = (parts.next(), parts.next()) else { continue };
        let (root, file) = match kinds {
            "" => ("/sys/fs/cgroup", "memory.max"),
            kinds if kinds.split(',').any(|kind| kind == "memory") => {
                ("/sys/fs/cgroup/memory", "memory.limit_in_bytes")
            }
            _ => continue,
        };
        // Within a container the path may be that of the host, and the group be at the root.
        for group in Path::new(path.trim_start_matches('/')).ancestors() {
            let Ok(text) = fs::read_to_string(Path::new(root).join(group).join(file)) else {
                continue;
            };
            let limit = text.trim().parse::<f64>().ok().filter(|limit| *limit < NO_LIMIT);
            least = match (least, limit) {
                (Some(least), Some(limit)) => Some(least.min(limit)),
                (least, limit) => least.or(limit),
            };
        }
    }
    least.unwrap_or(0.0)
}

/// A value of /proc/net/netstat's `IpExt:` lines, of which the first has the names.
fn extended(netstat: &str, name: &str) -> f64 {
    let mut lines = netstat.lines().filter_map(|line| line.strip_prefix("IpExt: "));
    let (Some(names), Some(values)) = (lines.next(), lines.next()) else { return 0.0 };
    let mut pairs = names.split_whitespace().zip(values.split_whitespace());
    pairs.find(|(of, _)| *of == name).and_then(|(_, text)| text.parse().ok()).unwrap_or(0.0)
}

/// `RssAnon` of /proc/self/status, which counts in kB; 0 if the kernel does not tell.
fn anonymous_bytes(status: &str) -> f64 {
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
    let kilobytes = line.and_then(|rest| rest.split_whitespace().next()?.parse::<f64>().ok());
    kilobytes.unwrap_or_default() * 1024.0
}

/// The soft limit of one line of /proc/self/limits; `unlimited` is the largest number.
fn limit(limits: &str, name: &str) -> f64 {
    limits
        .lines()
        .find_map(|line| line.strip_prefix(name))
        .and_then(|rest| rest.split_whitespace().next())
        .map_or(0.0, |text| text.parse().unwrap_or(u64::MAX as f64))
}

impl Collector for ProcessCollector {
    fn desc(&self) -> Vec<&Desc> {
        let counters = self.counters.iter().flat_map(Collector::desc);
        counters.chain(self.gauges.iter().flat_map(Collector::desc)).collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let Some((counted, gauged)) = self.read() else { return Vec::new() };
        for (counter, value) in self.counters.iter().zip(counted) {
            // Another scrape may have read a later value meanwhile.
            counter.inc_by((value - counter.get()).max(0.0));
        }
        for (gauge, value) in self.gauges.iter().zip(gauged) {
            gauge.set(value);
        }
        let counters = self.counters.iter().flat_map(Collector::collect);
        counters.chain(self.gauges.iter().flat_map(Collector::collect)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_found_by_name() {
        let text = "Limit  Soft  Hard\nMax open files            20000    524288   files\n\
                    Max address space         unlimited            unlimited   bytes\n";
        assert_eq!(limit(text, "Max open files"), 20000.0);
        assert_eq!(limit(text, "Max address space"), u64::MAX as f64);
        assert_eq!(limit(text, "Max nothing"), 0.0);
    }

    #[test]
    fn bytes_of_the_network_are_found_by_name() {
        let text = "TcpExt: InOctets\nTcpExt: 1\nIpExt: InNoRoutes InOctets OutOctets\n\
                    IpExt: 2 30 400\n";
        assert_eq!(extended(text, "InOctets"), 30.0);
        assert_eq!(extended(text, "OutOctets"), 400.0);
        assert_eq!(extended(text, "Nothing"), 0.0);
        assert_eq!(extended("IpExt: InOctets", "InOctets"), 0.0);
    }

    #[test]
    fn this_process_uses_memory_and_started_in_the_past() {
        let (_, gauged) = ProcessCollector::new().read().unwrap();
        assert!(gauged[4] > 100_000.0, "resident {}", gauged[4]);
        assert!(gauged[5] > 1_600_000_000.0, "start {}", gauged[5]);
        assert!(gauged[0] > 0.0 && gauged[0] <= gauged[1]);
        assert!(gauged[9] > gauged[5] - 1.0, "the clock stands before the start");
        assert!(gauged[10] > 0.0 && gauged[10] < gauged[4], "anonymous {}", gauged[10]);
        assert_eq!(anonymous_bytes("VmRSS:\t  9 kB\nRssAnon:\t    2 kB\n"), 2048.0);
        assert_eq!(memory_limit("nonsense\n0::/none/there\n9:cpu:/x"), memory_limit("0::/"));
    }
}
