//! CPU time and memory of a server, from its `/metrics`.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::limits::PEER_ANSWER_BYTES_MAX;

/// Resources that a server says it uses; None where it does not say.
#[derive(Clone, Debug, Default)]
pub(crate) struct Usage {
    pub cpu_seconds: Option<f64>,
    pub resident_bytes: Option<f64>,
    /// Memory that is no file's. etcd does not say.
    pub anonymous_bytes: Option<f64>,
    /// Seconds of CPU time by the names of threads. etcd does not say.
    pub threads: BTreeMap<String, f64>,
}

impl Usage {
    /// Memory that is not pages of files, which the system takes back when it needs room. Of a
    /// server that does not tell them apart, resident memory.
    pub(super) fn own_bytes(&self) -> Option<f64> {
        self.anonymous_bytes.or(self.resident_bytes)
    }
}

const PATIENCE: Duration = Duration::from_secs(2);

/// Reads the usage of an endpoint; values that cannot be read are None.
pub(crate) async fn usage(endpoint: &str) -> Usage {
    let address = endpoint.trim_start_matches("http://").trim_end_matches('/');
    match timeout(PATIENCE, fetch(address)).await {
        Ok(Ok(page)) => parse(&page),
        _ => Usage::default(),
    }
}

/// The usage of each endpoint.
pub(super) async fn usage_of_each(endpoints: &[String]) -> Vec<Usage> {
    let mut all = Vec::with_capacity(endpoints.len());
    for endpoint in endpoints {
        all.push(usage(endpoint).await);
    }
    all
}

/// A sum over all members of a cluster. None if one member lacks it, since a sum without it would
/// mislead.
pub(super) fn sum(members: &[Usage], pick: fn(&Usage) -> Option<f64>) -> Option<f64> {
    members.iter().map(pick).sum()
}

/// Fetches the metrics over HTTP/1.0, which has no chunked encoding to parse.
async fn fetch(address: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    let request = format!("GET /metrics HTTP/1.0\r\nHost: {address}\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut page = Vec::new();
    stream.take(PEER_ANSWER_BYTES_MAX as u64).read_to_end(&mut page).await?;
    String::from_utf8(page).map_err(std::io::Error::other)
}

fn parse(page: &str) -> Usage {
    let value = |name: &str| {
        let line = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))?;
        line.trim().parse().ok()
    };
    let thread = |line: &str| {
        let rest = line.strip_prefix("rusd_thread_cpu_seconds_total{thread=\"")?;
        let (name, seconds) = rest.split_once("\"} ")?;
        Some((name.to_owned(), seconds.trim().parse().ok()?))
    };
    Usage {
        cpu_seconds: value("process_cpu_seconds_total"),
        resident_bytes: value("process_resident_memory_bytes"),
        anonymous_bytes: value("rusd_memory_anonymous_bytes"),
        threads: page.lines().filter_map(thread).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_member_that_says_nothing_leaves_no_sum() {
        let told = Usage { cpu_seconds: Some(1.0), ..Usage::default() };
        let nobody = usage_of_each(&["http://127.0.0.1:1".to_owned()]).await;
        let all = [told.clone(), nobody[0].clone()];
        assert_eq!(sum(&all, |usage| usage.cpu_seconds), None);
        assert_eq!(sum(&[told.clone(), told], |usage| usage.cpu_seconds), Some(2.0));
    }

    #[test]
    fn values_are_found_among_others() {
        let page = "# TYPE x gauge\nprocess_cpu_seconds_total 1.5\r\nprocess_cpu 3\n\
                    process_resident_memory_bytes 3.1e+07\n\
                    rusd_thread_cpu_seconds_total{thread=\"raft-log\"} 0.25\n";
        let usage = parse(page);
        assert_eq!(usage.cpu_seconds, Some(1.5));
        assert_eq!(usage.resident_bytes, Some(31_000_000.0));
        assert_eq!(usage.anonymous_bytes, None);
        assert_eq!(usage.threads, BTreeMap::from([("raft-log".to_owned(), 0.25)]));
    }
}
