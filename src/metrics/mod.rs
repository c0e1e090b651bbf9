//! Every gauge, counter and histogram of the server, under etcd's names.
//!
//! All families are registered at the first use of any of them, so that a scrape shows series
//! without labels as zeroes from the start. A room writes through the plain functions of this
//! module, such as `metrics::wal_fsync_seconds().observe(s)`; each returns a handle that was
//! resolved once. Nothing here looks up a label while a request is served: labelled families hand
//! out a handle per known label (`grpc`, `requests`), and the labels a client chooses are bounded
//! (`clients`).
//!
//! Memory, descriptors and CPU time of the process are read from /proc at each scrape.

mod alarms;
mod certificates;
mod clients;
mod families;
mod grpc;
mod process;
mod threads;

pub use alarms::set_alarms;
pub use certificates::set_certificate_end;
pub use clients::client_requests;
use families::scraped;
pub use families::*;
pub use grpc::{CallKind, Code, Method, enable_handling_seconds};

use std::sync::LazyLock;

pub use prometheus::Histogram;
use prometheus::{Encoder, Registry, TextEncoder};

/// The process-wide registry. A global, so that every room can write to it without a handle.
static REGISTRY: LazyLock<Registry> = LazyLock::new(|| {
    let registry = Registry::new();
    grpc::register(&registry);
    alarms::register(&registry);
    certificates::register(&registry);
    clients::register(&registry);
    drop(registry.register(Box::new(process::ProcessCollector::new())));
    let threads = threads::ThreadCollector::new();
    drop(threads.map(|threads| registry.register(Box::new(threads))));
    registry
});

/// All series in Prometheus's text format.
pub fn render() -> String {
    families::register();
    scrapes_in_flight().inc();
    let families = REGISTRY.gather();
    scrapes_in_flight().dec();
    scraped();
    let mut text = Vec::with_capacity(256 << 10);
    if TextEncoder::new().encode(&families, &mut text).is_err() {
        // Fails only for a family whose metrics are inconsistent. Ours are fixed at compile time,
        // and the text up to the failure is valid.
        return String::from_utf8_lossy(&text).into_owned();
    }
    String::from_utf8(text).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scrape_shows_untouched_series_as_zero() {
        let text = render();
        for line in [
            "etcd_server_slow_apply_total 0",
            "etcd_disk_wal_fsync_duration_seconds_bucket{le=\"0.001\"} 0",
            "etcd_disk_wal_fsync_duration_seconds_bucket{le=\"8.192\"} 0",
            "etcd_server_version{server_version=\"3.7.1\"} 1",
        ] {
            assert!(text.lines().any(|have| have == line), "missing {line}");
        }
        assert!(text.contains("\nprocess_resident_memory_bytes "));
        assert!(text.contains("\nos_fd_limit "));
        assert!(text.contains("# TYPE process_cpu_seconds_total counter\n"));
        assert!(text.contains("# TYPE process_network_receive_bytes_total counter\n"));
    }

    #[test]
    fn an_earlier_cluster_version_is_shown_as_zero() {
        set_cluster_version("9.8");
        set_cluster_version("9.9");
        let line = "etcd_cluster_version{cluster_version=\"9.8\"} 0";
        assert!(render().lines().any(|have| have == line));
    }

    #[test]
    fn the_labels_a_client_chooses_are_bounded() {
        for n in 0..1000 {
            client_requests(CallKind::Unary, Some(&format!("made-up-{n}"))).inc();
        }
        let text = render();
        let is_ours = |line: &&str| line.contains("made-up-") && line.contains("\"unary\"");
        assert!(text.lines().filter(is_ours).count() <= crate::limits::CLIENT_VERSIONS_MAX);
        let of_streams = |line: &&str| line.contains("made-up-") && line.contains("\"stream\"");
        assert_eq!(text.lines().filter(of_streams).count(), 0, "series of what nobody asked");
        assert!(render().contains("client_api_version=\"other\""));
    }
}
