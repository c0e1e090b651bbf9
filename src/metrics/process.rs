//! Metrics of this process that the operating system knows, read at each scrape.

use std::fs;

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{Gauge, Opts};

/// Kernel ticks per second in /proc/self/stat: 100 on every Linux that user space can see.
const TICKS_PER_SECOND: f64 = 100.0;

pub(super) struct ProcessCollector {
    gauges: Vec<Gauge>,
    page_bytes: f64,
    boot_seconds: f64,
}

const NAMES: [(&str, &str); 9] = [
    ("process_cpu_seconds_total", "Processor time used."),
    ("process_open_fds", "Open file descriptors."),
    ("process_max_fds", "Most file descriptors allowed."),
    ("process_virtual_memory_bytes", "Virtual memory."),
    ("process_virtual_memory_max_bytes", "Most virtual memory allowed."),
    ("process_resident_memory_bytes", "Resident memory."),
    ("process_start_time_seconds", "Unix time of the start."),
    ("os_fd_used", "Open file descriptors."),
    ("os_fd_limit", "Most file descriptors allowed."),
];

impl ProcessCollector {
    pub(super) fn new() -> Self {
        let gauges = NAMES
            .iter()
            .filter_map(|&(name, help)| Gauge::with_opts(Opts::new(name, help)).ok())
            .collect();
        let boot = fs::read_to_string("/proc/stat").unwrap_or_default();
        let boot_seconds = boot
            .lines()
            .find_map(|line| line.strip_prefix("btime "))
            .and_then(|text| text.trim().parse().ok())
            .unwrap_or(0.0);
        Self { gauges, page_bytes: rustix::param::page_size() as f64, boot_seconds }
    }

    fn read(&self) -> Option<[f64; 9]> {
        let stat = fs::read_to_string("/proc/self/stat").ok()?;
        // The second field is the program's name in parentheses and may hold spaces.
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
        let number = |at: usize| fields.get(at).and_then(|text| text.parse::<f64>().ok());
        let open = fs::read_dir("/proc/self/fd").map_or(0, Iterator::count) as f64;
        let limits = fs::read_to_string("/proc/self/limits").unwrap_or_default();
        let max = limit(&limits, "Max open files");
        Some([
            (number(11)? + number(12)?) / TICKS_PER_SECOND,
            open,
            max,
            number(20)?,
            limit(&limits, "Max address space"),
            number(21)? * self.page_bytes,
            self.boot_seconds + number(19)? / TICKS_PER_SECOND,
            open,
            max,
        ])
    }
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
        self.gauges.iter().flat_map(Collector::desc).collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let Some(values) = self.read() else { return Vec::new() };
        for (gauge, value) in self.gauges.iter().zip(values) {
            gauge.set(value);
        }
        self.gauges.iter().flat_map(Collector::collect).collect()
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
    fn this_process_uses_memory_and_started_in_the_past() {
        let values = ProcessCollector::new().read().unwrap();
        assert!(values[5] > 100_000.0, "resident {}", values[5]);
        assert!(values[6] > 1_600_000_000.0, "start {}", values[6]);
        assert!(values[1] > 0.0 && values[1] <= values[2]);
    }
}
