//! CPU time of this process's threads, by their names, read from /proc at each scrape.
//!
//! A counter must not fall when a thread ends, so each scrape adds what every living thread has used
//! since the one before. What a thread uses after its last scrape is not counted.

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use parking_lot::Mutex;
use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{CounterVec, Opts};

use super::process::{cpu_seconds, fields};
use crate::limits::METRIC_THREADS_MAX;

const NAME: &str = "rusd_thread_cpu_seconds_total";
const HELP: &str = "Processor time used by the threads of a name.";

pub(super) struct ThreadCollector {
    counters: CounterVec,
    /// What each thread had used by the last scrape, by its id.
    used: Mutex<HashMap<u32, f64>>,
}

impl ThreadCollector {
    /// None if the family is not valid.
    pub(super) fn new() -> Option<Self> {
        let counters = CounterVec::new(Opts::new(NAME, HELP), &["thread"]).ok()?;
        Some(Self { counters, used: Mutex::default() })
    }

    fn read(&self) {
        let mut used = self.used.lock();
        let mut living = HashMap::new();
        let threads = fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
        for thread in threads.take(METRIC_THREADS_MAX) {
            let id = thread.file_name().to_str().and_then(|id| id.parse::<u32>().ok());
            let (Some(id), Some((name, seconds))) = (id, usage(&thread.path())) else { continue };
            // Less than before is another thread with the id of one that has ended.
            let before = used.get(&id).copied().filter(|before| *before <= seconds);
            let added = seconds - before.unwrap_or_default();
            self.counters.with_label_values(&[name.as_str()]).inc_by(added);
            living.insert(id, seconds);
        }
        *used = living;
    }
}

/// The name of a thread, of which the system keeps 15 letters, and the seconds that it has used. None if
/// it has ended.
fn usage(thread: &Path) -> Option<(String, f64)> {
    let name = fs::read_to_string(thread.join("comm")).ok()?;
    let precise = fs::read_to_string(thread.join("schedstat")).ok();
    let nanos = precise.and_then(|text| text.split(' ').next()?.parse::<f64>().ok());
    let seconds = match nanos {
        Some(nanos) => nanos / 1e9,
        // A kernel without statistics of its scheduler counts ticks.
        None => cpu_seconds(&fields(&fs::read_to_string(thread.join("stat")).ok()?)?)?,
    };
    Some((name.trim_end().to_owned(), seconds))
}

impl Collector for ThreadCollector {
    fn desc(&self) -> Vec<&Desc> {
        self.counters.desc()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        self.read();
        self.counters.collect()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::sync_channel;
    use std::thread;

    use super::*;
    use crate::clock::thread_cpu;
    use crate::supervise::Supervisor;

    fn of(collector: &ThreadCollector, name: &str) -> f64 {
        collector.read();
        collector.counters.with_label_values(&[name]).get()
    }

    #[test]
    fn a_threads_time_is_counted_under_its_name_and_stays_when_it_has_ended() {
        let collector = ThreadCollector::new().unwrap();
        let (worked, is_worked) = sync_channel(1);
        let (end, is_over) = sync_channel::<()>(1);
        let thread = Supervisor::default().thread("busy-in-a-test", move || {
            let until = thread_cpu() + std::time::Duration::from_millis(50);
            while thread_cpu() < until {}
            // The kernel accounts for a thread when it stops running.
            thread::yield_now();
            worked.send(()).unwrap();
            is_over.recv()
        });
        is_worked.recv().unwrap();
        // What was used before it waited is seen once it waits.
        let mut before = 0.0;
        for _ in 0..10_000 {
            before = of(&collector, "busy-in-a-test");
            if before >= 0.05 {
                break;
            }
            thread::yield_now();
        }
        assert!(before >= 0.05, "{before}");
        end.send(()).unwrap();
        assert!(thread.unwrap().join().unwrap().is_ok());
        assert!(of(&collector, "busy-in-a-test") >= before);
    }
}
